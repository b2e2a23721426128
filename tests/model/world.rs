//! Kafka, its groups and the owners; what happens in it, step by step, is drawn from a seed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use clearfeed_relay::config::{self, Source};
use sha2::{Digest, Sha256};

use crate::case::{Case, Without};
use crate::coordinator::{Coordinator, Place};
use crate::ledger::{Ledger, Outcome};
use crate::owner::Owner;

/// What is configured, for all schedules.
pub static SOURCES: LazyLock<BTreeMap<String, Source>> = LazyLock::new(|| {
    let text = "[sources.main]\npublic_url = \"https://a.example/e\"\nsigning_secret_files = [\"s\"]";
    config::from_toml(text).unwrap().sources
});

pub const PARTITIONS: usize = 2;
const STEPS: usize = 400;
/// All of them: of one group, or half of them of each.
const OWNERS: usize = 4;
/// Few events, so that most deliveries are repeats.
const EVENTS_PER_REQUEST: u64 = 8;
const REQUESTS: u64 = 4;

/// A delivery in the inbox, or the copy of a dead letter.
#[derive(Clone)]
pub struct Record {
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Record {
    pub fn id(&self) -> &str {
        &self.headers.iter().find(|(name, _)| *name == "id").unwrap().1
    }
}

/// A record that is no ledger record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// An id with the number of its request.
    Event(String),
    Conflict(String),
    /// Of an event whose type had no topic: where it stood in the inbox.
    DeadLetter(usize),
}

/// What Kafka has of a partition of the inbox.
#[derive(Default)]
pub struct Topics {
    pub inbox: Vec<Record>,
    pub ledger: Ledger,
    /// In the order in which they were sent, each with its transaction.
    pub outgoing: Vec<(usize, Outgoing)>,
}

/// A consumer group on the inbox.
#[derive(Default)]
pub struct Group {
    /// Which owner has a partition.
    pub assigned: [usize; PARTITIONS],
    /// Since which generation.
    pub since: [u64; PARTITIONS],
    pub generation: u64,
    pub offsets: [Option<i64>; PARTITIONS],
}

pub struct World {
    pub case: Case,
    random: u64,
    pub topics: [Topics; PARTITIONS],
    pub coordinator: Coordinator,
    pub groups: Vec<Group>,
    /// By the number of their transactional id. One that is frozen, or a zombie, is one that gets no step for long.
    pub owners: Vec<Owner>,
    /// Whether the topics that types name may be written to.
    pub is_admitted: bool,
    /// Nothing fails any more.
    pub is_well: bool,
}

impl World {
    fn new(seed: u64, case: Case) -> Self {
        let groups = (0..case.groups.len()).map(|first| Group { assigned: [first; _], ..Group::default() });
        Self {
            case,
            random: seed,
            topics: Default::default(),
            coordinator: Coordinator::new(OWNERS),
            groups: groups.collect(),
            owners: (0..OWNERS).map(|_| Owner::default()).collect(),
            is_admitted: true,
            is_well: false,
        }
    }

    /// What breaks the promise in the schedule of this seed, if anything does.
    pub fn fault(seed: u64, case: Case) -> Option<String> {
        let mut world = Self::new(seed, case);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.judge()
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    pub fn one_of(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }

    pub fn group_of(&self, number: usize) -> usize {
        number % self.groups.len()
    }

    pub fn members(&self, group: usize) -> impl Iterator<Item = usize> + use<> {
        (group..OWNERS).step_by(self.groups.len())
    }

    fn step(&mut self) {
        let owner = self.whose_turn();
        // Most of it is work: where the group never rests no transaction comes to its end.
        match self.below(100) {
            0..11 => self.deliver(),
            11..13 => self.redrive(),
            13..14 => self.is_admitted = self.below(3) > 0,
            14..26 => self.hear_of_the_group(owner),
            26..36 => self.decide(owner),
            36..75 => self.go_on(owner),
            75..95 => self.write_a_marker(owner),
            95..97 => self.lose_the_answer(owner),
            97..98 => self.rebalance(),
            _ => match self.below(3) {
                0 => self.give_in(owner),
                1 => self.crash(owner),
                _ => self.time_out(owner),
            },
        }
    }

    /// Mostly one that has a partition: who was given none is a zombie, or rests.
    fn whose_turn(&mut self) -> usize {
        if self.below(4) == 0 {
            return self.one_of(OWNERS);
        }
        let (group, partition) = (self.one_of(self.groups.len()), self.one_of(PARTITIONS));
        self.groups[group].assigned[partition]
    }

    /// One more record in the inbox: an event, or its repeat, or (rarely) the same id with another body.
    fn deliver(&mut self) {
        let request = self.below(REQUESTS);
        let id = format!("{request}/{}", self.below(EVENTS_PER_REQUEST));
        let body = if self.below(12) == 0 { format!("{id} changed") } else { id.clone() };
        let sha256 = hex::encode(Sha256::digest(&body));
        let headers = [
            ("v", "1"),
            ("source", "main"),
            ("received", "2026-11-24T00:00:00Z"),
            ("retry", "0"),
            ("timestamp", "1793901532"),
            ("id", &id),
            ("request", &request.to_string()),
            ("type", "request"),
            ("body-sha256", &sha256),
        ];
        let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
        self.topics[usize::try_from(request).unwrap() % PARTITIONS].inbox.push(Record { headers, body });
    }

    /// What readers find in the topics that are not the ledger. Kafka leaves out no marker there: who lost a ledger record
    /// whose events stand here publishes them again.
    pub fn visible(&self, partition: usize) -> impl Iterator<Item = &Outgoing> {
        let is_committed = |id: usize| self.coordinator.outcome(id) == Some(Outcome::Committed);
        self.topics[partition].outgoing.iter().filter(move |(id, _)| is_committed(*id)).map(|(_, it)| it)
    }

    /// Where the dead letters stood in the inbox.
    pub fn dead_letters(&self, partition: usize) -> Vec<usize> {
        let dead = |outgoing: &Outgoing| match outgoing {
            Outgoing::DeadLetter(offset) => Some(*offset),
            _ => None,
        };
        self.visible(partition).filter_map(dead).collect()
    }

    /// Puts a dead letter back, whether that was done before or not, and whatever became of it since.
    fn redrive(&mut self) {
        let partition = self.one_of(PARTITIONS);
        let dead_letters = self.dead_letters(partition);
        if !dead_letters.is_empty() {
            let which = self.one_of(dead_letters.len());
            self.put_back(partition, dead_letters[which]);
        }
    }

    /// Appends a copy of the dead letter that stood there in the inbox.
    pub fn put_back(&mut self, partition: usize, offset: usize) {
        let mut copy = self.topics[partition].inbox[offset].clone();
        let before = copy.headers.iter().position(|(name, _)| *name == "redriven");
        if self.case.has(Without::NamingTheCopysOwnPlace) || before.is_none() {
            before.map(|header| copy.headers.remove(header));
            copy.headers.push(("redriven", format!("{partition}:{offset}")));
        }
        self.topics[partition].inbox.push(copy);
    }

    /// A group moves a partition; only its generation fences who had it.
    fn rebalance(&mut self) {
        let (group, partition) = (self.one_of(self.groups.len()), self.one_of(PARTITIONS));
        let members: Vec<_> = self.members(group).collect();
        let member = members[self.one_of(members.len())];
        let group = &mut self.groups[group];
        group.generation += 1;
        if group.assigned[partition] != member {
            (group.assigned[partition], group.since[partition]) = (member, group.generation);
        }
    }

    /// The coordinator writes one of an ended transaction's markers, some of them twice.
    pub fn write_a_marker(&mut self, producer: usize) {
        let due = self.coordinator.due(producer);
        if due == 0 {
            if self.below(4) == 0 && !self.coordinator.has_open(producer) {
                self.write_what_was_left_out(producer);
            }
            return;
        }
        let which = self.one_of(due);
        let (place, outcome) = self.coordinator.take_due(producer, which);
        match &place {
            Place::Ledger(partition) => self.topics[*partition].ledger.mark(producer, outcome),
            Place::Offsets(offsets) if outcome == Outcome::Committed => {
                let group = self.group_of(producer);
                for (partition, offset) in offsets {
                    self.groups[group].offsets[*partition] = Some(*offset);
                }
            }
            Place::Offsets(_) => {}
        }
        if self.below(8) == 0 {
            self.coordinator.repeat(producer, place, outcome);
        }
    }

    /// A person ends what hangs, as its coordinator decided. Only markers of commits are left out.
    pub fn write_what_was_left_out(&mut self, producer: usize) {
        for Topics { ledger, .. } in &mut self.topics {
            if !ledger.open(producer).is_empty() {
                ledger.mark(producer, Outcome::Committed);
            }
        }
    }

    /// The coordinator ends a transaction. Some partitions get a marker and have no record of it: one was refused there.
    pub fn end(&mut self, producer: usize, outcome: Outcome) {
        let without_record = if self.below(8) == 0 { Some(self.one_of(PARTITIONS)) } else { None };
        let left_out = if self.below(4) == 0 { Some(self.one_of(PARTITIONS)) } else { None };
        let leaves_out = self.case.leaves_markers_out;
        let left_out = left_out.filter(|_| leaves_out && outcome == Outcome::Committed && !self.is_well);
        let without_record = without_record.filter(|_| !leaves_out);
        self.coordinator.end(producer, outcome, |partitions| {
            let further = without_record.filter(|partition| !partitions.contains(partition));
            let all = partitions.iter().copied().chain(further);
            all.filter(|partition| Some(*partition) != left_out).collect()
        });
    }

    /// Whether an abort now would take a committed record with it, whose marker was left out.
    pub fn is_beyond_repair(&self, producer: usize) -> bool {
        self.case.leaves_markers_out
            && self.coordinator.has_open(producer)
            && self.topics.iter().any(|topics| topics.ledger.open(producer).len() > 1)
    }

    /// A transaction is aborted for a reason of its own: a topic refuses a record, or a broker goes away.
    fn give_in(&mut self, number: usize) {
        if !self.is_beyond_repair(number) {
            self.abort(number);
        }
    }

    /// The process ends. Its transaction stays open until it times out, or until the next process has the transactional id.
    fn crash(&mut self, number: usize) {
        if !self.is_beyond_repair(number) {
            self.owners[number] = Owner::default();
        }
    }

    /// The coordinator aborts a transaction that takes too long.
    fn time_out(&mut self, number: usize) {
        if !self.is_beyond_repair(number) {
            self.end(number, Outcome::Aborted);
        }
    }
}
