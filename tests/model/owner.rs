//! What the process does that has a transactional id: the loop of the forward half, one Kafka call a step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clearfeed_relay::domain::event_record::DeadLetterReason;
use clearfeed_relay::domain::inbox_record::Position;
use clearfeed_relay::domain::ledger_entry::FORMAT;
use clearfeed_relay::forward::memory::Memory;
use clearfeed_relay::forward::partition::{Admission, Decision, InboxMessage, Partition, Rules};
use clearfeed_relay::forward::resume::{self, Committed, Evidence};
use clearfeed_relay::telemetry::labels::HeldReason;

use crate::case::{Comparison, Known, Without};
use crate::ledger::Outcome;
use crate::world::{Outgoing, PARTITIONS, SOURCES, World};

/// So many of the newest items of a ledger partition a leader lacks that is behind, at most.
const BEHIND: usize = 8;

#[derive(Default)]
pub struct Owner {
    /// Nobody else has the transactional id, and its last transaction is settled.
    has_producer: bool,
    active: BTreeMap<usize, Active>,
    transaction: Option<Transaction>,
    /// The generation that it knows of: an owner that is frozen hears of no other.
    generation: u64,
    /// What it remembers of partitions with a commit without an answer, where it does not read what took place.
    remembered: BTreeMap<usize, Partition>,
}

struct Active {
    partition: Partition,
    known: Known,
}

/// What is done of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Decided; nothing was sent.
    Decided,
    /// Begun, and all is sent but ledger records.
    Begun,
    /// Where the ledger records landed was compared.
    Compared,
    /// Offsets are sent, and were taken.
    Offsets,
}

struct Transaction {
    phase: Phase,
    /// Its number, once it has begun.
    id: Option<usize>,
    generation: u64,
    /// By partition.
    parts: BTreeMap<usize, Part>,
}

/// What a transaction writes for one partition.
struct Part {
    ledger: Vec<u8>,
    offset: i64,
    outgoing: Vec<Outgoing>,
    /// Where its ledger record is.
    landed: Option<usize>,
}

impl World {
    /// Between two rounds an owner hears what it has to give up, and takes over what it got.
    pub fn hear_of_the_group(&mut self, number: usize) {
        if self.owners[number].transaction.is_some() || !self.has_producer(number) {
            return;
        }
        let group = self.group_of(number);
        let known = std::mem::replace(&mut self.owners[number].generation, self.groups[group].generation);
        for partition in 0..PARTITIONS {
            let is_ours = self.groups[group].assigned[partition] == number;
            // Also one that was another's meanwhile: who was thrown out of the group is told so when it is back.
            if !is_ours || self.groups[group].since[partition] > known {
                self.owners[number].active.remove(&partition);
                self.owners[number].remembered.remove(&partition);
            }
            if is_ours
                && !self.owners[number].active.contains_key(&partition)
                && let Some(active) = self.take_over(number, partition)
            {
                self.owners[number].active.insert(partition, active);
            }
        }
    }

    /// Whether the transactional id is ours; takes it: the last process's transaction is aborted, and its markers are waited
    /// for.
    fn has_producer(&mut self, number: usize) -> bool {
        if !self.owners[number].has_producer && !self.is_beyond_repair(number) {
            self.end(number, Outcome::Aborted);
            self.owners[number].has_producer = self.coordinator.due(number) == 0;
        }
        self.owners[number].has_producer
    }

    /// Whether it has all partitions, and nothing left to forward.
    pub fn is_idle(&self, number: usize) -> bool {
        let Owner { active, transaction, .. } = &self.owners[number];
        let is_at_the_end = |partition: usize| {
            let next = active.get(&partition).map(|active| active.partition.next());
            next == i64::try_from(self.topics[partition].inbox.len()).ok()
        };
        transaction.is_none() && (0..PARTITIONS).all(is_at_the_end)
    }

    /// Reads the ledger. Nothing where it has to be tried again.
    fn take_over(&mut self, number: usize, partition: usize) -> Option<Active> {
        let group = self.group_of(number);
        let mut end = self.topics[partition].ledger.end();
        let mut committed = self.groups[group].offsets[partition].map_or(Committed::None, Committed::Ours);
        if !self.case.has(Without::AnUpToDateLeader) && !self.is_well {
            end -= self.one_of(end.min(BEHIND) + 1);
            committed = Committed::None;
        }
        // The end is asked for before anything is read.
        let log = &self.topics[partition];
        let stable_end = log.ledger.stable_end(end);
        let is_open = stable_end < end || self.coordinator.holds_offset(self.members(group), partition);
        if is_open && self.case.has(Without::WaitingForOpenTransactions) {
            return None;
        }
        let known = Known::taken_over(stable_end);
        if let Some(partition) = self.owners[number].remembered.remove(&partition) {
            return Some(Active { partition, known });
        }
        let mut memory = self.read(partition, stable_end);
        let decision = resume::decide(&Evidence {
            tail: memory.tail,
            ledger_start: 0,
            committed,
            inbox_start: 0,
            inbox_end: i64::try_from(log.inbox.len()).unwrap(),
            inbox_last_ms: memory.tail.filter(|tail| tail.to > 0).map(|tail| tail.to),
            inbox_partitions: u32::try_from(PARTITIONS).unwrap(),
            start_at: None,
        });
        let at = match decision {
            resume::Decision::GoOn { at, lost: 0 } => at,
            // The group's offset is ahead of what the ledger shows.
            resume::Decision::LookAgain | resume::Decision::Hold(HeldReason::LedgerGone, _) => return None,
            other => panic!("{other:?}"),
        };
        if !self.case.has(Without::TheWindow) {
            memory = Memory::new(0, Duration::from_secs(3600));
        }
        Some(Active { partition: Partition::new(memory.window, at, at), known })
    }

    /// What the ledger remembers up to there.
    fn read(&self, partition: usize, stable_end: usize) -> Memory {
        let mut memory = Memory::new(0, Duration::from_secs(3600));
        for record in self.topics[partition].ledger.committed(stable_end) {
            memory.take(Some(FORMAT.as_bytes()), record, 0, 0, usize::MAX).unwrap();
        }
        memory
    }

    /// A batch of what the owner has not decided yet.
    pub fn decide(&mut self, number: usize) {
        if self.owners[number].transaction.is_some() {
            return;
        }
        let most = self.below(5) + 1;
        let skipped = if self.case.leaves_markers_out || self.below(3) == 0 {
            self.one_of(PARTITIONS)
        } else {
            PARTITIONS
        };
        let Self { owners, topics, is_admitted, .. } = self;
        let owner = &mut owners[number];
        let (nowhere, none) = (BTreeSet::new(), BTreeMap::new());
        let admit =
            |_: &_| if *is_admitted { Admission::Exists } else { Admission::Refused("no topic".to_owned()) };
        let rules = Rules { sources: &SOURCES, reserved: &nowhere, oversized: &none, admit: &admit };
        let mut parts = BTreeMap::new();
        for (&partition, Active { partition: active, .. }) in &mut owner.active {
            if partition == skipped {
                continue;
            }
            let mut outgoing = Vec::new();
            for _ in 0..most {
                let offset = active.next();
                let Some(record) = topics[partition].inbox.get(usize::try_from(offset).unwrap()) else {
                    break;
                };
                let headers = record.headers.iter();
                let message = InboxMessage {
                    position: Position { partition: i32::try_from(partition).unwrap(), offset },
                    appended_ms: offset + 1,
                    headers: headers.map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
                    body: record.body.as_bytes(),
                };
                outgoing.extend(match active.decide(&message, &rules).unwrap() {
                    Decision::Repeat => None,
                    Decision::Publish { .. } => Some(Outgoing::Event(record.id().to_owned())),
                    Decision::DeadLetter(DeadLetterReason::NoTopic, _) => {
                        Some(Outgoing::DeadLetter(usize::try_from(offset).unwrap()))
                    }
                    Decision::DeadLetter(..) => {
                        Some(Outgoing::Conflict(record.body.clone() + &offset.to_string()))
                    }
                });
            }
            let entry = active.ledger_entry(u32::try_from(PARTITIONS).unwrap());
            if entry.to > entry.from {
                let (ledger, offset) = (entry.encode(), entry.to);
                parts.insert(partition, Part { ledger, offset, outgoing, landed: None });
            }
        }
        if !parts.is_empty() {
            let (phase, generation) = (Phase::Decided, owner.generation);
            owner.transaction = Some(Transaction { phase, id: None, generation, parts });
        }
    }

    /// The next thing that a transaction sends.
    pub fn go_on(&mut self, number: usize) {
        let Some(transaction) = &self.owners[number].transaction else { return };
        if transaction.id.is_some_and(|id| self.coordinator.outcome(id).is_some()) {
            // It took too long, and Kafka fences the producer.
            return self.lose_the_producer(number);
        }
        match transaction.phase {
            Phase::Decided => self.begin(number),
            Phase::Begun => self.append_or_compare(number),
            Phase::Compared => self.send_offsets(number),
            Phase::Offsets => {
                self.end(number, Outcome::Committed);
                self.committed(number);
            }
        }
    }

    fn begin(&mut self, number: usize) {
        let Some(id) = self.coordinator.begin(number) else { return };
        let transaction = self.owners[number].transaction.as_mut().unwrap();
        (transaction.id, transaction.phase) = (Some(id), Phase::Begun);
        for (&partition, part) in &mut transaction.parts {
            self.topics[partition].outgoing.extend(part.outgoing.drain(..).map(|outgoing| (id, outgoing)));
        }
    }

    /// Sends the next ledger record; when all are there, compares where they landed.
    fn append_or_compare(&mut self, number: usize) {
        let parts = &mut self.owners[number].transaction.as_mut().unwrap().parts;
        if let Some((&partition, part)) = parts.iter_mut().find(|(_, part)| part.landed.is_none()) {
            part.landed = Some(self.topics[partition].ledger.append(number, part.ledger.clone()));
            self.coordinator.add_record(number, partition);
            return;
        }
        let landed: Vec<_> =
            parts.iter().map(|(&partition, part)| (partition, part.landed.unwrap())).collect();
        if landed.into_iter().all(|(partition, landed)| self.is_admitted_at(number, partition, landed)) {
            self.owners[number].transaction.as_mut().unwrap().phase = Phase::Compared;
        } else {
            self.abort(number);
        }
    }

    fn is_admitted_at(&mut self, number: usize, partition: usize, landed: usize) -> bool {
        let comparison = self.case.groups[self.group_of(number)];
        // Now and then nobody tells where a record landed; a look finds it, where somebody looks.
        let is_told = self.below(8) > 0 || comparison == Comparison::Strict;
        let told = if is_told { i64::try_from(landed).unwrap() } else { -1 };
        let known = self.owners[number].active[&partition].known;
        let ledger = &self.topics[partition].ledger;
        let next = usize::try_from(known.fence.next()).unwrap();
        let from = ledger.begins(landed..landed + 1).unwrap();
        comparison.admits(known, told, from, || ledger.begins(next..landed))
    }

    fn send_offsets(&mut self, number: usize) {
        let generation = self.groups[self.group_of(number)].generation;
        let transaction = self.owners[number].transaction.as_mut().unwrap();
        if transaction.generation != generation && self.case.has(Without::TheGeneration) {
            return self.abort(number);
        }
        transaction.phase = Phase::Offsets;
        let offsets = transaction.parts.iter().map(|(&partition, part)| (partition, part.offset)).collect();
        self.coordinator.add_offsets(number, offsets);
    }

    /// The commit was answered.
    fn committed(&mut self, number: usize) {
        let owner = &mut self.owners[number];
        for (partition, part) in owner.transaction.take().unwrap().parts {
            owner.active.get_mut(&partition).unwrap().known = Known::committed(part.landed.unwrap());
        }
    }

    /// A commit whose answer is lost takes place or not; the owner opens a new producer, and reads the ledger to know.
    pub fn lose_the_answer(&mut self, number: usize) {
        let is_committing = |transaction: &Transaction| transaction.phase == Phase::Offsets;
        if !self.owners[number].transaction.as_ref().is_some_and(is_committing)
            || self.is_beyond_repair(number)
        {
            return;
        }
        let parts: Vec<_> = self.owners[number].transaction.as_ref().unwrap().parts.keys().copied().collect();
        if !self.case.has(Without::ReadingWhatTookPlace) {
            for partition in parts {
                let ledger = &self.topics[partition].ledger;
                let before = self.read(partition, ledger.stable_end(ledger.end()));
                let at = before.tail.map_or(0, |tail| tail.to);
                self.owners[number].remembered.insert(partition, Partition::new(before.window, at, at));
            }
        }
        if self.below(2) == 0 {
            self.end(number, Outcome::Committed);
        }
        self.lose_the_producer(number);
    }

    /// A new one is opened, and all partitions are taken over again.
    fn lose_the_producer(&mut self, number: usize) {
        let owner = &mut self.owners[number];
        owner.has_producer = false;
        owner.transaction = None;
        owner.active.clear();
    }

    /// Aborts the transaction, and its partitions are taken over again.
    pub fn abort(&mut self, number: usize) {
        self.end(number, Outcome::Aborted);
        self.give_up(number);
    }

    /// What was decided and is not known to be committed is forgotten.
    fn give_up(&mut self, number: usize) {
        let owner = &mut self.owners[number];
        let Some(transaction) = owner.transaction.take() else { return };
        owner.active.retain(|partition, _| !transaction.parts.contains_key(partition));
    }
}
