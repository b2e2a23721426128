//! What the ledger remembers of a partition, record by record. Pure.

use std::time::Duration;

use super::resume::Tail;
use crate::domain::ledger_entry::{LedgerEntry, LedgerError};
use crate::domain::ledger_writer::Writer;
use crate::domain::window::Window;

/// What the ledger remembers of a partition.
#[derive(Debug)]
pub struct Memory {
    /// Ids that were there before.
    pub window: Window,
    /// What its last record says of where to go on.
    pub tail: Option<Tail>,
    /// Who wrote that; none where it does not say.
    pub writer: Option<Writer>,
    /// The ledger partition's log start.
    pub start: i64,
    /// Up to where it was read: at least where it ended for `read_committed` readers before.
    pub end: i64,
    /// When its last record was written, in ms since 1970; 0: never.
    pub written_ms: i64,
    /// Ids that had to be forgotten again while it was read.
    pub evicted: u64,
    /// What it last said in the header of the watermarks.
    pub watermarks: Option<Vec<u8>>,
}

impl Memory {
    /// Of a ledger partition of which nothing was read yet.
    pub fn new(start: i64, window: Duration) -> Self {
        Self {
            window: Window::new(window),
            tail: None,
            writer: None,
            start,
            end: start,
            written_ms: 0,
            evicted: 0,
            watermarks: None,
        }
    }

    /// Takes in the next ledger record: its header `v`, its value, and the ledger's own time for it. Ids that are too old
    /// by `now_ms` go, and then the oldest where they are more than `max_ids`: less may be this partition's in the end,
    /// for that is a replica's number, but more never is.
    pub fn take(
        &mut self,
        format: Option<&[u8]>,
        value: &[u8],
        written_ms: i64,
        now_ms: i64,
        max_ids: usize,
    ) -> Result<(), LedgerError> {
        let LedgerEntry { inbox_partitions, to, last_ms, newest_ms, ids, .. } =
            LedgerEntry::decode(format, value)?;
        for decided in ids {
            self.window.restore(decided);
        }
        self.window.advance(newest_ms);
        self.tail = Some(Tail { to, last_ms, inbox_partitions });
        self.written_ms = written_ms;
        self.window.evict(now_ms);
        while self.window.len() > max_ids {
            self.window.evict_oldest();
            self.evicted += 1;
        }
        Ok(())
    }
}
