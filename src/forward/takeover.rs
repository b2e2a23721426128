//! Taking partitions over: a thread of its own reads the ledger while the loop forwards the others.

use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use super::partition::{Held, Partition};
use super::resume::{self, Committed, Decision, Evidence};
use crate::config::{Config, StartAt};
use crate::kafka::monitor::Monitor;
use crate::kafka::{ClientError, REQUEST_TIMEOUT, properties};
use crate::telemetry::labels::HeldReason;

/// What our commits say in their metadata: an offset without it was set by another hand.
pub const OFFSET_METADATA: &str = "clearfeed-relay";

/// A ledger partition whose last transaction stays open for longer is held.
const STABLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often an open transaction is looked at.
const STABLE_POLL: Duration = Duration::from_millis(20);
/// Questions without any answer for so long are asked by new clients.
const UNANSWERED: Duration = Duration::from_secs(5);
/// A read of the ledger without any progress for this long is given up, and begun again.
const STALLED: Duration = Duration::from_secs(10);

/// A partition to be taken over; the epoch tells whether it is still wanted when it is done.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Partition of the inbox.
    pub partition: i32,
    /// Counts this partition's takeovers.
    pub epoch: u64,
}

/// What became of a job.
pub struct Done {
    /// The job.
    pub job: Job,
    /// The partition, ready to go on, or why it must wait.
    pub result: Result<Taken, Held>,
}

/// A partition with its memory rebuilt.
pub struct Taken {
    /// Ready to go on.
    pub partition: Partition,
    /// Inbox records that retention took before they were read.
    pub lost: i64,
    /// How long ago the last ledger record was written.
    pub ledger_age: Duration,
    /// How long the takeover took.
    pub took: Duration,
}

/// Takes partitions over, one after the other.
pub struct Takeover {
    config: Config,
    monitor: Monitor,
    clients: Clients,
    shutdown: CancellationToken,
}

/// They are kept: a new consumer takes up to a second to its first record. After an error they are replaced: one that
/// was idle while its broker was killed was seen to answer nothing for a minute after the broker was back.
struct Clients {
    reader: BaseConsumer<Monitor>,
    uncommitted: BaseConsumer<Monitor>,
}

impl Clients {
    fn new(config: &Config, monitor: &Monitor) -> Result<Self, ClientError> {
        let make = |client: &ClientConfig| BaseConsumer::from_config_and_context(client, monitor.clone());
        Ok(Self {
            reader: make(&properties::ledger_reader(config)?)?,
            uncommitted: make(&properties::uncommitted_reader(config)?)?,
        })
    }
}

impl Takeover {
    /// Makes the clients; nothing is sent yet.
    pub fn new(config: Config, monitor: &Monitor, shutdown: CancellationToken) -> Result<Self, ClientError> {
        let clients = Clients::new(&config, monitor)?;
        Ok(Self { config, monitor: monitor.clone(), clients, shutdown })
    }

    /// Works until the loop hangs up.
    pub fn run(mut self, jobs: &Receiver<Job>, done: &Sender<Done>) {
        for job in jobs {
            if self.shutdown.is_cancelled() {
                return;
            }
            let result = self.take_over(job.partition);
            if matches!(&result, Err(held) if held.reason == HeldReason::Kafka) {
                match Clients::new(&self.config, &self.monitor) {
                    Ok(clients) => self.clients = clients,
                    Err(error) => {
                        tracing::warn!(%error, "the clients that take partitions over cannot be replaced");
                    }
                }
            }
            if done.send(Done { job, result }).is_err() {
                return;
            }
        }
    }

    fn take_over(&self, partition: i32) -> Result<Taken, Held> {
        let started = Instant::now();
        loop {
            let committed = self.committed(partition).map_err(|error| unavailable(&error))?;
            self.wait_until_stable(partition)?;
            let memory = self.read_ledger(partition)?;
            let evidence =
                self.evidence(partition, &memory, committed).map_err(|error| unavailable(&error))?;
            match resume::decide(&evidence) {
                Decision::LookAgain if started.elapsed() < STABLE_TIMEOUT => {}
                Decision::LookAgain => {
                    let detail = "the ledger's leader stays behind the group's offset".to_owned();
                    return Err(Held { reason: HeldReason::LedgerOpen, detail });
                }
                Decision::Hold(reason, detail) => return Err(Held { reason, detail }),
                Decision::GoOn { at, lost } => {
                    if let Committed::Foreign(offset) = committed {
                        tracing::warn!(
                            partition,
                            offset,
                            going_on_at = at,
                            "the group's offset was set by another hand; the ledger says where to go on"
                        );
                    }
                    let last_ms = memory.tail.filter(|tail| tail.to == at).map_or(0, |tail| tail.last_ms);
                    let now_ms = jiff::Timestamp::now().as_millisecond();
                    let ledger_age = u64::try_from(now_ms - memory.written_ms).unwrap_or(0);
                    return Ok(Taken {
                        partition: Partition::new(memory.window, at, last_ms),
                        lost,
                        ledger_age: Duration::from_millis(ledger_age),
                        took: started.elapsed(),
                    });
                }
            }
            if self.shutdown.is_cancelled() {
                return Err(Held { reason: HeldReason::Kafka, detail: "shutting down".to_owned() });
            }
        }
    }

    /// The group's offset. The broker answers when no transaction of a predecessor is open on it.
    fn committed(&self, partition: i32) -> Result<Committed, KafkaError> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(self.config.inbox.topic.as_str(), partition);
        let deadline = Instant::now() + STABLE_TIMEOUT;
        let answer = loop {
            match self.clients.reader.committed_offsets(wanted.clone(), REQUEST_TIMEOUT) {
                Ok(answer) => break answer,
                Err(error) if Instant::now() >= deadline || self.shutdown.is_cancelled() => {
                    return Err(error);
                }
                Err(error) => tracing::debug!(partition, %error, "asking again for the group's offset"),
            }
        };
        let elements = answer.elements();
        let Some(element) = elements.first() else { return Ok(Committed::None) };
        element.error()?;
        Ok(match element.offset() {
            Offset::Offset(offset) if element.metadata() == OFFSET_METADATA => Committed::Ours(offset),
            Offset::Offset(offset) => Committed::Foreign(offset),
            _ => Committed::None,
        })
    }

    /// Waits until no transaction is open on the ledger partition: readers that wait for transactions and readers
    /// that do not are told the same end.
    fn wait_until_stable(&self, partition: i32) -> Result<(), Held> {
        let topic = self.config.ledger.topic.as_str();
        let asked = Instant::now();
        let deadline = asked + STABLE_TIMEOUT;
        loop {
            let ends =
                self.clients.reader.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).and_then(|stable| {
                    Ok((
                        stable.1,
                        self.clients.uncommitted.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?.1,
                    ))
                });
            match ends {
                Ok((stable, end)) if stable == end => return Ok(()),
                Ok((stable, end)) if Instant::now() >= deadline => {
                    let detail = format!(
                        "a transaction on {topic}-{partition} stays open from offset {stable} to {end}; find and end it with: \
                         kafka-transactions --bootstrap-server {} find-hanging --topic {topic} --partition {partition}",
                        self.config.kafka.bootstrap_servers
                    );
                    return Err(Held { reason: HeldReason::LedgerOpen, detail });
                }
                Err(error) if asked.elapsed() > UNANSWERED || self.shutdown.is_cancelled() => {
                    return Err(unavailable(&error));
                }
                // Waits on the consumer, which also serves its events.
                _ => drop(self.clients.reader.poll(STABLE_POLL)),
            }
        }
    }

    /// Reads the ledger partition from its log start to its end.
    fn read_ledger(&self, partition: i32) -> Result<Memory, Held> {
        let topic = self.config.ledger.topic.as_str();
        let (start, _) = self
            .clients
            .reader
            .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        let mut memory = Memory::new(start, self.config.dedup.window);
        self.read_from(topic, partition, start, |record| {
            memory.take(&record)?;
            // Less than the cap may be ours in the end, for it is the replica's; more never is.
            while memory.window.len() > self.config.dedup.max_ids {
                memory.window.evict_oldest();
            }
            Ok(true)
        })?;
        Ok(memory)
    }

    /// Calls `each` for every record until the partition's end, or until it returns false.
    fn read_from(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        mut each: impl FnMut(BorrowedMessage<'_>) -> Result<bool, Held>,
    ) -> Result<(), Held> {
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| self.clients.reader.assign(&assignment))
            .map_err(|error| unavailable(&error))?;
        let mut last_progress = Instant::now();
        let result = loop {
            match self.clients.reader.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    last_progress = Instant::now();
                    match each(record) {
                        Ok(true) => {}
                        Ok(false) => break Ok(()),
                        Err(held) => break Err(held),
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break Ok(()),
                Some(Err(error)) => tracing::debug!(topic, partition, %error, "reading on"),
                None if last_progress.elapsed() > STALLED || self.shutdown.is_cancelled() => {
                    let detail = format!("{topic}-{partition} could not be read to its end");
                    break Err(Held { reason: HeldReason::Kafka, detail });
                }
                None => {}
            }
        };
        self.clients.reader.unassign().map_err(|error| unavailable(&error))?;
        result
    }

    fn evidence(
        &self,
        partition: i32,
        memory: &Memory,
        committed: Committed,
    ) -> Result<Evidence, KafkaError> {
        let topic = self.config.inbox.topic.as_str();
        let (inbox_start, inbox_end) =
            self.clients.reader.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        let before_tail =
            memory.tail.map(|tail| tail.to - 1).filter(|offset| (inbox_start..inbox_end).contains(offset));
        let mut inbox_last_ms = None;
        if let Some(offset) = before_tail {
            let read = self.read_from(topic, partition, offset, |record| {
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
        let answer = self.clients.reader.offsets_for_times(wanted, REQUEST_TIMEOUT)?;
        Ok(answer.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }
}

fn unavailable(error: &KafkaError) -> Held {
    Held { reason: HeldReason::Kafka, detail: error.to_string() }
}
