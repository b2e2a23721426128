//! The relay's membership in the consumer group: what the group gives and takes, noted for the loop.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::kafka::monitor::Monitor;

/// What a rebalance did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GroupEvent {
    /// These are ours now; they are paused until they have been taken over.
    Assigned(Vec<i32>),
    /// These are not ours any more.
    Revoked(Vec<i32>),
}

/// The consumer's context. Its callbacks run inside `poll`, on the loop's own thread.
pub(super) struct GroupContext {
    monitor: Monitor,
    inbox: String,
    events: Mutex<Vec<GroupEvent>>,
    /// Ends of the fetched partitions, as of the last fetch.
    ends: Mutex<BTreeMap<i32, i64>>,
}

impl GroupContext {
    pub(super) fn new(monitor: Monitor, inbox: &str) -> Self {
        Self { monitor, inbox: inbox.to_owned(), events: Mutex::default(), ends: Mutex::default() }
    }

    /// Of this client alone.
    pub(super) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// What happened since the last call.
    pub(super) fn take_events(&self) -> Vec<GroupEvent> {
        std::mem::take(&mut *lock(&self.events))
    }

    /// Whether something happened since the last [`GroupContext::take_events`].
    pub(super) fn has_events(&self) -> bool {
        !lock(&self.events).is_empty()
    }

    /// Where a partition of the inbox ends, where librdkafka knows.
    pub(super) fn end(&self, partition: i32) -> Option<i64> {
        lock(&self.ends).get(&partition).copied()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.monitor.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(inbox) = statistics.topics.get(&self.inbox) {
            let ends =
                inbox.partitions.iter().filter(|(partition, found)| **partition >= 0 && found.hi_offset >= 0);
            *lock(&self.ends) = ends.map(|(partition, found)| (*partition, found.hi_offset)).collect();
        }
        self.monitor.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.monitor.error(error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = list
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        let (result, event) = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Where they go on is the ledger's to say: nothing is fetched before they are taken over. The offset is
            // only a placeholder, but a number: librdkafka would ask the broker what `End` is, and an answer that
            // comes after our seek sets it back to that end.
            let assigned = list
                .set_all_offsets(Offset::Offset(0))
                .and_then(|()| consumer.incremental_assign(list))
                .and_then(|()| consumer.pause(list));
            (assigned, GroupEvent::Assigned(partitions))
        } else {
            (consumer.incremental_unassign(list), GroupEvent::Revoked(partitions))
        };
        match result {
            Ok(()) => tracing::info!(?event, "group rebalanced"),
            Err(error) => tracing::error!(?event, %error, "rebalance failed"),
        }
        lock(&self.events).push(event);
    }
}
