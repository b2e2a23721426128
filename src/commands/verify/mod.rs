//! `verify`: why a captured request is taken for ClearFeed's, or is not.

mod capture;
mod json;
mod search;
mod variants;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clearfeed_relay::config::{Config, Role, Source};
use clearfeed_relay::domain::delivery::{AgeLimits, Claim, HeaderValue, RawDelivery, Refusal, header};
use clearfeed_relay::domain::signature::{Keyring, Signature, SignedUrl};
use jiff::Timestamp;
use serde::Serialize;

use super::{configuration, exit};
use capture::Capture;
use search::{Cause, Signer, Space, Variant};

/// What was captured, and with what to judge it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration, TOML or YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The request's headers, one a line (`Name: value`); its request line may stand before them
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// The request's body, byte for byte
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// Judge it by this URL in place of the configured `public_url`
    #[arg(long, value_name = "URL", value_parser = |url: &str| SignedUrl::parse(url).map_err(|wanted| format!("wanted {wanted}")))]
    url: Option<SignedUrl>,
    /// When it arrived, in seconds since 1970 [default: now]
    #[arg(long, value_name = "UNIX_TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let seconds = text.parse().map_err(|_| "wanted seconds since 1970".to_owned())?;
    Timestamp::from_second(seconds).map_err(|error| error.to_string())
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Verdict {
    /// Whether the relay would answer 200.
    accepted: bool,
    /// The word of `auth_failures_total`; absent where it is accepted, or answered with another status than 401.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whose secret and URL explain the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// What was found.
    found: String,
    /// What is wrong, and what to change.
    causes: Vec<Cause>,
    /// Signatures that were made to find out.
    tried: usize,
}

/// Judges the request, and prints why.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = configuration::load(&arguments.config, Some(Role::Intake), |_, _| Vec::new())?;
    let capture = Capture::read(&arguments.headers, &arguments.body)?;
    let verdict = judge(&config, &capture, arguments)?;
    let text = if arguments.json { serde_json::to_string(&verdict)? + "\n" } else { table(&verdict) };
    std::io::stdout().write_all(text.as_bytes()).context("the verdict could not be printed")?;
    Ok(if verdict.accepted { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn judge(config: &Config, capture: &Capture, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let claim = Claim::read(
        capture.header(header::SIGNATURE),
        capture.header(header::TIMESTAMP),
        capture.header(header::RETRY_COUNT),
    );
    // What can be said of the headers alone; a wrong timestamp may still be explained by what was signed.
    if let Err(refusal) = claim
        && let Some(cause) = of_headers(refusal)
    {
        return Ok(refused(refusal, "the headers are not those of a delivery", vec![cause]));
    }
    for (name, source) in &config.sources {
        if let Ok(claim) = claim
            && let Some(verdict) = as_it_is(config, name, source, claim, capture, arguments)
        {
            return Ok(verdict);
        }
    }
    explain(config, capture, arguments, claim.err().unwrap_or(Refusal::Mismatch))
}

/// Judged as intake would; none where the signature is not of this source.
fn as_it_is(
    config: &Config,
    name: &str,
    source: &Source,
    claim: Claim<'_>,
    capture: &Capture,
    arguments: &Arguments,
) -> Option<Verdict> {
    let keyring = Keyring::new(variants::in_force(source).into_iter().map(Some).collect());
    let &Source { max_age, max_redelivery_age, max_clock_skew, .. } = source;
    let limits = AgeLimits { max_age, max_redelivery_age, max_clock_skew };
    let url = arguments.url.as_ref().unwrap_or(&source.public_url);
    let at = arguments.at.unwrap_or_else(Timestamp::now);
    let raw = RawDelivery { verb: "POST", claim, body: capture.body.clone().into() };
    let verdict = match (raw.authenticate(url, &keyring, &limits, at), not_read(config, url, capture)) {
        (Ok(_), Some(cause)) => {
            let refused =
                refused(Refusal::Mismatch, "the signature is right, and the request is not", vec![cause]);
            Verdict { reason: None, ..refused }
        }
        (Ok(delivery), None) => {
            let (matched, age) = (delivery.matched(), at.duration_since(delivery.timestamp()));
            let found = format!(
                "signed with the secret in slot {} over the {}, {} before it arrived, retry count {}",
                matched.slot,
                matched.form.as_str(),
                in_words(age.unsigned_abs()),
                delivery.retry()
            );
            Verdict { accepted: true, reason: None, source: None, found, causes: Vec::new(), tried: 0 }
        }
        (Err(refusal @ (Refusal::TooOld | Refusal::TooNew)), _) => {
            let has_retry = !matches!(capture.header(header::RETRY_COUNT), HeaderValue::Absent);
            let cause = of_time(refusal, name, source, claim, (at, arguments.at.is_some()), has_retry);
            refused(refusal, "the signature is right, and the time is not", vec![cause])
        }
        (Err(_), _) => return None,
    };
    Some(Verdict { source: Some(name.to_owned()), ..verdict })
}

/// Why the relay would not even look at the signature.
fn not_read(config: &Config, url: &SignedUrl, capture: &Capture) -> Option<Cause> {
    let (served, most) = (url.path_and_query(), config.intake.max_body_bytes);
    let (found, change) = if let Some(target) = capture.target.as_deref().filter(|target| *target != served) {
        (
            format!("it asks for {target} and the relay serves {served}: answered 404"),
            "let what stands before the relay pass the path on as it is",
        )
    } else if let Some(method) = capture.method.as_deref().filter(|method| *method != "POST") {
        (
            format!("its method is {method}: answered 405"),
            "ClearFeed sends POST: look at what stands before the relay",
        )
    } else if !matches!(capture.header("content-encoding"), HeaderValue::Absent) {
        (
            "the body is encoded (Content-Encoding): answered 415".to_owned(),
            "let whatever stands between ClearFeed and the relay pass the body on as it is",
        )
    } else if capture.body.len() > most {
        (
            format!("its body has {} bytes, intake.max_body = {most}: answered 413", capture.body.len()),
            "raise intake.max_body",
        )
    } else {
        return None;
    };
    Some(Cause { found, change: change.to_owned() })
}

/// What is wrong where the headers alone tell it.
fn of_headers(refusal: Refusal) -> Option<Cause> {
    let way = "look at what stands between ClearFeed and the relay (and at the capture): headers pass through it as they are";
    let (found, change) = match refusal {
        Refusal::NoSignature => ("no X-CF-Signature header", way),
        Refusal::SeveralSignatures => ("several X-CF-Signature headers", way),
        Refusal::MalformedSignature => ("an X-CF-Signature that is not 64 hex digits", way),
        Refusal::NoTimestamp => ("no X-CF-Timestamp header", way),
        Refusal::MalformedTimestamp | Refusal::Mismatch | Refusal::TooOld | Refusal::TooNew => return None,
    };
    Some(Cause { found: found.to_owned(), change: change.to_owned() })
}

/// The signature is right, and it came too late or too early.
fn of_time(
    refusal: Refusal,
    name: &str,
    source: &Source,
    claim: Claim<'_>,
    (at, is_given): (Timestamp, bool),
    has_retry: bool,
) -> Cause {
    let apart = in_words(at.duration_since(claim.timestamp()).unsigned_abs());
    let when = if is_given {
        "when it arrived (--at)"
    } else {
        "now; give --at, the time at which it arrived, to judge it as of then"
    };
    if refusal == Refusal::TooNew {
        let (key, limit) = (format!("sources.{name}.max_clock_skew"), in_words(source.max_clock_skew));
        return Cause {
            found: format!("its timestamp is {apart} ahead, {when}; {key} = {limit}"),
            change: "set the clock of the relay's host (NTP): it is behind, or the sender's is ahead"
                .to_owned(),
        };
    }
    let (kind, key, limit) = if claim.retry() == 0 {
        ("first deliveries (X-CF-Retry-Count 0)", "max_age", source.max_age)
    } else {
        ("redeliveries (X-CF-Retry-Count 1 to 3)", "max_redelivery_age", source.max_redelivery_age)
    };
    let untold = if has_retry { "" } else { "; the capture has no X-CF-Retry-Count, which counts as 0" };
    Cause {
        found: format!(
            "its timestamp is {apart} old, {when}; sources.{name}.{key} = {} for {kind}{untold}",
            in_words(limit)
        ),
        change: format!(
            "set the clock of the relay's host (NTP) if it is ahead; if deliveries do come so late, raise sources.{name}.{key}"
        ),
    }
}

/// Looks for mistakes that explain the signature.
fn explain(
    config: &Config,
    capture: &Capture,
    arguments: &Arguments,
    refusal: Refusal,
) -> anyhow::Result<Verdict> {
    let bytes = |name| match capture.header(name) {
        HeaderValue::One(value) => value,
        HeaderValue::Absent | HeaderValue::Several => b"",
    };
    let signature =
        Signature::from_hex(bytes(header::SIGNATURE)).context("X-CF-Signature has 64 hex digits")?;
    let sources = by_relevance(config, capture);
    let signers = sources.iter().map(|(name, source)| Signer {
        secrets: variants::secrets(config, name),
        urls: variants::urls(config, arguments.url.as_ref().unwrap_or(&source.public_url), name, capture),
    });
    let space = Space {
        signers: signers.collect(),
        verbs: vec![
            Variant::as_is("POST"),
            Variant::mistake("post", "signed over a lower-case verb", "sign POST"),
        ],
        bodies: json::variants(&capture.body),
        timestamps: variants::timestamps(bytes(header::TIMESTAMP)),
    };
    let (found, tried) = space.find(&signature);
    if let Some(found) = found {
        let mut causes = found.causes;
        if refusal == Refusal::MalformedTimestamp && !found.tells_timestamp {
            let change = format!(
                "it was signed like this: the sender is not ClearFeed, or ClearFeed sends another {TIMESTAMP} now; ask them"
            );
            causes.insert(0, malformed_timestamp(capture, change));
        }
        let text = format!("explained, over the {}", found.form.as_str());
        return Ok(Verdict {
            source: Some(sources[found.signer].0.clone()),
            tried,
            ..refused(refusal, &text, causes)
        });
    }
    let mut causes = variants::unreadable(config);
    causes.push(Cause {
        found: "none of the configured secrets gives this signature: not as it is, nor without quotes, what stands around it or \
                base64, nor with a likely mistake in URL, verb, body or timestamp"
            .to_owned(),
        change: "copy the signing secret from Developer Settings again: perhaps it was regenerated, or belongs to another workspace; \
                 make sure that the body was captured byte for byte"
            .to_owned(),
    });
    if refusal == Refusal::MalformedTimestamp {
        let change =
            format!("let nothing on the way rewrite {TIMESTAMP}: ClearFeed sends seconds since 1970");
        causes.insert(0, malformed_timestamp(capture, change));
    }
    Ok(Verdict { tried, ..refused(refusal, "not explained", causes) })
}

/// All sources, the one first whose path was asked for.
fn by_relevance<'c>(config: &'c Config, capture: &Capture) -> Vec<(&'c String, &'c Source)> {
    let mut sources: Vec<_> = config.sources.iter().collect();
    sources.sort_by_key(|(_, source)| capture.target.as_deref() != Some(source.public_url.path_and_query()));
    sources
}

const TIMESTAMP: &str = "X-CF-Timestamp";

fn malformed_timestamp(capture: &Capture, change: String) -> Cause {
    let found = match capture.header(header::TIMESTAMP) {
        HeaderValue::One(value) => format!("{:?}", String::from_utf8_lossy(value)),
        HeaderValue::Absent | HeaderValue::Several => "several".to_owned(),
    };
    Cause { found: format!("{TIMESTAMP} is {found}, wanted ten digits, the first not 0, once"), change }
}

fn refused(refusal: Refusal, found: &str, causes: Vec<Cause>) -> Verdict {
    let (reason, found) = (Some(refusal.as_str()), found.to_owned());
    Verdict { accepted: false, reason, source: None, found, causes, tried: 0 }
}

fn in_words(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

fn table(verdict: &Verdict) -> String {
    let mut table = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:<9} {value}");
    };
    line(
        "verdict",
        &match verdict.reason {
            Some(reason) => format!("refused: {reason}"),
            None if verdict.accepted => "accepted".to_owned(),
            None => "refused".to_owned(),
        },
    );
    if let Some(source) = &verdict.source {
        line("source", source);
    }
    line("found", &verdict.found);
    for Cause { found, change } in &verdict.causes {
        line("cause", found);
        line("change", change);
    }
    if verdict.tried > 0 {
        line("tried", &format!("{} signatures", verdict.tried));
    }
    table
}
