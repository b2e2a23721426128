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

/// What stands between the offset that was expected and the one at which the record landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    /// Whether a record stands there, committed or not. Markers of transactions are no records.
    pub has_records: bool,
    /// Where the partition ends for `read_committed` readers.
    pub stable_end: i64,
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

    /// Whether the transaction may be committed after a look.
    ///
    /// If our own last record is committed and still open for readers, Kafka left out its marker (KAFKA-20734). To abort now
    /// would end that record as aborted; to commit heals it. Nobody else can have passed it: every other owner finds our
    /// record behind the end that it read to.
    pub fn allows(self, between: Between) -> bool {
        !between.has_records || (self.after_own_commit && between.stable_end < self.next)
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
    fn a_record_between_forbids_the_commit_unless_our_own_last_one_lacks_its_marker() {
        let (markers, record) =
            (Between { has_records: false, stable_end: 9 }, Between { has_records: true, stable_end: 9 });
        for fence in [Fence::taken_over(7), Fence::committed(6)] {
            assert!(fence.allows(markers));
            assert!(!fence.allows(record));
        }
        let unended = Between { has_records: true, stable_end: 6 };
        assert!(Fence::committed(6).allows(unended));
        assert!(!Fence::taken_over(7).allows(unended));
    }
}
