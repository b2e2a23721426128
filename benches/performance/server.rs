//! A process that is measured: alone on the first core, with its own accounting of time and memory.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{SOON, wait_for};

/// The core that the server has for itself.
pub const CORE: &str = "0";

/// Moves this process to the other cores, and with it whatever it starts: load, broker, readers.
pub fn leave_core() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(cores > 1, "wanted two cores, one of them for the server alone");
    let others = format!("1-{}", cores - 1);
    let moved = Command::new("taskset")
        .args(["-c", "-p", &others, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(moved.unwrap().success());
}

pub struct Server {
    process: Child,
}

impl Server {
    /// Starts a program on its core; its log goes to a file.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Self {
        let process = Command::new("taskset")
            .args(["-c", CORE])
            .arg(program)
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

    /// User and system time so far: fields 14 and 15 of its `stat`, in Linux's 100 ticks a second.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let ticks: u32 =
            after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u32>().unwrap()).sum();
        ticks * Duration::from_millis(10)
    }

    /// What it has in memory now, and at most had, in MiB.
    pub fn memory_mib(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
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
