//! What waits in the inbox, where no consumer tells.

use rdkafka::consumer::Consumer;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::reading::read_from;
use super::{LastRecord, Witness};
use crate::forward::backlog::Backlog;
use crate::forward::{resume, settlement};
use crate::kafka::REQUEST_TIMEOUT;
use crate::telemetry::labels::HeldReason;

impl Witness {
    /// What waits in a partition that cannot go on, where Kafka tells.
    pub(in crate::forward) fn backlog(&self, partition: i32, reason: HeldReason) -> Option<Backlog> {
        let topic = self.config.inbox.topic.as_str();
        let committed = self.committed(&self.uncommitted, partition).ok()?;
        let (start, end) = self.uncommitted.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).ok()?;
        let next = resume::waiting_from(reason, committed, start, end);
        let mut oldest_ms = None;
        if next < end {
            let read = read_from(&self.reader, &self.shutdown, topic, partition, next, |record| {
                oldest_ms = record.timestamp().to_millis();
                Ok(false)
            });
            read.ok()?;
        }
        Some(Backlog { records: end - next, oldest_ms })
    }

    /// What waits in partitions that are not forwarded by us, at most: with a few requests for all of them.
    pub(in crate::forward) fn count(&self, partitions: &[i32]) -> Result<Vec<(i32, Backlog)>, String> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let topic = self.config.inbox.topic.as_str();
        let mut wanted = TopicPartitionList::new();
        for &partition in partitions {
            wanted.add_partition(topic, partition);
        }
        let of = |list: &TopicPartitionList, partition| {
            let offset = list.find_partition(topic, partition).map(|found| found.offset());
            offset.and_then(Offset::to_raw).filter(|offset| *offset >= 0)
        };
        let starts = settlement::offsets(&self.uncommitted, wanted.clone(), Offset::Beginning)?;
        let ends = settlement::offsets(&self.uncommitted, wanted.clone(), Offset::End)?;
        let committed = self.uncommitted.committed_offsets(wanted, REQUEST_TIMEOUT);
        let committed = committed.map_err(|error| error.to_string())?;
        let backlog = |&partition: &i32| {
            let (start, end) = (of(&starts, partition)?, of(&ends, partition)?);
            let next = of(&committed, partition).unwrap_or(start).max(start);
            Some((partition, Backlog { records: (end - next).max(0), oldest_ms: None }))
        };
        Ok(partitions.iter().filter_map(backlog).collect())
    }

    /// What waits behind the last record of the ledger.
    pub(in crate::forward) fn backlog_behind(&self, partition: i32, last: &LastRecord) -> Option<Backlog> {
        let topic = self.config.inbox.topic.as_str();
        let (_, end) = self.uncommitted.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).ok()?;
        Some(Backlog { records: (end - last.to).max(0), oldest_ms: None })
    }
}
