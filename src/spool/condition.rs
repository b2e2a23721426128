//! Whether the spool would take a delivery: written by its thread, read by all that have one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A disk that has not answered for so long is taken for one that does not: most deliveries have lost their patience by then.
const STALLED: Duration = Duration::from_secs(5);

/// Whether the spool would take a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It would.
    Keeping,
    /// Not before something has left.
    Full,
    /// Not before the disk answers: it has not for a while.
    Stalled,
    /// Not before a restart.
    Failed,
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    condition: Condition,
    /// Since when the thread is at what it was asked last.
    busy_since: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(State { condition: Condition::Keeping, busy_since: None }))
    }
}

impl Health {
    pub(super) fn condition(&self) -> Condition {
        self.at(Instant::now())
    }

    /// Whatever the disk does now.
    pub(super) fn said(&self) -> Condition {
        self.lock().condition
    }

    fn at(&self, now: Instant) -> Condition {
        let State { condition, busy_since } = *self.lock();
        let is_stalled = busy_since.is_some_and(|since| now.saturating_duration_since(since) > STALLED);
        if is_stalled && condition != Condition::Failed { Condition::Stalled } else { condition }
    }

    /// What the disk said last.
    pub(super) fn set(&self, condition: Condition) {
        self.lock().condition = condition;
    }

    /// The thread turns to the disk, or (none) waits to be asked.
    pub(super) fn busy(&self, since: Option<Instant>) {
        self.lock().busy_since = since;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_told_from_one_that_failed() {
        let (health, began) = (Health::default(), Instant::now());
        health.set(Condition::Full);
        health.busy(Some(began));
        assert_eq!(health.at(began + STALLED), Condition::Full);
        let later = began + STALLED + Duration::from_millis(1);
        assert_eq!(health.at(later), Condition::Stalled);
        health.busy(None);
        assert_eq!(health.at(later), Condition::Full, "it has answered");
        health.busy(Some(began));
        health.set(Condition::Failed);
        assert_eq!(health.at(later), Condition::Failed);
    }
}
