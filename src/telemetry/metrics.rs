//! The catalogue of metrics.
//!
//! It is one file, and may grow past the others, because it is one table: whoever writes an alert, a dashboard or
//! the README reads all names, labels and units here and nowhere else. A line of `families!` is a metric's
//! field, its series and its row in [`catalogue`]. Below the table stand the calls that count and log together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

pub use super::family::{Entry, Kind, PREFIX};
use super::family::{Family, Labelled, Numbered, Slots, families, opts};
use super::labels::{
    ApiOutcome, Ending, Eviction, Half, HeldReason, KafkaFault, Label, MissedKind, Outcome, RecordOutcome,
    Retry, SnapshotOutcome, TransactionEnd,
};
use super::refusals::{Refusals, Refused};
use super::status::{ForwardStatus, PartitionState, SpoolStatus};
use crate::config::{Config, Role};
use crate::domain::delivery::Refusal;
use crate::domain::event_record::DeadLetterReason;
use crate::domain::signature::{Match, UrlForm};

/// From one write in memory to ClearFeed's patience. 1 s is the objective of latency, so it is a bound itself.
const ANSWER_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Fine where a healthy relay is, up to a minute, from which on it is the lag that counts.
const END_TO_END_SECONDS: &[f64] =
    &[0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Up to a commit that is tried again until the transaction's time-out of 10 s, and an abort that takes as long.
const TRANSACTION_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// 300 s and 86,400 s are the defaults of `max_age` and `max_redelivery_age`.
const EVENT_AGE_SECONDS: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0];
/// A window of ten million ids is read in about a minute.
const REBUILD_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

families! {
    struct BuildFamilies labelled ["version", "role", "group", "inbox"] {
        build_info: IntGauge [] = "build_info",
            "Always 1; the labels tell the version and the role of the process, its consumer group, and the inbox's topic.";
    }
}

families! {
    struct ConfigFamilies labelled ["hash"] {
        config_hash: IntGauge [] = "config_hash",
            "Always 1; replicas whose label differs run with different settings (role, addresses and transactional id apart).";
    }
}

families! {
    /// What belongs to the process as a whole.
    pub struct ProcessMetrics labelled [] {
        pub ready: IntGauge [] = "ready",
            "1 while /readyz answers 200, else 0.";
        pub reload_successful: IntGauge [] = "config_last_reload_successful",
            "1 while all files that are read again (signing secrets, the certificate) could be used when last looked at, else 0.";
    }
}

families! {
    struct DeliveryFamilies labelled ["source"] {
        deliveries: Labelled<Outcome, IntCounter> [] = "deliveries_total",
            "Deliveries by how they ended; the source is empty where none could be told, as under an unknown path.";
    }
}

families! {
    struct SourceFamilies labelled ["source"] {
        auth_failures: Labelled<Refusal, IntCounter> [] = "auth_failures_total",
            "Deliveries not proven to be ClearFeed's, by reason.";
        auth_key_used: Slots [] = "auth_key_used_total",
            "Authenticated deliveries by the secret that matched: slot 0 is the first of signing_secret_files.";
        auth_url_form: Labelled<UrlForm, IntCounter> [] = "auth_url_form_total",
            "Authenticated deliveries by what was signed: the whole URL, or its path.";
        redeliveries: Labelled<Retry, IntCounter> [] = "redeliveries_total",
            "Authenticated deliveries that ClearFeed sent again, by its retry count.";
        last_attempt_failures: IntCounter [] = "last_attempt_failures_total",
            "Authenticated deliveries of retry 3 that were answered with an error: ClearFeed will not come back.";
        last_accepted: IntGauge [] = "last_accepted_timestamp_seconds",
            "Unix time in seconds of the last accepted delivery; 0 before the first.";
    }
}

families! {
    /// The intake half, whatever the source.
    pub struct IntakeMetrics labelled [] {
        pub duration: Labelled<Outcome, Histogram> [ANSWER_SECONDS] = "delivery_duration_seconds",
            "Seconds from a delivery's head to its answer, by how it ended.";
        pub in_flight: IntGauge [] = "http_requests_in_flight",
            "Deliveries being read or waiting for Kafka.";
        pub connections: IntGauge [] = "http_connections",
            "Open connections to the intake port.";
        pub connections_evicted: IntCounter [] = "http_connections_evicted_total",
            "Connections closed to make room at intake.max_connections.";
        pub certificate_not_after: IntGauge [] = "tls_certificate_not_after_timestamp_seconds",
            "Unix time in seconds at which the listener's certificate expires; 0 where something else ends TLS.";
        pub event_age: Histogram [EVENT_AGE_SECONDS] = "event_age_seconds",
            "Seconds from the signed timestamp of an authenticated delivery to its arrival; of one from the future, 0.";
        pub append_duration: Histogram [ANSWER_SECONDS] = "inbox_append_duration_seconds",
            "Seconds from handing a record to the producer to Kafka's acknowledgement.";
        pub buffered_bytes: IntGauge [] = "intake_buffered_bytes",
            "Bytes of all bodies being read or waiting for Kafka.";
        pub buffered_limit_bytes: IntGauge [] = "intake_buffered_limit_bytes",
            "Bytes of intake.max_buffered; beyond, deliveries are answered 503.";
    }
}

families! {
    /// The spool; all at 0 where there is none.
    pub struct SpoolMetrics labelled [] {
        pub in_use: IntGauge [] = "spool_in_use",
            "1 while deliveries go to this node's disk, for Kafka does not acknowledge, else 0.";
        pub switches: IntCounter [] = "spool_switches_total",
            "Times that deliveries began to go to the disk.";
        pub failed: IntGauge [] = "spool_failed",
            "1 while the spool takes nothing: its disk failed or it cannot be opened (until a restart), or its disk does not answer; else 0.";
        pub records: IntGauge [] = "spool_records",
            "Deliveries on this node's disk that the inbox does not have yet.";
        pub bytes: IntGauge [] = "spool_bytes",
            "Bytes of the spool's file that are taken.";
        pub limit_bytes: IntGauge [] = "spool_limit_bytes",
            "Bytes of spool.max_size; beyond, deliveries are answered 503. 0: there is no spool.";
        pub oldest: Gauge [] = "spool_oldest_seconds",
            "Seconds that the oldest delivery in the spool has waited.";
        pub damaged: IntGauge [] = "spool_damaged",
            "Broken files of the spool, and records that do not fit their digests, that are set aside.";
        pub drained: IntCounter [] = "spool_drained_total",
            "Deliveries that left the spool for the inbox.";
        pub sync_duration: Histogram [ANSWER_SECONDS] = "spool_sync_duration_seconds",
            "Seconds to write and sync what deliveries waited together.";
    }
}

families! {
    /// The clients of Kafka.
    pub struct KafkaMetrics labelled [] {
        pub errors: Labelled<Half, Labelled<KafkaFault, IntCounter>> [] = "kafka_errors_total",
            "Errors that librdkafka reported, by half and kind.";
        pub queue_messages: Labelled<Half, IntGauge> [] = "kafka_producer_queue_messages",
            "Records that wait in the producer, sent or not, for Kafka's acknowledgement.";
        pub queue_limit_messages: Labelled<Half, IntGauge> [] = "kafka_producer_queue_limit_messages",
            "Records that the producer's queue can hold.";
        pub queue_bytes: Labelled<Half, IntGauge> [] = "kafka_producer_queue_bytes",
            "Bytes of the records that wait in the producer.";
        pub queue_limit_bytes: Labelled<Half, IntGauge> [] = "kafka_producer_queue_limit_bytes",
            "Bytes that the producer's queue can hold.";
        pub broker_up: Numbered ["broker"] = "kafka_broker_up",
            "1 while the producer is connected to the broker, by the broker's id, else 0.";
        pub broker_rtt: Numbered ["broker"] = "kafka_broker_rtt_seconds",
            "Seconds of the mean round trip of requests to the broker, by the broker's id.";
        pub stats_timestamp: IntGauge [] = "kafka_stats_timestamp_seconds",
            "Unix time in seconds of librdkafka's last statistics: older ones make the other numbers stale; 0 before the first.";
    }
}

families! {
    /// The forward half.
    pub struct ForwardMetrics labelled [] {
        pub records: Labelled<RecordOutcome, IntCounter> [] = "forward_records_total",
            "Inbox records whose transaction was committed, by what became of them.";
        pub dead_letters: Labelled<DeadLetterReason, IntCounter> [] = "dead_letters_total",
            "Records committed to the dead-letter topic, by reason.";
        pub lag_records: Numbered ["partition"] = "forward_lag_records",
            "Inbox records not forwarded yet, of each partition that this process owns; if it owns none, of those that no member of the group has. Of one that is not forwarded, as it was last counted, and at most.";
        pub lag: Gauge [] = "forward_lag_seconds",
            "Seconds that the oldest inbox record not forwarded yet has waited, over the partitions that this process owns, held ones too.";
        pub transaction_duration: Labelled<TransactionEnd, Histogram> [TRANSACTION_SECONDS] = "forward_transaction_duration_seconds",
            "Seconds from the begin of a transaction to its end, by how it ended.";
        pub owned_partitions: IntGauge [] = "forward_owned_partitions",
            "Partitions of the inbox assigned to this process, held ones too.";
        pub held_partitions: Labelled<HeldReason, IntGauge> [] = "forward_partitions_held",
            "Partitions assigned to this process that are not forwarded, by reason.";
        pub end_to_end: Histogram [END_TO_END_SECONDS] = "end_to_end_seconds",
            "Seconds from the arrival of a published event at intake to its commit.";
        pub window_ids: IntGauge [] = "window_ids",
            "Event ids that the windows of this process remember.";
        pub window_bytes: IntGauge [] = "window_bytes",
            "Bytes of memory of these windows.";
        pub window_rebuild: Histogram [REBUILD_SECONDS] = "window_rebuild_seconds",
            "Seconds to rebuild a partition's window from the ledger.";
        pub ledger_unread: IntGauge [] = "ledger_unread_records",
            "Ledger offsets still to be read of the partition that is being taken over now; the others wait for their turn.";
        pub window_evictions: Labelled<Eviction, IntCounter> [] = "window_evictions_total",
            "Ids that left the window: by age as promised, by cap too early.";
        pub inbox_retention: Gauge [] = "inbox_retention_seconds",
            "Seconds of inbox.retention: what has waited longer is gone.";
        pub records_lost: IntCounter [] = "inbox_records_lost_total",
            "Inbox records that Kafka's retention removed before they were read.";
        pub clock_skew: Gauge [] = "inbox_clock_skew_seconds",
            "Seconds that the broker's append time of the last record read is ahead of intake's clock; negative: behind.";
    }
}

families! {
    /// What only one replica may have.
    pub struct ReplicaMetrics labelled ["transactional_id"] {
        pub fenced: IntCounter [] = "forward_fenced_total",
            "Times that Kafka fenced the transactional producer: another process has its id, or a transaction timed out.";
    }
}

families! {
    /// ClearFeed's REST API, as one source asks it.
    pub struct ReconcileMetrics labelled ["source"] {
        pub requests: Labelled<ApiOutcome, IntCounter> [] = "clearfeed_api_requests_total",
            "Requests to ClearFeed's REST API, by how they ended.";
        pub snapshots: Labelled<SnapshotOutcome, IntCounter> [] = "reconcile_snapshots_total",
            "Requests that the REST API told, by what became of them.";
        pub missed: Labelled<MissedKind, IntCounter> [] = "reconcile_missed_events_total",
            "Requests that were created or changed and of which no event came within the grace; not every change sends one. Of the unknown nobody can tell: the inbox may have forgotten.";
        pub last_success: IntGauge [] = "reconcile_last_success_timestamp_seconds",
            "Unix time in seconds at which this replica had last read all that changed; 0 before the first time.";
    }
}

/// Every metric of the relay's own, in the order of the flow. (`process_*` are Prometheus's usual ones.)
pub fn catalogue() -> Vec<Entry> {
    [
        BuildFamilies::catalogue(),
        ConfigFamilies::catalogue(),
        ProcessMetrics::catalogue(),
        DeliveryFamilies::catalogue(),
        SourceFamilies::catalogue(),
        IntakeMetrics::catalogue(),
        SpoolMetrics::catalogue(),
        KafkaMetrics::catalogue(),
        ForwardMetrics::catalogue(),
        ReplicaMetrics::catalogue(),
        ReconcileMetrics::catalogue(),
    ]
    .concat()
}

/// What tells one process's series from another's.
#[derive(Debug, Clone, Copy)]
pub struct ProcessLabels<'a> {
    /// Which halves run.
    pub role: Role,
    /// Hash of the settings.
    pub config_hash: &'a str,
    /// `forward.transactional_id`
    pub transactional_id: &'a str,
    /// `forward.group`
    pub group: &'a str,
    /// `inbox.topic`
    pub inbox: &'a str,
}

impl<'a> ProcessLabels<'a> {
    /// Of a process with this configuration.
    pub fn of(config: &'a Config) -> Self {
        Self {
            role: config.role,
            config_hash: &config.hash,
            transactional_id: &config.forward.transactional_id,
            group: &config.forward.group,
            inbox: config.inbox.topic.as_str(),
        }
    }

    /// Of one that is not told from others.
    pub fn of_role(role: Role) -> Self {
        Self { role, config_hash: "", transactional_id: "", group: "", inbox: "" }
    }
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    unattributed: DeliveryFamilies,
    sources: BTreeMap<String, Arc<Source>>,
    /// The process as a whole.
    pub process: ProcessMetrics,
    /// The intake half.
    pub intake: IntakeMetrics,
    /// The spool.
    pub spool: SpoolMetrics,
    /// The clients of Kafka.
    pub kafka: KafkaMetrics,
    /// The forward half.
    pub forward: ForwardMetrics,
    /// The forward half of this replica and no other.
    pub replica: ReplicaMetrics,
}

impl Metrics {
    /// Registers everything, at 0. A source is its configured name with the number of its secret files. The error would be
    /// a mistake in the catalogue, such as a name that stands there twice.
    pub fn new<'a>(
        sources: impl IntoIterator<Item = (&'a str, usize)>,
        process: &ProcessLabels<'_>,
    ) -> Result<Self, prometheus::Error> {
        let ProcessLabels { role, config_hash, transactional_id, group, inbox } = *process;
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let version = env!("CARGO_PKG_VERSION");
        BuildFamilies::register(&registry, &[version, role.as_str(), group, inbox])?.build_info.set(1);
        ConfigFamilies::register(&registry, &[config_hash])?.config_hash.set(1);
        let process = ProcessMetrics::register(&registry, &[])?;
        process.reload_successful.set(1);
        let source = |(name, slots)| Ok((String::from(name), Arc::new(Source::new(&registry, name, slots)?)));
        Ok(Self {
            unattributed: DeliveryFamilies::register(&registry, &[""])?,
            sources: sources.into_iter().map(source).collect::<Result<_, prometheus::Error>>()?,
            process,
            intake: IntakeMetrics::register(&registry, &[])?,
            spool: SpoolMetrics::register(&registry, &[])?,
            kafka: KafkaMetrics::register(&registry, &[])?,
            forward: ForwardMetrics::register(&registry, &[])?,
            replica: ReplicaMetrics::register(&registry, &[transactional_id])?,
            registry,
        })
    }

    /// Registers, at 0, what is counted for a source whose REST API is asked: once.
    pub fn reconcile(&self, source: &str) -> Result<ReconcileMetrics, prometheus::Error> {
        ReconcileMetrics::register(&self.registry, &[source])
    }

    /// The metrics of a configured source: to be asked once, when its endpoint is made.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.sources.get(name)
    }

    /// A delivery ended, and took so long from its head. Without a source where none could be told.
    pub fn answered(&self, source: Option<&Source>, outcome: Outcome, took: Duration) {
        let deliveries = source.map_or(&self.unattributed, |source| &source.ends);
        deliveries.deliveries.of(outcome).inc();
        self.intake.duration.of(outcome).observe(took.as_secs_f64());
    }

    /// A request ended before its head was understood: there is no source, and no time to tell.
    pub fn refused_head(&self, outcome: Outcome) {
        self.unattributed.deliveries.of(outcome).inc();
    }

    /// How deliveries ended so far, always in the same order.
    pub fn delivery_counts(&self) -> Vec<DeliveryCount> {
        let mut counts = Vec::new();
        let known = self.sources.iter().map(|(name, source)| (&**name, &source.ends, Some(&source.families)));
        for (source, ends, families) in [("", &self.unattributed, None)].into_iter().chain(known) {
            let mut add = |ending, counter: &IntCounter| {
                counts.push(DeliveryCount { source: source.to_owned(), ending, count: counter.get() });
            };
            for outcome in Outcome::ALL {
                match families {
                    // Of these it is known why.
                    Some(families) if *outcome == Outcome::Unauthenticated => {
                        for reason in Refusal::ALL {
                            add(Ending::NotAuthenticated(reason), families.auth_failures.of(reason));
                        }
                    }
                    _ => add(Ending::Answered(*outcome), ends.deliveries.of(*outcome)),
                }
            }
        }
        counts
    }

    /// All series in Prometheus's text format, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            // Only a family without a name or without series cannot be written, and the registry gives none.
            tracing::error!(%error, "metrics cannot be rendered");
            String::new()
        })
    }
}

/// One way for deliveries of one source to end, and how many did since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryCount {
    /// Empty where none could be told.
    pub source: String,
    /// Which way.
    pub ending: Ending,
    /// How many.
    pub count: u64,
}

/// What is counted for one source, under its configured name.
#[derive(Debug)]
pub struct Source {
    name: String,
    refusals: Refusals,
    ends: DeliveryFamilies,
    families: SourceFamilies,
}

impl Source {
    fn new(registry: &Registry, name: &str, slots: usize) -> Result<Self, prometheus::Error> {
        let families = SourceFamilies::register(registry, &[name])?;
        for slot in 0..slots {
            families.auth_key_used.of(slot);
        }
        let ends = DeliveryFamilies::register(registry, &[name])?;
        Ok(Self { name: name.to_owned(), refusals: Refusals::default(), ends, families })
    }

    /// A delivery is not proven to be ClearFeed's.
    pub fn refused(&self, refused: &Refused) {
        self.families.auth_failures.of(refused.reason).inc();
        self.refusals.tell(&self.name, refused, Instant::now());
    }

    /// A delivery is proven to be ClearFeed's; only now does its unsigned retry count mean anything.
    pub fn authenticated(&self, matched: Match, retry: u8) {
        self.refusals.authenticated();
        self.families.auth_key_used.of(matched.slot).inc();
        self.families.auth_url_form.of(matched.form).inc();
        if let Some(retry) = Retry::from_count(retry) {
            self.families.redeliveries.of(retry).inc();
        }
    }

    /// A delivery is kept.
    pub fn accepted(&self, now: Timestamp) {
        self.families.last_accepted.set(now.as_second());
    }

    /// An authenticated delivery was answered with an error on ClearFeed's last attempt.
    pub fn last_attempt_failed(&self) {
        self.families.last_attempt_failures.inc();
        tracing::error!(
            source = self.name,
            "last attempt of a delivery failed: ClearFeed will not send it again"
        );
    }

    /// When a delivery was last accepted, to the second.
    pub fn last_accepted(&self) -> Option<Timestamp> {
        match self.families.last_accepted.get() {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }
}

impl SpoolMetrics {
    /// The same for `/status`, so that the two never differ; nothing where there is no spool.
    pub fn status(&self) -> Option<SpoolStatus> {
        let limit_bytes = self.limit_bytes.get();
        (limit_bytes > 0).then(|| SpoolStatus {
            in_use: self.in_use.get() == 1,
            failed: self.failed.get() == 1,
            records: self.records.get(),
            bytes: self.bytes.get(),
            limit_bytes,
            oldest_seconds: self.oldest.get(),
            damaged: self.damaged.get(),
        })
    }
}

impl ForwardMetrics {
    /// A dead letter is committed; its inbox position finds it in the dead-letter topic.
    pub fn dead_letter(&self, reason: DeadLetterReason, partition: i32, offset: i64) {
        self.records.of(RecordOutcome::DeadLetter).inc();
        self.dead_letters.of(reason).inc();
        tracing::warn!(reason = reason.as_str(), partition, offset, "inbox record became a dead letter");
    }

    /// Retention removed inbox records before they were read: from `from` up to, not including, `to`.
    pub fn records_lost(&self, partition: i32, from: i64, to: i64) {
        let lost = u64::try_from(to - from).unwrap_or(0);
        self.records_lost.inc_by(lost);
        tracing::error!(partition, from, to, lost, "inbox records are gone before they were read");
    }

    /// Takes the gauges from what `/status` shows, so that the two never differ.
    pub fn set_status(&self, status: &ForwardStatus) {
        let held = |reason| {
            let is_held = |state: &PartitionState| matches!(state, PartitionState::Held { reason: why, .. } if *why == reason);
            status.owned.iter().filter(|partition| is_held(&partition.state)).count()
        };
        for reason in HeldReason::ALL {
            self.held_partitions.of(*reason).set(gauge(held(*reason)));
        }
        self.owned_partitions.set(gauge(status.owned.len()));
        let owned = status.owned.iter().filter_map(|p| Some((p.partition, p.lag?)));
        let unowned = status.unowned.iter().map(|(&partition, &lag)| (partition, lag));
        // A lag beyond 2^52 records would lose its last digit.
        #[allow(clippy::cast_precision_loss)]
        self.lag_records.replace(owned.chain(unowned).map(|(partition, lag)| (partition, lag as f64)));
        self.lag.set(status.lag_seconds);
        self.window_ids.set(gauge(status.window_ids));
        let unread =
            status.owned.iter().filter_map(|partition| partition.ledger).map(|l| l.of.saturating_sub(l.read));
        self.ledger_unread.set(i64::try_from(unread.sum::<u64>()).unwrap_or(i64::MAX));
        self.window_bytes.set(gauge(status.window_bytes));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn metrics() -> Metrics {
        let process = ProcessLabels {
            config_hash: "abc",
            transactional_id: "relay-0",
            ..ProcessLabels::of_role(Role::All)
        };
        Metrics::new([("main", 2), ("other", 1)], &process).unwrap()
    }

    /// Names without the histogram's suffixes, of all series that are there.
    fn names(text: &str) -> BTreeSet<&str> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with(PREFIX)).collect()
    }

    /// Partitions and brokers are Kafka's to name: these series come when it does.
    fn is_open(entry: &Entry) -> bool {
        entry.labels.iter().any(|label| ["partition", "broker"].contains(label))
    }

    #[test]
    fn the_catalogue_is_complete_and_everything_is_there_from_the_start() {
        let metrics = metrics();
        metrics.reconcile("main").unwrap();
        let text = metrics.render();
        let catalogue = catalogue();
        let known: BTreeSet<_> =
            catalogue.iter().filter(|entry| !is_open(entry)).map(|entry| &*entry.name).collect();
        assert_eq!(names(&text), known);
        for Entry { name, kind, help, .. } in catalogue.iter().filter(|entry| !is_open(entry)) {
            assert!(
                text.contains(&format!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str())),
                "{name}"
            );
        }
    }

    #[test]
    fn every_label_value_is_there_at_zero() {
        let text = metrics().render();
        for series in [
            r#"deliveries_total{outcome="unavailable",source="other"} 0"#,
            r#"deliveries_total{outcome="not_found",source=""} 0"#,
            r#"delivery_duration_seconds_bucket{outcome="accepted",le="1"} 0"#,
            r#"auth_failures_total{reason="too_old",source="main"} 0"#,
            r#"auth_key_used_total{slot="1",source="main"} 0"#,
            r#"auth_url_form_total{form="path",source="main"} 0"#,
            r#"redeliveries_total{retry="3",source="main"} 0"#,
            r#"last_accepted_timestamp_seconds{source="main"} 0"#,
            r#"kafka_errors_total{error="all_brokers_down",half="forward"} 0"#,
            r#"kafka_producer_queue_limit_bytes{half="intake"} 0"#,
            r#"dead_letters_total{reason="unknown_source"} 0"#,
            r#"forward_partitions_held{reason="ledger_open"} 0"#,
            r#"forward_transaction_duration_seconds_count{outcome="unknown"} 0"#,
            r#"window_evictions_total{reason="cap"} 0"#,
            r#"config_hash{hash="abc"} 1"#,
        ] {
            assert!(text.contains(&format!("\n{PREFIX}{series}\n")), "{series}\n{text}");
        }
        assert!(!text.contains(r#"slot="1",source="other""#), "a slot without a file");
        assert!(text.contains("\nprocess_cpu_seconds_total "));
    }

    #[test]
    fn names_tell_type_and_base_unit() {
        const UNITS: [&str; 5] = ["seconds", "bytes", "records", "messages", "ids"];
        /// Gauges that count things, or say yes or no: their names tell all.
        const PLAIN: [&str; 12] = [
            "build_info",
            "config_hash",
            "ready",
            "config_last_reload_successful",
            "http_requests_in_flight",
            "http_connections",
            "spool_in_use",
            "spool_failed",
            "spool_damaged",
            "kafka_broker_up",
            "forward_owned_partitions",
            "forward_partitions_held",
        ];
        for Entry { name, kind, labels, help } in catalogue() {
            let own = name.strip_prefix(PREFIX).unwrap();
            let ends_in_unit = UNITS.iter().any(|unit| own.ends_with(unit));
            match kind {
                Kind::Counter => assert!(own.ends_with("_total"), "{name}"),
                Kind::Gauge => assert!(ends_in_unit || PLAIN.contains(&own), "{name}"),
                Kind::Histogram => assert!(own.ends_with("_seconds"), "{name}"),
            }
            assert!(help.ends_with('.') && help.len() > 20, "{name}: {help}");
            let distinct: BTreeSet<_> = labels.iter().collect();
            assert_eq!(distinct.len(), labels.len(), "{name}");
        }
    }

    #[test]
    fn one_call_counts_a_delivery_for_its_source() {
        let metrics = metrics();
        let main = metrics.source("main").unwrap();
        metrics.answered(Some(main), Outcome::Accepted, Duration::from_secs(1));
        metrics.answered(None, Outcome::NotFound, Duration::ZERO);
        main.authenticated(Match { slot: 1, form: UrlForm::Path }, 3);
        main.refused(&Refused { reason: Refusal::Mismatch, peer: [192, 0, 2, 1].into(), age: None });
        main.last_attempt_failed();
        assert_eq!(main.last_accepted(), None);
        main.accepted(Timestamp::from_second(1_700_000_000).unwrap());
        assert_eq!(main.last_accepted(), Timestamp::from_second(1_700_000_000).ok());
        let text = metrics.render();
        for series in [
            r#"deliveries_total{outcome="accepted",source="main"} 1"#,
            r#"deliveries_total{outcome="accepted",source="other"} 0"#,
            r#"deliveries_total{outcome="not_found",source=""} 1"#,
            r#"delivery_duration_seconds_bucket{outcome="accepted",le="0.5"} 0"#,
            r#"delivery_duration_seconds_bucket{outcome="accepted",le="1"} 1"#,
            r#"auth_key_used_total{slot="1",source="main"} 1"#,
            r#"auth_failures_total{reason="mismatch",source="main"} 1"#,
            r#"redeliveries_total{retry="3",source="main"} 1"#,
            r#"last_attempt_failures_total{source="main"} 1"#,
        ] {
            assert!(text.contains(&format!("\n{PREFIX}{series}\n")), "{series}\n{text}");
        }
        assert!(metrics.source("what a sender chose").is_none());
    }

    #[test]
    fn partitions_that_left_show_no_lag() {
        use crate::telemetry::status::PartitionStatus;
        let metrics = metrics();
        let partition = |partition, state| PartitionStatus {
            partition,
            state,
            since: Timestamp::UNIX_EPOCH,
            next_offset: Some(1),
            lag: Some(5),
            window_ids: 0,
            ledger: None,
        };
        let held = PartitionState::Held { reason: HeldReason::LedgerOpen, detail: String::new() };
        let owned = vec![partition(0, PartitionState::Active), partition(1, held)];
        metrics.forward.set_status(&ForwardStatus { owned, ..ForwardStatus::default() });
        let text = metrics.render();
        assert!(text.contains("forward_lag_records{partition=\"0\"} 5\n"));
        assert!(text.contains("forward_partitions_held{reason=\"ledger_open\"} 1\n"));
        assert!(text.contains("forward_owned_partitions 2\n"));

        let owned = vec![partition(1, PartitionState::Active)];
        metrics.forward.set_status(&ForwardStatus { owned, ..ForwardStatus::default() });
        let text = metrics.render();
        assert!(!text.contains("partition=\"0\""));
        assert!(text.contains("forward_partitions_held{reason=\"ledger_open\"} 0\n"));
    }
}
