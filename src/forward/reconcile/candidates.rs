//! Requests that were created or changed, and of which an event is due: which of them nothing came of. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::snapshot::Snapshot;
use crate::domain::watermark::Watermark;

/// An event may stand in the inbox so long before ClearFeed's time of what it tells: clocks are apart.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What is not judged yet, by request.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    created: BTreeMap<u64, Timestamp>,
    updated: BTreeMap<u64, Timestamp>,
}

/// What an event was due of by some instant.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    created: Vec<(u64, Timestamp)>,
    updated: Vec<(u64, Timestamp)>,
}

/// What nothing came of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    /// Each request with when it was created: strictly.
    pub(super) created: Vec<(u64, Timestamp)>,
    /// How many were only changed: a hint.
    pub(super) updated: u64,
    /// How many are from before what the inbox keeps.
    pub(super) unknown: u64,
}

impl Candidates {
    /// A request as the API told it.
    pub(super) fn note(&mut self, snapshot: &Snapshot, mark: &Watermark) {
        let is_open = |at: &Timestamp| *at > mark.judged();
        if let Some(created) = snapshot.created.filter(is_open) {
            self.created.insert(snapshot.request, created);
        } else if let Some(updated) = snapshot.updated.filter(is_open) {
            self.updated.insert(snapshot.request, updated);
        }
    }

    /// Takes out what was due by `cutoff`.
    pub(super) fn due(&mut self, cutoff: Timestamp) -> Due {
        let take = |map: &mut BTreeMap<u64, Timestamp>| {
            let (due, later): (BTreeMap<_, _>, _) =
                std::mem::take(map).into_iter().partition(|(_, at)| *at <= cutoff);
            *map = later;
            due.into_iter().collect::<Vec<_>>()
        };
        Due { created: take(&mut self.created), updated: take(&mut self.updated) }
    }

    /// What could not be judged is due again.
    pub(super) fn put_back(&mut self, due: Due) {
        for (request, at) in due.created {
            self.created.entry(request).or_insert(at);
        }
        for (request, at) in due.updated {
            self.updated.entry(request).or_insert(at);
        }
    }
}

impl Due {
    /// Takes out those of which events may have left the inbox, which keeps what came since `kept`; says how many.
    pub(super) fn forget_before(&mut self, kept: Timestamp) -> u64 {
        let due = self.created.len() + self.updated.len();
        for requests in [&mut self.created, &mut self.updated] {
            requests.retain(|(_, at)| before(*at) >= kept);
        }
        (due - self.created.len() - self.updated.len()) as u64
    }

    /// From when on the inbox has to be known; none: nothing is due.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let oldest = self.created.iter().chain(&self.updated).map(|(_, at)| *at).min()?;
        Some(before(oldest))
    }

    /// Asks of each whether an event of it came since then.
    pub(super) fn judge(&self, came_since: impl Fn(u64, Timestamp) -> bool) -> Missed {
        let is_missed = |(request, at): &&(u64, Timestamp)| !came_since(*request, before(*at));
        Missed {
            created: self.created.iter().filter(is_missed).copied().collect(),
            updated: self.updated.iter().filter(is_missed).count() as u64,
            unknown: 0,
        }
    }
}

fn before(at: Timestamp) -> Timestamp {
    at.saturating_sub(SKEW).unwrap_or(at)
}

/// Until when events are due by now.
pub(super) fn cutoff(now: Timestamp, grace: Duration) -> Timestamp {
    now.saturating_sub(SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_793_901_532 + second).unwrap()
    }

    fn candidates(requests: &[(u64, i64, i64)]) -> Candidates {
        let mut candidates = Candidates::default();
        for (id, created, updated) in requests {
            let json =
                format!(r#"{{"id":{id},"created_at":"{}","updated_at":"{}"}}"#, at(*created), at(*updated));
            let snapshot = Snapshot::read(RawValue::from_string(json).unwrap()).unwrap();
            candidates.note(&snapshot, &Watermark::beginning(at(0)));
        }
        candidates
    }

    #[test]
    fn what_was_created_is_judged_strictly_and_what_was_changed_is_a_hint() {
        let mut candidates =
            candidates(&[(1, 10, 10), (2, 20, 50), (3, -500, 30), (4, -500, -400), (5, 90, 90)]);
        let due = candidates.due(at(60));
        assert_eq!(due.since(), Some(at(10 - 300)));
        let came = |request, since| request == 2 && since == at(20 - 300);
        assert_eq!(due.judge(came), Missed { created: vec![(1, at(10))], updated: 1, unknown: 0 });
        assert_eq!(due.judge(|_, _| true), Missed::default());
        assert_eq!(candidates.due(at(60)), Due::default(), "each is judged once");
        candidates.put_back(due);
        assert_eq!(candidates.due(at(60)).created.len(), 2, "unless it could not be");
        assert_eq!(candidates.due(at(100)).created, [(5, at(90))], "the grace is over");
        assert_eq!(candidates.due(at(100)).since(), None);
    }

    #[test]
    fn of_what_the_inbox_does_not_keep_nothing_is_said() {
        let mut due = candidates(&[(1, 10, 10), (2, 20, 20), (3, -500, 15), (4, -500, 30)]).due(at(60));
        assert_eq!(due.forget_before(at(20 - 300)), 2);
        assert_eq!(due, Due { created: vec![(2, at(20))], updated: vec![(4, at(30))] });
    }

    #[test]
    fn events_are_due_when_the_grace_is_over() {
        assert_eq!(cutoff(at(600), Duration::from_secs(600)), at(0));
        assert!(cutoff(at(0), Duration::MAX) < at(0));
    }
}
