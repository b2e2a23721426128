//! Who has the transactional id: we, or (for a while) nobody or somebody else.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::lookout::Lookout;
use super::transaction::Transactions;
use crate::config::Config;
use crate::kafka::monitor::Monitor;
use crate::kafka::{ClientError, properties};
use crate::telemetry::health::Health;
use crate::telemetry::labels::Concern;
use crate::telemetry::metrics::Metrics;

/// The first pause before the transactional id is taken again; after a fencing it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to get it back.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// Fencings longer ago than this say nothing about now.
const FENCE_MEMORY: Duration = Duration::from_secs(300);
/// From this many fencings within [`FENCE_MEMORY`] on it is a second process, and a person should know.
const FENCES_TO_REPORT: usize = 3;

/// A producer that a call did not come back from keeps threads and connections until it does. Beyond so many of them only
/// one is opened a minute.
const MANY_LEFT_BEHIND: usize = 3;

/// The transactional producer, replaced whenever it is of no use any more.
pub(super) struct Producer {
    config: Config,
    monitor: Monitor,
    /// Looks at the ledger before a commit, where that is needed.
    lookout: Arc<Lookout>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    state: State,
    /// How often it was opened.
    openings: u32,
    /// Since it was opened last nobody has seen that nothing of its predecessor's hangs.
    is_unsettled: bool,
    /// Calls that did not come back, each with its producer.
    left_behind: Vec<Weak<()>>,
    fences: Fences,
}

enum State {
    Open(Transactions),
    /// To be opened, not before this.
    Down(Instant),
}

/// When Kafka fenced us, oldest first.
#[derive(Default)]
struct Fences(VecDeque<Instant>);

impl Producer {
    /// A producer that is to be opened.
    pub(super) fn new(
        config: &Config,
        monitor: Monitor,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            config: config.clone(),
            lookout: Arc::new(Lookout::new(config, monitor.clone())?),
            monitor,
            metrics,
            health,
            state: State::Down(Instant::now()),
            openings: 0,
            is_unsettled: true,
            left_behind: Vec::new(),
            fences: Fences::default(),
        })
    }

    /// Whether the transactional id is ours; takes it when it is time to.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open(_) => true,
            State::Down(not_before) if not_before > now => false,
            State::Down(_) => match self.open() {
                Ok(transactions) => {
                    let transactional_id = &self.config.forward.transactional_id;
                    tracing::info!(transactional_id, "transactions are ours");
                    self.health.forward().clear(Concern::Starting);
                    self.openings += 1;
                    self.state = State::Open(transactions);
                    true
                }
                Err(failure) => {
                    self.close(&failure);
                    false
                }
            },
        }
    }

    /// With files such as passwords read again.
    fn open(&self) -> Result<Transactions, Failure> {
        let client = properties::transactional_producer(&self.config);
        let client = client.map_err(|error| Failure::Replace(error.to_string()))?;
        Transactions::open(&client, self.monitor.principal(), &self.lookout)
    }

    /// The number of its opening, where something that a producer before it wrote may hang.
    pub(super) fn unsettled(&self) -> Option<u32> {
        self.is_unsettled.then_some(self.openings)
    }

    /// Nothing hangs.
    pub(super) fn settled(&mut self) {
        self.is_unsettled = false;
    }

    /// The open producer.
    pub(super) fn transactions(&self) -> Option<&Transactions> {
        match &self.state {
            State::Open(transactions) => Some(transactions),
            State::Down(_) => None,
        }
    }

    /// Passes on what the producer has to say: its statistics would pile up. Finds Kafka again, where it was lost.
    pub(super) fn serve(&self) {
        if let State::Open(transactions) = &self.state {
            transactions.serve(&self.config.kafka.bootstrap_servers);
        }
    }

    /// Settles the transaction that failed: aborts it, or replaces the producer that cannot.
    pub(super) fn settle(&mut self, failure: &Failure) {
        let aborted = match (failure, &self.state) {
            (Failure::Fenced(_) | Failure::Replace(_), _) => return self.close(failure),
            (_, State::Open(transactions)) => transactions.abort(),
            (_, State::Down(_)) => Ok(()),
        };
        if let Err(failure) = aborted {
            self.close(&failure);
        }
    }

    /// Replaces the producer, whatever it says of itself: transactions of a partition fail again and again.
    pub(super) fn replace(&mut self) {
        if matches!(self.state, State::Open(_)) {
            self.close(&Failure::Replace("its transactions fail again and again".to_owned()));
        }
    }

    fn close(&mut self, failure: &Failure) {
        tracing::warn!(%failure, "the producer is replaced");
        let now = Instant::now();
        let pause = match failure {
            Failure::Fenced(_) => self.fenced(now),
            _ => FIRST_PAUSE,
        };
        self.is_unsettled = true;
        self.left_behind.retain(|call| call.strong_count() > 0);
        let pause = if self.left_behind.len() < MANY_LEFT_BEHIND { pause } else { LAST_PAUSE };
        if let State::Open(transactions) = std::mem::replace(&mut self.state, State::Down(now + pause)) {
            self.left_behind.push(transactions.call());
        }
    }

    /// Counts a fencing; says how long to leave the transactional id alone.
    fn fenced(&mut self, now: Instant) -> Duration {
        self.metrics.replica.fenced.inc();
        let pause = self.fences.note(now);
        if self.is_contested() {
            let id = &self.config.forward.transactional_id;
            let detail = format!(
                "fenced {FENCES_TO_REPORT} times within five minutes: another process has the transactional id {id:?} \
                 (give each replica its own forward.transactional_id), or transactions time out"
            );
            self.health.forward().set(Concern::Fenced, &detail);
        }
        pause
    }

    /// Old fencings lose their meaning.
    pub(super) fn calm_down(&mut self, now: Instant) {
        if !self.fences.recent(now).is_contested() {
            self.health.forward().clear(Concern::Fenced);
        }
    }

    /// Whether another process seems to have the same transactional id.
    pub(super) fn is_contested(&self) -> bool {
        self.fences.is_contested()
    }
}

impl Fences {
    /// Notes a fencing; says how long to leave the transactional id alone.
    fn note(&mut self, now: Instant) -> Duration {
        let before = u32::try_from(self.recent(now).0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        LAST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(before.min(16)))
    }

    /// Without those that are forgotten by now.
    fn recent(&mut self, now: Instant) -> &Self {
        while self.0.front().is_some_and(|first| now.duration_since(*first) > FENCE_MEMORY) {
            self.0.pop_front();
        }
        self
    }

    fn is_contested(&self) -> bool {
        self.0.len() >= FENCES_TO_REPORT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_forgotten_after_five() {
        let (mut fences, now) = (Fences::default(), Instant::now());
        let pauses: Vec<_> = (0..8).map(|_| fences.note(now).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(fences.note(now + FENCE_MEMORY + FIRST_PAUSE), FIRST_PAUSE);
    }

    #[test]
    fn only_three_within_five_minutes_are_reported() {
        let (mut fences, now) = (Fences::default(), Instant::now());
        let minutes = |minutes: u64| now + Duration::from_secs(60 * minutes);
        for minute in [0, 4, 8, 12] {
            fences.note(minutes(minute));
            assert!(!fences.is_contested(), "minute {minute}");
        }
        fences.note(minutes(13));
        assert!(fences.is_contested());
        assert!(!fences.recent(minutes(18)).is_contested());
    }
}
