//! How long to wait before asking again, and when to give up.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The first pause after something that passes by itself; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How much waiting ClearFeed may ask for in all before it is told as a failure.
const LONGEST_REQUESTED: Duration = Duration::from_secs(15 * 60);
/// What `Retry-After: 0` costs of that: nobody asks for ever.
const LEAST_REQUESTED: Duration = Duration::from_secs(1);

/// What is left of it for one page.
pub(super) struct Patience {
    /// With what passes by itself.
    deadline: Instant,
    tries: u32,
    /// With what ClearFeed asks for.
    requested: Duration,
}

impl Patience {
    pub(super) fn new(patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, tries: 0, requested: LONGEST_REQUESTED }
    }

    /// The pause before the next try, after one that failed; none: give up. What ClearFeed asks for is kept to.
    pub(super) fn pause(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        if let Some(wait) = retry_after {
            self.requested = self.requested.checked_sub(wait.max(LEAST_REQUESTED))?;
            self.deadline += wait;
            return Some(wait);
        }
        let pause = LAST_PAUSE.min(FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.tries)));
        self.tries += 1;
        let pause = jittered(pause);
        (Instant::now() + pause < self.deadline).then_some(pause)
    }
}

/// Between half and all of it: many that failed together do not come again together.
fn jittered(pause: Duration) -> Duration {
    // The standard library's hash tables are keyed from the system's random source.
    let random = u32::try_from(RandomState::new().hash_one(SystemTime::now()) >> 32).unwrap_or(0);
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// `Retry-After`: seconds, or a date (RFC 9110). One that is over by now is no time at all.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        let seconds = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        for nonsense in ["", "-1", "soon", "1e3", "1994-11-06"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn pauses_double_within_their_jitter_until_patience_ends() {
        let mut patience = Patience::new(Duration::from_secs(3600));
        for wanted in [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let pause = patience.pause(None).unwrap().as_millis();
            assert!((wanted / 2..=wanted).contains(&pause), "{pause} ms, wanted {wanted}");
        }
        let firsts = (0..20).map(|_| Patience::new(Duration::from_secs(3600)).pause(None));
        assert!(firsts.collect::<BTreeSet<_>>().len() > 1, "not all come again at once");
        assert_eq!(Patience::new(Duration::ZERO).pause(None), None);
    }

    #[test]
    fn what_clearfeed_asks_for_is_kept_to_up_to_a_quarter_of_an_hour() {
        let wait = |seconds| Some(Duration::from_secs(seconds));
        let mut patience = Patience::new(Duration::ZERO);
        assert_eq!(patience.pause(wait(600)), wait(600));
        assert_eq!(patience.pause(wait(600)), None);
        let mut patience = Patience::new(Duration::ZERO);
        let asked = (0..10_000).take_while(|_| patience.pause(wait(0)).is_some()).count();
        assert_eq!(asked, 900, "nobody asks for ever");
    }
}
