//! The loop of the forward half: each round looks at the group, at takeovers, and forwards a batch.

mod answers;
mod reconciliation;
mod repair;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::admission::TopicAdmission;
use super::batch::{Batch, Forwarded, Scope};
use super::group::GroupEvent;
use super::inbox::{Gathered, InboxReader};
use super::producer::Producer;
use super::reconcile::{self, Desk};
use super::search::Search;
use super::slots::Slots;
use super::takeover::{Answer, Order, Takeover};
use crate::config::Config;
use crate::domain::route::TopicName;
use crate::kafka::ClientError;
use crate::kafka::monitor::Monitor;
use crate::kafka::streak::Streak;
use crate::kafka::topic_rules;
use crate::kafka::topics::Topics;
use crate::telemetry::health::Health;
use crate::telemetry::labels::{Eviction, Half, TransactionEnd};
use crate::telemetry::metrics::Metrics;

/// How often `/status` and the gauges are renewed, and windows looked through.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How often what waits is counted in partitions of which no consumer tells.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// How often the log tells that there are more ids than may be kept; the metric counts them.
const CAP_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Why the forward half cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A client of Kafka could not be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A metric could not be registered: a mistake in the catalogue.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The system gives no thread.
    #[error("no thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts the forward half on a thread of its own. It ends, with its transaction finished and the group left, when
/// `shutdown` is cancelled.
pub fn start(
    config: &Config,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    runtime: Handle,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, ForwardError> {
    let monitor = Monitor::new(Half::Forward, Arc::clone(&metrics), Arc::clone(&health));
    let takeover = Takeover::new(config.clone(), &monitor, shutdown.clone())?;
    metrics.forward.inbox_retention.set(config.inbox.retention.as_secs_f64());
    let (orders, order_receiver) = mpsc::channel();
    let (answer_sender, answers) = mpsc::channel();
    std::thread::Builder::new()
        .name("takeover".to_owned())
        .spawn(move || takeover.run(&order_receiver, &answer_sender))?;
    let desk = reconcile::start(config, &monitor, &metrics, runtime.clone())?;
    let inbox = InboxReader::join(config, &monitor)?;
    let admin = Topics::new(config, monitor.clone())?;
    let producer = Producer::new(config, monitor.clone(), Arc::clone(&metrics), Arc::clone(&health))?;
    let forward = Loop {
        admission: TopicAdmission::new(config.clone(), admin, runtime),
        config: config.clone(),
        reserved: topic_rules::reserved(config),
        metrics,
        health,
        monitor,
        inbox: Arc::new(inbox),
        inbox_failures: Streak::default(),
        producer,
        slots: Slots::default(),
        orders,
        answers,
        search: Search::default(),
        desk,
        next_report: Instant::now(),
        next_count: Some(Instant::now() + COUNT_INTERVAL),
        next_cap_warning: Instant::now(),
        shutdown,
    };
    Ok(std::thread::Builder::new().name("forward".to_owned()).spawn(move || forward.run())?)
}

struct Loop {
    config: Config,
    /// The relay's own topics.
    reserved: BTreeSet<TopicName>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// For clients that are made later.
    monitor: Monitor,
    inbox: Arc<InboxReader>,
    inbox_failures: Streak,
    producer: Producer,
    slots: Slots,
    orders: Sender<Order>,
    answers: Receiver<Answer>,
    admission: TopicAdmission,
    search: Search,
    /// Absent where ClearFeed's REST API is not asked.
    desk: Option<Desk>,
    next_report: Instant,
    /// When what waits in partitions that are not forwarded here is counted next; none while it is counted.
    next_count: Option<Instant>,
    next_cap_warning: Instant,
    shutdown: CancellationToken,
}

impl Loop {
    fn run(mut self) {
        while !self.shutdown.is_cancelled() {
            let now = Instant::now();
            self.health.forward_beat(now);
            self.attend_to_inbox(now);
            let inbox = Arc::clone(&self.inbox);
            self.attend_to_group(now);
            self.producer.serve();
            inbox.stay_connected();
            self.attend_to_answers(now);
            self.report(now);
            if !self.producer.is_open(now) {
                inbox.wait();
                continue;
            }
            if self.slots.take_over(now, self.producer.unsettled(), &self.orders).is_err() {
                // Without a beat `/livez` asks for a new process.
                tracing::error!("the thread that takes partitions over is gone: forward half ends");
                break;
            }
            self.attend_to_desk(now);
            // Before the first record: taken later it could carry a generation in which a partition is not ours.
            let Some(generation) = inbox.generation() else { continue };
            self.reconcile(&generation, now);
            let batch = match inbox.gather(&mut self.slots, self.search.batch_limit()) {
                Gathered::Batch(batch) => batch,
                Gathered::OutOfRange => {
                    let owned = self.slots.active().map(|(partition, _)| partition).collect();
                    self.retake(&owned, now);
                    continue;
                }
            };
            if inbox.group().has_events() {
                // The assignment changed under the batch.
                inbox.put_back(&batch, &mut self.slots);
                continue;
            }
            self.forward(&batch, &generation);
        }
        // No transaction is open here.
        self.inbox.leave();
        tracing::info!("forward half ended");
    }

    fn forward(&mut self, batch: &Batch<'_>, generation: &Arc<ConsumerGroupMetadata>) {
        let Some(transactions) = self.producer.transactions() else { return };
        let started = Instant::now();
        let scope = Scope {
            config: &self.config,
            reserved: &self.reserved,
            admission: &self.admission,
            oversized: self.search.oversized(),
        };
        match batch.forward(transactions, &mut self.slots, &scope, generation) {
            Ok(None) => {}
            Ok(Some(forwarded)) => self.committed(&forwarded, started),
            Err(failure) => self.failed(&failure, batch, started),
        }
    }

    fn attend_to_group(&mut self, now: Instant) {
        for event in self.inbox.group().take_events() {
            match event {
                GroupEvent::Assigned(partitions) => {
                    let ours = self.config.inbox.partitions;
                    let (known, surplus): (Vec<i32>, Vec<i32>) =
                        partitions.into_iter().partition(|partition| *partition < ours);
                    if !surplus.is_empty() {
                        // Nothing of ours stands there, and the ledger has no such partition.
                        tracing::warn!(?surplus, ours, "partitions beyond inbox.partitions are left alone");
                    }
                    for partition in known {
                        self.slots.assigned(partition, now);
                    }
                }
                GroupEvent::Revoked(partitions) => {
                    for partition in partitions {
                        self.slots.revoked(partition);
                    }
                }
            }
        }
    }

    fn committed(&mut self, forwarded: &Forwarded, started: Instant) {
        let now = Instant::now();
        let metrics = &self.metrics.forward;
        metrics.transaction_duration.of(TransactionEnd::Committed).observe((now - started).as_secs_f64());
        forwarded.count(metrics);
        for lost in self.slots.committed(forwarded.fences(), |partition| forwarded.decided(partition), now) {
            metrics.records_lost(lost.partition, lost.from, lost.to);
        }
        self.inbox.pause(forwarded.held().map(|(partition, _)| *partition));
        for (partition, held) in forwarded.held() {
            self.slots.hold(*partition, held.clone(), now);
            self.search.held(*partition);
        }
        self.search.committed(&mut self.slots, now);
    }

    /// Forgets ids, between transactions: what a window holds then is committed.
    fn evict(&mut self, now: Instant) {
        let max_ids = self.config.dedup.max_ids;
        let (aged, surplus) = self.slots.evict(jiff::Timestamp::now().as_millisecond(), max_ids);
        let evictions = &self.metrics.forward.window_evictions;
        evictions.of(Eviction::Age).inc_by(aged);
        evictions.of(Eviction::Cap).inc_by(surplus);
        if surplus > 0 && self.next_cap_warning <= now {
            self.next_cap_warning = now + CAP_WARNING_INTERVAL;
            tracing::warn!(
                surplus,
                max_ids,
                "more ids than dedup.max_ids: the oldest are forgotten early, and a repeat of one would be published again"
            );
        }
    }
}
