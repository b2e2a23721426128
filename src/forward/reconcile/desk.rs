//! The loop's side: tells the thread whether partition 0 is ours, and writes what it hands over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

use super::report::Report;
use crate::config::Config;
use crate::domain::event_record::Outgoing;
use crate::domain::watermark::{HEADER, Watermarks};
use crate::forward::active::Active;
use crate::forward::batch::add_offset;
use crate::forward::failure::Failure;
use crate::forward::fence::Fence;
use crate::forward::transaction::{LedgerRecord, TransactionRecord, Transactions};
use crate::kafka::properties;
use crate::telemetry::status::ReconcileStatus;

/// The partition whose owner reconciles, and whose ledger has the watermarks.
pub(in crate::forward) const PARTITION: i32 = 0;

/// The ledger says the watermarks again after this, so that its retention does not take them while the API is away.
const SAY_AGAIN: Duration = Duration::from_secs(3600);
/// After a failure it is left alone for this, doubling: each costs partition 0 a take-over.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(1800);

/// What the thread is told.
pub(super) enum Order {
    /// Partition 0 is ours, and the ledger has these watermarks.
    Begin { epoch: u64, marks: Watermarks },
    /// It is ours no more.
    End,
}

/// A request to be published, and where.
pub(super) struct SnapshotRecord {
    pub(super) topic: String,
    pub(super) record: Outgoing,
    pub(super) json: String,
}

/// What the thread hands over.
pub(in crate::forward) struct Update {
    /// Of the order that it was made under.
    pub(super) epoch: u64,
    pub(super) snapshots: Vec<SnapshotRecord>,
    /// What holds when they are written.
    pub(super) marks: Watermarks,
    /// Told when it is committed; dropped when it never will be.
    pub(super) done: Option<SyncSender<()>>,
}

/// What we have to do with partition 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// It is not ours, or is being taken over.
    None,
    /// It is ours, and the thread was not told yet.
    Due,
    /// The thread works.
    Begun,
}

/// Where the loop and the thread meet.
pub(in crate::forward) struct Desk {
    orders: Sender<Order>,
    updates: Receiver<Update>,
    report: Arc<Report>,
    duty: Duty,
    /// Tells this duty's updates from those of earlier ones.
    epoch: u64,
    marks: Watermarks,
    /// When the ledger said the watermarks; none: not since the partition is ours.
    written: Option<Instant>,
    not_before: Instant,
    /// In a row.
    failures: u32,
}

impl Desk {
    pub(super) fn new(orders: Sender<Order>, updates: Receiver<Update>, report: Arc<Report>) -> Self {
        Self {
            orders,
            updates,
            report,
            duty: Duty::None,
            epoch: 0,
            marks: Watermarks::default(),
            written: None,
            not_before: Instant::now(),
            failures: 0,
        }
    }

    /// Partition 0 was taken over; its ledger said this last in the header of the watermarks.
    pub(in crate::forward) fn taken_over(&mut self, header: Option<&[u8]>) {
        let marks = header.map(Watermarks::decode);
        if marks == Some(None) {
            tracing::warn!("the watermarks in the ledger cannot be read: some snapshots come twice");
        }
        self.marks = marks.flatten().unwrap_or_default();
        self.written = None;
        self.epoch += 1;
        self.duty = Duty::Due;
    }

    /// Tells the thread what changed.
    pub(in crate::forward) fn attend(&mut self, is_ours: bool, now: Instant) {
        let order = match (self.duty, is_ours) {
            (Duty::Begun, false) => {
                self.duty = Duty::None;
                self.report.elsewhere();
                Order::End
            }
            (Duty::Due, true) if now >= self.not_before => {
                self.duty = Duty::Begun;
                Order::Begin { epoch: self.epoch, marks: self.marks.clone() }
            }
            _ => return,
        };
        // A thread that is gone hands nothing over: events do not depend on it.
        let _ = self.orders.send(order);
    }

    /// What is to be written now.
    pub(in crate::forward) fn due(&mut self, now: Instant) -> Option<Update> {
        if self.duty != Duty::Begun {
            return None;
        }
        let handed = self.updates.try_iter().filter(|update| update.epoch == self.epoch).last();
        let is_silent = self.written.is_none_or(|written| now.duration_since(written) > SAY_AGAIN);
        handed.or_else(|| {
            let marks = self.marks.clone();
            (is_silent && !marks.is_empty()).then_some(Update {
                epoch: self.epoch,
                snapshots: Vec::new(),
                marks,
                done: None,
            })
        })
    }

    /// It is committed.
    pub(in crate::forward) fn committed(&mut self, update: Update, now: Instant) {
        self.marks = update.marks;
        self.written = Some(now);
        if let Some(done) = update.done {
            // What the ledger only says again proves nothing of the snapshot topic.
            self.failures = 0;
            let _ = done.send(());
        }
    }

    /// It is not, or nobody knows: partition 0 is taken over again, and then the ledger tells.
    pub(in crate::forward) fn failed(&mut self, now: Instant) {
        let pause = LAST_PAUSE.min(FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures)));
        self.failures += 1;
        self.not_before = now + pause;
    }

    pub(in crate::forward) fn status(&self) -> Vec<ReconcileStatus> {
        self.report.status()
    }
}

impl Update {
    /// Writes it all in one transaction, with where partition 0 stands. Returns where its next ledger record may land.
    pub(in crate::forward) fn write(
        &self,
        transactions: &Transactions,
        active: &mut Active,
        config: &Config,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<BTreeMap<i32, Fence>, Failure> {
        let mut offsets = TopicPartitionList::new();
        add_offset(&mut offsets, config, PARTITION, active.partition.stand())?;
        let transaction = transactions.begin(&offsets, group)?;
        for SnapshotRecord { topic, record, json } in &self.snapshots {
            transaction.send(&TransactionRecord {
                topic,
                partition: None,
                key: &record.key,
                headers: &record.headers,
                value: json.as_bytes(),
                inbox_partition: PARTITION,
            })?;
        }
        let entry = active.partition.ledger_entry(config.inbox.partitions.unsigned_abs());
        let marks = (HEADER.into(), self.marks.encode(properties::max_record_bytes(config) / 2));
        let record = LedgerRecord { entry, fence: active.fence, further: Some(marks) };
        transaction.append(BTreeMap::from([(PARTITION, record)]))?.commit(&offsets)
    }
}
