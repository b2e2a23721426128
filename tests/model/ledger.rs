//! A partition of the ledger as a broker has it: records, and the markers that end them, each at an offset of its own.

use std::ops::Range;

use clearfeed_relay::domain::ledger_entry::{FORMAT, LedgerEntry};

/// What a marker says of the transaction that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
}

enum Item {
    Record {
        producer: usize,
        value: Vec<u8>,
        /// At which offset the marker stands that ended it, and what that says.
        end: Option<(usize, Outcome)>,
    },
    Marker,
}

/// Offsets are indices.
#[derive(Default)]
pub struct Ledger {
    items: Vec<Item>,
}

impl Ledger {
    pub fn append(&mut self, producer: usize, value: Vec<u8>) -> usize {
        self.items.push(Item::Record { producer, value, end: None });
        self.items.len() - 1
    }

    /// Writes a marker. It ends whatever the producer has open here, of whichever of its transactions that is.
    pub fn mark(&mut self, producer: usize, outcome: Outcome) {
        let at = self.items.len();
        for item in &mut self.items {
            if let Item::Record { producer: of, end: end @ None, .. } = item
                && *of == producer
            {
                *end = Some((at, outcome));
            }
        }
        self.items.push(Item::Marker);
    }

    /// Where it ends for readers that do not wait for transactions.
    pub fn end(&self) -> usize {
        self.items.len()
    }

    /// Where it ended for `read_committed` readers when all of it ended at `end`.
    pub fn stable_end(&self, end: usize) -> usize {
        let is_open = |item: &Item| match item {
            Item::Record { end: ended, .. } => ended.is_none_or(|(at, _)| at >= end),
            Item::Marker => false,
        };
        self.items[..end].iter().position(is_open).unwrap_or(end)
    }

    /// What `read_committed` readers find before `stable_end`.
    pub fn committed(&self, stable_end: usize) -> impl Iterator<Item = &[u8]> {
        self.items[..stable_end].iter().filter_map(|item| match item {
            Item::Record { value, end: Some((_, Outcome::Committed)), .. } => Some(value.as_slice()),
            _ => None,
        })
    }

    /// The highest inbox offset that a record there begins at, of whatever state it is.
    pub fn begins(&self, offsets: Range<usize>) -> Option<i64> {
        let items = self.items.get(offsets)?.iter();
        let from = |item: &Item| match item {
            Item::Record { value, .. } => {
                Some(LedgerEntry::decode(Some(FORMAT.as_bytes()), value).unwrap().from)
            }
            Item::Marker => None,
        };
        items.filter_map(from).max()
    }

    /// Where the producer's open records stand.
    pub fn open(&self, producer: usize) -> Vec<usize> {
        let is_open =
            |item: &Item| matches!(item, Item::Record { producer: of, end: None, .. } if *of == producer);
        (0..self.items.len()).filter(|at| is_open(&self.items[*at])).collect()
    }
}
