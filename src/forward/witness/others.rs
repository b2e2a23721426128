//! What others do with the ledger and the group.

use std::collections::BTreeSet;

use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::groups::GroupInfo;

use super::reading::read_from;
use super::{Witness, unavailable};
use crate::domain::ledger_writer::Writer;
use crate::forward::assignment;
use crate::forward::ledger_record;
use crate::forward::partition::Held;
use crate::kafka::REQUEST_TIMEOUT;
use crate::telemetry::labels::HeldReason;

/// Kafka's words for the state of a consumer group.
const STABLE: &str = "Stable";
const EMPTY: &str = "Empty";
const DEAD: &str = "Dead";

/// What Kafka tells of a group's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Membership {
    Some,
    None,
    /// It is not listed, or not described: it may not exist any more, we may not ask for it, or the broker that knows it did
    /// not answer (librdkafka drops the error of one broker where another one answers after it).
    Unknown,
}

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
    /// The record of a ledger partition that was committed last; while a transaction is open there, the last one of all.
    pub(in crate::forward) fn last_record(&self, partition: i32) -> Result<Option<LastRecord>, Held> {
        let topic = self.config.ledger.topic.as_str();
        let reader = match self.check_stable(partition) {
            Ok(()) => &self.reader,
            Err(held) if held.reason == HeldReason::LedgerOpen => &self.uncommitted,
            Err(held) => return Err(held),
        };
        let (start, end) = reader
            .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        let mut last = None;
        if start < end {
            let from = start.max(end - TAIL);
            read_from(reader, &self.shutdown, topic, partition, from, |record| {
                if let Ok(entry) = ledger_record::entry(&record) {
                    last = Some(LastRecord { writer: ledger_record::writer(&record), to: entry.to });
                }
                Ok(record.offset() + 1 < end)
            })?;
        }
        Ok(last)
    }

    /// Whether a consumer group has members.
    pub(in crate::forward) fn membership(&self, group: &str) -> Result<Membership, Held> {
        let list = self.uncommitted.fetch_group_list(Some(group), REQUEST_TIMEOUT);
        let list = list.map_err(|error| unavailable(&error))?;
        let Some(found) = list.groups().first() else { return Ok(Membership::Unknown) };
        Ok(match (found.members().len(), found.state()) {
            (0, EMPTY | DEAD) => Membership::None,
            (0, _) => Membership::Unknown,
            _ => Membership::Some,
        })
    }

    /// Partitions of the inbox that no member of our group has.
    pub(in crate::forward) fn unowned(&self) -> Result<Vec<i32>, Held> {
        let list = self.uncommitted.fetch_group_list(Some(&self.config.forward.group), REQUEST_TIMEOUT);
        let list = list.map_err(|error| unavailable(&error))?;
        // While a group rebalances, Kafka does not tell who has what.
        let groups = || list.groups().iter();
        if groups().any(|group| ![STABLE, EMPTY, DEAD].contains(&group.state())) {
            return Ok(Vec::new());
        }
        let members = groups().flat_map(GroupInfo::members);
        let topic = self.config.inbox.topic.as_str();
        let owned: BTreeSet<i32> = members
            .filter_map(|member| assignment::partitions_of(topic, member.assignment()?))
            .flatten()
            .collect();
        Ok((0..self.config.inbox.partitions).filter(|partition| !owned.contains(partition)).collect())
    }
}
