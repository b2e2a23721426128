//! A partition while it is forwarded.

use std::time::{Duration, Instant};

use super::fence::Fence;
use super::partition::Partition;
use super::takeover::Taken;

/// A partition without new records gets a ledger record of its own this often, so that silence is rare.
const LEDGER_SILENCE: Duration = Duration::from_secs(3600);

/// A partition that is forwarded.
pub(super) struct Active {
    pub(super) partition: Partition,
    /// Where its next ledger record may land.
    pub(super) fence: Fence,
    /// The offset that the consumer gives next.
    fetched: i64,
    /// A gap that was met once: it is believed when it is met again.
    gap: Option<i64>,
    /// `None`: a record is due at once.
    ledger_written: Option<Instant>,
    /// Inbox records that retention took unread: counted when the ledger has it.
    lost: Option<Lost>,
}

/// Inbox records from `from` up to, not including, `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// What to do with a consumed record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next one.
    Take,
    /// It belongs to the time before a pause or a seek.
    Drop,
    /// Records before it are missing: ask again for this offset.
    SeekTo(i64),
}

impl Active {
    /// A partition that was taken over, and is consumed from its next offset on.
    pub(super) fn new(number: i32, taken: Taken, now: Instant) -> Self {
        let next = taken.partition.next();
        Self {
            partition: taken.partition,
            fence: taken.fence,
            fetched: next,
            gap: None,
            ledger_written: now.checked_sub(taken.ledger_age).filter(|_| taken.lost == 0),
            lost: (taken.lost > 0).then_some(Lost { partition: number, from: next - taken.lost, to: next }),
        }
    }

    /// Its ledger record was committed. Returns what the ledger now knows to be lost.
    pub(super) fn committed(&mut self, fence: Fence, now: Instant) -> Option<Lost> {
        self.fence = fence;
        self.ledger_written = Some(now);
        self.lost.take()
    }

    /// Whether a consumed record is the one to go on with.
    pub(super) fn arrival(&mut self, offset: i64) -> Arrival {
        if offset < self.fetched {
            return Arrival::Drop;
        }
        // Offsets that no record has are rare in the inbox (a transaction's marker, put there by another hand): to
        // be sure that nothing was skipped, the missing offset is asked for once more.
        if offset > self.fetched && self.gap != Some(offset) {
            self.gap = Some(offset);
            return Arrival::SeekTo(self.fetched);
        }
        self.gap = None;
        self.fetched = offset + 1;
        Arrival::Take
    }

    /// Consumed records that were not decided about come again.
    pub(super) fn put_back(&mut self) -> i64 {
        self.fetched = self.partition.next();
        self.fetched
    }

    /// Whether a ledger record is due although nothing came.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.ledger_written.is_none_or(|written| now.duration_since(written) > LEDGER_SILENCE)
    }
}
