//! What the ledger remembers of a partition, record by record.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use super::partition::Held;
use super::resume::Tail;
use crate::domain::inbox_record::header;
use crate::domain::ledger_entry::{LedgerEntry, LedgerError};
use crate::domain::window::Window;
use crate::telemetry::labels::HeldReason;

/// What the ledger remembers of a partition.
pub(super) struct Memory {
    pub(super) window: Window,
    pub(super) tail: Option<Tail>,
    /// The ledger partition's log start.
    pub(super) start: i64,
    /// When its last record was written, in ms since 1970; 0: never.
    pub(super) written_ms: i64,
    /// Ids that had to be forgotten again while it was read.
    pub(super) evicted: u64,
}

impl Memory {
    /// Of a ledger partition of which nothing was read yet.
    pub(super) fn new(start: i64, window: Duration) -> Self {
        Self { window: Window::new(window), tail: None, start, written_ms: 0, evicted: 0 }
    }

    /// Takes in the next ledger record.
    pub(super) fn take(&mut self, record: &BorrowedMessage<'_>) -> Result<(), Held> {
        let format = record
            .headers()
            .and_then(|headers| headers.iter().find(|found| found.key == header::FORMAT))
            .and_then(|found| found.value);
        let entry = LedgerEntry::decode(format, record.payload().unwrap_or_default()).map_err(|error| {
            let reason = match error {
                LedgerError::NewerFormat(_) => HeldReason::NewerFormat,
                LedgerError::Damaged(_) => HeldReason::LedgerForeign,
            };
            let detail = format!("{error}, at offset {} of {}", record.offset(), record.topic());
            Held { reason, detail }
        })?;
        for decided in &entry.ids {
            self.window.restore(decided.sighting);
        }
        self.window.advance(entry.newest_ms);
        let LedgerEntry { to, last_ms, inbox_partitions, .. } = entry;
        self.tail = Some(Tail { to, last_ms, inbox_partitions });
        self.written_ms = record.timestamp().to_millis().unwrap_or(0);
        Ok(())
    }
}
