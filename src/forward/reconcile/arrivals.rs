//! Which requests events came of: read from the whole inbox, by a reader that is no member of the group.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::config::Config;
use crate::domain::inbox_record::header;
use crate::kafka::monitor::Monitor;
use crate::kafka::{ClientError, REQUEST_TIMEOUT, properties};

/// Without any progress for so long it is given up.
const STALLED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// Kept beyond the longest grace: another source may ask for a little more, and the inbox would be read again.
const SLACK: Duration = Duration::from_secs(30 * 60);

/// What came, since some instant.
pub(super) struct Arrivals {
    consumer: BaseConsumer<Monitor>,
    topic: String,
    partitions: i32,
    /// Where to read on, once begun.
    next: BTreeMap<i32, i64>,
    /// Everything since then was read, in ms since 1970.
    from_ms: i64,
    /// What is kept beyond what is asked for.
    slack_ms: i64,
    /// By source and request: when the last event of it came, in ms since 1970.
    last: HashMap<String, HashMap<u64, i64>>,
}

impl Arrivals {
    /// Makes the reader; nothing is sent yet.
    pub(super) fn new(config: &Config, monitor: Monitor, sources: &[&str]) -> Result<Self, ClientError> {
        let client = properties::ledger_reader(config)?;
        let grace = config.apis().map(|(_, api)| api.grace).max().unwrap_or_default();
        Ok(Self {
            consumer: BaseConsumer::from_config_and_context(&client, monitor)?,
            topic: config.inbox.topic.as_str().to_owned(),
            partitions: config.inbox.partitions,
            next: BTreeMap::new(),
            from_ms: 0,
            slack_ms: i64::try_from((grace + SLACK).as_millis()).unwrap_or(i64::MAX),
            last: sources.iter().map(|source| ((*source).to_owned(), HashMap::new())).collect(),
        })
    }

    /// When the oldest record came that the inbox still has.
    pub(super) fn oldest(&self) -> Result<Option<Timestamp>, KafkaError> {
        let mut oldest = None;
        for partition in 0..self.partitions {
            let (start, end) = self.bounds(partition)?;
            let mut first = None;
            self.read([(partition, start, end)], |record| {
                first = record.timestamp().to_millis();
                false
            })?;
            oldest = oldest.into_iter().chain(first).min();
        }
        Ok(oldest.and_then(|ms| Timestamp::from_millisecond(ms).ok()))
    }

    /// Reads all that has come since `from` and was not read yet.
    pub(super) fn catch_up(&mut self, from: Timestamp) -> Result<(), KafkaError> {
        let from_ms = from.as_millisecond();
        if self.next.is_empty() || from_ms < self.from_ms {
            self.next = self.offsets_at(from_ms)?;
            self.from_ms = from_ms;
            self.last.values_mut().for_each(HashMap::clear);
        }
        self.from_ms = self.from_ms.max(from_ms.saturating_sub(self.slack_ms));
        let kept_ms = self.from_ms;
        self.last.values_mut().for_each(|requests| requests.retain(|_, last_ms| *last_ms >= kept_ms));
        let mut stretches = Vec::new();
        for (&partition, &next) in &self.next {
            let (start, end) = self.bounds(partition)?;
            // Retention may have taken what was not read.
            stretches.push((partition, next.max(start), end));
        }
        let mut arrived = std::mem::take(&mut self.last);
        let read = self.read(stretches.iter().copied(), |record| {
            note(&mut arrived, record);
            true
        });
        self.last = arrived;
        read?;
        self.next = stretches.into_iter().map(|(partition, _, end)| (partition, end)).collect();
        Ok(())
    }

    /// Whether an event of the request came then or later.
    pub(super) fn came_since(&self, source: &str, request: u64, since: Timestamp) -> bool {
        let last = self.last.get(source).and_then(|requests| requests.get(&request));
        last.is_some_and(|last_ms| *last_ms >= since.as_millisecond())
    }

    fn bounds(&self, partition: i32) -> Result<(i64, i64), KafkaError> {
        self.consumer.fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)
    }

    /// The first offset of each partition that came then or later; its end where none did.
    fn offsets_at(&self, from_ms: i64) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let mut wanted = TopicPartitionList::new();
        for partition in 0..self.partitions {
            wanted.add_partition_offset(&self.topic, partition, Offset::Offset(from_ms.max(0)))?;
        }
        let answer = self.consumer.offsets_for_times(wanted, REQUEST_TIMEOUT)?;
        let mut offsets = BTreeMap::new();
        for element in answer.elements() {
            element.error()?;
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => self.bounds(element.partition())?.1,
            };
            offsets.insert(element.partition(), offset);
        }
        Ok(offsets)
    }

    /// Calls `each` for the records of these stretches, each of a partition from an offset up to another, until it returns
    /// false.
    fn read(
        &self,
        stretches: impl IntoIterator<Item = (i32, i64, i64)>,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> bool,
    ) -> Result<(), KafkaError> {
        let mut assignment = TopicPartitionList::new();
        let mut ends = BTreeMap::new();
        for (partition, from, end) in stretches.into_iter().filter(|(_, from, end)| from < end) {
            assignment.add_partition_offset(&self.topic, partition, Offset::Offset(from))?;
            ends.insert(partition, end);
        }
        self.consumer.assign(&assignment)?;
        let mut last_progress = Instant::now();
        let read = loop {
            if ends.is_empty() {
                break Ok(());
            }
            match self.consumer.poll(POLL) {
                Some(Ok(record)) => {
                    last_progress = Instant::now();
                    let partition = record.partition();
                    let end = ends.get(&partition).copied().unwrap_or(i64::MIN);
                    if record.offset() < end && !each(&record) {
                        break Ok(());
                    }
                    if record.offset() + 1 >= end {
                        ends.remove(&partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
                Some(Err(error)) if last_progress.elapsed() > STALLED => break Err(error),
                None if last_progress.elapsed() > STALLED => break Err(KafkaError::NoMessageReceived),
                Some(Err(_)) | None => {}
            }
        };
        self.consumer.unassign()?;
        read
    }
}

/// A delivery whose request could be read is an event of it, whatever became of it.
fn note(last: &mut HashMap<String, HashMap<u64, i64>>, record: &BorrowedMessage<'_>) {
    let Some(headers) = record.headers() else { return };
    let text = |name: &str| {
        let found = headers.iter().find(|found| found.key == name)?;
        std::str::from_utf8(found.value?).ok()
    };
    let source = text(header::SOURCE).and_then(|source| last.get_mut(source));
    let request = text(header::REQUEST).and_then(|request| request.parse().ok());
    if let (Some(requests), Some(request), Some(came_ms)) = (source, request, record.timestamp().to_millis())
    {
        let last_ms = requests.entry(request).or_insert(came_ms);
        *last_ms = came_ms.max(*last_ms);
    }
}
