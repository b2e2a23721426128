//! What came in during the last hour, minute by minute, out of the counters that are there anyway: a delivery costs
//! nothing more. For `/status` and the page, where there is no Prometheus at hand.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::metrics::Tally;
use super::status::{Hour, RefusedStatus};

/// Minutes that are told of, the one that is not over yet among them.
const MINUTES: usize = 60;

/// The counters as they stood when each of the last minutes began.
#[derive(Debug, Default)]
pub struct History {
    /// By minutes since 1970, the oldest first; before the first one nothing was counted.
    marks: Mutex<VecDeque<(i64, Vec<u64>)>>,
}

impl History {
    /// To be called at least once a minute; what came since the last call counts for the minute of that call.
    pub fn mark(&self, now: Timestamp, tally: &Tally) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minute(now);
        // A clock that was set back begins no minute twice.
        if marks.back().is_none_or(|(last, _)| *last < minute) {
            marks.push_back((minute, tally.iter().map(|line| line.count).collect()));
        }
        // One more than is told of: where the oldest minute begins.
        while marks.len() > MINUTES + 1 {
            marks.pop_front();
        }
    }

    /// Kept, refused and failed by minute, and every reason of what was refused or failed since the start.
    pub fn last_hour(&self, now: Timestamp, tally: &Tally) -> (Hour, Vec<RefusedStatus>) {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let this = minute(now);
        let first = this - i64::try_from(MINUTES).unwrap_or(0) + 1;
        // How often the line's delivery had ended when that minute began.
        let at = |minute: i64, line: usize| {
            let mark = marks.iter().find(|(marked, _)| *marked >= minute);
            mark.map_or(tally[line].count, |(_, counts)| counts[line])
        };
        let since = |line: usize| tally[line].count.saturating_sub(at(first, line));
        let mut hour = Hour {
            from: Timestamp::from_second(first * 60).unwrap_or_default(),
            accepted: vec![0; MINUTES],
            refused: vec![0; MINUTES],
            failed: vec![0; MINUTES],
        };
        let mut refused = Vec::new();
        for (position, line) in tally.iter().enumerate() {
            let minutes = if line.outcome.is_success() {
                &mut hour.accepted
            } else if line.outcome.is_ours() {
                &mut hour.failed
            } else {
                &mut hour.refused
            };
            for (minute, sum) in (first..).zip(minutes) {
                *sum += at(minute + 1, position).saturating_sub(at(minute, position));
            }
            if line.count > 0 && !line.outcome.is_success() {
                refused.push(RefusedStatus {
                    source: line.source.clone(),
                    reason: line.reason,
                    last_hour: since(position),
                    since_start: line.count,
                });
            }
        }
        (hour, refused)
    }
}

fn minute(now: Timestamp) -> i64 {
    now.as_second().div_euclid(60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::Outcome;
    use crate::telemetry::metrics::TallyLine;

    fn at(minute: i64, second: i64) -> Timestamp {
        Timestamp::from_second(minute * 60 + second).unwrap()
    }

    fn tally(accepted: u64, mismatch: u64, unavailable: u64) -> Tally {
        let line = |outcome, reason, count| TallyLine { source: "main".to_owned(), outcome, reason, count };
        vec![
            line(Outcome::Accepted, "accepted", accepted),
            line(Outcome::Unauthenticated, "mismatch", mismatch),
            line(Outcome::Unavailable, "unavailable", unavailable),
        ]
    }

    #[test]
    fn a_minute_is_what_was_counted_from_its_begin_to_the_next() {
        let history = History::default();
        history.mark(at(1000, 30), &tally(0, 0, 0));
        history.mark(at(1000, 50), &tally(4, 0, 0));
        history.mark(at(1001, 0), &tally(5, 1, 0));
        history.mark(at(1002, 1), &tally(5, 1, 2));
        let (hour, refused) = history.last_hour(at(1002, 40), &tally(8, 1, 2));
        assert_eq!(hour.from, at(943, 0));
        assert_eq!((hour.accepted.len(), &hour.accepted[57..]), (60, &[5, 0, 3][..]));
        assert_eq!(&hour.refused[57..], [1, 0, 0]);
        assert_eq!(&hour.failed[57..], [0, 2, 0]);
        let told: Vec<_> = refused.iter().map(|r| (r.reason, r.last_hour, r.since_start)).collect();
        assert_eq!(told, [("mismatch", 1, 1), ("unavailable", 2, 2)]);
    }

    #[test]
    fn an_hour_later_it_is_forgotten_and_the_sum_is_not() {
        let history = History::default();
        history.mark(at(0, 0), &tally(0, 0, 0));
        for minute in 1..200 {
            history.mark(at(minute, 0), &tally(7, 7, 0));
        }
        assert_eq!(history.marks.lock().unwrap().len(), 61);
        let (hour, refused) = history.last_hour(at(199, 59), &tally(9, 7, 0));
        assert_eq!(hour.accepted.iter().sum::<u64>(), 2);
        assert_eq!((refused[0].last_hour, refused[0].since_start), (0, 7));
    }

    #[test]
    fn a_clock_that_is_set_back_begins_no_minute_twice() {
        let history = History::default();
        history.mark(at(10, 0), &tally(0, 0, 0));
        history.mark(at(9, 0), &tally(3, 0, 0));
        let (hour, _) = history.last_hour(at(10, 5), &tally(4, 0, 0));
        assert_eq!(hour.accepted.iter().sum::<u64>(), 4);
    }
}
