//! Kafka's transaction coordinator: it decides what becomes of a transaction at once, and writes that into the partitions
//! later, marker by marker.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::Outcome;

/// Where a marker goes.
#[derive(Debug, Clone)]
pub enum Place {
    Ledger(usize),
    /// The offsets that the transaction commits for its group, by partition of the inbox.
    Offsets(BTreeMap<usize, i64>),
}

/// A transaction that is neither committed nor aborted.
#[derive(Default)]
struct Open {
    id: usize,
    /// Ledger partitions that have a record of it.
    partitions: BTreeSet<usize>,
    offsets: BTreeMap<usize, i64>,
}

/// What is known of a transactional id, whichever process has it.
#[derive(Default)]
struct Producer {
    open: Option<Open>,
    /// Markers of its last transaction that are still to be written.
    due: Vec<(Place, Outcome)>,
}

pub struct Coordinator {
    producers: Vec<Producer>,
    outcomes: Vec<Option<Outcome>>,
}

impl Coordinator {
    pub fn new(producers: usize) -> Self {
        Self { producers: (0..producers).map(|_| Producer::default()).collect(), outcomes: Vec::new() }
    }

    /// Begins a transaction, unless markers of the one before are still to be written.
    pub fn begin(&mut self, producer: usize) -> Option<usize> {
        let found = &mut self.producers[producer];
        if !found.due.is_empty() {
            return None;
        }
        let id = self.outcomes.len();
        self.outcomes.push(None);
        found.open = Some(Open { id, ..Open::default() });
        Some(id)
    }

    pub fn add_record(&mut self, producer: usize, partition: usize) {
        self.producers[producer].open.as_mut().unwrap().partitions.insert(partition);
    }

    pub fn add_offsets(&mut self, producer: usize, offsets: BTreeMap<usize, i64>) {
        self.producers[producer].open.as_mut().unwrap().offsets = offsets;
    }

    /// Ends the transaction that is open, if one is. Its markers are written later; `ledgers` says which of the ledger's are.
    pub fn end(
        &mut self,
        producer: usize,
        outcome: Outcome,
        ledgers: impl FnOnce(&BTreeSet<usize>) -> Vec<usize>,
    ) {
        let Some(open) = self.producers[producer].open.take() else { return };
        self.outcomes[open.id] = Some(outcome);
        let offsets = Some(Place::Offsets(open.offsets));
        let places = ledgers(&open.partitions).into_iter().map(Place::Ledger).chain(offsets);
        self.producers[producer].due.extend(places.map(|place| (place, outcome)));
    }

    pub fn outcome(&self, id: usize) -> Option<Outcome> {
        self.outcomes[id]
    }

    pub fn has_open(&self, producer: usize) -> bool {
        self.producers[producer].open.is_some()
    }

    /// How many markers are still to be written for a producer.
    pub fn due(&self, producer: usize) -> usize {
        self.producers[producer].due.len()
    }

    /// Takes a marker that is to be written now.
    pub fn take_due(&mut self, producer: usize, which: usize) -> (Place, Outcome) {
        self.producers[producer].due.swap_remove(which)
    }

    /// The marker is to be written once more: a coordinator that was restarted does not know that it was.
    pub fn repeat(&mut self, producer: usize, place: Place, outcome: Outcome) {
        self.producers[producer].due.push((place, outcome));
    }

    /// Whether one of these has a transaction on the partition's offset that has not ended there.
    pub fn holds_offset(&self, producers: impl IntoIterator<Item = usize>, partition: usize) -> bool {
        producers.into_iter().any(|producer| {
            let Producer { open, due } = &self.producers[producer];
            let is_due = |(place, _): &(Place, Outcome)| matches!(place, Place::Offsets(offsets) if offsets.contains_key(&partition));
            open.as_ref().is_some_and(|open| open.offsets.contains_key(&partition)) || due.iter().any(is_due)
        })
    }
}
