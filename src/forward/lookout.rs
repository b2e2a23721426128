//! A look at what stands between the offset at which a ledger record was expected and the one at which it landed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::failure::Failure;
use super::fence::Fence;
use super::ledger_record;
use crate::config::Config;
use crate::domain::ledger_writer::Writer;
use crate::kafka;
use crate::kafka::monitor::Monitor;
use crate::kafka::properties::{self, PropertyError};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(50);

/// Reads the ledger for the thread that is about to commit.
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
        let reader = properties::uncommitted_reader(config)?;
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

    pub(super) fn looks(&self, deadline: Instant) -> Looks<'_> {
        Looks { lookout: self, client: None, deadline }
    }
}

/// A ledger record that was sent, and where it may land.
pub(super) struct Sent {
    pub(super) fence: Fence,
    /// The inbox offset that it begins at.
    pub(super) from: i64,
    pub(super) value: Vec<u8>,
}

/// The looks of one transaction, until it times out. Their client is made by the first one: they are rare.
pub(super) struct Looks<'l> {
    lookout: &'l Lookout,
    client: Option<BaseConsumer<Monitor>>,
    deadline: Instant,
}

impl Looks<'_> {
    /// Finds our own record, which is not committed yet, and what stands before it from its fence on. Returns where it landed
    /// if it may be committed there. `told` is where Kafka said that it landed, negative where it did not say.
    pub(super) fn find(&mut self, partition: i32, sent: &Sent, told: i64) -> Result<i64, Failure> {
        let (topic, next) = (self.lookout.topic.clone(), sent.fence.next());
        let contested =
            |by_other_group, detail| Err(Failure::Contested { partition, by_other_group, detail });
        if (0..next).contains(&told) {
            let detail = format!(
                "our record landed in {topic}-{partition} at offset {told}, before {next}, where it ended: it was made anew, or \
                 has lost records"
            );
            return contested(false, detail);
        }
        let (landed, foreign) = self.read(partition, sent, told).map_err(|error| Failure::Environment {
            detail: format!("what stands in {topic}-{partition} cannot be told: {error}"),
            partitions: BTreeSet::from([partition]),
        })?;
        let forbids = |foreign: &Foreign| !sent.fence.allows(Some(foreign.from), sent.from);
        let Some(Foreign { at, by, from }) = foreign.filter(forbids) else { return Ok(landed) };
        // A version that does not say who it is can be of another group.
        let by_other_group = match &by {
            Some(by) => by.group != self.lookout.writer.group,
            None => from != UNREADABLE,
        };
        let by = by.map_or("an unknown writer".to_owned(), |by| {
            format!("{:?} of the group {:?}", by.transactional_id, by.group)
        });
        let detail = format!(
            "{by} wrote to {topic}-{partition} at offset {at}; our record landed at {landed}, and was expected at {next}"
        );
        contested(by_other_group, detail)
    }

    /// Where our record stands, and of the others from the fence on the one that begins last.
    fn read(&mut self, partition: i32, sent: &Sent, told: i64) -> Result<(i64, Option<Foreign>), KafkaError> {
        let Lookout { topic, writer: ours, reader, monitor } = self.lookout;
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(BaseConsumer::from_config_and_context(reader, monitor.clone())?),
        };
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(sent.fence.next()))?;
        client.assign(&assignment)?;
        let is_ours = |record: &BorrowedMessage<'_>| {
            record.offset() == told
                || told < 0
                    && record.payload() == Some(&sent.value)
                    && ledger_record::writer(record).as_ref() == Some(ours)
        };
        let mut foreign: Option<Foreign> = None;
        while Instant::now() < self.deadline {
            match client.poll(POLL) {
                Some(Ok(record)) if is_ours(&record) => return Ok((record.offset(), foreign)),
                Some(Ok(record)) => {
                    let other = Foreign::of(&record);
                    foreign = Some(foreign.filter(|last| last.from >= other.from).unwrap_or(other));
                }
                // Retention took what stood there: a takeover begins behind it.
                Some(Err(error)) if kafka::is_out_of_range(&error) => return Err(error),
                Some(Err(error)) => tracing::debug!(partition, %error, "looking on"),
                None => {}
            }
        }
        Err(KafkaError::NoMessageReceived)
    }
}

/// Of what no relay wrote nobody can tell where it begins, or what it knew.
const UNREADABLE: i64 = i64::MAX;

/// A record that somebody else wrote.
struct Foreign {
    at: i64,
    by: Option<Writer>,
    /// The inbox offset that it begins at.
    from: i64,
}

impl Foreign {
    fn of(record: &BorrowedMessage<'_>) -> Self {
        Self {
            at: record.offset(),
            by: ledger_record::writer(record),
            from: ledger_record::entry(record).map_or(UNREADABLE, |entry| entry.from),
        }
    }
}
