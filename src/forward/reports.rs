//! What the transactional producer hears of its records: where they landed, and which were refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Message};

use super::failure::{Cause, Failure};
use crate::kafka::monitor::Monitor;

/// What the producer tells on its way.
pub(super) struct Reports {
    monitor: Monitor,
    /// The ledger's topic.
    ledger: String,
    /// Refused records by the inbox partition that they came from.
    refused: Mutex<Vec<(i32, KafkaError)>>,
    /// At which offset the transaction's ledger record landed, by partition.
    landed: Mutex<BTreeMap<i32, i64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reports {
    pub(super) fn new(monitor: Monitor, ledger: &str) -> Self {
        let ledger = ledger.to_owned();
        Self { monitor, ledger, refused: Mutex::default(), landed: Mutex::default() }
    }

    pub(super) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Records that were refused since this was asked last.
    pub(super) fn take_refused(&self) -> Vec<(i32, KafkaError)> {
        std::mem::take(&mut *lock(&self.refused))
    }

    /// At which offsets ledger records landed since this was asked last, by partition; negative where Kafka did not tell.
    pub(super) fn take_landed(&self) -> BTreeMap<i32, i64> {
        std::mem::take(&mut *lock(&self.landed))
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.monitor.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.monitor.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.monitor.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, inbox_partition: usize) {
        match result {
            Ok(record) if record.topic() == self.ledger => {
                lock(&self.landed).insert(record.partition(), record.offset());
            }
            Ok(_) => {}
            Err((error, record)) => {
                tracing::debug!(topic = record.topic(), %error, "record refused");
                let inbox_partition = i32::try_from(inbox_partition).unwrap_or(-1);
                lock(&self.refused).push((inbox_partition, error.clone()));
            }
        }
    }
}

/// One failure for all refused records: what only the record makes impossible last, for a broker that is away
/// refuses everything. None where all were refused only because the transaction had failed.
pub(super) fn refusal(refused: &[(i32, KafkaError)]) -> Option<Failure> {
    use RDKafkaErrorCode::{MessageSizeTooLarge, PurgeInflight, PurgeQueue, State};
    let code = |error: &KafkaError| error.rdkafka_error_code();
    let find =
        |is_it: &dyn Fn(&KafkaError) -> bool| refused.iter().map(|(_, error)| error).find(|e| is_it(e));
    let of_the_producer = |error: &KafkaError| {
        code(error).is_some_and(|code| matches!(Cause::of(code), Cause::Producer | Cause::Rival))
    };
    if let Some(error) = find(&of_the_producer) {
        return Some(Failure::of(error));
    }
    let explains = |error: &KafkaError| {
        !matches!(code(error), Some(PurgeQueue | PurgeInflight | State | MessageSizeTooLarge))
    };
    let Some(cause) = find(&explains) else {
        return find(&|error| code(error) == Some(MessageSizeTooLarge)).map(|_| Failure::TooLarge);
    };
    let same = refused.iter().filter(|(_, error)| code(error) == code(cause));
    let partitions = same.map(|(partition, _)| *partition).collect();
    Some(Failure::Environment { detail: cause.to_string(), partitions })
}
