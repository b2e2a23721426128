//! Holds what was published against what was answered 200: nothing lost, repeated, out of order, changed, in a wrong
//! partition or foreign. It knows what the simulator wrote down and what stands in the topic, and nothing of the relay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Display, Formatter};

use clearfeed_relay::domain::partitioner::partition_for_key;
use sha2::{Digest, Sha256};

use super::deployment::PARTITIONS;
use super::simulator::Simulated;
use super::{Accepted, Record};

/// How many cases of each kind a failure shows.
const SHOWN: usize = 5;

/// What the judge asks of an event record.
#[derive(Debug, Clone)]
pub struct Exhibit {
    pub id: String,
    pub key: String,
    /// Of the value, in hex.
    pub sha256: String,
    pub partition: i32,
    pub offset: i64,
}

/// One event with which something is wrong.
#[derive(Debug)]
pub struct Case {
    pub id: String,
    pub what: String,
}

/// What is wrong with an event topic; all empty where the promise was kept.
#[derive(Debug, Default)]
pub struct Judge {
    /// Answered 200, and not there.
    pub lost: Vec<Case>,
    /// There more than once.
    pub repeated: Vec<Case>,
    /// Behind an event of its request that was sent after its answer, or in another partition than that.
    pub out_of_order: Vec<Case>,
    /// Other bytes than those that were sent, or another key than the request's.
    pub changed: Vec<Case>,
    /// Not where Java's clients look for the key. (Where librdkafka puts a record of the event topic, the relay's intake
    /// computes for the inbox: that computation, which Kafka's own vectors are tested on, is the yardstick.)
    pub misplaced: Vec<Case>,
    /// Sent by nobody.
    pub foreign: Vec<Case>,
}

impl From<&Record> for Exhibit {
    fn from(record: &Record) -> Self {
        Self {
            id: record.header("ce_id").to_owned(),
            key: record.key().to_owned(),
            sha256: hex::encode(Sha256::digest(&record.value)),
            partition: record.partition,
            offset: record.offset,
        }
    }
}

impl Judge {
    /// Takes what the simulator sent, and the records of the event topic. An event that was not answered 200 may be
    /// there, or not.
    pub fn of(simulated: &Simulated, records: &[Record]) -> Self {
        let exhibits: Vec<_> = records.iter().map(Exhibit::from).collect();
        Self::weigh(&simulated.accepted, &simulated.sent, &exhibits)
    }

    /// The same, of events answered 200, and the ids of all that were sent.
    pub fn weigh(accepted: &[Accepted], sent: &HashSet<String>, exhibits: &[Exhibit]) -> Self {
        let mut judge = Self::default();
        let mut places: HashMap<&str, Vec<&Exhibit>> = HashMap::new();
        for exhibit in exhibits {
            let case = || Case { id: exhibit.id.clone(), what: exhibit.to_string() };
            if !sent.contains(&exhibit.id) {
                judge.foreign.push(case());
            }
            if exhibit.partition != partition_for_key(exhibit.key.as_bytes(), PARTITIONS) {
                judge.misplaced.push(case());
            }
            places.entry(&exhibit.id).or_default().push(exhibit);
        }
        for (id, several) in places.iter().filter(|(_, exhibits)| exhibits.len() > 1) {
            let all: Vec<_> = several.iter().map(ToString::to_string).collect();
            judge.repeated.push(Case { id: (*id).to_owned(), what: all.join(" and ") });
        }
        for event in accepted {
            let found = places.get(event.id.as_str()).map_or(&[][..], Vec::as_slice);
            if found.is_empty() {
                judge.lost.push(Case { id: event.id.clone(), what: format!("{event:?}") });
            }
            let is_changed = |e: &&&Exhibit| e.sha256 != event.sha256 || e.key != event.request;
            judge.changed.extend(found.iter().filter(is_changed).map(|exhibit| Case {
                id: event.id.clone(),
                what: format!("{exhibit} with key {}, sent: {event:?}", exhibit.key),
            }));
        }
        judge.out_of_order = out_of_order(accepted, &places);
        judge
    }

    /// Everything that is wrong, and of which kind.
    pub fn cases(&self) -> impl Iterator<Item = (&'static str, &Case)> {
        let kinds = [
            ("lost", &self.lost),
            ("repeated", &self.repeated),
            ("out of order", &self.out_of_order),
            ("changed", &self.changed),
            ("misplaced", &self.misplaced),
            ("foreign", &self.foreign),
        ];
        kinds.into_iter().flat_map(|(kind, cases)| cases.iter().map(move |case| (kind, case)))
    }

    /// The first cases of each kind.
    pub fn first_cases(&self) -> impl Iterator<Item = (&'static str, &Case)> {
        let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
        self.cases().filter(move |(kind, _)| {
            let count = shown.entry(kind).or_default();
            *count += 1;
            *count <= SHOWN
        })
    }

    /// Panics unless the promise was kept.
    #[track_caller]
    pub fn assert_flawless(&self) {
        let first: String =
            self.first_cases().map(|(kind, case)| format!("\n  {kind}: {}", case.what)).collect();
        assert!(first.is_empty(), "{} cases, among them:{first}", self.cases().count());
    }
}

impl Display for Exhibit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.id, self.partition, self.offset)
    }
}

/// Of two events of a request of which one was sent after the other's answer, the other stands before it. To look at
/// neighbours in the order of their answers is enough, for the simulator sends the events of a request one by one.
fn out_of_order(accepted: &[Accepted], places: &HashMap<&str, Vec<&Exhibit>>) -> Vec<Case> {
    let mut by_request: BTreeMap<&str, Vec<&Accepted>> = BTreeMap::new();
    for event in accepted {
        by_request.entry(&event.request).or_default().push(event);
    }
    let mut cases = Vec::new();
    for (request, mut events) in by_request {
        events.sort_by_key(|event| event.answered_ns);
        for pair in events.windows(2) {
            let place = |event: &Accepted| places.get(event.id.as_str()).and_then(|found| found.first());
            let (Some(before), Some(after)) = (place(pair[0]), place(pair[1])) else { continue };
            let is_owed = pair[0].answered_ns <= pair[1].sent_ns;
            if is_owed && (before.partition != after.partition || before.offset > after.offset) {
                let what = format!("request {request}: {before} before {after}");
                cases.push(Case { id: after.id.clone(), what });
            }
        }
    }
    cases
}
