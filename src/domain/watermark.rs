//! How far ClearFeed's requests were looked at, of each source: kept in the ledger of partition 0, in a header that versions
//! before this one do not read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fingerprint::{BodyHash, body_digest};
use super::snapshot::Snapshot;

/// The header of a ledger record that has the watermarks.
pub const HEADER: &str = "reconcile";

/// Looked at again each time, beyond the grace: what changed while pages were read, and clocks that are apart.
const OVERLAP: Duration = Duration::from_secs(5 * 60);
/// States that are remembered at once. Of more changes than these within the overlap the oldest are published once more.
const MAX_SEEN: usize = 20_000;
/// Of these the newest stand in the ledger, for who takes over: 150 KB of JSON.
const MAX_KEPT: usize = 4_000;
/// What one takes in JSON: 20 digits of a hash, 13 of a time, and signs.
const KEPT_BYTES: usize = 40;

/// By source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermarks(BTreeMap<String, Watermark>);

/// Of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Newest `updated_at` so far, in ms since 1970.
    updated_ms: i64,
    /// Up to here it is decided which events never came, in ms since 1970.
    judged_ms: i64,
    /// States that were published: 64 bits of the hash, and their `updated_at` in ms.
    seen: BTreeMap<u64, i64>,
}

impl Watermarks {
    /// The header's value: JSON of about so many bytes at most.
    pub fn encode(&self, max_bytes: usize) -> Vec<u8> {
        let kept = MAX_KEPT.min(max_bytes / KEPT_BYTES / self.0.len().max(1));
        let mut watermarks = self.clone();
        watermarks.0.values_mut().for_each(|watermark| watermark.keep_newest(kept));
        // A map of text to numbers can always be written.
        serde_json::to_vec(&watermarks).unwrap_or_default()
    }

    /// Reads the header. What a later version wrote otherwise is none: then requests are looked at from the beginning, and
    /// some snapshots come twice.
    pub fn decode(header: &[u8]) -> Option<Self> {
        serde_json::from_slice(header).ok()
    }

    /// Of this source.
    pub fn get(&self, source: &str) -> Option<&Watermark> {
        self.0.get(source)
    }

    /// With this one in place of the source's last.
    #[must_use]
    pub fn with(&self, source: &str, watermark: Watermark) -> Self {
        let mut watermarks = self.clone();
        watermarks.0.insert(source.to_owned(), watermark);
        watermarks
    }

    /// Whether nothing was ever looked at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Watermark {
    /// Nothing after this instant was looked at.
    pub fn beginning(at: Timestamp) -> Self {
        Self { updated_ms: at.as_millisecond(), judged_ms: at.as_millisecond(), seen: BTreeMap::new() }
    }

    /// The newest change so far.
    pub fn updated(&self) -> Timestamp {
        Timestamp::from_millisecond(self.updated_ms).unwrap_or_default()
    }

    /// Up to here it is decided which events never came.
    pub fn judged(&self) -> Timestamp {
        Timestamp::from_millisecond(self.judged_ms).unwrap_or_default()
    }

    /// Changes since then are to be asked for: all that a successor has to know to decide which events never came.
    pub fn ask_from(&self, grace: Duration) -> Timestamp {
        let overlap_ms = i64::try_from((OVERLAP + grace).as_millis()).unwrap_or(i64::MAX);
        let from_ms = self.updated_ms.min(self.judged_ms).saturating_sub(overlap_ms);
        Timestamp::from_millisecond(from_ms).unwrap_or_default()
    }

    /// Whether this state was not published yet.
    pub fn is_news(&self, snapshot: &Snapshot) -> bool {
        !self.seen.contains_key(&hash(snapshot))
    }

    /// Takes back to `until` what a clock that was ahead has judged; says whether there was any.
    pub fn judged_ahead_of(&mut self, now: Timestamp, until: Timestamp) -> bool {
        let is_ahead = self.judged_ms > now.as_millisecond();
        if is_ahead {
            self.judged_ms = until.as_millisecond();
        }
        is_ahead
    }

    /// A state is published.
    pub fn published(&mut self, snapshot: &Snapshot) {
        let updated_ms = snapshot.updated.map_or(self.updated_ms, Timestamp::as_millisecond);
        self.seen.insert(hash(snapshot), updated_ms);
        self.updated_ms = self.updated_ms.max(updated_ms);
    }

    /// Events up to this instant were judged; what is not looked at again is forgotten.
    pub fn judged_until(&mut self, at: Timestamp, grace: Duration) {
        self.judged_ms = self.judged_ms.max(at.as_millisecond());
        let from_ms = self.ask_from(grace).as_millisecond();
        self.seen.retain(|_, updated_ms| *updated_ms >= from_ms);
    }

    /// Forgets the oldest states where they are too many.
    pub fn trim(&mut self) {
        self.keep_newest(MAX_SEEN);
    }

    fn keep_newest(&mut self, most: usize) {
        let Some(surplus) = self.seen.len().checked_sub(most + 1) else { return };
        let mut times: Vec<i64> = self.seen.values().copied().collect();
        let (_, newest_to_go, _) = times.select_nth_unstable(surplus);
        let newest_to_go = *newest_to_go;
        self.seen.retain(|_, updated_ms| *updated_ms > newest_to_go);
    }
}

fn hash(snapshot: &Snapshot) -> u64 {
    BodyHash::from(&body_digest(snapshot.json().as_bytes())).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const GRACE: Duration = Duration::from_secs(600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_793_901_532 + second).unwrap()
    }

    fn snapshot(id: u64, second: i64) -> Snapshot {
        let json = format!(r#"{{"id":{id},"updated_at":"{}"}}"#, at(second));
        Snapshot::read(RawValue::from_string(json).unwrap()).unwrap()
    }

    #[test]
    fn a_state_is_news_once_and_another_state_again() {
        let mut mark = Watermark::beginning(at(0));
        assert!(mark.is_news(&snapshot(1, 5)));
        mark.published(&snapshot(1, 5));
        assert!(!mark.is_news(&snapshot(1, 5)) && mark.is_news(&snapshot(1, 6)));
        assert_eq!((mark.updated(), mark.judged()), (at(5), at(0)));
        mark.published(&snapshot(2, 3));
        assert_eq!(mark.updated(), at(5), "what is told late moves nothing back");
    }

    #[test]
    fn what_is_not_asked_for_again_is_forgotten_and_the_rest_comes_back_from_the_header() {
        let mut mark = Watermark::beginning(at(0));
        (0..3000).for_each(|second| mark.published(&snapshot(1, second)));
        mark.judged_until(at(2000), GRACE);
        assert_eq!(mark.ask_from(GRACE), at(2000 - 900));
        assert!(mark.is_news(&snapshot(1, 1000)) && !mark.is_news(&snapshot(1, 2999)));
        mark.judged_until(at(1000), GRACE);
        assert_eq!(mark.judged(), at(2000), "never back");
        assert!(!mark.judged_ahead_of(at(2000), at(1400)) && mark.judged() == at(2000));
        let mut ahead = mark.clone();
        assert!(ahead.judged_ahead_of(at(1999), at(1399)), "but where it cannot have been that late yet");
        assert_eq!(ahead.judged(), at(1399));
        let marks = Watermarks::default().with("main", mark.clone());
        assert_eq!(Watermarks::decode(&marks.encode(usize::MAX)), Some(marks.clone()));
        assert_eq!((marks.get("main"), marks.get("other")), (Some(&mark), None));
        assert_eq!(Watermarks::decode(b"{\"main\":1}"), None);
        assert_eq!(Watermarks::decode(b"v2"), None);
    }

    #[test]
    fn the_newest_states_are_kept_where_there_is_no_room_for_all() {
        let mut mark = Watermark::beginning(at(0));
        (0..3000).for_each(|second| mark.published(&snapshot(1, second)));
        let marks = Watermarks::default().with("main", mark.clone()).with("other", mark);
        let header = marks.encode(32 * 1024);
        assert!(header.len() < 33 * 1024, "{}", header.len());
        let kept = Watermarks::decode(&header).unwrap();
        let kept = kept.get("other").unwrap();
        assert!(!kept.is_news(&snapshot(1, 2999)) && kept.is_news(&snapshot(1, 0)));
        assert_eq!(kept.seen.len(), 32 * 1024 / 40 / 2);
    }
}
