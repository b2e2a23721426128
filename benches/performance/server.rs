//! A process that is measured: where it runs, with its own accounting of time and memory.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{SOON, memory_mib, wait_for};

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

pub struct Server {
    process: Child,
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
        Self { process }
    }

    pub fn wait_listening(&self, address: SocketAddr) {
        wait_for("the server listens", SOON, || TcpStream::connect(address).ok());
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        cpu(self.process.id())
    }

    /// What it has in memory now, and at most had, in MiB.
    pub fn memory_mib(&self) -> (f64, f64) {
        memory_mib(self.process.id())
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Server {
    /// SIGTERM, and waits for its end.
    pub fn stop(mut self) {
        self.signal("TERM");
        wait_for("the server ends", SOON, || self.process.try_wait().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
