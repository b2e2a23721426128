//! Failures of a client of Kafka in a row.
//!
//! An error that comes again and again from one client object means that the object has to be replaced: what librdkafka
//! mends by itself it mends within seconds. A new client is harmless, because nothing rests on what the old one remembers.
//! Where it helps nothing either, it is tried less and less often: each costs a moment without work.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// So long a client may fail before it is replaced. The next one gets twice as long.
const FIRST_PATIENCE: Duration = Duration::from_secs(60);
/// The longest that a client may fail before it is replaced.
const LAST_PATIENCE: Duration = Duration::from_secs(3600);
/// Failures that are further apart have nothing to do with each other: what fails is tried again within half of this.
const GAP: Duration = Duration::from_secs(60);
/// Where replaced clients went on failing for so long, only a new process is left. Four were tried by then (after 1, 2, 4 and
/// 8 minutes), and a process that ran for more than ten minutes is started again by a kubelet without its back-off.
pub const LAST_RESORT: Duration = Duration::from_secs(16 * 60);

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client, or whatever of ours it stands on.
    Client,
    /// Kafka, the way to it, or a person: a new process would fail as well.
    Environment,
}

/// Failures in a row, or none.
#[derive(Debug, Clone, Default)]
pub struct Streak(Option<Row>);

#[derive(Debug, Clone)]
struct Row {
    began: Timestamp,
    first: Instant,
    last: Instant,
    blame: Blame,
    replaced: u32,
    /// When the client in use began to fail.
    current: Instant,
}

impl Streak {
    /// Notes a failure; says whether the client is to be replaced now.
    pub fn failed(&mut self, blame: Blame, now: Instant) -> bool {
        let begins = Row { began: Timestamp::now(), first: now, last: now, blame, replaced: 0, current: now };
        let row = match self.0.take() {
            Some(row) if now.duration_since(row.last) <= GAP => self.0.insert(row),
            _ => self.0.insert(begins),
        };
        (row.last, row.blame) = (now, blame);
        let patience = LAST_PATIENCE.min(FIRST_PATIENCE * 2_u32.saturating_pow(row.replaced.min(16)));
        let is_due = now.duration_since(row.current) >= patience;
        if is_due {
            row.replaced += 1;
            row.current = now;
        }
        is_due
    }

    /// It works.
    pub fn ends(&mut self) {
        self.0 = None;
    }

    /// Since when it fails and what was tried, once something was.
    pub fn tried(&self, client: &str) -> Option<String> {
        let row = self.0.as_ref().filter(|row| row.replaced > 0)?;
        let times = if row.replaced == 1 { "once".to_owned() } else { format!("{} times", row.replaced) };
        Some(format!("has failed since {:.0}; {client} replaced {times}", row.began))
    }

    /// Whether only a new process is left to be tried.
    pub fn is_hopeless(&self, now: Instant) -> bool {
        let row = self.0.as_ref().filter(|row| row.blame == Blame::Client && row.replaced > 0);
        row.is_some_and(|row| {
            now.duration_since(row.last) <= GAP && now.duration_since(row.first) >= LAST_RESORT
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which a client that fails each 15 s is replaced.
    fn replacements(streak: &mut Streak, blame: Blame, start: Instant, seconds: u64) -> Vec<u64> {
        let failures = (0..=seconds).step_by(15);
        failures.filter(|second| streak.failed(blame, start + Duration::from_secs(*second))).collect()
    }

    #[test]
    fn a_client_that_fails_on_is_replaced_after_a_minute_and_then_less_and_less_often() {
        let (mut streak, start) = (Streak::default(), Instant::now());
        let replaced = replacements(&mut streak, Blame::Environment, start, 4 * 3600);
        let minutes: Vec<_> = replaced.iter().map(|second| second / 60).collect();
        assert_eq!(minutes, [1, 3, 7, 15, 31, 63, 123, 183]);
        let tried = streak.tried("producer").unwrap();
        assert!(
            tried.starts_with("has failed since 2") && tried.ends_with("producer replaced 8 times"),
            "{tried}"
        );
    }

    #[test]
    fn failures_far_apart_or_with_a_success_between_are_no_row() {
        let (mut streak, start) = (Streak::default(), Instant::now());
        for minute in 0..60 {
            assert!(!streak.failed(Blame::Client, start + Duration::from_secs(90 * minute)));
        }
        let later = start + Duration::from_secs(7200);
        for second in (0..600).step_by(15) {
            let now = later + Duration::from_secs(second);
            assert!(!streak.failed(Blame::Client, now), "{second}");
            if second % 45 == 0 {
                streak.ends();
            }
        }
        assert_eq!(streak.tried("consumer"), None);
    }

    #[test]
    fn only_what_a_new_process_could_mend_asks_for_one() {
        for (blame, hopeless) in [(Blame::Client, true), (Blame::Environment, false)] {
            let (mut streak, start) = (Streak::default(), Instant::now());
            replacements(&mut streak, blame, start, 15 * 60);
            assert!(!streak.is_hopeless(start + Duration::from_secs(15 * 60)));
            replacements(&mut streak, blame, start + Duration::from_secs(15 * 60), 60);
            let now = start + Duration::from_secs(16 * 60);
            assert_eq!(streak.is_hopeless(now), hopeless, "{blame:?}");
            assert!(!streak.is_hopeless(now + GAP + GAP), "nothing fails any more");
        }
    }
}
