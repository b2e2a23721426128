//! What the log says of deliveries that are not proven to be ClearFeed's: the reason, and nothing that the sender chose.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::domain::delivery::Refusal;

/// Refusals for one reason get one line in this time: who cannot sign can still send.
const INTERVAL: Duration = Duration::from_secs(1);

/// A delivery that is not proven to be ClearFeed's.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// Whom it came from.
    pub peer: IpAddr,
    /// Of its timestamp, where that is signed; negative: it is ahead.
    pub age: Option<SignedDuration>,
}

/// The refusals of one source.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_reason: Mutex<BTreeMap<&'static str, Told>>,
    has_authenticated: AtomicBool,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// A delivery was proven: the source is set up right.
    pub(super) fn authenticated(&self) {
        self.has_authenticated.store(true, Ordering::Relaxed);
    }

    /// Writes a line, unless there was one just now.
    pub(super) fn tell(&self, source: &str, refused: &Refused, now: Instant) {
        let &Refused { reason, peer, age } = refused;
        let mut by_reason = self.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(untold) = by_reason.entry(reason.as_str()).or_default().told(now) else { return };
        drop(by_reason);
        let (hint, age_seconds) = (self.hint(reason), age.map(|age| age.as_secs()));
        let reason = reason.as_str();
        tracing::info!(source, reason, %peer, age_seconds, untold, hint, "delivery not authenticated");
    }

    /// What the pattern tells.
    fn hint(&self, reason: Refusal) -> Option<&'static str> {
        match reason {
            Refusal::TooOld | Refusal::TooNew => Some(
                "the signature is right: the clock of this host or of a proxy is off by about age_seconds, or the \
                 delivery came late",
            ),
            Refusal::Mismatch if !self.has_authenticated.load(Ordering::Relaxed) => Some(
                "nothing was authenticated since the start: most likely the secret or public_url is wrong; \
                 `clearfeed-relay verify` finds out",
            ),
            _ => None,
        }
    }
}

impl Told {
    /// One more. Where it is to be told: how many there were since the last one that was, and were not.
    fn told(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.untold += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_line_a_second() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert_eq!(told.told(now), Some(0));
        for _ in 0..2000 {
            assert_eq!(told.told(now + INTERVAL / 2), None);
        }
        assert_eq!(told.told(now + INTERVAL), Some(2000));
        assert_eq!(told.told(now + INTERVAL * 2), Some(0));
    }
}
