//! `backfill`: the requests of a span, as ClearFeed's REST API tells them now, into the snapshot topic.

mod copy;
mod report;
mod topic;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clearfeed_relay::clearfeed::Client;
use clearfeed_relay::config::{Api, Config, Problem, Problems};
use clearfeed_relay::kafka::topics::{Topics, TopicsError};
use clearfeed_relay::kafka::{properties, topic_rules};
use indicatif::{HumanCount, ProgressBar};
use jiff::Timestamp;

use super::{clients, configuration, exit, progress, simulate};
pub(crate) use copy::{Copy, Span};
use report::Report;
pub(crate) use topic::SnapshotTopic;

/// What to read, and from where.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration, TOML or YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The source whose API is asked [default: the only one that has a section `api`]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Requests that were created then or later, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    since: Timestamp,
    /// Requests that were created before that [default: now]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    until: Option<Timestamp>,
    /// Only read and count: Kafka is left alone
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "wanted an instant such as 2026-01-31T12:00:00Z".to_owned())
}

/// Copies the span, prints what came of it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let span = Span { since: arguments.since, until: arguments.until.unwrap_or_else(Timestamp::now) };
    if span.since >= span.until {
        return wrong(&format!("--since {} is not before --until {}", span.since, span.until));
    }
    let config = configuration::load(&arguments.config, None, properties::check)?;
    let apis: Vec<_> = config.apis().collect();
    let chosen = match (&arguments.source, apis.as_slice()) {
        (Some(name), _) => apis.iter().find(|(source, _)| source == name),
        (None, [only]) => Some(only),
        (None, []) => return Err(no_api(arguments).into()),
        (None, _) => None,
    };
    let Some((source, api)) = chosen else {
        let names: Vec<_> = apis.iter().map(|(source, _)| *source).collect();
        return wrong(&format!(
            "--source: wanted one of the sources with a section api: {}",
            names.join(", ")
        ));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(backfill(arguments, &config, source, api, span))
}

async fn backfill(
    arguments: &Arguments,
    config: &Config,
    source: &str,
    api: &Api,
    span: Span,
) -> anyhow::Result<ExitCode> {
    let topic = if arguments.dry_run {
        None
    } else {
        let (monitor, _) = clients::monitor(config)?;
        let wanted = [topic_rules::snapshot_topic(config, api)];
        match Topics::new(config, monitor.clone())?.ensure(&wanted).await {
            Ok(()) => {}
            Err(TopicsError::Kafka(error)) => {
                say(&format!("error: {}: {error}", config.kafka.bootstrap_servers))?;
                return Ok(ExitCode::from(exit::OUT_OF_REACH));
            }
            Err(error) => return Err(error.into()),
        }
        Some(SnapshotTopic::new(config, api, monitor)?)
    };
    let copy = Copy { source, span, topic: topic.as_ref(), stop: simulate::stop_on_signal()? };
    let (bar, started) = (progress_bar(arguments.json, span), Instant::now());
    let (progress, ended) = copy
        .run(&mut Client::new(api), |progress| {
            show(&bar, span, progress.requests, progress.reached, started.elapsed());
        })
        .await;
    bar.finish_and_clear();
    let report = Report::new(&copy, api.snapshot_topic.as_str(), &progress, &ended, started.elapsed());
    let text = if arguments.json { serde_json::to_string(&report)? } else { report.to_string() };
    writeln!(std::io::stdout(), "{text}").context("the summary could not be printed")?;
    if let Err(stopped) = &ended {
        let file = api.token_file.display();
        say(&format!("error: {stopped}"))?;
        if matches!(stopped, copy::Stopped::Api(clearfeed_relay::clearfeed::ApiError::TokenRefused)) {
            say(&format!("put the new one into {file}"))?;
        }
        say(&format!("go on with: {}", report::command(&arguments.config, &copy, progress.reached)))?;
    }
    Ok(report::exit_code(&report, &ended))
}

/// How far the span is read: how many requests are in it nobody tells before.
fn progress_bar(as_json: bool, span: Span) -> ProgressBar {
    let style = "{wide_bar} {percent}% of the span, {msg}, {eta} to go";
    progress::bar(seconds(span.since, span.until), style, as_json)
}

fn show(bar: &ProgressBar, span: Span, requests: u64, reached: Timestamp, elapsed: Duration) {
    bar.set_position(seconds(span.since, reached));
    let rate = requests / elapsed.as_secs().max(1);
    bar.set_message(format!("{} requests, {rate}/s", HumanCount(requests)));
}

fn seconds(since: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.duration_since(since).as_secs()).unwrap_or(0)
}

fn no_api(arguments: &Arguments) -> Problems {
    let file = arguments.config.display().to_string();
    Problems(vec![Problem {
        key: "sources.NAME.api.token_file".to_owned(),
        found: "no source with it".to_owned(),
        wanted: "a file with a Personal Access Token of ClearFeed's".to_owned(),
        whence: file,
    }])
}

fn wrong(what: &str) -> anyhow::Result<ExitCode> {
    say(&format!("error: {what}"))?;
    Ok(ExitCode::from(exit::WRONG_COMMAND_LINE))
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stderr(), "{line}").context("nothing can be printed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_the_span_and_tells_how_many_and_how_fast() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let span = Span { since: at("2026-11-05T00:00:00Z"), until: at("2026-11-06T00:00:00Z") };
        // Nobody sees it in a test, on whatever terminal.
        let bar = progress_bar(false, span);
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        let reached = at("2026-11-05T06:00:00Z");
        for (seconds, message) in [(4, "5,000 requests, 1250/s"), (0, "5,000 requests, 5000/s")] {
            show(&bar, span, 5000, reached, Duration::from_secs(seconds));
            assert_eq!((bar.position(), bar.length(), &*bar.message()), (6 * 3600, Some(24 * 3600), message));
        }
        assert_eq!(progress_bar(true, span).length(), None, "who reads JSON sees none");
    }
}
