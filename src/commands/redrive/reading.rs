//! Reads topics up to the end that they had when they were first looked at, without being a member of a group.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clearfeed_relay::config::Config;
use clearfeed_relay::kafka::{REQUEST_TIMEOUT, properties};
use jiff::Timestamp;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::metadata::MetadataPartition;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use crate::commands::exit::OutOfReach;

/// Kafka that says nothing for so long is out of reach.
const STALLED: Duration = Duration::from_secs(10);
/// What a client has to say of its failure waits in its queue by then.
const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// Of each partition, the offsets to be read.
pub(super) type Span = BTreeMap<i32, Range<i64>>;

/// Reads from one cluster, `read_committed`.
pub(super) struct Reader {
    consumer: BaseConsumer<Told>,
    servers: String,
}

/// What the client told of its last failure.
#[derive(Default)]
struct Told(Mutex<Option<String>>);

impl ClientContext for Told {
    fn error(&self, _: KafkaError, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ConsumerContext for Told {}

impl Reader {
    /// Makes the client; nothing is sent yet.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let client = properties::ledger_reader(config)?;
        let consumer = BaseConsumer::from_config_and_context(&client, Told::default())?;
        Ok(Self { consumer, servers: config.kafka.bootstrap_servers.clone() })
    }

    /// What each partition of a topic holds now; only from this time on, where there is one.
    pub(super) fn span(&self, topic: &str, since: Option<Timestamp>) -> anyhow::Result<Span> {
        let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        let metadata = metadata.map_err(|error| self.out_of_reach(&error.to_string()))?;
        let mut span = Span::new();
        for found in metadata.topics() {
            if let Some(error) = found.error() {
                bail!("topic {topic}: {}", RDKafkaErrorCode::from(error));
            }
            for partition in found.partitions().iter().map(MetadataPartition::id) {
                let marks = self.consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
                let (start, end) = marks.map_err(|error| self.failed(topic, &error))?;
                span.insert(partition, start..end);
            }
        }
        if let Some(since) = since {
            self.narrow(topic, &mut span, since)?;
        }
        Ok(span)
    }

    fn narrow(&self, topic: &str, span: &mut Span, since: Timestamp) -> anyhow::Result<()> {
        let mut wanted = TopicPartitionList::new();
        for &partition in span.keys() {
            wanted.add_partition_offset(topic, partition, Offset::Offset(since.as_millisecond()))?;
        }
        let found = self.consumer.offsets_for_times(wanted, REQUEST_TIMEOUT);
        for element in found.map_err(|error| self.failed(topic, &error))?.elements() {
            let Some(range) = span.get_mut(&element.partition()) else { continue };
            // The end: nothing is that young.
            range.start = if let Offset::Offset(offset) = element.offset() { offset } else { range.end };
        }
        Ok(())
    }

    /// Calls `each` for every record of the span; those of one partition in their order.
    pub(super) fn read(
        &self,
        topic: &str,
        span: &Span,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for (&partition, range) in span.iter().filter(|(_, range)| !range.is_empty()) {
            assignment.add_partition_offset(topic, partition, Offset::Offset(range.start))?;
            ends.insert(partition, range.end);
        }
        self.consumer.assign(&assignment)?;
        let mut last_progress = Instant::now();
        while !ends.is_empty() {
            match self.consumer.poll(TOLD_WITHIN) {
                Some(Ok(record)) => {
                    last_progress = Instant::now();
                    let Some(&end) = ends.get(&record.partition()) else { continue };
                    if record.offset() < end {
                        each(&record)?;
                    }
                    if record.offset() + 1 >= end {
                        ends.remove(&record.partition());
                    }
                }
                // What is left is the markers of transactions.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
                Some(Err(error)) if is_refusal(&error) => return Err(self.failed(topic, &error)),
                Some(Err(_)) | None if last_progress.elapsed() > STALLED => {
                    return Err(self.out_of_reach(&format!("{topic} could not be read to its end")));
                }
                Some(Err(_)) | None => {}
            }
        }
        self.consumer.unassign().context("the reader cannot be reset")
    }

    /// Kafka answered, and refused; or it did not answer.
    fn failed(&self, topic: &str, error: &KafkaError) -> anyhow::Error {
        if is_refusal(error) {
            anyhow::anyhow!("topic {topic}: {error}")
        } else {
            self.out_of_reach(&error.to_string())
        }
    }

    /// A request only tells that nobody answered it; a client that is polled tells why.
    fn out_of_reach(&self, what: &str) -> anyhow::Error {
        let deadline = Instant::now() + TOLD_WITHIN;
        while Instant::now() < deadline {
            drop(self.consumer.poll(TOLD_WITHIN));
        }
        let told = self.consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let told = told.unwrap_or_else(|| what.to_owned());
        OutOfReach(format!("Kafka at {} is out of reach: {told}", self.servers)).into()
    }
}

fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{OffsetOutOfRange, TopicAuthorizationFailed, UnknownTopicOrPartition};
    let refusals = [OffsetOutOfRange, TopicAuthorizationFailed, UnknownTopicOrPartition];
    error.rdkafka_error_code().is_some_and(|code| refusals.contains(&code))
}

/// Of how many offsets a span is.
pub(super) fn length(span: &Span) -> u64 {
    span.values().map(|range| (range.end - range.start).max(0).unsigned_abs()).sum()
}
