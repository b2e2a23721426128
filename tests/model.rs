//! The protocol of the forward half against a model of Kafka: thousands of schedules of deliveries, transactions, crashes,
//! rebalances, zombies, lost answers, and dead letters that are put back, each drawn from a seed. The decisions are the product's own code; only the log,
//! the group and the coordinator are modelled, with what docs/exactly-once.md says that they guarantee.
//!
//! A model that finds nothing proves nothing: each guarantee is also taken away, and must then be missed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what tests are for")]
#![allow(clippy::pedantic, reason = "helps the product; tests are read more than called")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clearfeed_relay::config::{self, Source};
use clearfeed_relay::domain::event_record::DeadLetterReason;
use clearfeed_relay::domain::inbox_record::Position;
use clearfeed_relay::domain::ledger_entry::FORMAT;
use clearfeed_relay::forward::memory::Memory;
use clearfeed_relay::forward::partition::{Admission, Decision, InboxMessage, Partition, Rules};
use clearfeed_relay::forward::resume::{self, Committed, Evidence};
use sha2::{Digest, Sha256};

const SCHEDULES: u64 = 3000;
const STEPS: usize = 300;
const PARTITIONS: usize = 2;
const OWNERS: usize = 3;
/// Few events, so that most deliveries are repeats.
const EVENTS_PER_REQUEST: u64 = 8;
const REQUESTS: u64 = 4;

/// A guarantee that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Offsets are taken from whoever sends them.
    TheGeneration,
    /// A ledger with an open transaction on it is read as it stands.
    WaitingForOpenTransactions,
    /// A commit without an answer is taken for one that did not take place, without looking.
    ReadingWhatTookPlace,
    /// The ledger's ids are forgotten when a partition is taken over.
    TheWindow,
    /// A dead letter that was put back and died again is put back as what it was first.
    NamingTheCopysOwnPlace,
}

/// A delivery in the inbox, or the copy of a dead letter.
#[derive(Clone)]
struct Record {
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// What Kafka has of one partition; all of it committed.
#[derive(Default)]
struct Log {
    inbox: Vec<Record>,
    ledger: Vec<Vec<u8>>,
    offset: Option<i64>,
    /// Ids with the number of their request, in the order in which they stand in the event topic.
    published: Vec<String>,
    conflicts: Vec<String>,
    /// Of events whose type had no topic: where they stood in the inbox.
    dead_letters: Vec<usize>,
}

/// How far a transaction is, at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Decided; nothing was sent.
    Decided,
    /// Records and ledger are sent.
    Open,
    /// Offsets are sent, and were taken.
    Offsets,
}

struct Transaction {
    phase: Phase,
    generation: u64,
    /// By partition.
    parts: BTreeMap<usize, Part>,
}

/// What a transaction writes for one partition.
struct Part {
    ledger: Vec<u8>,
    offset: i64,
    published: Vec<String>,
    conflicts: Vec<String>,
    dead_letters: Vec<usize>,
}

#[derive(Default)]
struct Owner {
    active: BTreeMap<usize, Partition>,
    transaction: Option<Transaction>,
    /// The generation that it knows of: an owner that is frozen hears of no other.
    generation: u64,
}

struct World {
    without: Without,
    random: u64,
    sources: BTreeMap<String, Source>,
    logs: [Log; PARTITIONS],
    owners: [Owner; OWNERS],
    /// The group's assignment, and its generation.
    assigned: [usize; PARTITIONS],
    generation: u64,
    /// Whether the topics that types name may be written to.
    is_open: bool,
}

impl World {
    fn new(seed: u64, without: Without) -> Self {
        let text = "[sources.main]\npublic_url = \"https://a.example/e\"\nsigning_secret_files = [\"s\"]";
        Self {
            without,
            random: seed,
            sources: config::from_toml(text).unwrap().sources,
            logs: Default::default(),
            owners: Default::default(),
            assigned: [0; PARTITIONS],
            generation: 0,
            is_open: true,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    fn one_of(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }

    fn step(&mut self) {
        let owner = self.one_of(OWNERS);
        // Most of it is work: where the group never rests no transaction comes to its end.
        match self.below(100) {
            0..16 => self.deliver(),
            16..18 => self.redrive(),
            18..20 => self.is_open = self.below(3) > 0,
            20..40 => self.hear_of_the_group(owner),
            40..55 => self.decide(owner),
            55..91 => self.go_on(owner),
            91..94 => self.lose_the_answer(owner),
            94..96 => self.abort(owner),
            96..98 => self.owners[owner] = Owner::default(), // a crash: the coordinator aborts what was open
            _ => self.rebalance(),
        }
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
        self.logs[usize::try_from(request).unwrap() % PARTITIONS].inbox.push(Record { headers, body });
    }

    /// Puts a dead letter back, whether that was done before or not, and whatever became of it since.
    fn redrive(&mut self) {
        let partition = self.one_of(PARTITIONS);
        let count = self.logs[partition].dead_letters.len();
        if count > 0 {
            let which = self.one_of(count);
            self.put_back(partition, self.logs[partition].dead_letters[which]);
        }
    }

    /// Appends a copy of the dead letter that stood there in the inbox.
    fn put_back(&mut self, partition: usize, offset: usize) {
        let mut copy = self.logs[partition].inbox[offset].clone();
        let before = copy.headers.iter().position(|(name, _)| *name == "redriven");
        if self.without != Without::NamingTheCopysOwnPlace || before.is_none() {
            before.map(|header| copy.headers.remove(header));
            copy.headers.push(("redriven", format!("{partition}:{offset}")));
        }
        self.logs[partition].inbox.push(copy);
    }

    /// The group moves a partition; only its generation fences who had it.
    fn rebalance(&mut self) {
        let partition = self.one_of(PARTITIONS);
        self.assigned[partition] = self.one_of(OWNERS);
        self.generation += 1;
    }

    /// An owner hears what it has to give up, and takes over what it got.
    fn hear_of_the_group(&mut self, number: usize) {
        self.owners[number].generation = self.generation;
        for partition in 0..PARTITIONS {
            if self.assigned[partition] != number {
                self.owners[number].active.remove(&partition);
            } else if !self.owners[number].active.contains_key(&partition) && self.may_read(partition) {
                let taken = self.take_over(partition);
                self.owners[number].active.insert(partition, taken);
            }
        }
        // A batch under which the assignment changed is dropped, and what was decided with it.
        let is_stale = |transaction: &Transaction| {
            transaction.phase == Phase::Decided && transaction.generation != self.generation
        };
        if self.owners[number].transaction.as_ref().is_some_and(is_stale)
            && self.without != Without::TheGeneration
        {
            self.give_up(number);
        }
    }

    /// Whether no transaction is open on the ledger's partition.
    fn may_read(&self, partition: usize) -> bool {
        let is_open = |owner: &Owner| {
            let open = owner.transaction.as_ref().filter(|transaction| transaction.phase != Phase::Decided);
            open.is_some_and(|transaction| transaction.parts.contains_key(&partition))
        };
        self.without == Without::WaitingForOpenTransactions || !self.owners.iter().any(is_open)
    }

    fn take_over(&self, partition: usize) -> Partition {
        let log = &self.logs[partition];
        let mut memory = Memory::new(0, Duration::from_secs(3600));
        for record in &log.ledger {
            memory.take(Some(FORMAT.as_bytes()), record, 0, 0, usize::MAX).unwrap();
        }
        let inbox_end = i64::try_from(log.inbox.len()).unwrap();
        let decision = resume::decide(&Evidence {
            tail: memory.tail,
            ledger_start: 0,
            committed: log.offset.map_or(Committed::None, Committed::Ours),
            inbox_start: 0,
            inbox_end,
            inbox_last_ms: memory.tail.filter(|tail| tail.to > 0).map(|tail| tail.to),
            inbox_partitions: u32::try_from(PARTITIONS).unwrap(),
            start_at: None,
        });
        let resume::Decision::GoOn { at, lost: 0 } = decision else { panic!("{decision:?}") };
        if self.without == Without::TheWindow {
            memory = Memory::new(0, Duration::from_secs(3600));
        }
        Partition::new(memory.window, at, at)
    }

    /// A batch of what the owner has not decided yet.
    fn decide(&mut self, number: usize) {
        if self.owners[number].transaction.is_some() {
            return;
        }
        let most = self.below(5) + 1;
        let Self { owners, logs, sources, is_open, .. } = self;
        let owner = &mut owners[number];
        let (nowhere, none) = (BTreeSet::new(), BTreeMap::new());
        let admit =
            |_: &_| if *is_open { Admission::Exists } else { Admission::Refused("no topic".to_owned()) };
        let rules = Rules { sources, reserved: &nowhere, oversized: &none, admit: &admit };
        let mut parts = BTreeMap::new();
        for (&partition, active) in &mut owner.active {
            let (mut published, mut conflicts, mut dead_letters) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..most {
                let offset = active.next();
                let Some(record) = logs[partition].inbox.get(usize::try_from(offset).unwrap()) else { break };
                let message = InboxMessage {
                    position: Position { partition: i32::try_from(partition).unwrap(), offset },
                    appended_ms: offset + 1,
                    headers: record
                        .headers
                        .iter()
                        .map(|(name, value)| (*name, Some(value.as_bytes())))
                        .collect(),
                    body: record.body.as_bytes(),
                };
                let id = &record.headers.iter().find(|(name, _)| *name == "id").unwrap().1;
                match active.decide(&message, &rules).unwrap() {
                    Decision::Repeat => {}
                    Decision::Publish { .. } => published.push(id.clone()),
                    Decision::DeadLetter(DeadLetterReason::NoTopic, _) => {
                        dead_letters.push(usize::try_from(offset).unwrap());
                    }
                    Decision::DeadLetter(..) => conflicts.push(record.body.clone() + &offset.to_string()),
                }
            }
            let entry = active.ledger_entry(u32::try_from(PARTITIONS).unwrap());
            if entry.to > entry.from {
                let (ledger, offset) = (entry.encode(), entry.to);
                parts.insert(partition, Part { ledger, offset, published, conflicts, dead_letters });
            }
        }
        if !parts.is_empty() {
            owner.transaction =
                Some(Transaction { phase: Phase::Decided, generation: owner.generation, parts });
        }
    }

    /// The next thing that a transaction sends: records and ledger, offsets, the commit.
    fn go_on(&mut self, number: usize) {
        let generation = self.generation;
        let Some(transaction) = &mut self.owners[number].transaction else { return };
        match transaction.phase {
            Phase::Decided => transaction.phase = Phase::Open,
            Phase::Open if transaction.generation == generation || self.without == Without::TheGeneration => {
                transaction.phase = Phase::Offsets;
            }
            Phase::Open => self.give_up(number),
            Phase::Offsets => self.commit(number),
        }
    }

    /// Takes place, all of it.
    fn commit(&mut self, number: usize) {
        let Some(transaction) = self.owners[number].transaction.take() else { return };
        for (partition, Part { ledger, offset, published, conflicts, dead_letters }) in transaction.parts {
            let log = &mut self.logs[partition];
            log.ledger.push(ledger);
            log.offset = Some(offset);
            log.published.extend(published);
            log.conflicts.extend(conflicts);
            log.dead_letters.extend(dead_letters);
        }
    }

    /// A commit whose answer is lost takes place or not; the owner reads the ledger to know.
    fn lose_the_answer(&mut self, number: usize) {
        if self.owners[number].transaction.as_ref().is_none_or(|open| open.phase != Phase::Offsets) {
            return;
        }
        let parts: Vec<_> = self.owners[number].transaction.as_ref().unwrap().parts.keys().copied().collect();
        let before: Vec<_> = parts.iter().map(|partition| self.take_over(*partition)).collect();
        if self.below(2) == 0 {
            self.commit(number);
        }
        self.owners[number].transaction = None;
        for (partition, before) in parts.into_iter().zip(before) {
            self.owners[number].active.remove(&partition);
            if self.without == Without::ReadingWhatTookPlace {
                self.owners[number].active.insert(partition, before);
            }
        }
    }

    fn abort(&mut self, number: usize) {
        if self.owners[number].transaction.is_some() {
            self.give_up(number);
        }
    }

    /// What was decided and not committed is forgotten: its partitions are taken over again.
    fn give_up(&mut self, number: usize) {
        let owner = &mut self.owners[number];
        let Some(transaction) = owner.transaction.take() else { return };
        owner.active.retain(|partition, _| !transaction.parts.contains_key(partition));
    }

    /// Everybody is well for long enough: one owner forwards all that is left, and all dead letters are put back.
    fn settle(&mut self) {
        self.is_open = true;
        self.forward_all();
        for partition in 0..PARTITIONS {
            for offset in self.logs[partition].dead_letters.clone() {
                self.put_back(partition, offset);
            }
        }
        self.forward_all();
    }

    fn forward_all(&mut self) {
        self.owners = Default::default();
        self.assigned = [0; PARTITIONS];
        self.generation += 1;
        self.hear_of_the_group(0);
        for _ in 0..STEPS * 4 {
            self.decide(0);
            self.go_on(0);
        }
    }

    /// What breaks the promise, if anything does.
    fn fault(&self) -> Option<String> {
        for log in &self.logs {
            let delivered: BTreeSet<&str> = log.inbox.iter().map(id_of).collect();
            for id in &delivered {
                let count = log.published.iter().filter(|published| published == id).count();
                if count != 1 {
                    return Some(format!("event {id} stands {count} times in its topic"));
                }
            }
            // What was a dead letter comes late.
            let died: BTreeSet<_> =
                log.dead_letters.iter().map(|offset| id_of(&log.inbox[*offset])).collect();
            let in_order = log.published.iter().filter(|id| !died.contains(id.as_str()));
            let first = |id: &str| log.inbox.iter().position(|record| id_of(record) == id).unwrap();
            if !in_order.map(|id| first(id)).is_sorted() {
                return Some(format!("out of order: {:?}", log.published));
            }
            // One for each body that an id came with beside its first.
            let bodies: BTreeSet<_> = log.inbox.iter().map(|record| &record.body).collect();
            if log.conflicts.len() != bodies.len() - delivered.len() {
                return Some(format!("conflicts: {:?}", log.conflicts));
            }
        }
        None
    }
}

fn id_of(record: &Record) -> &str {
    &record.headers.iter().find(|(name, _)| *name == "id").unwrap().1
}

/// The first schedule that breaks the promise.
fn first_fault(without: Without) -> Option<(u64, String)> {
    (0..SCHEDULES).find_map(|seed| {
        let mut world = World::new(seed, without);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.fault().map(|fault| (seed, fault))
    })
}

#[test]
fn no_schedule_loses_repeats_or_reorders_an_event() {
    assert_eq!(first_fault(Without::Nothing), None);
}

#[test]
fn each_guarantee_is_missed_when_it_is_taken_away() {
    for without in [
        Without::TheGeneration,
        Without::WaitingForOpenTransactions,
        Without::ReadingWhatTookPlace,
        Without::TheWindow,
        Without::NamingTheCopysOwnPlace,
    ] {
        assert!(first_fault(without).is_some(), "{without:?} is missed by no schedule");
    }
}
