//! What librdkafka's clients say of themselves: logs, errors, statistics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::telemetry::health::Health;
use crate::telemetry::labels::{Concern, Half, KafkaFault, Label};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status;

/// An error of the same kind is logged again after this; the metric counts them all.
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Passed to every client of a half; those that need more of a context hold one of these.
#[derive(Clone)]
pub struct Monitor {
    half: Half,
    /// Whether this client's statistics stand for its half: a half has several clients, of which one works.
    is_principal: bool,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// When an error of each kind was last logged, by whichever client of the half.
    logged: Arc<Mutex<BTreeMap<KafkaFault, Instant>>>,
    /// Whether this client's last statistics tell of no broker that it could ask.
    is_lost: Arc<AtomicBool>,
}

impl Monitor {
    /// For the clients of one half.
    pub fn new(half: Half, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        Self { half, is_principal: false, metrics, health, logged: Arc::default(), is_lost: Arc::default() }
    }

    /// For the producer of the half, whose statistics are shown.
    #[must_use]
    pub fn principal(&self) -> Self {
        Self { is_principal: true, ..self.of_one_client() }
    }

    /// For a client of which it is to be known whether it has lost all brokers.
    #[must_use]
    pub fn of_one_client(&self) -> Self {
        Self { is_lost: Arc::default(), ..self.clone() }
    }

    /// Whether the client has lost all brokers; told once for each of its statistics.
    pub fn take_lost(&self) -> bool {
        self.is_lost.swap(false, Ordering::Relaxed)
    }

    /// Whether an error is worth a line: each client repeats itself with every attempt to connect.
    fn is_news(&self, fault: KafkaFault) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = logged.get(&fault).is_none_or(|last| now.duration_since(*last) > REPEAT_INTERVAL);
        if is_news {
            logged.insert(fault, now);
        }
        is_news
    }

    fn count_brokers(&self, statistics: &Statistics) {
        // Bootstrap servers and the coordinator's logical connection have negative ids.
        let brokers: Vec<_> = statistics.brokers.values().filter(|broker| broker.nodeid >= 0).collect();
        let is_up = |state: &str| state == "UP" || state == "UPDATE";
        let up = brokers.iter().filter(|broker| is_up(&broker.state)).count();
        let known = brokers.len();
        let concerns = match self.half {
            Half::Intake => self.health.intake(),
            Half::Forward => self.health.forward(),
        };
        if up > 0 {
            concerns.clear(Concern::KafkaUnreachable);
        } else {
            concerns.set(Concern::KafkaUnreachable, "connected to no broker");
        }
        // Two producers of one process may be connected to different brokers: one view is shown, not both in turn.
        if self.half == Half::Forward && self.health.role().has_intake() {
            return;
        }
        self.health.update_kafka(|kafka| (kafka.brokers_up, kafka.brokers_known) = (up, known));
        let metrics = &self.metrics.kafka;
        metrics.broker_up.replace(
            brokers.iter().map(|broker| (broker.nodeid, if is_up(&broker.state) { 1.0 } else { 0.0 })),
        );
        metrics.broker_rtt.replace(brokers.iter().filter_map(|broker| {
            // librdkafka's round trips are microseconds.
            #[expect(clippy::cast_precision_loss, reason = "2^52 microseconds are 142 years")]
            let seconds = broker.rtt.as_ref()?.avg as f64 / 1e6;
            Some((broker.nodeid, seconds))
        }));
        metrics.stats_timestamp.set(statistics.time);
    }
}

impl ClientContext for Monitor {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Debug, Info, Notice, Warning};
        match (level, facility) {
            // Connections that come and go are librdkafka's daily work; what matters comes as an error, too. And while a
            // partition has no leader that is said many times a second.
            (Debug | Info | Notice, _) | (_, "METADATAUPDATE") => {
                tracing::debug!(target: "librdkafka", facility, detail = message, "librdkafka says");
            }
            (Warning, _) => {
                tracing::info!(target: "librdkafka", facility, detail = message, "librdkafka says");
            }
            _ => tracing::warn!(target: "librdkafka", facility, detail = message, "librdkafka says"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        // The others (a coordinator's connection, and one for what has no broker yet) lead to one of these.
        let is_broker = |source: &str| source == "learned" || source == "configured";
        let knows_one = statistics.brokers.values().any(|broker| is_broker(&broker.source));
        self.is_lost.store(!knows_one, Ordering::Relaxed);
        if !self.is_principal {
            return;
        }
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let metrics = &self.metrics.kafka;
        metrics.queue_messages.of(self.half).set(gauge(statistics.msg_cnt));
        metrics.queue_limit_messages.of(self.half).set(gauge(statistics.msg_max));
        metrics.queue_bytes.of(self.half).set(gauge(statistics.msg_size));
        metrics.queue_limit_bytes.of(self.half).set(gauge(statistics.msg_size_max));
        self.count_brokers(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Told to whoever reads the partition, and no trouble.
        if matches!(error, KafkaError::PartitionEOF(_))
            || error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF)
        {
            return;
        }
        let fault = KafkaFault::from(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown));
        self.metrics.kafka.errors.of(self.half).of(fault).inc();
        if self.is_news(fault) {
            let half = self.half.as_str();
            tracing::warn!(half, error = fault.as_str(), detail = reason, "kafka error");
            let logged = Timestamp::now();
            self.health.update_kafka(|kafka| {
                kafka.errors.insert(fault.as_str(), status::KafkaError { logged, detail: reason.to_owned() });
            });
        }
    }
}

impl ConsumerContext for Monitor {}
