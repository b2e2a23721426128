//! One owned partition of the inbox: what is decided about each of its records, and the ledger entry of a batch.
//!
//! Pure: a record in, a decision out. Decisions move the partition on at once; when their transaction does not take
//! place the partition is thrown away and taken over again from the ledger.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::config::Source;
use crate::domain::event::Event;
use crate::domain::event_record::{DeadLetterReason, Outgoing};
use crate::domain::fingerprint::{BodyDigest, BodyHash, Fingerprint, body_digest};
use crate::domain::inbox_record::{Position, StoredDelivery, Unreadable};
use crate::domain::ledger_entry::LedgerEntry;
use crate::domain::route::{Destination, TopicName};
use crate::domain::window::{Decided, Fate, Sighting, Verdict, Window};
use crate::telemetry::labels::{HeldReason, Label};

/// A record of the inbox, as it was consumed.
#[derive(Debug)]
pub struct InboxMessage<'a> {
    /// Where it stands.
    pub position: Position,
    /// The inbox's own time, in ms since 1970.
    pub appended_ms: i64,
    /// Names and values.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
    /// The value.
    pub body: &'a [u8],
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was there before.
    Repeat,
    /// It goes to an event topic.
    Publish {
        /// Which.
        topic: TopicName,
        /// As it will stand there.
        record: Outgoing,
        /// When intake had read it; nothing where it was a dead letter meanwhile, which says nothing about how quick we are.
        received: Option<Timestamp>,
    },
    /// It goes to the dead-letter topic.
    DeadLetter(DeadLetterReason, Outgoing),
}

/// Why no decision can be made now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Held {
    /// The word for it.
    pub reason: HeldReason,
    /// What was found and what is wanted.
    pub detail: String,
}

impl Held {
    /// Kafka refuses something, or is away.
    pub(super) fn by_kafka(detail: impl Into<String>) -> Self {
        Self { reason: HeldReason::Kafka, detail: detail.into() }
    }
}

/// Whether a topic named by an event's type may be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It exists (by now).
    Exists,
    /// It does not, and may not be created.
    Refused(String),
    /// Kafka would not say, or refused to create it: not the record's fault.
    Unavailable(String),
}

/// What decisions rest on beside the record and the window.
pub struct Rules<'a> {
    /// The configured sources.
    pub sources: &'a BTreeMap<String, Source>,
    /// The relay's own topics.
    pub reserved: &'a BTreeSet<TopicName>,
    /// Records that were refused for their size, and how often: by their event topic, then by the dead letters.
    pub oversized: &'a BTreeMap<Position, u32>,
    /// Asks whether a topic named by an event's type may be written to.
    pub admit: &'a dyn Fn(&TopicName) -> Admission,
}

impl Rules<'_> {
    /// How often the record was refused for its size.
    fn refusals(&self, position: Position) -> u32 {
        self.oversized.get(&position).copied().unwrap_or(0)
    }
}

/// A partition that is being forwarded.
#[derive(Debug)]
pub struct Partition {
    /// The ids that it remembers.
    pub window: Window,
    next: i64,
    last_ms: i64,
    draft: Draft,
}

/// What the next ledger entry will say.
#[derive(Debug, Default)]
struct Draft {
    from: i64,
    ids: Vec<Decided>,
}

impl Partition {
    /// A partition that goes on at `next`, whose record before had the inbox time `last_ms`.
    pub fn new(window: Window, next: i64, last_ms: i64) -> Self {
        Self { window, next, last_ms, draft: Draft { from: next, ids: Vec::new() } }
    }

    /// The inbox offset before which everything is decided in the ledger.
    pub fn stand(&self) -> i64 {
        self.draft.from
    }

    /// The next inbox offset.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Inbox time of the record before [`Partition::next`], in ms since 1970.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// Decides about the record at (or after) [`Partition::next`] and moves on behind it.
    pub fn decide(&mut self, message: &InboxMessage<'_>, rules: &Rules<'_>) -> Result<Decision, Held> {
        let decision = self.judge(message, rules)?;
        self.next = message.position.offset + 1;
        self.last_ms = message.appended_ms;
        self.window.advance(message.appended_ms);
        Ok(decision)
    }

    /// The ledger entry of everything that was decided since the last one.
    pub fn ledger_entry(&mut self, inbox_partitions: u32) -> LedgerEntry {
        let Draft { from, ids } =
            std::mem::replace(&mut self.draft, Draft { from: self.next, ids: Vec::new() });
        LedgerEntry {
            inbox_partitions,
            from,
            to: self.next,
            last_ms: self.last_ms,
            newest_ms: self.window.newest_ms(),
            ids,
        }
    }

    fn judge(&mut self, message: &InboxMessage<'_>, rules: &Rules<'_>) -> Result<Decision, Held> {
        match StoredDelivery::read(message.headers.iter().copied(), message.body) {
            Ok(_) if rules.refusals(message.position) > 1 => Err(no_room(message)),
            Ok(delivery) => match &delivery.reading {
                Ok(event) => self.judge_event(message, &delivery, event, rules),
                Err(malformed) => {
                    let identity = Identity {
                        print: delivery.fingerprint(),
                        digest: &delivery.digest,
                        redriven: redriven(message, &delivery),
                    };
                    Ok(self.unless_repeat(message, identity, DeadLetterReason::Malformed, malformed))
                }
            },
            Err(Unreadable::Foreign(detail)) => Ok(self.judge_foreign(message, &detail, rules)),
            Err(newer @ Unreadable::NewerFormat(_)) => {
                let detail = format!("{} at inbox offset {}", newer, message.position.offset);
                Err(Held { reason: HeldReason::NewerFormat, detail })
            }
        }
    }

    /// A record of another hand may be larger than any topic takes, and must not stop the partition: the dead letters
    /// get its head.
    fn judge_foreign(&mut self, message: &InboxMessage<'_>, detail: &str, rules: &Rules<'_>) -> Decision {
        let digest = body_digest(message.body);
        let identity = Identity { print: Fingerprint::body("", &digest), digest: &digest, redriven: None };
        if rules.refusals(message.position) == 0 {
            return self.unless_repeat(message, identity, DeadLetterReason::Malformed, detail);
        }
        let detail = format!("the head of a record that the dead-letter topic found too large: {detail}");
        match self.unless_repeat(message, identity, DeadLetterReason::Malformed, &detail) {
            Decision::DeadLetter(reason, record) => Decision::DeadLetter(reason, record.head()),
            decision => decision,
        }
    }

    fn judge_event(
        &mut self,
        message: &InboxMessage<'_>,
        delivery: &StoredDelivery<'_>,
        event: &Event<'_>,
        rules: &Rules<'_>,
    ) -> Result<Decision, Held> {
        // Asked before the id is filed: where Kafka would not say, nothing was decided.
        let destination = destination(message.position, delivery, event, rules)?;
        let fate = if destination.is_ok() { Fate::Published } else { Fate::DeadLetter };
        let sighting = sighting(message, delivery.fingerprint(), &delivery.digest);
        let decided = Decided { sighting, fate };
        match self.window.observe(decided, redriven(message, delivery)) {
            Verdict::Repeat { .. } => return Ok(Decision::Repeat),
            Verdict::Conflict { first_offset } => {
                let print =
                    Fingerprint::conflict(delivery.source, event.request, &event.id, &delivery.digest);
                // Whatever it names: the id is another body's, and stays that.
                let identity = Identity { print, digest: &delivery.digest, redriven: None };
                let detail =
                    format!("the same id with another body was first seen at inbox offset {first_offset}");
                return Ok(self.unless_repeat(message, identity, DeadLetterReason::Conflict, &detail));
            }
            Verdict::First => {}
        }
        self.draft.ids.push(decided);
        Ok(match destination {
            Ok(topic) => Decision::Publish {
                topic,
                record: Outgoing::event(delivery, event, message.position),
                received: delivery.is_fresh().then_some(delivery.received),
            },
            Err((reason, detail)) => dead_letter(message, &delivery.digest, reason, &detail),
        })
    }

    /// A dead letter of what has an identity of its own, unless it was there before.
    fn unless_repeat(
        &mut self,
        message: &InboxMessage<'_>,
        Identity { print, digest, redriven }: Identity<'_>,
        reason: DeadLetterReason,
        detail: &str,
    ) -> Decision {
        let decided = Decided { sighting: sighting(message, print, digest), fate: Fate::DeadLetter };
        if self.window.observe(decided, redriven) != Verdict::First {
            return Decision::Repeat;
        }
        self.draft.ids.push(decided);
        dead_letter(message, digest, reason, detail)
    }
}

/// What tells a record that is no event from its repeats.
#[derive(Clone, Copy)]
struct Identity<'a> {
    print: Fingerprint,
    digest: &'a BodyDigest,
    /// The offset of the dead letter that it is a copy of.
    redriven: Option<i64>,
}

/// The offset of the dead letter that the record is a copy of. One that names another partition is of another hand, and like
/// any other delivery.
fn redriven(message: &InboxMessage<'_>, delivery: &StoredDelivery<'_>) -> Option<i64> {
    let named = delivery.redriven.filter(|named| named.partition == message.position.partition)?;
    Some(named.offset)
}

fn dead_letter(
    message: &InboxMessage<'_>,
    digest: &BodyDigest,
    reason: DeadLetterReason,
    detail: &str,
) -> Decision {
    let headers = message.headers.iter().copied();
    Decision::DeadLetter(reason, Outgoing::dead_letter(reason, detail, message.position, digest, headers))
}

/// What is authentic goes to the dead letters whole: that they do not take it is not its own fault.
fn no_room(message: &InboxMessage<'_>) -> Held {
    let detail = format!(
        "the dead-letter topic does not take the record at inbox offset {}, with a body of {} bytes: raise its \
         max.message.bytes",
        message.position.offset,
        message.body.len()
    );
    Held { reason: HeldReason::Kafka, detail }
}

fn sighting(message: &InboxMessage<'_>, fingerprint: Fingerprint, digest: &BodyDigest) -> Sighting {
    let body = BodyHash::from(digest);
    Sighting { fingerprint, body, offset: message.position.offset, appended_ms: message.appended_ms }
}

/// The event's topic, or why it has none.
fn destination(
    position: Position,
    delivery: &StoredDelivery<'_>,
    event: &Event<'_>,
    rules: &Rules<'_>,
) -> Result<Result<TopicName, (DeadLetterReason, String)>, Held> {
    let Some(source) = rules.sources.get(delivery.source) else {
        let detail = format!("no section [sources.{}] in the configuration", delivery.source);
        return Ok(Err((DeadLetterReason::UnknownSource, detail)));
    };
    // One that was put back was put back in spite of that.
    if let (Some(detail), None) = (delivery.spooled_too_long, delivery.redriven) {
        return Ok(Err((DeadLetterReason::SpooledTooLong, detail.to_owned())));
    }
    if rules.refusals(position) > 0 {
        let detail = "larger than max.message.bytes of its topic".to_owned();
        return Ok(Err((DeadLetterReason::TooLarge, detail)));
    }
    let topic = match source.routes.destination(event, rules.reserved) {
        Destination::Configured(topic) => topic,
        Destination::FromType(topic) => match (rules.admit)(&topic) {
            Admission::Exists => topic,
            Admission::Refused(detail) => return Ok(Err((DeadLetterReason::NoTopic, detail))),
            Admission::Unavailable(detail) => return Err(Held { reason: HeldReason::Kafka, detail }),
        },
        Destination::None { detail } => return Ok(Err((DeadLetterReason::NoTopic, detail))),
    };
    Ok(Ok(topic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::domain::event_record::HEAD_BYTES;
    use std::time::Duration;

    const CONFIG: &str = r#"
        [sources.main]
        public_url = "https://hooks.example.com/clearfeed/events"
        signing_secret_files = ["secret"]
        [sources.main.routes]
        "request.updated" = "support.updates"
    "#;

    struct World {
        sources: BTreeMap<String, Source>,
        reserved: BTreeSet<TopicName>,
        oversized: BTreeMap<Position, u32>,
        admission: Admission,
        partition: Partition,
    }

    impl World {
        fn new() -> Self {
            let config = config::from_toml(CONFIG).unwrap();
            Self {
                reserved: crate::kafka::topic_rules::reserved(&config),
                sources: config.sources,
                oversized: BTreeMap::new(),
                admission: Admission::Exists,
                partition: Partition::new(Window::new(Duration::from_secs(3600)), 0, 0),
            }
        }

        fn decide(&mut self, offset: i64, headers: &[(&str, &str)], body: &str) -> Result<Decision, Held> {
            let message = InboxMessage {
                position: Position { partition: 3, offset },
                appended_ms: 1000 + offset,
                headers: headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
                body: body.as_bytes(),
            };
            let rules = Rules {
                sources: &self.sources,
                reserved: &self.reserved,
                oversized: &self.oversized,
                admit: &|_| self.admission.clone(),
            };
            self.partition.decide(&message, &rules)
        }

        /// An event as intake writes it.
        fn event(&mut self, offset: i64, id: &str, kind: &str, body: &str) -> Result<Decision, Held> {
            self.delivery(offset, &[("id", id), ("request", "352"), ("type", kind)], body)
        }

        /// A delivery as intake writes it, with what could be read of it, or what else is wanted.
        fn delivery(&mut self, offset: i64, more: &[(&str, &str)], body: &str) -> Result<Decision, Held> {
            let digest = hex::encode(body_digest(body.as_bytes()));
            let fixed = [
                ("v", "1"),
                ("source", "main"),
                ("received", "2026-11-24T00:00:00.000000001Z"),
                ("retry", "0"),
                ("timestamp", "1793901532"),
                ("body-sha256", &digest),
            ];
            self.decide(offset, &[&fixed[..], more].concat(), body)
        }
    }

    fn reason(decision: &Decision) -> DeadLetterReason {
        match decision {
            Decision::DeadLetter(reason, _) => *reason,
            other => panic!("no dead letter: {other:?}"),
        }
    }

    #[test]
    fn an_event_is_published_once_and_its_repeats_are_dropped() {
        let mut world = World::new();
        let Ok(Decision::Publish { topic, record, .. }) = world.event(0, "a", "request", "{}") else {
            panic!("not published");
        };
        assert_eq!((topic.as_str(), record.key.as_str()), ("clearfeed.request", "352"));
        assert_eq!(world.event(1, "a", "request", "{}"), Ok(Decision::Repeat));
        let entry = world.partition.ledger_entry(12);
        assert_eq!((entry.from, entry.to, entry.last_ms, entry.ids.len()), (0, 2, 1001, 1));
        assert_eq!(world.partition.ledger_entry(12).ids, [], "an id stands in the ledger once");
    }

    #[test]
    fn the_same_id_with_another_body_is_a_conflict_and_then_a_repeat() {
        let mut world = World::new();
        world.event(0, "a", "request", "{}").unwrap();
        assert_eq!(reason(&world.event(1, "a", "request", "[]").unwrap()), DeadLetterReason::Conflict);
        assert_eq!(world.event(2, "a", "request", "[]"), Ok(Decision::Repeat));
        assert_eq!(world.event(3, "a", "request", "{}"), Ok(Decision::Repeat));
        assert_eq!(world.partition.ledger_entry(12).ids.len(), 2);
    }

    #[test]
    fn a_record_of_another_hand_is_a_dead_letter_and_the_partition_goes_on() {
        let mut world = World::new();
        for (offset, headers) in [(0, &[][..]), (1, &[("v", "1")]), (2, &[("v", "1"), ("body-sha256", "x")])]
        {
            let body = format!("garbage {offset}");
            let decision = world.decide(offset, headers, &body).unwrap();
            assert_eq!(reason(&decision), DeadLetterReason::Malformed);
        }
        assert_eq!(world.decide(3, &[], "garbage 0"), Ok(Decision::Repeat));
        assert_eq!(world.partition.next(), 4);
    }

    #[test]
    fn a_newer_format_holds_the_partition_where_it_is() {
        let mut world = World::new();
        let held = world.decide(0, &[("v", "2")], "").unwrap_err();
        assert_eq!(held.reason, HeldReason::NewerFormat);
        assert_eq!(world.partition.next(), 0);
    }

    #[test]
    fn a_topic_that_may_not_be_is_the_records_fault_and_one_that_cannot_be_asked_for_is_not() {
        let mut world = World::new();
        world.admission = Admission::Refused("no".to_owned());
        assert_eq!(reason(&world.event(0, "a", "new", "{}").unwrap()), DeadLetterReason::NoTopic);
        assert_eq!(reason(&world.event(1, "b", "NEW", "{}").unwrap()), DeadLetterReason::NoTopic);
        assert_eq!(reason(&world.event(2, "c", "inbox", "{}").unwrap()), DeadLetterReason::NoTopic);
        world.admission = Admission::Unavailable("away".to_owned());
        assert_eq!(world.event(3, "d", "new", "{}").unwrap_err().reason, HeldReason::Kafka);
        assert_eq!(world.partition.next(), 3);
        world.admission = Admission::Exists;
        assert!(
            matches!(world.event(3, "d", "new", "{}"), Ok(Decision::Publish { .. })),
            "nothing was filed"
        );
    }

    #[test]
    fn a_dead_letter_that_is_put_back_is_published_once_and_says_nothing_of_our_speed() {
        let mut world = World::new();
        let copy =
            |named: &'static str| [("id", "a"), ("request", "352"), ("type", "new"), ("redriven", named)];
        world.admission = Admission::Refused("no".to_owned());
        assert_eq!(reason(&world.event(0, "a", "new", "{}").unwrap()), DeadLetterReason::NoTopic);
        assert_eq!(reason(&world.delivery(1, &copy("3:0"), "{}").unwrap()), DeadLetterReason::NoTopic);
        world.admission = Admission::Exists;
        assert_eq!(world.delivery(2, &copy("3:0"), "{}"), Ok(Decision::Repeat), "that one died again, at 1");
        assert_eq!(world.delivery(3, &copy("2:1"), "{}"), Ok(Decision::Repeat), "another partition's");
        assert_eq!(reason(&world.delivery(4, &copy("3:1"), "[]").unwrap()), DeadLetterReason::Conflict);
        assert_eq!(world.delivery(5, &copy("3:4"), "[]"), Ok(Decision::Repeat), "a conflict stays one");
        let Ok(Decision::Publish { record, received, .. }) = world.delivery(6, &copy("3:1"), "{}") else {
            panic!("not published");
        };
        assert_eq!(received, None);
        assert!(record.headers.iter().all(|(name, _)| name != "redriven"));
        assert_eq!(world.delivery(7, &copy("3:1"), "{}"), Ok(Decision::Repeat), "put back twice");
        assert_eq!(world.event(8, "a", "new", "{}"), Ok(Decision::Repeat));
        let ids = world.partition.ledger_entry(12).ids;
        let offsets: Vec<_> = ids.iter().map(|decided| (decided.sighting.offset, decided.fate)).collect();
        let (dead, published) = (Fate::DeadLetter, Fate::Published);
        assert_eq!(offsets, [(0, dead), (1, dead), (4, dead), (6, published)]);
    }

    #[test]
    fn what_is_no_event_stays_none_when_it_is_put_back_and_what_names_no_place_is_another_hands() {
        let mut world = World::new();
        let malformed = [("malformed", "no id")];
        assert_eq!(reason(&world.delivery(0, &malformed, "{").unwrap()), DeadLetterReason::Malformed);
        assert_eq!(world.delivery(1, &malformed, "{"), Ok(Decision::Repeat));
        let copy = [("malformed", "no id"), ("redriven", "3:0")];
        assert_eq!(reason(&world.delivery(2, &copy, "{").unwrap()), DeadLetterReason::Malformed);
        assert_eq!(
            world.delivery(3, &copy, "{"),
            Ok(Decision::Repeat),
            "it names the first, and died again at 2"
        );
        for (offset, place) in [(4, ""), (5, "0"), (6, "3:-1"), (7, "here")] {
            let forged = [("id", "a"), ("request", "352"), ("type", "request"), ("redriven", place)];
            let Decision::DeadLetter(DeadLetterReason::Malformed, record) =
                world.delivery(offset, &forged, &format!("{{ {offset} }}")).unwrap()
            else {
                panic!("no dead letter: {place}");
            };
            let detail = String::from_utf8(record.headers[1].1.clone()).unwrap();
            assert!(detail.contains("header `redriven` is"), "{detail}");
        }
    }

    #[test]
    fn what_its_topic_does_not_take_is_a_dead_letter_whole_or_waits() {
        let mut world = World::new();
        world.oversized.insert(Position { partition: 3, offset: 0 }, 2);
        let held = world.event(0, "a", "request", "{}").unwrap_err();
        assert!(held.detail.contains("raise its max.message.bytes"), "{}", held.detail);
        world.oversized.insert(Position { partition: 3, offset: 0 }, 1);
        let Ok(Decision::DeadLetter(DeadLetterReason::TooLarge, record)) =
            world.event(0, "a", "request", "{}")
        else {
            panic!("no dead letter: the id was filed while the partition was held");
        };
        assert_eq!(record.head_bytes, None);
    }

    #[test]
    fn of_a_record_of_another_hand_that_no_topic_takes_the_head_is_kept() {
        let mut world = World::new();
        world.oversized.insert(Position { partition: 3, offset: 0 }, 1);
        let Ok(Decision::DeadLetter(DeadLetterReason::Malformed, record)) = world.decide(0, &[], "garbage")
        else {
            panic!("no dead letter");
        };
        assert_eq!(record.head_bytes, Some(HEAD_BYTES));
    }

    #[test]
    fn a_format_that_no_version_writes_is_another_hands() {
        let mut world = World::new();
        for (offset, format) in [(0, "abc"), (1, "0"), (2, ""), (3, "-2")] {
            let decision = world.decide(offset, &[("v", format)], &format!("garbage {offset}")).unwrap();
            assert_eq!(reason(&decision), DeadLetterReason::Malformed, "{format}");
        }
        let position = Position { partition: 3, offset: 4 };
        let headers = vec![("id", Some(&b"\xff"[..])), ("v", Some(&b"2"[..]))];
        let message = InboxMessage { position, appended_ms: 0, headers, body: b"" };
        let rules = Rules {
            sources: &world.sources,
            reserved: &world.reserved,
            oversized: &world.oversized,
            admit: &|_| Admission::Exists,
        };
        let held = world.partition.decide(&message, &rules).unwrap_err();
        assert_eq!(held.reason, HeldReason::NewerFormat, "whatever its other headers look like");
    }
}
