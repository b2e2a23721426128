//! A batch of inbox records on its way through one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::admission::TopicAdmission;
use super::failure::Failure;
use super::fence::Fence;
use super::partition::{Decision, Held, InboxMessage, Rules};
use super::slots::Slots;
use super::transaction::{LedgerRecord, Transaction, TransactionRecord, Transactions};
use super::witness::OFFSET_METADATA;
use crate::config::Config;
use crate::domain::event_record::{DeadLetterReason, Outgoing};
use crate::domain::inbox_record::Position;
use crate::domain::route::TopicName;
use crate::telemetry::labels::RecordOutcome;
use crate::telemetry::metrics::ForwardMetrics;

/// Inbox records in the order in which they were consumed.
#[derive(Default)]
pub(super) struct Batch<'c> {
    records: Vec<BorrowedMessage<'c>>,
    bytes: usize,
}

/// What decisions rest on beside the records.
pub(super) struct Scope<'a> {
    pub(super) config: &'a Config,
    pub(super) reserved: &'a BTreeSet<TopicName>,
    pub(super) admission: &'a TopicAdmission,
    pub(super) oversized: &'a BTreeMap<Position, u32>,
}

/// What a transaction did, once it is committed.
#[derive(Default)]
pub(super) struct Forwarded {
    /// Of which the ledger has a record more.
    partitions: BTreeSet<i32>,
    /// Of which a record was decided about.
    decided: BTreeSet<i32>,
    /// Where the next ledger record of each may land.
    fences: BTreeMap<i32, Fence>,
    repeats: u64,
    published: u64,
    dead_letters: Vec<(DeadLetterReason, Position)>,
    /// When intake had read the published events, but for those that were dead letters meanwhile.
    received: Vec<Timestamp>,
    /// Seconds that the broker's clock was ahead of intake's at the last record.
    clock_skew: Option<f64>,
    /// Partitions that cannot go on, and why.
    held: BTreeMap<i32, Held>,
}

impl<'c> Batch<'c> {
    pub(super) fn push(&mut self, record: BorrowedMessage<'c>) {
        self.bytes += record.payload_len();
        self.records.push(record);
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn partitions(&self) -> BTreeSet<i32> {
        self.records.iter().map(Message::partition).collect()
    }

    /// The position of the record, where there is only one.
    pub(super) fn only_position(&self) -> Option<Position> {
        match self.records.as_slice() {
            [record] => Some(position(record)),
            _ => None,
        }
    }

    /// Decides about every record, and writes what follows in one transaction. `None`: there was nothing to do.
    ///
    /// All decisions are made before the transaction begins, for some ask Kafka about a topic, and a transaction has
    /// little time.
    pub(super) fn forward(
        &self,
        transactions: &Transactions,
        slots: &mut Slots,
        scope: &Scope<'_>,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<Option<Forwarded>, Failure> {
        let now = std::time::Instant::now();
        let mut forwarded = Forwarded::default();
        forwarded
            .partitions
            .extend(slots.active().filter(|(_, active)| active.is_silent(now)).map(|(p, _)| p));
        if self.records.is_empty() && forwarded.partitions.is_empty() {
            return Ok(None);
        }
        let rules = Rules {
            sources: &scope.config.sources,
            reserved: scope.reserved,
            oversized: scope.oversized,
            admit: &|topic| scope.admission.admit(topic),
        };
        let decided: Vec<_> =
            self.records.iter().filter_map(|record| forwarded.decide(record, slots, &rules)).collect();
        let stand = forwarded.offsets(slots, scope.config)?;
        let transaction = transactions.begin(&stand, group)?;
        for (message, decision) in decided {
            forwarded.send(&transaction, scope.config, &message, decision)?;
        }
        let appended = transaction.append(forwarded.ledger(slots, scope.config))?;
        let offsets = forwarded.offsets(slots, scope.config)?;
        forwarded.fences = appended.commit(&offsets)?;
        Ok(Some(forwarded))
    }
}

impl Forwarded {
    /// What becomes of a record; nothing where its partition cannot go on.
    fn decide<'r>(
        &mut self,
        record: &'r BorrowedMessage<'_>,
        slots: &mut Slots,
        rules: &Rules<'_>,
    ) -> Option<(InboxMessage<'r>, Decision)> {
        let position = position(record);
        let active =
            slots.get(position.partition).filter(|_| !self.held.contains_key(&position.partition))?;
        let found = record.headers();
        let mut headers = Vec::with_capacity(found.map_or(0, Headers::count));
        headers.extend(found.into_iter().flat_map(Headers::iter).map(|header| (header.key, header.value)));
        let message = InboxMessage {
            position,
            appended_ms: record.timestamp().to_millis().unwrap_or(0),
            headers,
            body: record.payload().unwrap_or_default(),
        };
        match active.partition.decide(&message, rules) {
            Ok(decision) => {
                self.partitions.insert(position.partition);
                self.decided.insert(position.partition);
                Some((message, decision))
            }
            Err(held) => {
                self.held.insert(position.partition, held);
                None
            }
        }
    }

    fn send(
        &mut self,
        transaction: &Transaction<'_>,
        config: &Config,
        message: &InboxMessage<'_>,
        decision: Decision,
    ) -> Result<(), Failure> {
        match decision {
            Decision::Repeat => self.repeats += 1,
            Decision::Publish { topic, record, received } => {
                send(transaction, topic.as_str(), &record, message)?;
                self.published += 1;
                let Some(received) = received else { return Ok(()) };
                self.received.push(received);
                #[expect(clippy::cast_precision_loss, reason = "clocks that are 285,000 years apart")]
                let skew = (message.appended_ms - received.as_millisecond()) as f64 / 1e3;
                self.clock_skew = Some(skew);
            }
            Decision::DeadLetter(reason, record) => {
                send(transaction, config.forward.dead_letter_topic.as_str(), &record, message)?;
                self.dead_letters.push((reason, message.position));
            }
        }
        Ok(())
    }

    /// One ledger record for each partition in the batch.
    fn ledger(&self, slots: &mut Slots, config: &Config) -> BTreeMap<i32, LedgerRecord> {
        let record = |&number: &i32| {
            let active = slots.get(number)?;
            let entry = active.partition.ledger_entry(config.inbox.partitions.unsigned_abs());
            Some((number, LedgerRecord { entry, fence: active.fence, further: None }))
        };
        self.partitions.iter().filter_map(record).collect()
    }

    /// The inbox offset of each partition in the batch, marked as ours.
    fn offsets(&self, slots: &mut Slots, config: &Config) -> Result<TopicPartitionList, Failure> {
        let mut offsets = TopicPartitionList::new();
        for &number in &self.partitions {
            let Some(active) = slots.get(number) else { continue };
            add_offset(&mut offsets, config, number, active.partition.stand())?;
        }
        Ok(offsets)
    }

    /// Where the next ledger record of each partition in the transaction may land.
    pub(super) fn fences(&self) -> &BTreeMap<i32, Fence> {
        &self.fences
    }

    /// Whether a record of this partition was decided about.
    pub(super) fn decided(&self, partition: i32) -> bool {
        self.decided.contains(&partition)
    }

    /// Partitions that cannot go on, and why.
    pub(super) fn held(&self) -> impl Iterator<Item = (&i32, &Held)> {
        self.held.iter()
    }

    /// Counts what is committed now.
    pub(super) fn count(&self, metrics: &ForwardMetrics) {
        metrics.records.of(RecordOutcome::Published).inc_by(self.published);
        metrics.records.of(RecordOutcome::Repeat).inc_by(self.repeats);
        for (reason, position) in &self.dead_letters {
            metrics.dead_letter(*reason, position.partition, position.offset);
        }
        let now = Timestamp::now();
        for received in &self.received {
            metrics.end_to_end.observe(now.duration_since(*received).as_secs_f64());
        }
        if let Some(skew) = self.clock_skew {
            metrics.clock_skew.set(skew);
        }
    }
}

/// Adds where an inbox partition stands, marked as ours.
pub(super) fn add_offset(
    offsets: &mut TopicPartitionList,
    config: &Config,
    number: i32,
    stand: i64,
) -> Result<(), Failure> {
    let inbox = config.inbox.topic.as_str();
    let added = offsets.add_partition_offset(inbox, number, Offset::Offset(stand));
    added.map_err(|error| Failure::Replace(error.to_string()))?;
    if let Some(mut element) = offsets.find_partition(inbox, number) {
        element.set_metadata(OFFSET_METADATA);
    }
    Ok(())
}

fn send(
    transaction: &Transaction<'_>,
    topic: &str,
    record: &Outgoing,
    message: &InboxMessage<'_>,
) -> Result<(), Failure> {
    let length = record.head_bytes.map_or(message.body.len(), |head| head.min(message.body.len()));
    transaction.send(&TransactionRecord {
        topic,
        partition: None,
        key: &record.key,
        headers: &record.headers,
        value: &message.body[..length],
        inbox_partition: message.position.partition,
    })
}

fn position(record: &BorrowedMessage<'_>) -> Position {
    Position { partition: record.partition(), offset: record.offset() }
}
