//! Reading a partition to its end.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::unavailable;
use crate::forward::partition::Held;
use crate::kafka::monitor::Monitor;

/// A read of the ledger without any progress for this long is given up, and begun again.
const STALLED: Duration = Duration::from_secs(10);

/// Calls `each` for every record until the partition's end, or until it returns false. Returns the offset behind the last
/// record or marker that was read.
pub(super) fn read_from(
    reader: &BaseConsumer<Monitor>,
    shutdown: &CancellationToken,
    topic: &str,
    partition: i32,
    offset: i64,
    mut each: impl FnMut(BorrowedMessage<'_>) -> Result<bool, Held>,
) -> Result<i64, Held> {
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, partition, Offset::Offset(offset))
        .and_then(|()| reader.assign(&assignment))
        .map_err(|error| unavailable(&error))?;
    let mut last_progress = Instant::now();
    let result = loop {
        match reader.poll(Duration::from_millis(100)) {
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
            None => {}
        }
        if last_progress.elapsed() > STALLED || shutdown.is_cancelled() {
            break Err(Held::by_kafka(format!("{topic}-{partition} could not be read to its end")));
        }
    };
    let position = reader.position().map_err(|error| unavailable(&error))?;
    reader.unassign().map_err(|error| unavailable(&error))?;
    result?;
    // Unknown where nothing was read.
    let read = position.find_partition(topic, partition).and_then(|found| found.offset().to_raw());
    Ok(read.unwrap_or(offset).max(offset))
}
