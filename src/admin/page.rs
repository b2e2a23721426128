//! The status page: what `/status` says, for a person at three in the morning. One page without a script; the browser asks
//! again by itself.

use std::sync::LazyLock;

use base64ct::{Base64, Encoding};
use hyper::header::HeaderValue;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::moments::{ago, span, time};
use super::verdict::Verdict;
use super::{chart, reconcile, spool};
use crate::domain::delivery::Refusal;
use crate::telemetry::labels::{Ending, Label, Outcome};
use crate::telemetry::status::{
    Durable, ForwardHalf, IntakeStatus, KafkaStatus, Logged, NotKept, PartitionState, PartitionStatus,
    SourceStatus, Status,
};

const CSS: &str = include_str!("page.css");
/// Seconds until the browser asks again.
const REFRESH_SECONDS: u32 = 15;
/// Nothing may be loaded but the page's own style, whatever gets into it.
pub(super) static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = Base64::encode_string(&Sha256::digest(CSS));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// The page.
pub(super) fn render(status: &Status) -> String {
    let verdict = Verdict::of(status);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH_SECONDS);
                title { (verdict.word) " · clearfeed-relay" }
                style { (PreEscaped(CSS)) }
            }
            body {
                (header(status))
                (shown(&verdict))
                @if let Some(intake) = &status.intake {
                    (last_hour(status.time, intake, &status.sources))
                    @if let Some(it) = intake.spool { (spool::shown(it)) }
                    (not_kept(&intake.not_kept))
                }
                @if let Some(forward) = &status.forward {
                    (partitions(status.time, forward))
                    (reconcile::shown(status.time, &forward.status.reconcile))
                }
                (kafka(status.time, &status.kafka, status.durable))
                (logged(status.time, &status.logged))
                (configuration(status))
                p.faint {
                    "The same for tools: " a href="status" { "/status" } " · " a href="metrics" { "/metrics" } " · "
                    a href="livez" { "/livez" } " · " a href="readyz" { "/readyz" }
                }
            }
        }
    }
    .into_string()
}

fn header(status: &Status) -> Markup {
    html! {
        header {
            h1 { "clearfeed-relay" }
            p.faint {
                "version " (status.version) " · role " (status.role)
                @if let Some(forward) = &status.forward {
                    @if !forward.status.transactional_id.is_empty() { " · " (forward.status.transactional_id) }
                }
                " · up for " (span(status.time, status.started)) " · configuration " (status.config_hash)
            }
            p.faint {
                "As of " (time(status.time)) " UTC; asks again every " (REFRESH_SECONDS) " s. This is one replica: the "
                "others have pages of their own."
            }
        }
    }
}

fn shown(verdict: &Verdict) -> Markup {
    html! {
        section class={ "verdict " (verdict.class) } {
            strong { (verdict.word) }
            @if !verdict.troubles.is_empty() {
                ul { @for trouble in &verdict.troubles { li { (trouble) } } }
            }
        }
    }
}

fn last_hour(now: Timestamp, intake: &IntakeStatus, sources: &[SourceStatus]) -> Markup {
    html! {
        section {
            h2 { "The last hour" }
            (chart::of(&intake.last_hour))
            table {
                thead { tr { th { "source" } th { "public URL" } th { "last accepted" } } }
                @for source in sources {
                    tr {
                        td { (source.identity.name) }
                        td { (source.identity.public_url) }
                        td.when {
                            @match source.last_accepted {
                                Some(last) => { (ago(now, last)) }
                                None => "not since the start"
                            }
                        }
                    }
                }
            }
        }
    }
}

fn not_kept(lines: &[NotKept]) -> Markup {
    html! {
        section {
            h2 { "What was not kept, and why" }
            @if lines.is_empty() {
                p { "Nothing was refused since the start." }
            } @else {
                table {
                    thead { tr { th { "source" } th { "reason" } th.number { "last hour" } th.number { "since start" } th { "what to do" } } }
                    @for NotKept { source, reason, last_hour, since_start } in lines {
                        tr {
                            td { @if source.is_empty() { "–" } @else { (source) } }
                            td.word { (reason.as_str()) }
                            td.number { (last_hour) }
                            td.number { (since_start) }
                            td { (advice(*reason)) }
                        }
                    }
                }
            }
        }
    }
}

/// What a person can do about it.
fn advice(reason: Ending) -> &'static str {
    match reason {
        Ending::NotAuthenticated(reason) => match reason {
            Refusal::Mismatch => {
                "secret or public_url is wrong, or a stranger: clearfeed-relay verify finds out which"
            }
            Refusal::TooOld | Refusal::TooNew => {
                "signed with our secret: clocks are apart, or the delivery came late"
            }
            Refusal::NoSignature | Refusal::NoTimestamp => "not ClearFeed, or a proxy that removes headers",
            Refusal::SeveralSignatures | Refusal::MalformedSignature | Refusal::MalformedTimestamp => {
                "not ClearFeed, or a proxy that rewrites headers"
            }
        },
        Ending::Answered(outcome) => match outcome {
            Outcome::Accepted | Outcome::Spooled | Outcome::Pong => "nothing",
            Outcome::NotFound => "the path of no public_url: compare it with Developer Settings",
            Outcome::TooLarge => "over intake.max_body",
            Outcome::TooSlow | Outcome::Abandoned => "a slow sender or network, or a scanner",
            Outcome::Encoded => "not ClearFeed, or a proxy that compresses",
            Outcome::BadRequest => "not ClearFeed, or a proxy that breaks requests",
            Outcome::Method | Outcome::HeadTooLarge | Outcome::Unauthenticated => "not ClearFeed",
            Outcome::Unavailable => {
                "Kafka did not acknowledge in time, or a limit was reached: Kafka and the errors below tell"
            }
        },
    }
}

fn partitions(now: Timestamp, forward: &ForwardHalf) -> Markup {
    let status = &forward.status;
    html! {
        section {
            h2 { "Forward" }
            dl {
                dt { "lag" } dd { (seconds(status.lag_seconds)) " of the oldest record that is not forwarded yet" }
                dt { "window" } dd { (status.window_ids) " event ids in " (mebibytes(status.window_bytes)) }
            }
            @if status.owned.is_empty() {
                p { "No partition of the inbox is assigned to this replica." }
            } @else {
                table {
                    thead {
                        tr { th.number { "partition" } th { "state" } th { "since" } th.number { "lag" } th.number { "next offset" } th.number { "ids" } }
                    }
                    @for partition in &status.owned { (row(now, partition)) }
                }
            }
        }
    }
}

fn row(now: Timestamp, partition: &PartitionStatus) -> Markup {
    html! {
        tr {
            td.number { (partition.partition) }
            @match &partition.state {
                PartitionState::Active => td.word { "active" },
                PartitionState::TakingOver => td.warn {
                    "taking over"
                    @if let Some(ledger) = partition.ledger { ", " (ledger.read) " of " (ledger.of) " read" }
                },
                PartitionState::Held { reason, .. } => td.bad { "held: " (reason.as_str()) },
            }
            td.when { (ago(now, partition.since)) }
            td.number { (or_unknown(partition.lag)) }
            td.number { (or_unknown(partition.next_offset)) }
            td.number { (partition.window_ids) }
        }
    }
}

fn kafka(now: Timestamp, kafka: &KafkaStatus, durable: Durable) -> Markup {
    html! {
        section {
            h2 { "Kafka" }
            dl {
                dt { "brokers" } dd { (kafka.brokers_up) " connected of " (kafka.brokers_known) " known" }
                dt { "durable" }
                dd {
                    @match durable {
                        Durable::Yes => "yes: what is answered 200 survives the loss of a broker",
                        Durable::No => "no",
                        Durable::Unknown => "not known yet",
                    }
                }
            }
            @if !kafka.errors.is_empty() {
                table {
                    thead { tr { th { "error" } th { "last" } th { "in librdkafka's words" } } }
                    @for (kind, error) in &kafka.errors {
                        tr { td { (kind) } td.when { (ago(now, error.logged)) } td { (error.detail) } }
                    }
                }
            }
        }
    }
}

fn logged(now: Timestamp, lines: &[Logged]) -> Markup {
    html! {
        section {
            h2 { "Last warnings and errors" }
            @if lines.is_empty() {
                p { "None since the start." }
            } @else {
                table {
                    thead { tr { th { "last" } th.number { "times" } th { "message" } } }
                    @for line in lines {
                        tr {
                            td.when { (ago(now, line.logged)) }
                            td.number { (line.times) }
                            td class=(if line.level == "ERROR" { "bad" } else { "warn" }) {
                                (line.message)
                                @if !line.fields.is_empty() { p.faint { (line.fields) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn configuration(status: &Status) -> Markup {
    html! {
        section {
            h2 { "Configuration" }
            table {
                thead { tr { th { "key" } th { "value" } th { "from" } } }
                @for setting in &status.configuration {
                    tr { td { (setting.key) } td { (setting.value) } td.word { (setting.whence) } }
                }
            }
        }
    }
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

#[allow(clippy::cast_precision_loss)] // nobody reads the last digits of a size
fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0)
}

fn or_unknown(number: Option<i64>) -> String {
    number.map_or_else(|| "–".to_owned(), |number| number.to_string())
}
