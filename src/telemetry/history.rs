//! What came in during the last hour, minute by minute, out of the counters that are there anyway: a delivery costs
//! nothing more. For `/status` and the page, where there is no Prometheus at hand.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::labels::{Ending, Outcome};
use super::metrics::DeliveryCount;
use super::status::{LastHour, NotKept};

/// Minutes that are told of, the one that is not over yet among them.
const MINUTES: usize = 60;
const MINUTES_I64: i64 = 60;

/// The counters as they stood when each of the last minutes began.
#[derive(Debug, Default)]
pub struct History {
    /// By minutes since 1970, the oldest first; before the first one nothing was counted.
    samples: Mutex<VecDeque<(i64, Vec<u64>)>>,
}

impl History {
    /// To be called at least once a minute; what came since the last call counts for the minute of that call.
    pub fn sample(&self, now: Timestamp, counts: &[DeliveryCount]) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minute(now);
        // A clock that was set back: what was sampled in a future that is no more counts for what is now.
        while samples.back().is_some_and(|(last, _)| *last > minute) {
            samples.pop_back();
        }
        if samples.back().is_none_or(|(last, _)| *last < minute) {
            samples.push_back((minute, numbers(counts)));
        }
        // One more than is told of: where the oldest minute begins.
        while samples.len() > MINUTES + 1 {
            samples.pop_front();
        }
    }

    /// The deliveries by minute, and every way in which some were not kept since the start.
    pub fn last_hour(&self, now: Timestamp, counts: &[DeliveryCount]) -> (LastHour, Vec<NotKept>) {
        let (first, current) = (minute(now) - MINUTES_I64 + 1, numbers(counts));
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // How the counters stood when each minute began, and how they stand.
        let bounds: Vec<&[u64]> = (first..=first + MINUTES_I64)
            .map(|minute| samples.iter().find(|(sampled, _)| *sampled >= minute))
            .map(|sample| sample.map_or(&*current, |(_, numbers)| numbers))
            .collect();
        let mut hour = LastHour::beginning(Timestamp::from_second(first * 60).unwrap_or_default(), MINUTES);
        let mut not_kept = Vec::new();
        for (line, count) in counts.iter().enumerate() {
            let minutes = match count.ending {
                Ending::Answered(Outcome::Accepted | Outcome::Spooled) => &mut hour.accepted,
                // Pings, and probes of load balancers.
                Ending::Answered(Outcome::Pong) => continue,
                Ending::Answered(Outcome::Unavailable) => &mut hour.failed,
                Ending::Answered(_) | Ending::NotAuthenticated(_) => &mut hour.refused,
            };
            for (sum, bound) in minutes.iter_mut().zip(bounds.windows(2)) {
                *sum += bound[1][line].saturating_sub(bound[0][line]);
            }
            if count.count > 0
                && !matches!(count.ending, Ending::Answered(Outcome::Accepted | Outcome::Spooled))
            {
                not_kept.push(NotKept {
                    source: count.source.clone(),
                    reason: count.ending,
                    last_hour: count.count.saturating_sub(bounds[0][line]),
                    since_start: count.count,
                });
            }
        }
        (hour, not_kept)
    }
}

fn numbers(counts: &[DeliveryCount]) -> Vec<u64> {
    counts.iter().map(|count| count.count).collect()
}

fn minute(now: Timestamp) -> i64 {
    now.as_second().div_euclid(60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::Refusal;

    fn at(minute: i64, second: i64) -> Timestamp {
        Timestamp::from_second(minute * 60 + second).unwrap()
    }

    fn counts(accepted: u64, mismatch: u64, unavailable: u64) -> Vec<DeliveryCount> {
        [
            (Ending::Answered(Outcome::Accepted), accepted),
            (Ending::Answered(Outcome::Pong), 1000 * accepted),
            (Ending::NotAuthenticated(Refusal::Mismatch), mismatch),
            (Ending::Answered(Outcome::Unavailable), unavailable),
        ]
        .into_iter()
        .map(|(ending, count)| DeliveryCount { source: "main".to_owned(), ending, count })
        .collect()
    }

    #[test]
    fn a_minute_is_what_was_counted_from_its_begin_to_the_next() {
        let history = History::default();
        history.sample(at(1000, 30), &counts(0, 0, 0));
        history.sample(at(1000, 50), &counts(4, 0, 0));
        history.sample(at(1001, 0), &counts(5, 1, 0));
        history.sample(at(1002, 1), &counts(5, 1, 2));
        let (hour, not_kept) = history.last_hour(at(1002, 40), &counts(8, 1, 2));
        assert_eq!(hour.from, at(943, 0));
        assert_eq!((hour.accepted.len(), &hour.accepted[57..]), (60, &[5, 0, 3][..]));
        assert_eq!(&hour.refused[57..], [1, 0, 0]);
        assert_eq!(&hour.failed[57..], [0, 2, 0]);
        let told: Vec<_> = not_kept.iter().map(|n| (n.reason.as_str(), n.last_hour, n.since_start)).collect();
        assert_eq!(told, [("mismatch", 1, 1), ("unavailable", 2, 2)]);
    }

    #[test]
    fn an_hour_later_it_is_forgotten_and_the_sum_is_not() {
        let history = History::default();
        for minute in 0..200 {
            history.sample(at(minute, 0), &counts(7, 7, 0));
        }
        assert_eq!(history.samples.lock().unwrap().len(), 61);
        let (hour, not_kept) = history.last_hour(at(199, 59), &counts(9, 7, 0));
        assert_eq!(hour.accepted.iter().sum::<u64>(), 2);
        assert_eq!((not_kept[0].last_hour, not_kept[0].since_start), (0, 7));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let history = History::default();
        history.sample(at(100, 0), &counts(0, 0, 0));
        history.sample(at(200, 0), &counts(3, 0, 0));
        history.sample(at(150, 0), &counts(5, 0, 0));
        let (hour, _) = history.last_hour(at(150, 5), &counts(9, 0, 0));
        assert_eq!(&hour.accepted[57..], [0, 0, 4]);
        assert_eq!(hour.accepted.iter().sum::<u64>(), 9);
    }
}
