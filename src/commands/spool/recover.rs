//! `spool recover`: puts what can be read of a spool's file into the inbox, as its relay would have.
//!
//! The file is only read, so all of it is put there again each time. That is harmless within `dedup.window`: whatever comes
//! before the inbox may repeat, and what waited for longer becomes a dead letter.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use clearfeed_relay::config::{Config, Role};
use clearfeed_relay::intake::{Inbox, InboxError, append_in_order};
use clearfeed_relay::kafka::monitor::Monitor;
use clearfeed_relay::kafka::properties;
use clearfeed_relay::spool::{self, Readable, Spooled};
use clearfeed_relay::telemetry::health::Health;
use clearfeed_relay::telemetry::labels::Half;
use clearfeed_relay::telemetry::metrics::{Metrics, ProcessLabels};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::commands::exit::{OutOfReach, not_taken};
use crate::commands::{configuration, progress};

/// Bodies that are under way together: they have room in the producer's queue.
const TOGETHER_BYTES: usize = 8 << 20;
/// The same, in records.
const TOGETHER_RECORDS: usize = 1024;

/// What to put into the inbox.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration that the relay runs with, TOML or YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The spool's file, which no relay may have open, with its `-journal` beside it if there is one:
    /// `spool.sqlite`, `broken-*.sqlite`, or what `sqlite3 FILE .recover` made of either. It is not changed
    #[arg(value_name = "DATABASE")]
    database: PathBuf,
    /// Only count what can be read
    #[arg(long)]
    dry_run: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// What a run came to.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Nothing was put into the inbox.
    dry_run: bool,
    /// Deliveries that could be read.
    found: u64,
    /// Of these, in the inbox; of a dry run: would be.
    put: u64,
    /// Deliveries that do not fit their digests, and places that cannot be read, where one may have been or not.
    unreadable: u64,
    elapsed_s: f64,
}

/// Reads the file, and puts what it holds into the inbox; prints what came of it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let config = configuration::load(&arguments.config, None, properties::check)?;
    let mut readable = spool::readable(&arguments.database)?;
    let inbox = if arguments.dry_run { None } else { Some(reach(&config)?) };
    let style = "{wide_bar} {human_pos} deliveries of at most {human_len}, {per_sec}";
    let bar = progress::bar(readable.left(), style, arguments.json);
    let mut summary = Summary { dry_run: arguments.dry_run, ..Summary::default() };
    let result = if let Some(inbox) = inbox {
        recover(&config, &inbox, &mut readable, &mut summary, &bar)
    } else {
        summary.found = readable.by_ref().inspect(|_| bar.inc(1)).count() as u64;
        summary.put = summary.found;
        Ok(())
    };
    bar.finish_and_clear();
    summary.unreadable = readable.unreadable;
    summary.elapsed_s = started.elapsed().as_secs_f64();
    summary.print(arguments.json)?;
    result.map(|()| ExitCode::SUCCESS)
}

/// The inbox, as intake writes it.
fn reach(config: &Config) -> anyhow::Result<Inbox> {
    let metrics = Arc::new(Metrics::new([], &ProcessLabels::of_role(Role::Intake))?);
    let monitor = Monitor::new(Half::Intake, Arc::clone(&metrics), Arc::new(Health::apart(Role::Intake)));
    let inbox = Inbox::new(config, &monitor, metrics)?;
    let servers = &config.kafka.bootstrap_servers;
    inbox.warm_up().map_err(|error| OutOfReach(format!("Kafka at {servers} is out of reach: {error}")))?;
    Ok(inbox)
}

/// Ends with the first delivery that the inbox does not take: what follows it must not overtake it.
fn recover(
    config: &Config,
    inbox: &Inbox,
    readable: &mut Readable,
    summary: &mut Summary,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    loop {
        let records = some(readable);
        if records.is_empty() {
            return Ok(());
        }
        summary.found += records.len() as u64;
        let appending = append_in_order(inbox, records, config.spooled_limit(), config.intake.answer_timeout);
        let appended = runtime.block_on(appending);
        summary.put += appended.places.len() as u64;
        bar.inc(appended.places.len() as u64);
        if let Some((partition, error)) = appended.stuck.into_iter().next() {
            return Err(failed(&format!("{}-{partition}", config.inbox.topic.as_str()), &error));
        }
    }
}

/// The next records, as many as may be under way together.
fn some(readable: &mut Readable) -> Vec<Spooled> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < TOGETHER_RECORDS && bytes < TOGETHER_BYTES {
        let Some(spooled) = readable.next() else { break };
        bytes += spooled.record.body.len();
        records.push(spooled);
    }
    records
}

fn failed(partition: &str, error: &InboxError) -> anyhow::Error {
    let what = format!("{partition} did not take all; run it again: {error}");
    match error {
        InboxError::TimedOut => OutOfReach(what).into(),
        InboxError::Refused(error) => not_taken(what, error),
    }
}

impl Summary {
    fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let text = if as_json { serde_json::to_string(self)? + "\n" } else { self.to_string() };
        io::stdout().write_all(text.as_bytes()).context("the result could not be printed")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dry_run = if self.dry_run { " would be: this is a dry run" } else { "" };
        writeln!(f, "found         {} deliveries", self.found)?;
        writeln!(f, "in the inbox  {}{dry_run}", self.put)?;
        writeln!(f, "unreadable    {}", self.unreadable)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;

    use super::*;

    #[test]
    fn what_came_of_it_is_told_to_people_and_to_machines() {
        let summary = Summary { found: 12, put: 10, unreadable: 1, ..Summary::default() };
        assert_eq!(summary.to_string(), "found         12 deliveries\nin the inbox  10\nunreadable    1\n");
        let dry = Summary { dry_run: true, found: 2, put: 2, ..Summary::default() };
        assert!(dry.to_string().contains("in the inbox  2 would be: this is a dry run\n"));
        assert_eq!(
            serde_json::to_string(&dry).unwrap(),
            r#"{"dry_run":true,"found":2,"put":2,"unreadable":0,"elapsed_s":0.0}"#
        );
    }

    #[test]
    fn kafka_that_does_not_answer_is_out_of_reach_and_kafka_that_refuses_is_not() {
        let refused = |code| InboxError::Refused(rdkafka::error::KafkaError::MessageProduction(code));
        for error in [InboxError::TimedOut, refused(RDKafkaErrorCode::MessageTimedOut)] {
            assert!(failed("inbox-3", &error).is::<OutOfReach>(), "{error}");
        }
        let error = failed("inbox-3", &refused(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert!(!error.is::<OutOfReach>());
        assert!(error.to_string().starts_with("inbox-3 did not take all; run it again: "), "{error}");
    }
}
