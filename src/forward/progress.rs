//! How far a takeover is: told by the thread that reads, shown by the loop.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::status::LedgerProgress;

/// How much of a ledger partition has been read: offsets, counted from its log start.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    of: AtomicU64,
}

impl Progress {
    /// Tells how far it is.
    pub fn tell(&self, read: u64, of: u64) {
        self.read.store(read, Ordering::Relaxed);
        self.of.store(of, Ordering::Relaxed);
    }

    /// What was last told.
    pub fn told(&self) -> LedgerProgress {
        LedgerProgress { read: self.read.load(Ordering::Relaxed), of: self.of.load(Ordering::Relaxed) }
    }
}
