//! What others do with the ledger and the group.

use std::collections::BTreeSet;

use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;

use super::reading::{format_of, read_from};
use super::{Witness, unavailable};
use crate::domain::ledger_entry::LedgerEntry;
use crate::domain::ledger_writer::Writer;
use crate::forward::assignment;
use crate::forward::lookout::writer;
use crate::forward::partition::Held;
use crate::kafka::REQUEST_TIMEOUT;

/// The last record stands among so many last offsets: the others are markers of transactions.
const TAIL: i64 = 100;

/// The last record of a ledger partition, committed or not.
pub(in crate::forward) struct LastRecord {
    /// Who wrote it, where it says so.
    pub(in crate::forward) writer: Option<Writer>,
    /// The inbox offset to go on at.
    pub(super) to: i64,
}

impl Witness {
    /// The last record of a ledger partition, whether its transaction is committed or not.
    pub(in crate::forward) fn last_record(&self, partition: i32) -> Result<Option<LastRecord>, Held> {
        let topic = self.config.ledger.topic.as_str();
        let (start, end) = self
            .uncommitted
            .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        let mut last = None;
        if start < end {
            let from = start.max(end - TAIL);
            read_from(&self.uncommitted, &self.shutdown, topic, partition, from, |record| {
                let entry = LedgerEntry::decode(format_of(&record), record.payload().unwrap_or_default());
                last = entry
                    .ok()
                    .map(|entry| LastRecord { writer: writer(&record), to: entry.to })
                    .or(last.take());
                Ok(record.offset() + 1 < end)
            })?;
        }
        Ok(last)
    }

    /// Whether a consumer group has members. One that may not be asked for has none: what it writes to the ledger is found
    /// before each commit all the same.
    pub(in crate::forward) fn has_members(&self, group: &str) -> Result<bool, Held> {
        match self.uncommitted.fetch_group_list(Some(group), REQUEST_TIMEOUT) {
            Ok(list) => Ok(list.groups().iter().any(|found| !found.members().is_empty())),
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Partitions of the inbox that no member of our group has.
    pub(in crate::forward) fn unowned(&self) -> Result<Vec<i32>, Held> {
        let list = self.uncommitted.fetch_group_list(Some(&self.config.forward.group), REQUEST_TIMEOUT);
        let list = list.map_err(|error| unavailable(&error))?;
        let members = list.groups().iter().flat_map(GroupInfo::members);
        let topic = self.config.inbox.topic.as_str();
        let owned: BTreeSet<i32> = members
            .filter_map(|member| assignment::partitions_of(topic, member.assignment()?))
            .flatten()
            .collect();
        Ok((0..self.config.inbox.partitions).filter(|partition| !owned.contains(partition)).collect())
    }
}

fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{ClusterAuthorizationFailed, GroupAuthorizationFailed};
    matches!(error.rdkafka_error_code(), Some(ClusterAuthorizationFailed | GroupAuthorizationFailed))
}
