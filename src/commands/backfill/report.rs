//! What a backfill came to, for people and for machines, and how to go on.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clearfeed_relay::clearfeed::ApiError;
use clearfeed_relay::telemetry::labels::KafkaFault;
use jiff::Timestamp;
use rdkafka::types::RDKafkaErrorCode;
use serde::Serialize;

use super::copy::{Copy, Progress, Stopped};
use crate::commands::exit;

/// The summary.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    source: String,
    topic: String,
    since: String,
    until: String,
    dry_run: bool,
    /// Requests of the span that the API told.
    requests: u64,
    published: u64,
    unreadable: u64,
    /// Requests that the topic does not take for their size, by id.
    too_large: Vec<u64>,
    /// Whether the whole span was read.
    complete: bool,
    /// Why not.
    error: Option<String>,
    /// With this as `--since` it goes on.
    next_since: Option<String>,
    elapsed_s: f64,
}

impl Report {
    pub(super) fn new(
        copy: &Copy<'_>,
        topic: &str,
        progress: &Progress,
        ended: &Result<(), Stopped>,
        elapsed: Duration,
    ) -> Self {
        Self {
            source: copy.source.to_owned(),
            topic: topic.to_owned(),
            since: copy.span.since.to_string(),
            until: copy.span.until.to_string(),
            dry_run: copy.topic.is_none(),
            requests: progress.requests,
            published: progress.published,
            unreadable: progress.unreadable,
            too_large: progress.too_large.clone(),
            complete: ended.is_ok(),
            error: ended.as_ref().err().map(Stopped::to_string),
            next_since: ended.is_err().then(|| progress.reached.to_string()),
            elapsed_s: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
        }
    }

    /// Whether all of the span's requests are where they are wanted.
    pub(super) fn is_whole(&self) -> bool {
        self.complete && self.unreadable == 0 && self.too_large.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "source      {}", self.source)?;
        writeln!(
            f,
            "topic       {}{}",
            self.topic,
            if self.dry_run { " (--dry-run: left alone)" } else { "" }
        )?;
        writeln!(f, "span        {} to {}", self.since, self.until)?;
        writeln!(f, "requests    {}", self.requests)?;
        writeln!(f, "published   {}", self.published)?;
        if self.unreadable > 0 {
            writeln!(f, "unreadable  {}: entries without an integer `id`", self.unreadable)?;
        }
        if !self.too_large.is_empty() {
            let ids: Vec<_> = self.too_large.iter().map(u64::to_string).collect();
            writeln!(f, "too large   {}: more than max.message.bytes of the topic", ids.join(", "))?;
        }
        write!(f, "elapsed     {:.1} s", self.elapsed_s)
    }
}

/// What a person types to go on, with the instant that was reached; requests of that very instant come again.
pub(super) fn command(config: &Path, copy: &Copy<'_>, reached: Timestamp) -> String {
    let dry_run = if copy.topic.is_none() { " --dry-run" } else { "" };
    format!(
        "clearfeed-relay backfill --config {} --source {} --since {reached} --until {}{dry_run}",
        config.display(),
        copy.source,
        copy.span.until
    )
}

/// The exit code for how it ended.
pub(super) fn exit_code(report: &Report, ended: &Result<(), Stopped>) -> ExitCode {
    ExitCode::from(match ended {
        Ok(()) if report.is_whole() => return ExitCode::SUCCESS,
        Err(Stopped::Api(ApiError::Unavailable { .. } | ApiError::RateLimited { .. })) => exit::OUT_OF_REACH,
        Err(Stopped::Api(ApiError::Token(_))) => exit::WRONG_CONFIGURATION,
        Err(Stopped::Kafka(error)) => {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            match KafkaFault::from(code) {
                KafkaFault::Transport | KafkaFault::AllBrokersDown | KafkaFault::TimedOut => {
                    exit::OUT_OF_REACH
                }
                _ => exit::FAILED,
            }
        }
        Ok(()) | Err(Stopped::Told | Stopped::Api(_)) => exit::FAILED,
    })
}
