//! Where a partition goes on: decided from what the ledger, the group and the inbox say, and from nothing else.

use crate::telemetry::labels::HeldReason;

/// The last record of a ledger partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The inbox offset to go on at.
    pub to: i64,
    /// Inbox time of the record before `to`, in ms since 1970; 0 where that was not known.
    pub last_ms: i64,
    /// Inbox partitions at the time.
    pub inbox_partitions: u32,
}

/// The group's offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// None, or expired.
    None,
    /// Written in one of our transactions.
    Ours(i64),
    /// Written by another hand; it has no say.
    Foreign(i64),
}

/// What a takeover has found.
#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    /// The last ledger record, where there is one.
    pub tail: Option<Tail>,
    /// The ledger partition's log start.
    pub ledger_start: i64,
    /// The group's offset.
    pub committed: Committed,
    /// The inbox partition's log start.
    pub inbox_start: i64,
    /// The inbox partition's end.
    pub inbox_end: i64,
    /// Time of the inbox record before the tail's `to`, in ms since 1970, where it is still there.
    pub inbox_last_ms: Option<i64>,
    /// `inbox.partitions`
    pub inbox_partitions: u32,
    /// `forward.start_at`, as an offset of this partition.
    pub start_at: Option<i64>,
}

/// What follows from the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Forward from here.
    GoOn {
        /// The next inbox offset.
        at: i64,
        /// Inbox records that retention took before they were read.
        lost: i64,
    },
    /// The ledger's leader is behind what we know was committed: look again.
    LookAgain,
    /// Wait for a person.
    Hold(HeldReason, String),
}

/// Decides where a partition goes on.
pub fn decide(evidence: &Evidence) -> Decision {
    match evidence.tail {
        Some(tail) => after_tail(evidence, tail),
        None => without_tail(evidence),
    }
}

fn after_tail(evidence: &Evidence, tail: Tail) -> Decision {
    if tail.inbox_partitions != evidence.inbox_partitions {
        let detail = format!(
            "the ledger was written for {} inbox partitions, inbox.partitions is {}: events of one request would \
             stand in two partitions",
            tail.inbox_partitions, evidence.inbox_partitions
        );
        return Decision::Hold(HeldReason::PartitionsChanged, detail);
    }
    if let Committed::Ours(committed) = evidence.committed
        && committed > tail.to
    {
        return Decision::LookAgain;
    }
    if tail.to > evidence.inbox_end {
        let detail =
            format!("the ledger goes on at offset {}, the inbox ends at {}", tail.to, evidence.inbox_end);
        return Decision::Hold(HeldReason::InboxRecreated, detail);
    }
    if let Some(found_ms) = evidence.inbox_last_ms
        && tail.last_ms != 0
        && found_ms != tail.last_ms
    {
        let detail = format!(
            "the inbox record before offset {} has time {found_ms}, the ledger knows it with {}",
            tail.to, tail.last_ms
        );
        return Decision::Hold(HeldReason::InboxRecreated, detail);
    }
    let at = tail.to.max(evidence.inbox_start);
    Decision::GoOn { at, lost: at - tail.to }
}

fn without_tail(evidence: &Evidence) -> Decision {
    match (evidence.ledger_start, evidence.committed) {
        (0, Committed::None | Committed::Foreign(_)) => Decision::GoOn { at: evidence.inbox_start, lost: 0 },
        // Retention took the whole ledger after a long silence: nothing that it knew can come again.
        (1.., Committed::Ours(committed)) if committed > evidence.inbox_end => {
            let detail =
                format!("we went on at offset {committed}, the inbox ends at {}", evidence.inbox_end);
            Decision::Hold(HeldReason::InboxRecreated, detail)
        }
        (1.., Committed::Ours(committed)) => {
            let at = committed.max(evidence.inbox_start);
            Decision::GoOn { at, lost: at - committed }
        }
        (start, committed) => {
            if let Some(at) = evidence.start_at {
                Decision::GoOn { at, lost: 0 }
            } else {
                let detail = format!(
                    "the ledger partition is empty and starts at offset {start}, the group's offset is \
                     {committed:?}: what was forwarded is unknown; set forward.start_at to go on"
                );
                Decision::Hold(HeldReason::LedgerGone, detail)
            }
        }
    }
}

/// Where what waits in a held partition begins, at the latest: at our own offset, or, where that tells nothing, at the
/// inbox's log start.
pub fn waiting_from(reason: HeldReason, committed: Committed, inbox_start: i64, inbox_end: i64) -> i64 {
    match committed {
        Committed::Ours(at)
            if reason != HeldReason::InboxRecreated && (inbox_start..=inbox_end).contains(&at) =>
        {
            at
        }
        _ => inbox_start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIDENCE: Evidence = Evidence {
        tail: Some(Tail { to: 50, last_ms: 7, inbox_partitions: 12 }),
        ledger_start: 0,
        committed: Committed::Ours(50),
        inbox_start: 10,
        inbox_end: 100,
        inbox_last_ms: Some(7),
        inbox_partitions: 12,
        start_at: None,
    };

    fn hold(decision: &Decision) -> HeldReason {
        match decision {
            Decision::Hold(reason, _) => *reason,
            other => panic!("not held: {other:?}"),
        }
    }

    #[test]
    fn the_ledger_says_where_to_go_on_whatever_the_group_says() {
        let goes_on = Decision::GoOn { at: 50, lost: 0 };
        for committed in [Committed::None, Committed::Ours(50), Committed::Foreign(3), Committed::Foreign(99)]
        {
            assert_eq!(decide(&Evidence { committed, ..EVIDENCE }), goes_on, "{committed:?}");
        }
    }

    #[test]
    fn a_ledger_behind_our_own_commit_is_read_again() {
        assert_eq!(decide(&Evidence { committed: Committed::Ours(51), ..EVIDENCE }), Decision::LookAgain);
    }

    #[test]
    fn what_retention_took_unread_is_counted() {
        let evidence = Evidence { inbox_start: 60, inbox_last_ms: None, ..EVIDENCE };
        assert_eq!(decide(&evidence), Decision::GoOn { at: 60, lost: 10 });
    }

    #[test]
    fn another_inbox_is_held() {
        let shorter = decide(&Evidence { inbox_end: 49, inbox_last_ms: None, ..EVIDENCE });
        assert_eq!(hold(&shorter), HeldReason::InboxRecreated);
        let other_time = decide(&Evidence { inbox_last_ms: Some(8), ..EVIDENCE });
        assert_eq!(hold(&other_time), HeldReason::InboxRecreated);
    }

    #[test]
    fn of_a_held_partition_all_waits_that_we_have_not_committed() {
        let from = |reason, committed| waiting_from(reason, committed, 10, 100);
        assert_eq!(from(HeldReason::LedgerOpen, Committed::Ours(50)), 50);
        assert_eq!(from(HeldReason::LedgerOpen, Committed::Ours(100)), 100);
        assert_eq!(from(HeldReason::LedgerOpen, Committed::Ours(9)), 10, "retention took the rest");
        // Offsets that say nothing about this inbox.
        for committed in [Committed::None, Committed::Foreign(50), Committed::Ours(101)] {
            assert_eq!(from(HeldReason::LedgerGone, committed), 10, "{committed:?}");
        }
        assert_eq!(from(HeldReason::InboxRecreated, Committed::Ours(50)), 10);
    }

    #[test]
    fn another_number_of_partitions_is_held() {
        let changed = decide(&Evidence { inbox_partitions: 13, ..EVIDENCE });
        assert_eq!(hold(&changed), HeldReason::PartitionsChanged);
    }

    #[test]
    fn without_a_ledger_only_a_first_start_and_a_long_silence_go_on() {
        let none = Evidence { tail: None, ..EVIDENCE };
        let first = Evidence { committed: Committed::None, ..none };
        assert_eq!(decide(&first), Decision::GoOn { at: 10, lost: 0 });
        let silent = Evidence { ledger_start: 5, ..none };
        assert_eq!(decide(&silent), Decision::GoOn { at: 50, lost: 0 });
        let shorter = Evidence { inbox_end: 49, ..silent };
        assert_eq!(hold(&decide(&shorter)), HeldReason::InboxRecreated);
        let forgotten = Evidence { ledger_start: 5, committed: Committed::None, ..none };
        for gone in [none, forgotten, Evidence { committed: Committed::Foreign(50), ..forgotten }] {
            assert_eq!(hold(&decide(&gone)), HeldReason::LedgerGone);
            let told = Evidence { start_at: Some(20), ..gone };
            assert_eq!(decide(&told), Decision::GoOn { at: 20, lost: 0 });
        }
    }
}
