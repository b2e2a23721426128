//! A request as ClearFeed's REST API tells it, and the record that it becomes.
//!
//! It is the request's state at the moment of asking, never an event: it goes to a topic of its own.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event_record::Outgoing;
use super::fingerprint::body_digest;

/// Digest bytes in a snapshot's `ce_id`: the same state of a request has the same id.
const ID_DIGEST_BYTES: usize = 16;

/// The state of one request.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The request's id.
    pub request: u64,
    /// `created_at`, where it could be read.
    pub created: Option<Timestamp>,
    /// `updated_at`, where it could be read.
    pub updated: Option<Timestamp>,
    /// Its JSON, byte for byte as it came.
    raw: Box<RawValue>,
}

/// The few members that mean something here. Whatever else is there, is missing, or has another shape, is none of our
/// business.
#[derive(Deserialize)]
struct Members<'a> {
    id: u64,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    updated_at: Option<&'a RawValue>,
}

impl Snapshot {
    /// Reads a request of a page. The error says what is wrong with it.
    pub fn read(raw: Box<RawValue>) -> Result<Self, String> {
        // serde would take an array for a struct, its elements in order.
        if !raw.get().starts_with('{') {
            return Err("no object".to_owned());
        }
        let Members { id, created_at, updated_at } =
            serde_json::from_str(raw.get()).map_err(|error| format!("wanted an integer `id`: {error}"))?;
        Ok(Self { request: id, created: instant(created_at), updated: instant(updated_at), raw })
    }

    /// Its JSON, byte for byte as it came.
    pub fn json(&self) -> &str {
        self.raw.get()
    }

    /// The record of the snapshot topic, whose value is [`Snapshot::json`]: CloudEvents 1.0, binary mode.
    pub fn record(&self, source: &str) -> Outgoing {
        let key = self.request.to_string();
        let digest = hex::encode(&body_digest(self.json().as_bytes())[..ID_DIGEST_BYTES]);
        let fixed = [
            ("content-type", "application/json".to_owned()),
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", format!("{key}-{digest}")),
            ("ce_source", format!("/clearfeed/{source}")),
            ("ce_type", "ai.clearfeed.request.snapshot".to_owned()),
            ("ce_subject", key.clone()),
        ];
        let time = self.updated.or(self.created).map(|time| ("ce_time", time.to_string()));
        let headers = fixed.into_iter().chain(time).map(|(name, value)| (name.into(), value.into_bytes()));
        Outgoing { headers: headers.collect(), key, head_bytes: None }
    }
}

fn instant(value: Option<&RawValue>) -> Option<Timestamp> {
    let text: String = serde_json::from_str(value?.get()).ok()?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Snapshot, String> {
        Snapshot::read(RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn the_json_stays_as_it_came_and_the_members_are_read() {
        let json = r#"{ "title":"caf\u00e9","id" : 352, "created_at":"2026-11-05T17:18:52.775+01:00","updated_at":null }"#;
        let snapshot = read(json).unwrap();
        assert_eq!((snapshot.request, snapshot.json()), (352, json));
        assert_eq!(snapshot.created, Some("2026-11-05T16:18:52.775Z".parse().unwrap()));
        assert_eq!(snapshot.updated, None);
    }

    #[test]
    fn shapes_may_change_but_for_the_id() {
        for json in
            [r#"{"id":1}"#, r#"{"id":1,"created_at":7,"updated_at":{"a":[]}}"#, r#"{"new":[{}],"id":1}"#]
        {
            assert_eq!(read(json).unwrap().request, 1, "{json}");
        }
        for json in
            ["{}", "[1]", "null", r#"{"id":null}"#, r#"{"id":-1}"#, r#"{"id":1.5}"#, r#"{"id":1,"id":2}"#]
        {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_same_state_has_the_same_id_and_another_one_another() {
        let header = |snapshot: &Snapshot, name: &str| {
            let record = snapshot.record("main");
            let found = record.headers.into_iter().find(|(key, _)| key == name);
            found.map(|(_, value)| String::from_utf8(value).unwrap())
        };
        let open = read(r#"{"id":7,"state":"open","updated_at":"2026-11-05T17:18:52Z"}"#).unwrap();
        let solved = read(r#"{"id":7,"state":"solved"}"#).unwrap();
        assert_eq!(open.record("main"), open.clone().record("main"));
        assert_eq!(open.record("main").key, "7");
        assert_ne!(header(&open, "ce_id"), header(&solved, "ce_id"));
        assert_eq!(header(&open, "ce_type").as_deref(), Some("ai.clearfeed.request.snapshot"));
        assert_eq!(header(&open, "ce_source").as_deref(), Some("/clearfeed/main"));
        assert_eq!(header(&open, "ce_subject").as_deref(), Some("7"));
        assert_eq!(header(&open, "ce_time").as_deref(), Some("2026-11-05T17:18:52Z"));
        assert_eq!(header(&solved, "ce_time"), None);
    }
}
