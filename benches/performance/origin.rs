//! Of what a run's figures are: without it nobody can say of two runs why they differ.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

#[derive(Serialize)]
pub struct Origin {
    cpu: String,
    cores: usize,
    kernel: String,
    /// What was built, where it is a git checkout; `-dirty` where files differ from it.
    commit: Option<String>,
    /// When the run ended.
    date: String,
    kafka: Option<String>,
}

impl Origin {
    pub fn of_this_run() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or_default();
        Self {
            cpu: model.to_owned(),
            cores: cpu.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned(),
            commit: commit(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            kafka: kafka(),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn commit() -> Option<String> {
    let described = ["describe", "--always", "--dirty", "--exclude", "*"]; // the commit alone, no tag
    let output = Command::new("git").current_dir(root()).args(described).output().ok()?;
    let told = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| told.trim().to_owned())
}

/// Which version script/kafka starts: another than the pom's where one is named.
fn kafka() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "not the relay's environment but script/kafka's")]
    let named = std::env::var("CLEARFEED_RELAY_KAFKA_VERSION").ok();
    named.filter(|version| !version.is_empty()).or_else(|| {
        let pom = std::fs::read_to_string(root().join("tests/kafka/pom.xml")).ok()?;
        let (_, rest) = pom.split_once("<kafka.version>")?;
        Some(rest.split_once('<')?.0.to_owned())
    })
}
