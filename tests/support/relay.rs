//! The relay's own binary, configured by a file and asked over its admin port.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use clearfeed_relay::simulator::Target;
use serde_json::Value;

use super::deployment::{PARTITIONS, PATH};
use super::http::{self, Answer};
use super::{Disk, Proxy, SOON, free_port, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_clearfeed-relay");
/// Lines of the log that a failed test shows.
const SHOWN_LINES: usize = 60;

/// A replica that is not started yet: its configuration.
pub struct Plan {
    name: String,
    folder: PathBuf,
    settings: BTreeMap<String, String>,
    environment: Environment,
}

/// Variables that a relay is started with.
type Environment = Vec<(&'static str, PathBuf)>;

impl Plan {
    pub(super) fn new(name: &str, folder: &Path, settings: BTreeMap<String, String>) -> Self {
        Self { name: name.to_owned(), folder: folder.to_owned(), settings, environment: Vec::new() }
    }

    /// Sets a key to a value as TOML has it: `.set("intake.lame_duck", r#""5s""#)`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Leaves out all keys that begin so.
    #[must_use]
    pub fn without(mut self, prefix: &str) -> Self {
        self.settings.retain(|key, _| !key.starts_with(prefix));
        self
    }

    /// Listens at a port that it gets again after its end.
    #[must_use]
    pub fn at_one_port(self) -> Self {
        self.set("intake.listen", &format!("\"127.0.0.1:{}\"", free_port()))
    }

    /// Finds Kafka by these proxies before it.
    #[must_use]
    pub fn behind<'p>(self, proxies: impl IntoIterator<Item = &'p Proxy>) -> Self {
        let servers: Vec<_> = proxies.into_iter().map(|proxy| proxy.address().to_string()).collect();
        self.set("kafka.bootstrap_servers", &format!("{:?}", servers.join(",")))
    }

    /// Has its spool on this disk.
    #[must_use]
    pub fn on(mut self, disk: &Disk) -> Self {
        self.environment.extend(disk.environment());
        self
    }

    /// Finds a secure Kafka as its user `relay`, with the password in this file: see [`super::Kafka::secure`].
    #[must_use]
    pub fn logged_in(self, address: &str, authority: &str, password: &Path) -> Self {
        self.set("kafka.bootstrap_servers", &format!("{address:?}"))
            .set(r#"kafka.properties."security.protocol""#, r#""SASL_SSL""#)
            .set(r#"kafka.properties."sasl.mechanism""#, r#""SCRAM-SHA-256""#)
            .set(r#"kafka.properties."sasl.username""#, r#""relay""#)
            .set(r#"kafka.properties."ssl.ca.location""#, &format!("{authority:?}"))
            .set(r#"kafka.property_files."sasl.password""#, &format!("{password:?}"))
    }

    /// Writes the configuration; returns its file.
    pub fn write(&self) -> PathBuf {
        let config = self.folder.join(format!("{}.toml", self.name));
        let lines = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n"));
        std::fs::write(&config, lines.collect::<String>()).unwrap();
        config
    }

    /// Writes the configuration and starts the relay; waits until it listens, and no longer.
    pub fn start(self) -> Relay {
        let config = self.write();
        Relay::run(self.name, config, self.environment, 1)
    }

    /// Starts it, and waits until it is ready and forwards every partition.
    #[track_caller]
    pub fn up(self) -> Relay {
        let relay = self.start();
        relay.wait_ready();
        relay.wait_active(PARTITIONS);
        relay
    }
}

/// A running relay. Killed when it is dropped; its log is shown where the test failed.
pub struct Relay {
    name: String,
    config: PathBuf,
    environment: Environment,
    log: PathBuf,
    runs: u32,
    process: Child,
    intake: Option<SocketAddr>,
    admin: SocketAddr,
}

impl Relay {
    fn run(name: String, config: PathBuf, environment: Environment, runs: u32) -> Self {
        let log = config.with_extension(format!("{runs}.log"));
        let mut process = command()
            .args(["serve", "--config"])
            .arg(&config)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let listening = wait_for("the relay listens", SOON, || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "the relay ended: {ended:?}\n{}", text(&log));
            lines(&log).find(|line| line["message"] == "listening")
        });
        let address = |half: &str| listening[half].as_str().map(|address| address.parse().unwrap());
        let (intake, admin) = (address("intake"), address("admin").unwrap());
        Self { name, config, environment, log, runs, process, intake, admin }
    }

    /// Starts it once more with the same configuration, after its end; waits until it listens. It has other ports.
    pub fn restart(&mut self) {
        assert!(self.has_ended(), "it runs still");
        let (config, environment) = (self.config.clone(), self.environment.clone());
        let again = Self::run(self.name.clone(), config, environment, self.runs + 1);
        *self = again;
    }

    /// Whether its process is gone.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The replica's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of this process, for signals.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn intake(&self) -> SocketAddr {
        self.intake.unwrap()
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where `ClearFeed` would send to, were there no load balancer.
    pub fn target(&self) -> Target {
        target(self.intake())
    }

    /// SIGKILL; waits until it is gone.
    pub fn kill9(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM.
    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// Any signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        wait_for("the relay ends", deadline, || self.process.try_wait().unwrap())
    }

    /// SIGTERM, and a clean end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.sigterm();
        let status = self.wait_exit(SOON);
        assert_eq!(status.code(), Some(0), "{status}");
    }

    /// Waits until a delivery would be kept.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_for("/readyz", SOON, || self.is_ready().then_some(()));
    }

    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|answer| answer.status == 200)
    }

    /// Waits until this replica forwards so many partitions.
    #[track_caller]
    pub fn wait_active(&self, partitions: i32) {
        let wanted = usize::try_from(partitions).unwrap();
        wait_for(&format!("{wanted} partitions are active"), SOON, || {
            let status = self.status()?;
            let owned = status["forward"]["owned"].as_array()?;
            (owned.iter().filter(|partition| partition["state"] == "active").count() == wanted).then_some(())
        });
    }

    /// `/status`, where the relay answers.
    pub fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/status")?.body).ok()
    }

    /// A series by its name without the prefix and its labels in alphabetical order:
    /// `auth_failures_total{reason="mismatch",source="main"}`.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").expect("the admin port answers").body;
        let value = text.lines().find_map(|line| {
            line.strip_prefix("clearfeed_relay_")?.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()
        });
        value.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }

    fn get(&self, path: &str) -> Option<Answer> {
        http::get(self.admin, path).ok()
    }

    /// All lines of its log, as JSON.
    pub fn log(&self) -> Vec<Value> {
        lines(&self.log).collect()
    }
}

/// The endpoint of a relay, or of what stands before it.
pub fn target(intake: SocketAddr) -> Target {
    Target::parse(&format!("http://{intake}{PATH}")).unwrap()
}

/// The relay's binary.
pub fn command() -> Command {
    Command::new(BINARY)
}

/// Runs a command of the relay's to its end: status, stdout and stderr.
pub fn run_to_end(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command().args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn text(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The lines of a log.
pub(super) fn lines(log: &Path) -> impl Iterator<Item = Value> + use<> {
    let lines: Vec<_> = text(log).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.into_iter()
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let text = text(&self.log);
            let lines: Vec<_> = text.lines().collect();
            let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            eprintln!("---- the log of {}, run {} ----\n{shown}", self.name, self.runs);
        }
    }
}
