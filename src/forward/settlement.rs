//! After a producer was opened: nothing that its predecessor wrote may hang.
//!
//! Opened is to say that the coordinator has ended the last transaction of our transactional id, and has put its marker into
//! each of its partitions. Kafka 4.3.0, 4.3.1 and 4.4.0 leave the marker out where a partition has no leader at that moment
//! (KAFKA-20734). What was aborted hangs there, and the next commit of the same producer in that partition would make it
//! visible: an event twice. So before anything is sent, each partition that events can go to is looked at: whatever
//! transactions are open there must end, up to where it ends now.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::Config;
use crate::kafka::REQUEST_TIMEOUT;
use crate::kafka::monitor::Monitor;

/// Where the partitions that events can go to ended when it was begun.
pub(super) struct Settlement {
    ends: TopicPartitionList,
}

impl Settlement {
    /// Takes the ends as `read_uncommitted` readers are told them.
    pub(super) fn begin(config: &Config, uncommitted: &BaseConsumer<Monitor>) -> Result<Self, String> {
        let metadata =
            uncommitted.fetch_metadata(None, REQUEST_TIMEOUT).map_err(|error| error.to_string())?;
        let mut partitions = TopicPartitionList::new();
        for topic in metadata.topics().iter().filter(|topic| is_written(config, topic.name())) {
            for partition in topic.partitions() {
                partitions.add_partition(topic.name(), partition.id());
            }
        }
        Ok(Self { ends: ends(uncommitted, partitions)? })
    }

    /// A partition, by topic and number, that a transaction still holds back before where it ended.
    pub(super) fn hanging(&self, committed: &BaseConsumer<Monitor>) -> Result<Option<(String, i32)>, String> {
        let stable = ends(committed, self.ends.clone())?;
        let is_behind = |topic: &str, partition, end: Offset| {
            stable.find_partition(topic, partition).is_none_or(|found| found.offset().to_raw() < end.to_raw())
        };
        let elements = self.ends.elements();
        let hanging =
            elements.iter().find(|found| is_behind(found.topic(), found.partition(), found.offset()));
        Ok(hanging.map(|found| (found.topic().to_owned(), found.partition())))
    }
}

/// Whether events, dead letters or snapshots of this configuration can go to the topic.
fn is_written(config: &Config, topic: &str) -> bool {
    let is_a_log = [&config.inbox.topic, &config.ledger.topic].iter().any(|log| log.as_str() == topic);
    let is_routed_to = || config.sources.values().any(|source| source.routes.may_name(topic));
    let has_snapshots = || config.apis().any(|(_, api)| api.snapshot_topic.as_str() == topic);
    !is_a_log && (config.forward.dead_letter_topic.as_str() == topic || is_routed_to() || has_snapshots())
}

/// Where partitions end, as this client's isolation level has it.
fn ends(
    client: &BaseConsumer<Monitor>,
    partitions: TopicPartitionList,
) -> Result<TopicPartitionList, String> {
    offsets(client, partitions, Offset::End)
}

/// Where partitions begin or end: asked for as a time, that is found for all of them with one request to each broker.
pub(super) fn offsets(
    client: &BaseConsumer<Monitor>,
    mut partitions: TopicPartitionList,
    which: Offset,
) -> Result<TopicPartitionList, String> {
    if partitions.count() == 0 {
        return Ok(partitions);
    }
    let asked = partitions.set_all_offsets(which);
    let found = asked.and_then(|()| client.offsets_for_times(partitions, REQUEST_TIMEOUT));
    let found = found.map_err(|error| error.to_string())?;
    let refused = found.elements().iter().find_map(|found| {
        let error = found.error().err()?;
        Some(format!("offsets of {}-{}: {error}", found.topic(), found.partition()))
    });
    refused.map_or(Ok(found), Err)
}

/// A transaction of a relay that was open when it began has ended by then, or hangs: the broker ends one after 10 s, and looks
/// every 10 s. One of another writer may take longer, and is waited for all the same.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
