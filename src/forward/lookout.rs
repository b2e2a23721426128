//! A look at what stands between the offset at which a ledger record was expected and the one at which it landed.

use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::failure::Failure;
use super::fence::Fence;
use super::witness::format_of;
use crate::config::Config;
use crate::domain::ledger_entry::LedgerEntry;
use crate::domain::ledger_writer::{self, Writer};
use crate::kafka::monitor::Monitor;
use crate::kafka::properties::{self, PropertyError};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(50);

/// How our own record is known.
#[derive(Debug, Clone, Copy)]
pub enum Landed<'a> {
    /// Kafka told where it landed.
    At(i64),
    /// Kafka did not tell; this is the record's value.
    With(&'a [u8]),
}

/// A record that somebody else wrote.
struct Foreign {
    at: i64,
    by: Option<Writer>,
    /// The inbox offset that it begins at.
    from: i64,
}

impl Foreign {
    fn of(record: &BorrowedMessage<'_>) -> Self {
        let entry = LedgerEntry::decode(format_of(record), record.payload().unwrap_or_default());
        // Of what no relay wrote nobody can tell what it knew.
        let from = entry.map_or(i64::MAX, |entry| entry.from);
        Self { at: record.offset(), by: writer(record), from }
    }
}

/// Reads the ledger for the thread that is about to commit. Its client lives only as long as a look, which is rare.
pub struct Lookout {
    topic: String,
    writer: Writer,
    reader: ClientConfig,
    monitor: Monitor,
}

impl Lookout {
    /// Of the ledger that is configured.
    pub fn new(config: &Config, monitor: Monitor) -> Result<Self, PropertyError> {
        let writer = Writer {
            group: config.forward.group.clone(),
            transactional_id: config.forward.transactional_id.clone(),
        };
        let reader = properties::ledger_reader(config)?;
        Ok(Self { topic: config.ledger.topic.as_str().to_owned(), writer, reader, monitor })
    }

    /// The ledger's topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Who we are in the ledger.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Finds our own record, which is not committed yet and begins at the inbox offset `from`, and what stands before it from
    /// the fence on. Returns where it landed if it may be committed there.
    pub(super) fn look(
        &self,
        partition: i32,
        fence: Fence,
        from: i64,
        ours: Landed<'_>,
        deadline: Instant,
    ) -> Result<i64, Failure> {
        if let Landed::At(landed) = ours
            && landed < fence.next()
        {
            let (topic, next) = (&self.topic, fence.next());
            let detail = format!(
                "our record landed in {topic}-{partition} at offset {landed}, before {next}, where it ended: it was made anew, or has lost records"
            );
            return Err(Failure::Contested { partition, detail });
        }
        let (landed, foreign) = self.read(partition, fence, ours, deadline).map_err(|error| {
            Failure::environment(format!("what stands in {}-{partition} cannot be told: {error}", self.topic))
        })?;
        let Some(Foreign { at, by, .. }) = foreign.filter(|foreign| !fence.allows(Some(foreign.from), from))
        else {
            return Ok(landed);
        };
        let by = by.map_or("an unknown writer".to_owned(), |by| {
            format!("{:?} of the group {:?}", by.transactional_id, by.group)
        });
        let detail = format!(
            "{by} wrote to {}-{partition} at offset {at}; our record landed at {landed}, and was expected at {}",
            self.topic,
            fence.next()
        );
        Err(Failure::Contested { partition, detail })
    }

    /// Where our record stands, and of the others from the fence on the one that begins last.
    fn read(
        &self,
        partition: i32,
        fence: Fence,
        ours: Landed<'_>,
        deadline: Instant,
    ) -> Result<(i64, Option<Foreign>), KafkaError> {
        let reader = self.reader.clone().set("isolation.level", "read_uncommitted").clone();
        let client = BaseConsumer::from_config_and_context(&reader, self.monitor.clone())?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, partition, Offset::Offset(fence.next()))?;
        client.assign(&assignment)?;
        let mut foreign: Option<Foreign> = None;
        while Instant::now() < deadline {
            match client.poll(POLL) {
                Some(Ok(record)) if self.is_ours(&record, ours) => return Ok((record.offset(), foreign)),
                Some(Ok(record)) => {
                    let other = Foreign::of(&record);
                    foreign = Some(foreign.filter(|last| last.from >= other.from).unwrap_or(other));
                }
                Some(Err(error)) => tracing::debug!(partition, %error, "looking on"),
                None => {}
            }
        }
        Err(KafkaError::NoMessageReceived)
    }

    fn is_ours(&self, record: &BorrowedMessage<'_>, ours: Landed<'_>) -> bool {
        match ours {
            Landed::At(offset) => record.offset() == offset,
            Landed::With(value) => {
                record.payload() == Some(value) && writer(record).as_ref() == Some(&self.writer)
            }
        }
    }
}

/// Who wrote a ledger record, where it says so.
pub(super) fn writer(record: &BorrowedMessage<'_>) -> Option<Writer> {
    let mut headers = record.headers()?.iter();
    Writer::decode(headers.find(|found| found.key == ledger_writer::HEADER)?.value?)
}
