//! A process that is measured: where it runs, with its own accounting of time and memory.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{SOON, memory_mib, pause, wait_for};

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// The server has the first one for itself; load, broker and readers share the others.
    Apart,
    /// All share all, as where latency is what counts.
    Shared,
}

impl Cores {
    /// A program to be run where the server is.
    pub fn command(self, program: &Path) -> Command {
        match self {
            Self::Apart => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
            Self::Shared => Command::new(program),
        }
    }

    /// Moves this process to its cores, and with it whatever it starts from then on, but servers.
    pub fn take(self) {
        let cores = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        let last = cores.trim().rsplit(['-', ',']).next().unwrap();
        assert_ne!(last, "0", "wanted two cores, one of them for the server alone");
        let first = if self == Self::Apart { 1 } else { 0 };
        let moved = Command::new("taskset")
            .args(["-a", "-c", "-p", &format!("{first}-{last}"), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .status();
        assert!(moved.unwrap().success());
    }
}

/// User and system time of a process so far: fields 14 and 15 of its `stat`, in Linux's 100 ticks a second.
pub fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: u32 = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u32>().unwrap()).sum();
    ticks * Duration::from_millis(10)
}

/// The longest wait: until all that a load put into the inbox is forwarded.
const LONGEST: Duration = Duration::from_secs(120);

pub struct Server {
    process: RefCell<Child>,
    log: PathBuf,
}

impl Server {
    /// Starts a program on its cores; its log goes to a file.
    pub fn start(cores: Cores, program: &Path, arguments: &[&str], log: &Path) -> Self {
        let process = cores
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        Self { process: RefCell::new(process), log: log.to_owned() }
    }

    /// Looks until it finds it so; where it is not, the look tells how long the next one may wait. A server that has ended, as
    /// where another process took its port, is not waited for.
    pub fn wait(&self, until: &str, mut look: impl FnMut() -> Result<(), Duration>) {
        let began = Instant::now();
        loop {
            let looked = look();
            let ended = self.process.borrow_mut().try_wait().unwrap();
            let state = match (ended, looked) {
                (None, Ok(())) => return,
                (None, Err(next)) if began.elapsed() < LONGEST => {
                    pause(next);
                    continue;
                }
                (None, Err(_)) => format!("{LONGEST:?} are over"),
                (Some(status), _) => status.to_string(),
            };
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("waited until the server {until}, but: {state}; its log:\n{log}");
        }
    }

    fn id(&self) -> u32 {
        self.process.borrow().id()
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        cpu(self.id())
    }

    /// What it has in memory now, and at most had, in MiB.
    pub fn memory_mib(&self) -> (f64, f64) {
        memory_mib(self.id())
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(mut self) {
        self.signal("TERM");
        wait_for("the server ends", SOON, || self.process.get_mut().try_wait().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = self.process.get_mut();
        let _ = process.kill();
        let _ = process.wait();
    }
}
