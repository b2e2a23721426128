//! `check`: whether this configuration can work here, as a table with one line a check.

mod api;
mod cluster;
mod files;
mod records;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clearfeed_relay::kafka::properties;
use serde::Serialize;

use super::{configuration, exit};

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration, TOML or YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the files that it names, and connect to nobody
    #[arg(long)]
    offline: bool,
    /// Print the checks as one JSON array
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    Wrong,
    /// It could not be looked at.
    Skipped,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Check {
    /// What was looked at.
    subject: String,
    outcome: Outcome,
    /// What was found; where it is wrong, what is wanted, and the command that repairs it.
    detail: String,
}

impl Check {
    fn ok(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome: Outcome::Ok, detail: detail.into() }
    }

    fn wrong(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome: Outcome::Wrong, detail: detail.into() }
    }

    fn skipped(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome: Outcome::Skipped, detail: detail.into() }
    }
}

/// Checks everything, and prints what was found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = configuration::load(&arguments.config, None, properties::check)?;
    let mut checks =
        vec![Check::ok("configuration", format!("{}, hash {}", arguments.config.display(), config.hash))];
    checks.extend(files::check(&config));
    let mut is_out_of_reach = false;
    if arguments.offline {
        checks.push(Check::skipped("kafka", "--offline"));
        checks.extend(api::skipped(&config));
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reached = runtime.block_on(cluster::check(&config, &mut checks))?;
        let answers = runtime.block_on(api::check(&config, &mut checks));
        is_out_of_reach = !reached || !answers;
    }
    let text = if arguments.json { serde_json::to_string(&checks)? + "\n" } else { table(&checks) };
    std::io::stdout().write_all(text.as_bytes()).context("the checks could not be printed")?;
    Ok(if is_out_of_reach {
        ExitCode::from(exit::OUT_OF_REACH)
    } else if checks.iter().any(|check| check.outcome == Outcome::Wrong) {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.subject.len()).max().unwrap_or_default();
    let mut table = String::new();
    for Check { subject, outcome, detail } in checks {
        let outcome = match outcome {
            Outcome::Ok => "ok",
            Outcome::Wrong => "WRONG",
            Outcome::Skipped => "skipped",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{outcome:<8} {subject:<width$}  {detail}");
    }
    table
}
