//! What lands in Kafka: event records in CloudEvents' binary form, and dead letters.

use super::event::Event;
use super::fingerprint::BodyDigest;
use super::inbox_record::{Position, StoredDelivery};

/// A record to be published. The value is the inbox record's, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The record's key.
    pub key: String,
    /// Names and values, in the order in which they are written.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Only so many bytes of the value are written; absent: all of it.
    pub head_bytes: Option<usize>,
}

/// Why a delivery is a dead letter: a fixed word for filters and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The body is no event, or the record was not written by intake.
    Malformed,
    /// The id was there before in the same request, with another body.
    Conflict,
    /// No topic takes the record: it is larger than `max.message.bytes`.
    TooLarge,
    /// Its type leads to no topic.
    NoTopic,
    /// Its source is not configured (any more).
    UnknownSource,
}

impl DeadLetterReason {
    /// All, for metrics that stand at 0 from the start.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::Conflict, Self::TooLarge, Self::NoTopic, Self::UnknownSource];

    /// The header's and the metric's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::NoTopic => "no_topic",
            Self::UnknownSource => "unknown_source",
        }
    }
}

impl Outgoing {
    /// The record of an event: CloudEvents 1.0, Kafka protocol binding, binary content mode.
    pub fn event(delivery: &StoredDelivery<'_>, event: &Event<'_>, position: Position) -> Self {
        let kind = match &event.sub_type {
            Some(sub_type) => format!("ai.clearfeed.{}.{sub_type}", event.kind),
            None => format!("ai.clearfeed.{}", event.kind),
        };
        let fixed = [
            ("content-type", "application/json".to_owned()),
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", event.id.clone().into_owned()),
            ("ce_source", format!("/clearfeed/{}", delivery.source)),
            ("ce_type", kind),
            ("ce_time", delivery.timestamp.to_string()),
            ("ce_cfretrycount", delivery.retry.to_owned()),
            ("ce_cfinbox", position.to_string()),
        ];
        let subject = event.request.map(|request| ("ce_subject", request.to_string()));
        // OpenTelemetry's Kafka readers look for the plain name, CloudEvents' for the prefixed one.
        let trace = delivery
            .traceparent
            .map(|trace| [("traceparent", trace.to_owned()), ("ce_traceparent", trace.to_owned())]);
        let headers = fixed
            .into_iter()
            .chain(subject)
            .chain(trace.into_iter().flatten())
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .collect();
        Self { key: event.key(), headers, head_bytes: None }
    }

    /// A dead letter: the reason, where it stood in the inbox, and all headers that it had there.
    pub fn dead_letter<'a>(
        reason: DeadLetterReason,
        detail: &str,
        position: Position,
        digest: &BodyDigest,
        original: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Self {
        let added = [
            ("reason", reason.as_str().to_owned()),
            ("detail", detail.to_owned()),
            ("inbox", position.to_string()),
        ];
        let headers = added
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .chain(original.map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_vec())))
            .collect();
        Self { key: hex::encode(digest), headers, head_bytes: None }
    }
}
