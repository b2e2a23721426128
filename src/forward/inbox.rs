//! The inbox, as a member of the group reads it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::active::Arrival;
use super::batch::Batch;
use super::group::GroupContext;
use super::slots::Slots;
use crate::config::Config;
use crate::kafka::monitor::Monitor;
use crate::kafka::streak::Blame;
use crate::kafka::{self, ClientError, REQUEST_TIMEOUT, bootstrap, properties};
use crate::telemetry::labels::KafkaFault;

/// How long a round waits for the first record of a batch.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// A round ends after this however much comes: the group, the takeovers and the watchdog are waiting.
const LONGEST_ROUND: Duration = Duration::from_secs(1);
/// Bytes of one transaction's bodies.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The consumer of the inbox.
pub(super) struct InboxReader {
    consumer: BaseConsumer<GroupContext>,
    outcome: Mutex<Option<Outcome>>,
    topic: String,
    servers: String,
}

/// What the consumer did since somebody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It brought a record, or a change of the assignment.
    Works,
    /// It brought nothing but an error, and not for want of a broker.
    Fails(Blame),
}

impl Outcome {
    fn of(code: Option<RDKafkaErrorCode>) -> Option<Self> {
        use RDKafkaErrorCode::{
            InconsistentGroupProtocol, InvalidGroupId, InvalidSessionTimeout, UnknownTopicOrPartition,
        };
        let fault = code.map(KafkaFault::from);
        match (code, fault) {
            (_, Some(KafkaFault::AllBrokersDown | KafkaFault::Transport | KafkaFault::TimedOut)) => None,
            (_, Some(KafkaFault::Authorization))
            | (
                Some(
                    InconsistentGroupProtocol
                    | InvalidGroupId
                    | InvalidSessionTimeout
                    | UnknownTopicOrPartition,
                ),
                _,
            ) => Some(Self::Fails(Blame::Environment)),
            _ => Some(Self::Fails(Blame::Client)),
        }
    }
}

/// What a round has gathered.
pub(super) enum Gathered<'c> {
    /// Records, perhaps none.
    Batch(Batch<'c>),
    /// An offset that is not there any more: partitions have to be taken over again.
    OutOfRange,
}

impl InboxReader {
    /// Joins the group.
    pub(super) fn join(config: &Config, monitor: &Monitor) -> Result<Self, ClientError> {
        let topic = config.inbox.topic.as_str();
        let context = GroupContext::new(monitor.of_one_client(), topic);
        let consumer = BaseConsumer::from_config_and_context(&properties::inbox_consumer(config)?, context)?;
        consumer.subscribe(&[topic])?;
        let servers = config.kafka.bootstrap_servers.clone();
        Ok(Self { consumer, outcome: Mutex::default(), topic: topic.to_owned(), servers })
    }

    /// Finds Kafka again, where it was lost.
    pub(super) fn stay_connected(&self) {
        bootstrap::restore_if_lost(self.consumer.client(), self.group().monitor(), &self.servers);
    }

    /// What the group gave and took.
    pub(super) fn group(&self) -> &GroupContext {
        self.consumer.context()
    }

    /// The group's generation, which a transaction's offsets are fenced by.
    pub(super) fn generation(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.consumer.group_metadata().map(Arc::new)
    }

    /// Serves the group while nothing can be forwarded. Records cannot come, for all partitions are paused.
    pub(super) fn wait(&self) {
        drop(self.poll(IDLE_POLL));
    }

    fn poll(&self, wait: Duration) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
        let polled = self.consumer.poll(wait);
        let outcome = match &polled {
            None => self.group().has_events().then_some(Outcome::Works),
            Some(Ok(_)) => Some(Outcome::Works),
            Some(Err(error)) => Outcome::of(error.rdkafka_error_code()),
        };
        if outcome.is_some() {
            *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        }
        polled
    }

    /// What the consumer did since this was asked last.
    pub(super) fn take_outcome(&self) -> Option<Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Fetches a partition from this offset on.
    pub(super) fn go_on(&self, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        let sought = self.consumer.seek_partitions(list.clone(), REQUEST_TIMEOUT)?;
        if sought.elements().iter().any(|element| element.error().is_err()) {
            // After an offset that was out of range librdkafka fetches the partition no more, and seeks neither:
            // only a new assignment makes it begin again.
            self.consumer.incremental_unassign(&list)?;
            self.consumer.incremental_assign(&list)?;
        }
        self.consumer.resume(&list)
    }

    /// Fetches these no more.
    pub(super) fn pause(&self, partitions: impl Iterator<Item = i32>) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        if let Err(error) = self.consumer.pause(&list) {
            tracing::warn!(%error, "partitions could not be paused; their records are dropped until they are taken over");
        }
    }

    /// Collects what the consumer has, waiting only for the first record.
    pub(super) fn gather(&self, slots: &mut Slots, max_records: usize) -> Gathered<'_> {
        let mut batch = Batch::default();
        let mut wait = IDLE_POLL;
        let deadline = Instant::now() + LONGEST_ROUND;
        while batch.len() < max_records && batch.bytes() < MAX_BATCH_BYTES && Instant::now() < deadline {
            match self.poll(wait) {
                None => break,
                Some(Err(error)) => {
                    // Said ten times a second; the client's own errors tell it once in a while.
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
                        tracing::warn!(%error, "inbox consumer");
                    }
                    if kafka::is_out_of_range(&error) {
                        return Gathered::OutOfRange;
                    }
                }
                Some(Ok(record)) => {
                    let (partition, found) = (record.partition(), record.offset());
                    match slots.get(partition).map(|active| active.arrival(found)) {
                        Some(Arrival::Take) => {
                            let appended_ms = record.timestamp().to_millis().unwrap_or(i64::MAX);
                            slots.consumed(partition, found, appended_ms, Instant::now());
                            batch.push(record);
                        }
                        Some(Arrival::Drop) | None => {}
                        Some(Arrival::SeekTo(missing)) => {
                            tracing::warn!(
                                partition,
                                missing,
                                found,
                                "offsets are missing in the inbox: asking again"
                            );
                            self.seek(partition, missing);
                        }
                    }
                }
            }
            wait = Duration::ZERO;
        }
        Gathered::Batch(batch)
    }

    /// Records that were not decided about come again, where their partition is still ours.
    pub(super) fn put_back(&self, batch: &Batch<'_>, slots: &mut Slots) {
        for partition in batch.partitions() {
            if let Some(active) = slots.get(partition) {
                self.seek(partition, active.put_back());
            }
        }
    }

    fn seek(&self, partition: i32, offset: i64) {
        if let Err(error) = self.go_on(partition, offset) {
            tracing::debug!(partition, offset, %error, "not ours any more");
        }
    }

    /// Lets the others take over at once.
    pub(super) fn leave(&self) {
        self.consumer.unsubscribe();
    }
}
