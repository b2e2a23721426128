//! Holds what was published against what was answered 200: nothing lost, repeated, out of order, changed or foreign.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::simulator::Simulated;
use super::{Accepted, Record};

/// How many cases of each kind a failure shows.
const SHOWN: usize = 5;

/// What is wrong with an event topic; all empty where the promise was kept.
#[derive(Debug, Default)]
pub struct Judge {
    /// Answered 200, and not there.
    pub lost: Vec<String>,
    /// There more than once.
    pub repeated: Vec<String>,
    /// Behind an event of its request that was sent after its answer, or in another partition than that.
    pub out_of_order: Vec<String>,
    /// Other bytes than those that were sent, or another key than the request's.
    pub changed: Vec<String>,
    /// Sent by nobody.
    pub foreign: Vec<String>,
}

impl Judge {
    /// Takes what the simulator sent, and the records of the event topic. An event that was not answered 200 may be
    /// there, or not.
    pub fn of(simulated: &Simulated, records: &[Record]) -> Self {
        Self::weigh(&simulated.accepted, &simulated.sent, records)
    }

    /// The same, of events answered 200 in the order of their answers, and the ids of all that were sent.
    pub fn weigh(accepted: &[Accepted], sent: &HashSet<String>, records: &[Record]) -> Self {
        let mut judge = Self::default();
        let mut places: HashMap<&str, Vec<&Record>> = HashMap::new();
        for record in records {
            let id = record.header("ce_id");
            if !sent.contains(id) {
                judge.foreign.push(describe(record));
            }
            places.entry(id).or_default().push(record);
        }
        judge.repeated = repeated(&places);
        for event in accepted {
            match places.get(event.id.as_str()) {
                None => judge.lost.push(format!("{event:?}")),
                Some(records) => {
                    judge.changed.extend(records.iter().filter_map(|record| changed(event, record)))
                }
            }
        }
        judge.out_of_order = out_of_order(accepted, &places);
        judge
    }

    /// Panics unless the promise was kept.
    #[track_caller]
    pub fn assert_flawless(&self) {
        let kinds = [
            ("lost", &self.lost),
            ("repeated", &self.repeated),
            ("out of order", &self.out_of_order),
            ("changed", &self.changed),
            ("foreign", &self.foreign),
        ];
        let found: Vec<_> = kinds
            .iter()
            .filter(|(_, cases)| !cases.is_empty())
            .map(|(kind, cases)| {
                format!(
                    "{} {kind}, among them:\n  {}",
                    cases.len(),
                    cases[..cases.len().min(SHOWN)].join("\n  ")
                )
            })
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

fn describe(record: &Record) -> String {
    let Record { topic, partition, offset, .. } = record;
    format!("{topic} {partition}:{offset}, ce_id {}", record.header("ce_id"))
}

fn repeated(places: &HashMap<&str, Vec<&Record>>) -> Vec<String> {
    let several = places.values().filter(|records| records.len() > 1);
    several.map(|records| records.iter().map(|r| describe(r)).collect::<Vec<_>>().join(" and ")).collect()
}

fn changed(event: &Accepted, record: &Record) -> Option<String> {
    let is_same = hex::encode(Sha256::digest(&record.value)) == event.sha256 && record.key() == event.request;
    (!is_same).then(|| format!("{} with key {}, sent: {event:?}", describe(record), record.key()))
}

/// The simulator sends the events of a request one after the other's answer, so they stand in `accepted` in the order
/// that is owed.
fn out_of_order(accepted: &[Accepted], places: &HashMap<&str, Vec<&Record>>) -> Vec<String> {
    let mut last: BTreeMap<&str, &Record> = BTreeMap::new();
    let mut cases = Vec::new();
    let mut seen = HashSet::new();
    for event in accepted {
        let first = places.get(event.id.as_str()).and_then(|records| records.first());
        let Some(record) = first.filter(|_| seen.insert(event.id.as_str())) else { continue };
        if let Some(before) = last.insert(&event.request, record)
            && (before.partition != record.partition || before.offset > record.offset)
        {
            cases.push(format!(
                "request {}: {} before {}",
                event.request,
                describe(before),
                describe(record)
            ));
        }
    }
    cases
}
