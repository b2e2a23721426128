//! The end of a schedule, and what it comes to.

use std::collections::BTreeSet;

use clearfeed_relay::domain::ledger_entry::{FORMAT, LedgerEntry};

use crate::ledger::Outcome;
use crate::owner::Owner;
use crate::world::{Outgoing, PARTITIONS, Record, World};

/// In so many rounds an owner ends what it has begun; in so many more it forwards all that a schedule has delivered.
const LAST_ROUNDS: usize = 20;
const ROUNDS: usize = 600;

impl World {
    /// Everybody is well for long enough: all that was begun ends, one owner forwards all that is left, and all dead letters
    /// are put back.
    pub fn settle(&mut self) {
        (self.is_well, self.is_admitted) = (true, true);
        for number in 0..self.owners.len() {
            for _ in 0..LAST_ROUNDS {
                self.write_markers(number);
                self.go_on(number);
            }
            self.owners[number] = Owner::default();
            self.end(number, Outcome::Aborted);
            self.write_markers(number);
            self.write_what_was_left_out(number);
        }
        self.forward_all();
        for partition in 0..PARTITIONS {
            for offset in self.dead_letters(partition) {
                self.put_back(partition, offset);
            }
        }
        self.forward_all();
    }

    fn write_markers(&mut self, producer: usize) {
        while self.coordinator.due(producer) > 0 {
            self.write_a_marker(producer);
        }
    }

    /// The first owner has all partitions of its group, and the others rest.
    fn forward_all(&mut self) {
        self.groups[0].assigned = [0; PARTITIONS];
        self.groups[0].generation += 1;
        for _ in 0..ROUNDS {
            if self.is_idle(0) {
                break;
            }
            self.hear_of_the_group(0);
            self.decide(0);
            self.go_on(0);
            self.write_markers(0);
        }
    }

    /// What breaks the promise, if anything does.
    pub fn judge(&self) -> Option<String> {
        (0..PARTITIONS).find_map(|partition| {
            self.judge_events(partition)
                .or_else(|| self.judge_conflicts(partition))
                .or_else(|| self.judge_ledger(partition))
        })
    }

    fn judge_events(&self, partition: usize) -> Option<String> {
        let inbox = &self.topics[partition].inbox;
        let published: Vec<&str> = self.visible(partition).filter_map(event).collect();
        let delivered: BTreeSet<&str> = inbox.iter().map(Record::id).collect();
        for id in &delivered {
            let count = published.iter().filter(|published| *published == id).count();
            if count != 1 {
                return Some(format!("event {id} stands {count} times in its topic"));
            }
        }
        // What was a dead letter comes late.
        let died: BTreeSet<_> =
            self.dead_letters(partition).into_iter().map(|offset| inbox[offset].id()).collect();
        let in_order = published.iter().filter(|id| !died.contains(*id));
        let first = |id: &str| inbox.iter().position(|record| record.id() == id).unwrap();
        let is_in_order = in_order.map(|id| first(id)).is_sorted();
        (!is_in_order).then(|| format!("out of order: {published:?}"))
    }

    /// One for each body that an id came with beside its first.
    fn judge_conflicts(&self, partition: usize) -> Option<String> {
        let inbox = &self.topics[partition].inbox;
        let ids: BTreeSet<_> = inbox.iter().map(Record::id).collect();
        let bodies: BTreeSet<_> = inbox.iter().map(|record| &record.body).collect();
        let conflicts: Vec<_> =
            self.visible(partition).filter(|outgoing| matches!(outgoing, Outgoing::Conflict(_))).collect();
        (conflicts.len() != bodies.len() - ids.len()).then(|| format!("conflicts: {conflicts:?}"))
    }

    /// Ledger records follow each other.
    fn judge_ledger(&self, partition: usize) -> Option<String> {
        let ledger = &self.topics[partition].ledger;
        let mut next = 0;
        for value in ledger.committed(ledger.stable_end(ledger.end())) {
            let LedgerEntry { from, to, .. } = LedgerEntry::decode(Some(FORMAT.as_bytes()), value).unwrap();
            if from != next {
                return Some(format!("a ledger record goes on at {from}, the one before ends at {next}"));
            }
            next = to;
        }
        None
    }
}

fn event(outgoing: &Outgoing) -> Option<&str> {
    match outgoing {
        Outgoing::Event(id) => Some(id),
        _ => None,
    }
}
