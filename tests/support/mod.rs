//! What the tests of promises are made of: a real Kafka, the relay's own binary, the simulator, a reader of topics, a
//! judge, and proxies that break connections on purpose.
//!
//! Each test has its own topics, group and relay ([`Deployment`]), so that tests run side by side on one
//! broker. Whatever is started is ended by its own process id when its guard is dropped, also when the test fails.
//! Nobody sleeps for a fixed time and hopes: [`wait_for`] waits for a condition, with a deadline.

#![allow(unreachable_pub, reason = "a library of helpers, only that no crate is made of it")]

pub mod asyncapi;
pub mod balancer;
pub mod dashboard;
pub mod deployment;
pub mod disk;
pub mod http;
pub mod judge;
pub mod kafka;
pub mod ports;
pub mod power;
pub mod prometheus;
pub mod proxy;
pub mod reader;
pub mod relay;
pub mod rest;
pub mod simulator;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clearfeed_relay::config::Role;
use clearfeed_relay::kafka::monitor::Monitor;
use clearfeed_relay::telemetry::health::Health;
use clearfeed_relay::telemetry::labels::Half;
use clearfeed_relay::telemetry::metrics::{Metrics, ProcessLabels};

pub use deployment::Deployment;
pub use disk::{Disk, Fault};
pub use judge::{Exhibit, Judge};
pub use kafka::Kafka;
pub use ports::free_port;
pub use power::Power;
pub use proxy::Proxy;
pub use reader::{Reader, Record};
pub use relay::Relay;
pub use simulator::{Accepted, Sender, Simulation};

/// For what is there within a second or two, on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(30);
/// For what has to wait for time-outs of Kafka's first: a session's 6 s, a transaction's 10 s and 10 s more.
pub const AFTER_TIMEOUTS: Duration = Duration::from_secs(90);

/// How long Kafka is away: longer than deliveries wait for it.
pub const OUTAGE: Duration = Duration::from_secs(12);

/// How often a condition is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until `look` finds something. Panics with `what` was waited for when the deadline has passed.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        pause(LOOK_EVERY);
    }
}

/// The tests' only sleep: between two looks at a condition, or while something is kept broken for so long.
pub fn pause(length: Duration) {
    #[expect(clippy::disallowed_methods, reason = "nobody has to wake a test")]
    std::thread::sleep(length);
}

/// The short form, [`OUTAGE`]; the ten minutes of an outage are asked for by hand.
pub fn outage() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "not the relay's environment but the test's")]
    let given = std::env::var("CLEARFEED_RELAY_OUTAGE_SECONDS");
    given.map_or(OUTAGE, |text| Duration::from_secs(text.parse().unwrap()))
}

/// What a process has in memory now, and at most had, in MiB.
pub fn memory_mib(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// A line of a test run's report: written past the harness, which shows what a test prints only where it fails.
#[expect(clippy::explicit_write, reason = "eprintln! is captured")]
pub fn report(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// What this machine cannot test, and why: `script/test` tells it at its end.
pub fn left_out(what: &str, why: &str) {
    #[expect(clippy::disallowed_methods, reason = "not the relay's environment but the tests'")]
    let Ok(file) = std::env::var("CLEARFEED_RELAY_TEST_LEFT_OUT") else {
        return report(&format!("left out: {what}: {why}"));
    };
    let mut file = File::options().append(true).create(true).open(file).unwrap();
    writeln!(file, "{what}: {why}").unwrap();
}

/// The folder of tools that a script of ours brings, and prints.
pub fn tools(script: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(script[0]);
    let output = Command::new(program).args(&script[1..]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script:?}: {}", output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Runs what is async in the library: the simulator and Kafka's admin client.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// One for all tests of a binary: connections of a [`Sender`] live on it between two calls.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    &RUNTIME
}

/// What a client of the forward half tells, where it is made without a relay around it.
pub fn monitor() -> Monitor {
    let role = Role::Forward;
    let metrics = Metrics::new([], &ProcessLabels::of_role(role)).unwrap();
    let health = Health::apart(role);
    Monitor::new(Half::Forward, Arc::new(metrics), Arc::new(health))
}

/// A name that no other test has, nor the same test in an earlier run.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    format!("{name}-{}-{:x}-{count}", std::process::id(), seconds & 0xff_ffff)
}
