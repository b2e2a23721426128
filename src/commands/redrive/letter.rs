//! One dead letter: who it is, and whether it may be put back. Pure.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use clearfeed_relay::domain::dead_letter::DeadLetter;
use clearfeed_relay::domain::event_record::DeadLetterReason;
use clearfeed_relay::domain::fingerprint::{Fingerprint, body_digest};
use clearfeed_relay::domain::inbox_record::{Position, StoredDelivery, Unreadable};
use clearfeed_relay::domain::partitioner::partition_for_key;
use clearfeed_relay::domain::window::Fate;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Bodies that are read before they are written: they have room in the producer's queue.
const CHUNK_BYTES: usize = 16 << 20;
/// The same, in records.
const CHUNK_RECORDS: usize = 10_000;

/// A record of the dead-letter topic, as it was consumed.
pub(super) struct Found<'a> {
    /// Where it stands in the dead-letter topic.
    pub(super) place: Position,
    /// By that topic's clock, in ms since 1970; 0: not known, and so older than anything.
    pub(super) became_ms: i64,
    pub(super) key: &'a [u8],
    pub(super) headers: Vec<(&'a str, Option<&'a [u8]>)>,
    pub(super) body: &'a [u8],
}

/// What is kept of a dead letter to decide about it and to list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Letter {
    /// Where it stood in the inbox.
    #[serde(serialize_with = "as_text")]
    pub(super) inbox: Position,
    /// When it became a dead letter.
    #[serde(serialize_with = "as_text")]
    pub(super) became: Timestamp,
    pub(super) reason: String,
    pub(super) detail: String,
    pub(super) source: Option<String>,
    pub(super) request: Option<u64>,
    pub(super) id: Option<String>,
    /// Of its body.
    pub(super) bytes: usize,
    /// Where it stands in the dead-letter topic.
    #[serde(skip)]
    pub(super) place: Position,
    /// Who it is to the window of ids.
    #[serde(skip)]
    pub(super) print: Fingerprint,
    /// Why it stays a dead letter whatever else is known.
    #[serde(skip)]
    flaw: Option<Left>,
}

/// Why a dead letter is not put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Left {
    Conflict,
    Foreign,
    NewerFormat,
    Cut,
    OtherInbox,
    Published,
    DiedAgain,
    Forgotten,
}

impl Left {
    /// The word that JSON has, too.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Foreign => "foreign",
            Self::NewerFormat => "newer_format",
            Self::Cut => "cut",
            Self::OtherInbox => "other_inbox",
            Self::Published => "published",
            Self::DiedAgain => "died_again",
            Self::Forgotten => "forgotten",
        }
    }

    /// For people.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Conflict => "another body has the same id: never put back",
            Self::Foreign => "not written by the relay's intake: it would be a dead letter again",
            Self::NewerFormat => "written by a later version of the relay: put it back with that version",
            Self::Cut => "only the beginning of it was kept",
            Self::OtherInbox => "it stood in an inbox with another number of partitions",
            Self::Published => "put back before, and published",
            Self::DiedAgain => "put back before, and a dead letter again, which is another one of these",
            Self::Forgotten => {
                "older than dedup.window, spooled_too_long, or not in the ledger: whether it was published is not known; \
                 --forgotten puts it back, and may repeat an event"
            }
        }
    }
}

/// By what is decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) now: Timestamp,
    /// `dedup.window`
    pub(super) window: Duration,
    /// `--forgotten`
    pub(super) forgotten: bool,
}

impl Letter {
    /// Reads a record; nothing where the relay's forward half did not write it.
    pub(super) fn read(found: &Found<'_>, inbox_partitions: i32) -> Option<Self> {
        let letter = DeadLetter::read(found.headers.iter().copied())?;
        let delivery = StoredDelivery::read(letter.original.iter().copied(), found.body);
        let digest = body_digest(found.body);
        let flaw = match &delivery {
            _ if letter.reason == DeadLetterReason::Conflict.as_str() => Some(Left::Conflict),
            // The key is made of the whole body.
            _ if found.key != hex::encode(digest).as_bytes() => Some(Left::Cut),
            Err(Unreadable::NewerFormat(_)) => Some(Left::NewerFormat),
            Err(Unreadable::Foreign(_)) => Some(Left::Foreign),
            Ok(delivery) => {
                let partition = partition_for_key(delivery.key().as_bytes(), inbox_partitions);
                (partition != letter.position.partition).then_some(Left::OtherInbox)
            }
        };
        let delivery = delivery.ok();
        let event = delivery.as_ref().and_then(|delivery| delivery.reading.as_ref().ok());
        Some(Self {
            inbox: letter.position,
            became: Timestamp::from_millisecond(found.became_ms).unwrap_or_default(),
            reason: letter.reason.to_owned(),
            detail: letter.detail.to_owned(),
            source: delivery.as_ref().map(|delivery| delivery.source.to_owned()),
            request: event.and_then(|event| event.request),
            id: event.map(|event| event.id.clone().into_owned()),
            bytes: found.body.len(),
            place: found.place,
            print: delivery.map_or(Fingerprint::body("", &digest), |delivery| delivery.fingerprint()),
            flaw,
        })
    }

    /// Why it is not put back, if it is not. `known` is what the ledger says last of who it is: at which offset it was new,
    /// and what became of it.
    pub(super) fn left(&self, known: Option<(i64, Fate)>, terms: Terms) -> Option<Left> {
        let age = terms.now.duration_since(self.became);
        let is_forgotten = self.reason == DeadLetterReason::SpooledTooLong.as_str()
            || age.unsigned_abs() > terms.window && age.is_positive();
        match (self.flaw, known) {
            (Some(flaw), _) => Some(flaw),
            (None, Some((offset, fate))) if offset != self.inbox.offset || fate == Fate::Published => {
                Some(if fate == Fate::Published { Left::Published } else { Left::DiedAgain })
            }
            (None, known) => {
                ((is_forgotten || known.is_none()) && !terms.forgotten).then_some(Left::Forgotten)
            }
        }
    }
}

/// Sorts what is put back. Letters of one inbox partition stay in the order of the inbox, so that events of one request come in
/// their old order; all together they follow the time, so that those that are read together stand together.
pub(super) fn sort(letters: &mut [Letter]) {
    letters.sort_by_key(|letter| letter.inbox);
    // A clock that fell back must not part them.
    let (mut partition, mut latest) = (None, Timestamp::MIN);
    let mut times = BTreeMap::new();
    for letter in letters.iter() {
        if partition != Some(letter.inbox.partition) {
            (partition, latest) = (Some(letter.inbox.partition), Timestamp::MIN);
        }
        latest = latest.max(letter.became);
        times.insert(letter.place, latest);
    }
    letters.sort_by_key(|letter| times.get(&letter.place).copied());
}

/// How many of these are read and written together: at least one.
pub(super) fn chunk(letters: &[Letter]) -> usize {
    let mut room = CHUNK_BYTES;
    let fits = letters.iter().take(CHUNK_RECORDS).take_while(|letter| {
        let fits = room.checked_sub(letter.bytes);
        room = fits.unwrap_or(0);
        fits.is_some()
    });
    fits.count().max(1)
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(25 * 3600);

    /// A dead letter as the forward half writes it of an event of request 352, but for what a test changes.
    struct Case {
        headers: Vec<(&'static str, String)>,
        key: String,
        became_ms: i64,
        partitions: i32,
    }

    impl Case {
        fn new(reason: &str) -> Self {
            let digest = hex::encode(body_digest(b"{}"));
            let partition = partition_for_key(b"352", 12);
            let headers = [
                ("reason", reason.to_owned()),
                ("detail", "why".to_owned()),
                ("inbox", format!("{partition}:7")),
                ("v", "1".to_owned()),
                ("source", "main".to_owned()),
                ("received", "2026-11-24T00:00:00Z".to_owned()),
                ("retry", "0".to_owned()),
                ("timestamp", "1793901532".to_owned()),
                ("id", "a".to_owned()),
                ("request", "352".to_owned()),
                ("type", "request".to_owned()),
                ("body-sha256", digest.clone()),
            ];
            Self { headers: headers.to_vec(), key: digest, became_ms: 1_000_000, partitions: 12 }
        }

        fn read(&self) -> Option<Letter> {
            let found = Found {
                place: Position { partition: 0, offset: 0 },
                became_ms: self.became_ms,
                key: self.key.as_bytes(),
                headers: self.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
                body: b"{}",
            };
            Letter::read(&found, self.partitions)
        }

        /// What becomes of it so many hours later, where the ledger says that it is a dead letter.
        fn left(&self, hours: i64, forgotten: bool) -> Option<Left> {
            let letter = self.read().unwrap();
            letter.left(Some((letter.inbox.offset, Fate::DeadLetter)), terms(hours, forgotten))
        }
    }

    fn terms(hours: i64, forgotten: bool) -> Terms {
        let now = Timestamp::from_millisecond(1_000_000 + hours * 3_600_000).unwrap();
        Terms { now, window: WINDOW, forgotten }
    }

    #[test]
    fn what_is_older_than_the_window_wants_to_be_asked_for() {
        for reason in ["no_topic", "malformed", "too_large", "unknown_source", "a_word_of_a_later_version"] {
            assert_eq!(Case::new(reason).left(25, false), None, "{reason}");
            assert_eq!(Case::new(reason).left(26, false), Some(Left::Forgotten), "{reason}");
            assert_eq!(Case::new(reason).left(26, true), None, "{reason}");
        }
        assert_eq!(Case::new("no_topic").left(-1, false), None, "a clock that is ahead");
        assert_eq!(
            Case::new(DeadLetterReason::SpooledTooLong.as_str()).left(0, false),
            Some(Left::Forgotten)
        );
        assert_eq!(Case::new(DeadLetterReason::SpooledTooLong.as_str()).left(0, true), None);
    }

    #[test]
    fn a_conflict_is_never_put_back_nor_what_is_not_whole_or_not_of_this_inbox() {
        for forgotten in [false, true] {
            assert_eq!(Case::new("conflict").left(0, forgotten), Some(Left::Conflict));
            let cut = Case { key: hex::encode(body_digest(b"longer")), ..Case::new("malformed") };
            assert_eq!(cut.left(0, forgotten), Some(Left::Cut));
            let moved = Case { partitions: 13, ..Case::new("no_topic") };
            assert_eq!(moved.left(0, forgotten), Some(Left::OtherInbox));
            let mut foreign = Case::new("malformed");
            foreign.headers.truncate(4);
            assert_eq!(foreign.left(0, forgotten), Some(Left::Foreign));
        }
    }

    #[test]
    fn the_ledger_tells_what_was_put_back_before() {
        let letter = Case::new("no_topic").read().unwrap();
        for forgotten in [false, true] {
            let left = |known| letter.left(known, terms(0, forgotten));
            assert_eq!(left(Some((7, Fate::DeadLetter))), None);
            assert_eq!(left(Some((9, Fate::Published))), Some(Left::Published));
            assert_eq!(left(Some((9, Fate::DeadLetter))), Some(Left::DiedAgain));
            assert_eq!(left(None), (!forgotten).then_some(Left::Forgotten));
        }
    }

    #[test]
    fn copies_follow_the_inbox_within_a_partition_and_the_time_otherwise() {
        let letter = |partition, offset, became_s| Letter {
            inbox: Position { partition, offset },
            became: Timestamp::from_second(became_s).unwrap(),
            // Another place for each.
            place: Position { partition, offset },
            ..Case::new("no_topic").read().unwrap()
        };
        // In partition 0 a clock fell back between two owners.
        let mut letters =
            [letter(0, 3, 20), letter(1, 9, 15), letter(0, 1, 30), letter(0, 2, 10), letter(1, 1, 10)];
        sort(&mut letters);
        let places = letters.map(|letter| letter.inbox.to_string());
        assert_eq!(places, ["1:1", "1:9", "0:1", "0:2", "0:3"]);
    }

    #[test]
    fn as_many_are_read_together_as_have_room() {
        let letters = |count, bytes| vec![Letter { bytes, ..Case::new("no_topic").read().unwrap() }; count];
        assert_eq!(chunk(&letters(3, 100)), 3);
        assert_eq!(chunk(&letters(20_000, 100)), CHUNK_RECORDS);
        assert_eq!(chunk(&letters(100, 1 << 20)), 16);
        assert_eq!(chunk(&letters(2, CHUNK_BYTES + 1)), 1);
    }

    #[test]
    fn a_record_that_is_no_dead_letter_is_none() {
        let mut case = Case::new("no_topic");
        case.headers.remove(0);
        assert_eq!(case.read(), None);
    }
}
