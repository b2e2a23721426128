//! The ledger as the fence: where the next record of a ledger partition may land. Pure.
//!
//! The invariant: *a committed ledger record was decided with knowledge of every committed record before it.* An owner
//! knows up to which offset it has read. Kafka tells where its record landed before the transaction is committed. If
//! another owner's record may stand between the two, the transaction is aborted. This holds whatever group an owner is
//! in, and however long it was paused.
//!
//! docs/exactly-once.md tells why the rule is neither stricter nor more lenient; tests/model shows it.

/// What an owner knows of its ledger partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The lowest offset at which the next record may land.
    next: i64,
    /// The last thing that is known of in the partition is our own commit, which was answered.
    after_own_commit: bool,
}

impl Fence {
    /// Of a partition whose ledger was read to `end`: where it ended for `read_committed` readers before it was read.
    pub fn taken_over(end: i64) -> Self {
        Self { next: end, after_own_commit: false }
    }

    /// Our record landed there, and its commit was answered.
    pub fn committed(landed: i64) -> Self {
        Self { next: landed + 1, after_own_commit: true }
    }

    /// The lowest offset at which the next record may land.
    pub fn next(self) -> i64 {
        self.next
    }

    /// Whether no other owner's record can stand before this one. If not, somebody has to look.
    ///
    /// One offset may be skipped directly after our own commit: its marker takes it. After a takeover none may, because a
    /// single foreign record would fit in there.
    pub fn admits(self, landed: i64) -> bool {
        landed == self.next || (self.after_own_commit && landed == self.next + 1)
    }

    /// Whether the transaction may be committed after a look at what stands between. Markers may. Records may directly after
    /// our own commit, if each was decided without knowledge of it: they begin (`from`, an inbox offset) before our own record,
    /// which begins where our last one ended. Whoever wrote them finds our last one behind the end that he read to, and aborts.
    ///
    /// `between` is the highest `from` of the records that stand between, `ours` the one of our own. It would be simpler to
    /// abort here, too. But where Kafka left out the marker of our commit (KAFKA-20734), the marker of an abort would end that
    /// record as aborted; the one of a commit heals it.
    pub fn allows(self, between: Option<i64>, ours: i64) -> bool {
        between.is_none_or(|highest| self.after_own_commit && highest < ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marker_of_our_own_commit_may_stand_between() {
        let (taken_over, committed) = (Fence::taken_over(7), Fence::committed(6));
        assert!(taken_over.admits(7) && committed.admits(7));
        assert!(!taken_over.admits(8), "a foreign record would fit in there");
        assert!(committed.admits(8));
        for landed in [-1001, -1, 6, 9] {
            assert!(!taken_over.admits(landed) && !committed.admits(landed), "{landed}");
        }
    }

    #[test]
    fn a_record_between_forbids_the_commit_unless_it_was_decided_without_our_last_one() {
        let (taken_over, committed) = (Fence::taken_over(7), Fence::committed(6));
        assert!(taken_over.allows(None, 50) && committed.allows(None, 50), "only markers");
        for fence in [taken_over, committed] {
            assert!(!fence.allows(Some(50), 50), "it goes on where we do");
            assert!(!fence.allows(Some(60), 50), "it is ahead of us");
        }
        assert!(committed.allows(Some(49), 50), "it repeats what we have committed, and cannot be");
        assert!(!taken_over.allows(Some(49), 50), "nothing says what it knew");
    }
}
