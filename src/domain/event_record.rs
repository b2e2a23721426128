//! What lands in Kafka: event records in CloudEvents' binary form, and dead letters.

use std::borrow::Cow;

use super::dead_letter::header;
use super::event::Event;
use super::fingerprint::BodyDigest;
use super::inbox_record::{Position, StoredDelivery};

/// A record to be published. The value is the inbox record's, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The record's key.
    pub key: String,
    /// Names and values, in the order in which they are written.
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
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
    /// It was in the spool for longer than its id is remembered.
    SpooledTooLong,
}

impl DeadLetterReason {
    /// All, for metrics that stand at 0 from the start.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Conflict,
        Self::TooLarge,
        Self::NoTopic,
        Self::UnknownSource,
        Self::SpooledTooLong,
    ];

    /// The header's and the metric's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::NoTopic => "no_topic",
            Self::UnknownSource => "unknown_source",
            Self::SpooledTooLong => "spooled_too_long",
        }
    }
}

/// How much of a value is kept that even the dead-letter topic found too large. With the headers below it fits any
/// topic that the relay accepts: those take 64 KiB beyond the longest body.
pub const HEAD_BYTES: usize = 32 * 1024;
/// How much is kept of all its headers together, names and values.
const HEAD_HEADERS_BYTES: usize = 16 * 1024;
/// How much is kept of one of these values: more than any that intake writes.
const HEAD_HEADER_BYTES: usize = 1024;

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
            .map(|(name, value)| (Cow::Borrowed(name), value.into_bytes()))
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
            (header::REASON, reason.as_str().to_owned()),
            (header::DETAIL, detail.to_owned()),
            (header::INBOX, position.to_string()),
        ];
        let headers = added
            .into_iter()
            .map(|(name, value)| (Cow::Borrowed(name), value.into_bytes()))
            .chain(original.map(|(name, value)| (name.to_owned().into(), value.unwrap_or_default().to_vec())))
            .collect();
        Self { key: hex::encode(digest), headers, head_bytes: None }
    }

    /// The beginning of the record alone, of its value as of its headers: a stranger's may be of any size.
    #[must_use]
    pub fn head(mut self) -> Self {
        let mut room = HEAD_HEADERS_BYTES;
        self.headers.retain_mut(|(name, value)| {
            value.truncate(character_boundary(value, HEAD_HEADER_BYTES));
            let fits = room.checked_sub(name.len() + value.len());
            room = fits.unwrap_or(room);
            fits.is_some()
        });
        Self { head_bytes: Some(HEAD_BYTES), ..self }
    }
}

/// The longest length of at most `longest` bytes that cuts no character of UTF-8 in two.
fn character_boundary(text: &[u8], longest: usize) -> usize {
    let is_inside = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xC0 == 0x80);
    (0..=longest.min(text.len())).rev().find(|at| !is_inside(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_is_small_whatever_a_stranger_wrote(
            headers in proptest::collection::vec((".{0,400}", ".{0,3000}"), 0..40),
        ) {
            let position = Position { partition: 0, offset: 7 };
            let original = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes())));
            let record = Outgoing::dead_letter(
                DeadLetterReason::Malformed, "garbage", position, &BodyDigest::default(), original,
            ).head();
            let bytes: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(bytes <= HEAD_HEADERS_BYTES);
            prop_assert_eq!(record.head_bytes, Some(HEAD_BYTES));
            prop_assert_eq!(&record.headers[..2], &[
                ("reason".into(), b"malformed".to_vec()), ("detail".into(), b"garbage".to_vec()),
            ]);
            for (_, value) in &record.headers {
                prop_assert!(std::str::from_utf8(value).is_ok(), "no character is cut in two");
            }
        }
    }
}
