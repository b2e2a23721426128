//! A record of the inbox: the body as it was signed, and what intake found out about it, as headers.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::delivery::AuthenticDelivery;
use super::event::{self, Event, Malformed, Reading};
use super::fingerprint::{BodyDigest, Fingerprint, body_digest};
use super::format::{self, Unread};

/// The value of the header `v` that intake writes, and the newest that forward reads.
pub const FORMAT: &str = "1";

/// Names of the headers, as in the contract.
pub mod header {
    /// The format of the other headers.
    pub const FORMAT: &str = "v";
    /// The configured name of the source.
    pub const SOURCE: &str = "source";
    /// When intake had read the delivery (RFC 3339, nanoseconds).
    pub const RECEIVED: &str = "received";
    /// The retry count as judged, 0 to 3.
    pub const RETRY: &str = "retry";
    /// The signed timestamp (seconds since 1970).
    pub const TIMESTAMP: &str = "timestamp";
    /// The event id.
    pub const ID: &str = "id";
    /// The request id.
    pub const REQUEST: &str = "request";
    /// `type`
    pub const TYPE: &str = "type";
    /// `sub_type`
    pub const SUB_TYPE: &str = "sub_type";
    /// Why the body is no event.
    pub const MALFORMED: &str = "malformed";
    /// SHA-256 of the body in hex.
    pub const BODY_SHA256: &str = "body-sha256";
    /// As sent, and not signed.
    pub const CONTENT_TYPE: &str = "content-type";
    /// As sent, and not signed.
    pub const TRACEPARENT: &str = "traceparent";
    /// Of a dead letter that was put back: where in the inbox it stood. Never written by intake.
    pub const REDRIVEN: &str = "redriven";
    /// When it was taken from the spool (RFC 3339); only where it was there.
    pub const SPOOLED: &str = "spooled";
    /// Why it waited there for longer than its id is remembered; only where it did.
    pub const SPOOLED_TOO_LONG: &str = "spooled-too-long";
}

/// What intake appends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxRecord {
    /// The request id, else the event id, else the body's digest.
    pub key: String,
    /// By the names of [`header`].
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// As it was signed.
    pub body: Bytes,
}

/// Headers of a delivery that nobody signed, passed on as they came where they are text.
#[derive(Debug, Clone, Default)]
pub struct Unsigned {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `traceparent`
    pub traceparent: Option<String>,
}

impl InboxRecord {
    /// The record of a delivery; `None` for a ping, which is counted and not stored.
    pub fn new(
        source: &str,
        delivery: &AuthenticDelivery,
        received: Timestamp,
        unsigned: Unsigned,
    ) -> Option<InboxRecord> {
        let body = delivery.body();
        let digest = hex::encode(body_digest(body));
        let mut headers = vec![
            (header::FORMAT, FORMAT.to_owned()),
            (header::SOURCE, source.to_owned()),
            (header::RECEIVED, format!("{received:.9}")),
            (header::RETRY, delivery.retry().to_string()),
            (header::TIMESTAMP, delivery.timestamp().as_second().to_string()),
        ];
        let (key, id, request, kind, sub_type, malformed) = match event::read(body) {
            Reading::Ping => return None,
            Reading::Event(event) => {
                (event.key(), Some(event.id), event.request, Some(event.kind), event.sub_type, None)
            }
            Reading::Malformed(Malformed { reason, id, request, kind, sub_type }) => {
                (digest.clone(), id, request, kind, sub_type, Some(reason))
            }
        };
        let optional = [
            (header::ID, id.map(Into::into)),
            (header::REQUEST, request.map(|request| request.to_string())),
            (header::TYPE, kind.map(Into::into)),
            (header::SUB_TYPE, sub_type.map(Into::into)),
            (header::MALFORMED, malformed),
            (header::BODY_SHA256, Some(digest)),
            (header::CONTENT_TYPE, unsigned.content_type),
            (header::TRACEPARENT, unsigned.traceparent),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let headers = headers.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect();
        Some(InboxRecord { key, headers, body: body.clone() })
    }
}

impl InboxRecord {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Marks a record that leaves the spool now, and one whose signed timestamp is older than `limit`: its repeat may have
    /// been published, and forgotten. It becomes a dead letter.
    pub fn leave_spool(&mut self, limit: Duration, now: Timestamp) {
        self.headers.push((Cow::Borrowed(header::SPOOLED), format!("{now:.9}")));
        let signed = self.header(header::TIMESTAMP).and_then(|text| text.parse().ok());
        let Some(signed) = signed.and_then(|seconds| Timestamp::from_second(seconds).ok()) else { return };
        let age = now.duration_since(signed);
        if age > SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX) {
            let detail = format!(
                "signed at {signed}, taken from the spool at {now:.0}: an event that old may have been published and forgotten"
            );
            self.headers.push((Cow::Borrowed(header::SPOOLED_TOO_LONG), detail));
        }
    }
}

/// Where a record stands in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Partition of the inbox.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// As [`Position`] is written; anything else is no position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted PARTITION:OFFSET, such as 3:1207")]
pub struct NoPosition;

impl std::str::FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let (partition, offset) = text.split_once(':').ok_or(NoPosition)?;
        // Rust's numbers may have a sign.
        if text.contains(['+', '-']) {
            return Err(NoPosition);
        }
        let partition = partition.parse().map_err(|_| NoPosition)?;
        Ok(Self { partition, offset: offset.parse().map_err(|_| NoPosition)? })
    }
}

/// What the forward half makes of an inbox record.
#[derive(Debug)]
pub struct StoredDelivery<'a> {
    /// The configured name of the source.
    pub source: &'a str,
    /// When intake had read the delivery.
    pub received: Timestamp,
    /// 0 to 3.
    pub retry: &'a str,
    /// When the event occurred.
    pub timestamp: Timestamp,
    /// `traceparent`, where one came in.
    pub traceparent: Option<&'a str>,
    /// Whether it waited in the spool.
    pub spooled: bool,
    /// Why it may have been published and forgotten, where it waited there for too long.
    pub spooled_too_long: Option<&'a str>,
    /// The event, or why it is none.
    pub reading: Result<Event<'a>, String>,
    /// SHA-256 of the body.
    pub digest: BodyDigest,
    /// Of a dead letter that was put back: where it stood.
    pub redriven: Option<Position>,
}

/// Why an inbox record cannot be taken as it stands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a later version of the relay: the partition waits for that version.
    #[error("inbox record of format {0:?}, this version reads {FORMAT:?}")]
    NewerFormat(String),
    /// Not written by intake: a dead letter.
    #[error("not written by the relay's intake: {0}")]
    Foreign(String),
}

impl<'a> StoredDelivery<'a> {
    /// Whether it came to the inbox as it came in: what waited, or was put back, tells nothing of clocks and of speed.
    pub fn is_fresh(&self) -> bool {
        self.redriven.is_none() && !self.spooled
    }

    /// Reads a record's headers. The body is parsed only where they do not tell what it is.
    pub fn read(
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
        body: &'a [u8],
    ) -> Result<Self, Unreadable> {
        // The format first: what the other headers of a newer one look like is not known.
        check_format(headers.clone().find(|(name, _)| *name == header::FORMAT).and_then(|(_, value)| value))?;
        let found = Found::collect(headers)?;
        let required = |value: Option<&'a str>, name| value.ok_or_else(|| absent(name));
        let digest_text = required(found.digest, header::BODY_SHA256)?;
        let mut digest = BodyDigest::default();
        hex::decode_to_slice(digest_text, &mut digest)
            .map_err(|_| wrong(header::BODY_SHA256, digest_text))?;
        let received_text = required(found.received, header::RECEIVED)?;
        let timestamp_text = required(found.timestamp, header::TIMESTAMP)?;
        Ok(Self {
            source: required(found.source, header::SOURCE)?,
            received: received_text.parse().map_err(|_| wrong(header::RECEIVED, received_text))?,
            retry: required(found.retry, header::RETRY)?,
            timestamp: timestamp_text
                .parse()
                .ok()
                .and_then(|seconds| Timestamp::from_second(seconds).ok())
                .ok_or_else(|| wrong(header::TIMESTAMP, timestamp_text))?,
            traceparent: found.traceparent,
            spooled: found.spooled.is_some(),
            spooled_too_long: found.spooled_too_long,
            reading: found.reading(body)?,
            digest,
            redriven: found
                .redriven
                .map(|text| text.parse().map_err(|_| wrong(header::REDRIVEN, text)))
                .transpose()?,
        })
    }

    /// Who it is: what has no readable id is told by its body.
    pub fn fingerprint(&self) -> Fingerprint {
        match &self.reading {
            Ok(event) => Fingerprint::event(self.source, event.request, &event.id),
            Err(_) => Fingerprint::body(self.source, &self.digest),
        }
    }

    /// The key of its record in the inbox.
    pub fn key(&self) -> String {
        self.reading.as_ref().map_or_else(|_| hex::encode(self.digest), Event::key)
    }
}

fn check_format(found: Option<&[u8]>) -> Result<(), Unreadable> {
    format::check(found, FORMAT).map_err(|unread| match unread {
        Unread::Newer(found) => Unreadable::NewerFormat(found),
        Unread::Foreign(found) => wrong(header::FORMAT, &found),
        Unread::Absent => absent(header::FORMAT),
    })
}

fn absent(name: &str) -> Unreadable {
    Unreadable::Foreign(format!("no header `{name}`"))
}

fn wrong(name: &str, value: &str) -> Unreadable {
    Unreadable::Foreign(format!("header `{name}` is {value:?}"))
}

/// The headers by name, as text.
#[derive(Default)]
struct Found<'a> {
    source: Option<&'a str>,
    received: Option<&'a str>,
    retry: Option<&'a str>,
    timestamp: Option<&'a str>,
    id: Option<&'a str>,
    request: Option<&'a str>,
    kind: Option<&'a str>,
    sub_type: Option<&'a str>,
    malformed: Option<&'a str>,
    digest: Option<&'a str>,
    traceparent: Option<&'a str>,
    redriven: Option<&'a str>,
    spooled: Option<&'a str>,
    spooled_too_long: Option<&'a str>,
}

impl<'a> Found<'a> {
    fn collect(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Result<Self, Unreadable> {
        let mut found = Self::default();
        for (name, value) in headers {
            let slot = match name {
                header::SOURCE => &mut found.source,
                header::RECEIVED => &mut found.received,
                header::RETRY => &mut found.retry,
                header::TIMESTAMP => &mut found.timestamp,
                header::ID => &mut found.id,
                header::REQUEST => &mut found.request,
                header::TYPE => &mut found.kind,
                header::SUB_TYPE => &mut found.sub_type,
                header::MALFORMED => &mut found.malformed,
                header::BODY_SHA256 => &mut found.digest,
                header::TRACEPARENT => &mut found.traceparent,
                header::REDRIVEN => &mut found.redriven,
                header::SPOOLED => &mut found.spooled,
                header::SPOOLED_TOO_LONG => &mut found.spooled_too_long,
                _ => continue,
            };
            let value = value.and_then(|value| std::str::from_utf8(value).ok());
            *slot = Some(value.ok_or_else(|| Unreadable::Foreign(format!("header `{name}` is not text")))?);
        }
        Ok(found)
    }

    fn reading(&self, body: &'a [u8]) -> Result<Result<Event<'a>, String>, Unreadable> {
        if let Some(reason) = self.malformed {
            return Ok(Err(reason.to_owned()));
        }
        if let (Some(id), Some(kind)) = (self.id, self.kind) {
            let request = self.request.map(|text| text.parse().map_err(|_| wrong(header::REQUEST, text)));
            return Ok(Ok(Event {
                id: id.into(),
                request: request.transpose()?,
                kind: kind.into(),
                sub_type: self.sub_type.map(Into::into),
            }));
        }
        match event::read(body) {
            Reading::Event(event) => Ok(Ok(event)),
            Reading::Malformed(malformed) => Ok(Err(malformed.reason)),
            Reading::Ping => Ok(Err("a ping, wanted an event".to_owned())),
        }
    }
}
