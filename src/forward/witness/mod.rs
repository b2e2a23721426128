//! What there is to know about a partition before it is taken over, as Kafka tells it.

mod backlog;
mod others;
mod reading;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

pub(super) use others::{LastRecord, Membership};
use reading::read_from;

use super::ledger_record;
use super::memory::Memory;
use super::partition::Held;
use super::progress::Progress;
use super::resume::{Committed, Evidence};
use super::settlement::Settlement;
use crate::config::{Config, StartAt};
use crate::domain::ledger_entry::LedgerError;
use crate::domain::watermark;
use crate::kafka::monitor::Monitor;
use crate::kafka::{ClientError, REQUEST_TIMEOUT, properties, version};
use crate::telemetry::labels::HeldReason;

/// What our commits say in their metadata: an offset without it was set by another hand.
pub(super) const OFFSET_METADATA: &str = "clearfeed-relay";

/// How often the log tells how far a long read of the ledger is.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Reads the ledger, and asks about the group and the inbox.
///
/// Its clients are kept: a new consumer takes up to a second to its first record. After an error they are to be
/// replaced: one that was idle while its broker was killed was seen to answer nothing for a minute after the broker was
/// back.
pub(super) struct Witness {
    config: Config,
    reader: BaseConsumer<Monitor>,
    uncommitted: BaseConsumer<Monitor>,
    shutdown: CancellationToken,
}

impl Witness {
    /// Makes the clients; nothing is sent yet.
    pub(super) fn new(
        config: &Config,
        monitor: &Monitor,
        shutdown: &CancellationToken,
    ) -> Result<Self, ClientError> {
        let make = |client: &ClientConfig| BaseConsumer::from_config_and_context(client, monitor.clone());
        Ok(Self {
            reader: make(&properties::ledger_reader(config)?)?,
            uncommitted: make(&properties::uncommitted_reader(config)?)?,
            config: config.clone(),
            shutdown: shutdown.clone(),
        })
    }

    /// All that there is to know, in the order that makes it one picture: the group's offset, then that no transaction is
    /// open, then the ledger.
    pub(super) fn look(&self, partition: i32, progress: &Arc<Progress>) -> Result<(Evidence, Memory), Held> {
        // First of all because it is quick: the group's offset is only told when the transactions on it are over.
        self.check_stable(partition)?;
        let committed =
            self.committed(&self.reader, partition).map_err(|error| match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnstableOffsetCommit) => {
                    let detail = format!(
                        "a transaction on the offset of the group {} is open",
                        self.config.forward.group
                    );
                    Held { reason: HeldReason::LedgerOpen, detail }
                }
                _ => unavailable(&error),
            })?;
        self.check_stable(partition)?;
        let mut memory = self.read_ledger(partition, progress)?;
        if !matches!(committed, Committed::Ours(_)) {
            // With no offset of ours to hold it against, only a second reading tells a leader that was just elected and
            // is behind.
            let first = memory.tail;
            memory = self.read_ledger(partition, progress)?;
            if memory.tail != first {
                return Err(behind());
            }
        }
        let evidence = self.evidence(partition, &memory, committed).map_err(|error| unavailable(&error))?;
        Ok((evidence, memory))
    }

    /// The group's offset. The `reader` waits for a predecessor's open transaction on it; `uncommitted` is told the one before.
    fn committed(&self, reader: &BaseConsumer<Monitor>, partition: i32) -> Result<Committed, KafkaError> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(self.config.inbox.topic.as_str(), partition);
        let answer = reader.committed_offsets(wanted, REQUEST_TIMEOUT)?;
        let elements = answer.elements();
        let Some(element) = elements.first() else { return Ok(Committed::None) };
        element.error()?;
        Ok(match element.offset() {
            Offset::Offset(offset) if element.metadata() == OFFSET_METADATA => Committed::Ours(offset),
            Offset::Offset(offset) => Committed::Foreign(offset),
            _ => Committed::None,
        })
    }

    /// Whether no transaction is open on the ledger partition: readers that wait for transactions and readers that do not
    /// are told the same end.
    fn check_stable(&self, partition: i32) -> Result<(), Held> {
        let topic = self.config.ledger.topic.as_str();
        let end = |reader: &BaseConsumer<Monitor>| {
            let marks = reader.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
            marks.map(|(_, end)| end).map_err(|error| unavailable(&error))
        };
        // Serves the reader's events, for nobody polls it while nothing is read.
        drop(self.reader.poll(Duration::ZERO));
        let (stable, end) = (end(&self.reader)?, end(&self.uncommitted)?);
        if stable == end {
            return Ok(());
        }
        Err(self.open(HeldReason::LedgerOpen, topic, partition))
    }

    /// Takes note of what is open in the topics that events go to.
    pub(super) fn begin_settlement(&self) -> Result<Settlement, Held> {
        Settlement::begin(&self.config, &self.uncommitted).map_err(Held::by_kafka)
    }

    /// Whether all that was open then has ended.
    pub(super) fn check_settled(&self, settlement: &Settlement) -> Result<(), Held> {
        match settlement.hanging(&self.reader).map_err(Held::by_kafka)? {
            None => Ok(()),
            Some((topic, partition)) => Err(self.open(HeldReason::TopicOpen, &topic, partition)),
        }
    }

    fn open(&self, reason: HeldReason, topic: &str, partition: i32) -> Held {
        Held { reason, detail: stays_open(&self.config.kafka.bootstrap_servers, reason, topic, partition) }
    }

    /// Reads the ledger partition from its log start to its end.
    fn read_ledger(&self, partition: i32, progress: &Arc<Progress>) -> Result<Memory, Held> {
        let topic = self.config.ledger.topic.as_str();
        let (start, end) = self
            .reader
            .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        let mut memory = Memory::new(start, self.config.dedup.window);
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut last_told = Instant::now();
        let position = read_from(&self.reader, &self.shutdown, topic, partition, start, |record| {
            let (read, of) = (record.offset() + 1 - start, end - start);
            if Arc::strong_count(progress) == 1 {
                return Err(Held::by_kafka("nobody waits for it any more"));
            }
            progress.tell(read.unsigned_abs(), of.unsigned_abs());
            if last_told.elapsed() > TOLD_EVERY {
                last_told = Instant::now();
                tracing::info!(partition, read, of, "reading the ledger");
            }
            if let Some(value) = ledger_record::header(&record, watermark::HEADER) {
                memory.watermarks = Some(value.to_vec());
            }
            memory.writer = ledger_record::writer(&record);
            let written_ms = record.timestamp().to_millis().unwrap_or(0);
            let (format, value) = ledger_record::parts(&record);
            let taken = memory.take(format, value, written_ms, now_ms, self.config.dedup.max_ids);
            taken.map(|()| true).map_err(|error| {
                let reason = match error {
                    LedgerError::NewerFormat(_) => HeldReason::NewerFormat,
                    LedgerError::ForeignFormat(_) | LedgerError::Damaged(_) => HeldReason::LedgerForeign,
                };
                let detail = format!("{error}, at offset {} of {topic}-{partition}", record.offset());
                Held { reason, detail }
            })
        })?;
        // A leader that was just elected can be behind the one that told us the end.
        if position < end {
            return Err(behind());
        }
        memory.end = position;
        Ok(memory)
    }

    fn evidence(
        &self,
        partition: i32,
        memory: &Memory,
        committed: Committed,
    ) -> Result<Evidence, KafkaError> {
        let topic = self.config.inbox.topic.as_str();
        let (inbox_start, inbox_end) = self.reader.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        let before_tail =
            memory.tail.map(|tail| tail.to - 1).filter(|offset| (inbox_start..inbox_end).contains(offset));
        let mut inbox_last_ms = None;
        if let Some(offset) = before_tail {
            let read = read_from(&self.reader, &self.shutdown, topic, partition, offset, |record| {
                inbox_last_ms = (record.offset() == offset).then(|| record.timestamp().to_millis()).flatten();
                Ok(false)
            });
            if let Err(held) = read {
                tracing::debug!(
                    partition,
                    detail = held.detail,
                    "the inbox record before `to` could not be read"
                );
                return Err(KafkaError::NoMessageReceived);
            }
        }
        let start_at = match self.config.forward.start_at {
            None => None,
            Some(StartAt::Beginning) => Some(inbox_start),
            Some(StartAt::End) => Some(inbox_end),
            Some(StartAt::Time(time)) => Some(self.offset_at(partition, time)?.unwrap_or(inbox_end)),
        };
        Ok(Evidence {
            tail: memory.tail,
            ledger_start: memory.start,
            committed,
            inbox_start,
            inbox_end,
            inbox_last_ms,
            inbox_partitions: self.config.inbox.partitions.unsigned_abs(),
            start_at,
        })
    }

    /// The first inbox record appended at or after this time.
    fn offset_at(&self, partition: i32, time: jiff::Timestamp) -> Result<Option<i64>, KafkaError> {
        let mut wanted = TopicPartitionList::new();
        let at = Offset::Offset(time.as_millisecond());
        wanted.add_partition_offset(self.config.inbox.topic.as_str(), partition, at)?;
        let answer = self.reader.offsets_for_times(wanted, REQUEST_TIMEOUT)?;
        Ok(answer.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }
}

/// A transaction that does not end, and the command that finds it. What ends it is for a person to decide.
fn stays_open(servers: &str, reason: HeldReason, topic: &str, partition: i32) -> String {
    let found = format!(
        "a transaction on {topic}-{partition} stays open; find it with: kafka-transactions --bootstrap-server {servers} \
         find-hanging --max-transaction-timeout 1 --topic {topic} --partition {partition}"
    );
    let caution = match reason {
        HeldReason::TopicOpen => {
            format!(
                "; do not abort it on Kafka {}: it may be committed, and only lack its marker",
                version::FAULTY
            )
        }
        _ => String::new(),
    };
    found + &caution
}

pub(super) fn behind() -> Held {
    let detail = "the ledger's leader stays behind what was committed".to_owned();
    Held { reason: HeldReason::LedgerOpen, detail }
}

fn unavailable(error: &KafkaError) -> Held {
    Held::by_kafka(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hanging_transaction_is_told_with_the_command_that_finds_it_and_when_not_to_end_it() {
        let told = |reason| stays_open("kafka:9092", reason, "t", 3);
        // Without a time-out of its own the command looks for what is older than a quarter of an hour.
        let command = "find it with: kafka-transactions --bootstrap-server kafka:9092 find-hanging \
                       --max-transaction-timeout 1 --topic t --partition 3";
        assert!(told(HeldReason::LedgerOpen).ends_with(command), "{}", told(HeldReason::LedgerOpen));
        assert!(told(HeldReason::TopicOpen).contains(command), "{}", told(HeldReason::TopicOpen));
        assert!(told(HeldReason::TopicOpen).contains("do not abort it on Kafka 4.3.0, 4.3.1 and 4.4.0:"));
    }
}
