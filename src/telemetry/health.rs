//! Whether this process is alive and ready, and why not.
//!
//! Ready is the absence of concerns: whoever sees something that keeps a delivery from being kept raises a [`Concern`],
//! and clears it when it is over. Alive is progress: the forward thread says that it came round.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::history::History;
use super::labels::{Concern, Half, Label};
use super::metrics::Metrics;
use super::recent::Recent;
use super::status::{
    ForwardHalf, ForwardStatus, IntakeStatus, KafkaStatus, Reason, ReloadStatus, SourceIdentity,
    SourceStatus, Status,
};
use crate::config::{Role, Setting};

/// A forward thread that did not come round for so long is stuck. Its longest honest round, in an outage of Kafka, is
/// 55 s: 20 s for a topic that is asked for and created, 10 s for the offsets at the begin, 15 s for the
/// records, the offsets and the commit, 10 s for an abort. With room to spare, so that no outage gets a healthy process killed.
pub const FORWARD_SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// Before the first beat there is nothing to be late with: the start may wait for Kafka as long as it takes.
const NO_BEAT: u64 = u64::MAX;

/// Who this process is; does not change while it runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Which halves run.
    pub role: Role,
    /// Hash of the settings.
    pub config_hash: String,
    /// In the order of their names.
    pub sources: Vec<SourceIdentity>,
    /// As they may be shown.
    pub settings: Vec<Setting>,
}

/// Shared by the halves, which write, and the admin port, which reads.
#[derive(Debug)]
pub struct Health {
    identity: Identity,
    started: Timestamp,
    intake: Concerns,
    forward: Concerns,
    /// Beats are counted from here, so that one fits an atomic.
    origin: Instant,
    forward_beat_ms: AtomicU64,
    /// Why only a new process is left to be tried.
    given_up: ArcSwap<Option<String>>,
    forward_status: ArcSwap<ForwardStatus>,
    kafka_status: ArcSwap<KafkaStatus>,
    reload_status: ArcSwap<ReloadStatus>,
    history: History,
    recent: Recent,
}

impl Health {
    /// A process that starts now: alive, and not ready before each half has cleared [`Concern::Starting`].
    pub fn new(identity: Identity, recent: Recent) -> Self {
        Self {
            identity,
            started: Timestamp::now(),
            intake: Concerns::starting(Half::Intake),
            forward: Concerns::starting(Half::Forward),
            origin: Instant::now(),
            forward_beat_ms: AtomicU64::new(NO_BEAT),
            given_up: ArcSwap::default(),
            forward_status: ArcSwap::default(),
            kafka_status: ArcSwap::default(),
            reload_status: ArcSwap::default(),
            history: History::default(),
            recent,
        }
    }

    /// Of a process that serves nobody: only for what clients of Kafka report.
    pub fn apart(role: Role) -> Self {
        let identity =
            Identity { role, config_hash: String::new(), sources: Vec::new(), settings: Vec::new() };
        Self::new(identity, Recent::default())
    }

    /// Which halves run in this process.
    pub fn role(&self) -> Role {
        self.identity.role
    }

    /// What keeps intake from keeping deliveries.
    pub fn intake(&self) -> &Concerns {
        &self.intake
    }

    /// What keeps forward from forwarding partitions or waiting for them.
    pub fn forward(&self) -> &Concerns {
        &self.forward
    }

    /// Both, for what concerns the process as a whole.
    pub fn halves(&self) -> [&Concerns; 2] {
        [&self.intake, &self.forward]
    }

    /// What `/readyz` asks. With an intake in the process it decides alone: a sick forward half must not take
    /// deliveries away.
    pub fn readiness(&self) -> &Concerns {
        if self.identity.role.has_intake() { &self.intake } else { &self.forward }
    }

    /// The forward thread came round.
    pub fn forward_beat(&self, now: Instant) {
        self.forward_beat_ms.store(self.since_origin_ms(now), Ordering::Relaxed);
    }

    /// The forward half has replaced all that it can and still does not move, or (`None`) it moves.
    pub fn give_up(&self, reason: Option<String>) {
        self.given_up.store(Arc::new(reason));
    }

    /// Why a new process is wanted. The tokio side is alive if it asks.
    pub fn stuck(&self, now: Instant) -> Option<String> {
        let beat_ms = self.forward_beat_ms.load(Ordering::Relaxed);
        // Also of no beat at all, which is later than any now.
        let silence = Duration::from_millis(self.since_origin_ms(now).saturating_sub(beat_ms));
        if silence > FORWARD_SILENCE_LIMIT {
            return Some(format!("the forward thread has not come round for {} s", silence.as_secs()));
        }
        Option::clone(&self.given_up.load())
    }

    fn since_origin_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(NO_BEAT)
    }

    /// Replaces what `/status` says of the forward half.
    pub fn set_forward(&self, status: ForwardStatus) {
        self.forward_status.store(Arc::new(status));
    }

    /// Files were read again, now; what is wrong with them.
    pub fn set_reload(&self, problems: Vec<String>) {
        self.reload_status.store(Arc::new(ReloadStatus { last: Some(Timestamp::now()), problems }));
    }

    /// Changes what `/status` says of Kafka.
    pub fn update_kafka(&self, change: impl Fn(&mut KafkaStatus)) {
        self.kafka_status.rcu(|status| {
            let mut status = KafkaStatus::clone(status);
            change(&mut status);
            status
        });
    }

    /// What is known of Kafka.
    pub fn kafka(&self) -> KafkaStatus {
        KafkaStatus::clone(&self.kafka_status.load())
    }

    /// Keeps what was counted so far, for the last hour of [`Health::status`]: to be called at least once a minute.
    pub fn sample(&self, metrics: &Metrics) {
        self.history.sample(Timestamp::now(), &metrics.delivery_counts());
    }

    /// What `/status` says now.
    pub fn status(&self, metrics: &Metrics, now: Instant) -> Status {
        let Identity { role, config_hash, sources, settings } = &self.identity;
        let (kafka, time) = (self.kafka(), Timestamp::now());
        let intake = || {
            let (last_hour, not_kept) = self.history.last_hour(time, &metrics.delivery_counts());
            let spool = metrics.spool.status();
            IntakeStatus { reasons: self.intake.reasons(), spool, last_hour, not_kept }
        };
        let forward = || ForwardHalf {
            reasons: self.forward.reasons(),
            status: ForwardStatus::clone(&self.forward_status.load()),
        };
        let source = |identity: &SourceIdentity| SourceStatus {
            identity: identity.clone(),
            last_accepted: metrics.source(&identity.name).and_then(|source| source.last_accepted()),
        };
        Status {
            time,
            version: env!("CARGO_PKG_VERSION"),
            role: role.as_str(),
            config_hash: config_hash.clone(),
            started: self.started,
            ready: self.readiness().are_none(),
            alive: self.stuck(now).is_none(),
            durable: kafka.durable,
            durable_reason: kafka.durable_reason.clone(),
            reload: ReloadStatus::clone(&self.reload_status.load()),
            sources: sources.iter().map(source).collect(),
            kafka,
            intake: role.has_intake().then(intake),
            forward: role.has_forward().then(forward),
            logged: self.recent.logged(),
            configuration: settings.clone(),
        }
    }
}

/// What keeps one half from being ready: each concern at most once, with its last detail.
#[derive(Debug)]
pub struct Concerns {
    half: Half,
    /// Something else than what the concerns are about keeps deliveries meanwhile.
    backed: AtomicBool,
    open: Mutex<BTreeMap<Concern, String>>,
}

impl Concerns {
    fn starting(half: Half) -> Self {
        let open = BTreeMap::from([(Concern::Starting, "has not got through its start yet".to_owned())]);
        Self { half, backed: AtomicBool::new(false), open: Mutex::new(open) }
    }

    /// Raises a concern, or gives a raised one another detail. Logs only what changed, so it may be called each time
    /// that something is tried in vain; for this the detail must not change by itself, as a duration does.
    pub fn set(&self, concern: Concern, detail: &str) {
        let known = self.lock().insert(concern, detail.to_owned());
        if known.as_deref() == Some(detail) {
            return;
        }
        let (half, reason) = (self.half.as_str(), concern.as_str());
        match concern {
            Concern::Starting | Concern::Draining => {
                tracing::info!(half, reason, detail, "half is not working");
            }
            _ => tracing::warn!(half, reason, detail, "half is not working as it should"),
        }
    }

    /// A concern is over, if it ever was there.
    pub fn clear(&self, concern: Concern) {
        let mut open = self.lock();
        let was_open = open.remove(&concern).is_some();
        let is_ready = open.is_empty();
        drop(open);
        if was_open {
            let (half, reason) = (self.half.as_str(), concern.as_str());
            if is_ready {
                tracing::info!(half, reason_over = reason, "half is working");
            } else {
                tracing::info!(half, reason_over = reason, "one reason less for a half not to work");
            }
        }
    }

    /// Whether this concern is open.
    pub fn has(&self, concern: Concern) -> bool {
        self.lock().contains_key(&concern)
    }

    /// Says whether deliveries would be kept whatever is wrong with Kafka: there is a spool, and it has room.
    pub fn set_backed(&self, backed: bool) {
        self.backed.store(backed, Ordering::Relaxed);
    }

    /// Whether the half is ready.
    pub fn are_none(&self) -> bool {
        self.pressing().is_empty()
    }

    /// What keeps the half from being ready: all that is open, or, while a spool keeps deliveries, that it ends.
    pub fn pressing(&self) -> Vec<Reason> {
        let backed = self.backed.load(Ordering::Relaxed);
        let mut reasons = self.reasons();
        reasons.retain(|reason| !backed || reason.reason == Concern::Draining);
        reasons
    }

    /// All that is open.
    pub fn reasons(&self) -> Vec<Reason> {
        let reason =
            |(reason, detail): (&Concern, &String)| Reason { reason: *reason, detail: detail.clone() };
        self.lock().iter().map(reason).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Concern, String>> {
        // A panic while it was held cannot have left half a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_an_intake_intake_alone_decides() {
        for (role, intake_decides) in [(Role::All, true), (Role::Intake, true), (Role::Forward, false)] {
            let health = Health::apart(role);
            assert!(!health.readiness().are_none());
            health.intake().clear(Concern::Starting);
            assert_eq!(health.readiness().are_none(), intake_decides, "{role:?}");
            health.forward().clear(Concern::Starting);
            assert!(health.readiness().are_none());
            health.forward().set(Concern::Fenced, "another process has our transactional id");
            assert_eq!(health.readiness().are_none(), intake_decides, "{role:?}");
        }
    }

    #[test]
    fn a_concern_is_open_until_it_is_cleared() {
        let health = Health::apart(Role::Intake);
        let intake = health.intake();
        intake.clear(Concern::Starting);
        intake.set(Concern::Topics, "clearfeed.inbox is missing");
        intake.set(Concern::Topics, "clearfeed.inbox has 3 partitions");
        intake.set(Concern::Draining, "told to stop");
        let words: Vec<_> = intake.reasons().into_iter().map(|r| (r.reason, r.detail)).collect();
        assert_eq!(
            words,
            [
                (Concern::Draining, "told to stop".into()),
                (Concern::Topics, "clearfeed.inbox has 3 partitions".into())
            ]
        );
        intake.clear(Concern::Topics);
        intake.clear(Concern::Topics);
        assert!(!intake.are_none());
    }

    #[test]
    fn silence_counts_from_the_first_beat_on() {
        let health = Health::apart(Role::Forward);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.stuck(after(3600)), None, "the start may wait for Kafka");
        health.forward_beat(after(3600));
        assert_eq!(health.stuck(after(3600 + 120)), None);
        assert!(health.stuck(after(3600 + 122)).is_some());
        health.forward_beat(after(3600 + 122));
        assert_eq!(health.stuck(after(3600 + 123)), None);
    }

    #[test]
    fn a_half_that_gave_up_wants_a_new_process_until_it_moves() {
        let (health, now) = (Health::apart(Role::Forward), Instant::now());
        health.give_up(Some("the producer was replaced in vain".to_owned()));
        assert_eq!(health.stuck(now).as_deref(), Some("the producer was replaced in vain"));
        health.give_up(None);
        assert_eq!(health.stuck(now), None);
    }
}
