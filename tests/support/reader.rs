//! Reads topics as a careful consumer does: `read_committed`, from their beginning.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::{AFTER_TIMEOUTS, SOON, kafka, wait_for};

/// How often the deadline is looked at while nothing comes.
const POLL: Duration = Duration::from_millis(100);

/// A record with everything that a test may ask for.
#[derive(Debug, Clone)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// By the topic's clock, in ms since 1970.
    pub appended_ms: i64,
    pub key: Vec<u8>,
    /// By name; no name stands there twice, for that is checked.
    pub headers: BTreeMap<String, Vec<u8>>,
    pub value: Vec<u8>,
}

impl Record {
    /// A header as text.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {self:?}"));
        std::str::from_utf8(value).unwrap()
    }

    /// The key as text.
    pub fn key(&self) -> &str {
        std::str::from_utf8(&self.key).unwrap()
    }
}

/// Reads from one cluster.
pub struct Reader {
    consumer: BaseConsumer,
}

impl Reader {
    pub fn new(servers: &str) -> Self {
        Self::with(servers, "read_committed")
    }

    /// Sees what stands in transactions that were aborted, too.
    pub fn uncommitted(servers: &str) -> Self {
        Self::with(servers, "read_uncommitted")
    }

    fn with(servers: &str, isolation: &str) -> Self {
        let consumer = kafka::client(servers)
            // Partitions are assigned by hand and nothing is committed, but librdkafka wants a name.
            .set("group.id", "tests")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20")
            .create()
            .unwrap();
        Self { consumer }
    }

    /// What stands in a topic now. A topic that does not exist holds nothing.
    #[track_caller]
    pub fn all(&self, topic: &str) -> Vec<Record> {
        self.all_as(topic, |record| record)
    }

    /// The same, and of each record only what is wanted: a million whole ones are gigabytes.
    #[track_caller]
    pub fn all_as<T: Debug>(&self, topic: &str, wanted: impl Fn(Record) -> T) -> Vec<T> {
        if self.partitions(topic) == 0 {
            return Vec::new();
        }
        self.read("the topic is read to its end", topic, AFTER_TIMEOUTS, wanted, |_| true)
    }

    /// Reads a topic, again and again to its end, until what it holds is what is wanted; waits for a topic that does
    /// not exist yet.
    #[track_caller]
    pub fn until(
        &self,
        what: &str,
        topic: &str,
        deadline: Duration,
        is_wanted: impl Fn(&[Record]) -> bool,
    ) -> Vec<Record> {
        self.read(what, topic, deadline, |record| record, is_wanted)
    }

    #[track_caller]
    fn read<T: Debug>(
        &self,
        what: &str,
        topic: &str,
        deadline: Duration,
        wanted: impl Fn(Record) -> T,
        is_enough: impl Fn(&[T]) -> bool,
    ) -> Vec<T> {
        let started = Instant::now();
        let mut records = Vec::new();
        let mut at_end = vec![false; usize::try_from(self.assign(topic, deadline)).unwrap()];
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    at_end[usize::try_from(message.partition()).unwrap()] = false;
                    records.push(wanted(record(&message)));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end[usize::try_from(partition).unwrap()] = true;
                    if at_end.iter().all(|end| *end) && is_enough(&records) {
                        break;
                    }
                }
                // A broker that is away comes back, or the deadline passes.
                Some(Err(_)) | None => {}
            }
            let count = records.len();
            assert!(
                started.elapsed() < deadline,
                "waited {deadline:?} in vain: {what}; {topic} has {count} records, the last: {:#?}",
                records.last()
            );
        }
        self.consumer.unassign().unwrap();
        records
    }

    /// Begins at the topic's beginning; returns its number of partitions.
    #[track_caller]
    fn assign(&self, topic: &str, deadline: Duration) -> i32 {
        let look = || Some(self.partitions(topic)).filter(|partitions| *partitions > 0);
        let partitions = wait_for(&format!("topic {topic} exists"), deadline, look);
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        self.consumer.assign(&assignment).unwrap();
        partitions
    }

    /// Partitions of a topic; 0: there is none of this name.
    pub fn partitions(&self, topic: &str) -> i32 {
        let Ok(metadata) = self.consumer.fetch_metadata(None, SOON) else { return 0 };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        found.map_or(0, |found| i32::try_from(found.partitions().len()).unwrap())
    }

    /// Where each partition ends: the offset that its next record gets.
    #[track_caller]
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let end = |partition| self.consumer.fetch_watermarks(topic, partition, SOON).unwrap().1;
        (0..self.partitions(topic)).map(|partition| (partition, end(partition))).collect()
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let mut headers = BTreeMap::new();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let twice = headers.insert(header.key.to_owned(), header.value.unwrap_or_default().to_vec());
        assert!(twice.is_none(), "header {} stands there twice", header.key);
    }
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        appended_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().unwrap_or_default().to_vec(),
        headers,
        value: message.payload().unwrap_or_default().to_vec(),
    }
}
