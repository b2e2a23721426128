//! Kafka, as the relay uses it: client properties, what clients report of themselves, and topics.
//!
//! The halves make their own producers and consumers from these parts; nobody else names librdkafka.

pub mod bootstrap;
pub mod monitor;
pub mod permissions;
pub mod properties;
pub mod streak;
pub mod topic_rules;
pub mod topics;
pub mod version;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};

/// Why a client of Kafka could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration's properties.
    #[error(transparent)]
    Property(#[from] properties::PropertyError),
    /// librdkafka.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A client's own thread could not be started.
    #[error("no thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// How long a single request to Kafka may take before its caller looks around again.
pub const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a consumer asked for an offset that is not there any more, or not yet.
pub fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(OffsetOutOfRange | AutoOffsetReset))
}

/// Names and values as librdkafka takes them.
pub fn headers<N: AsRef<str>, V: AsRef<[u8]>>(headers: &[(N, V)]) -> OwnedHeaders {
    headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (name, value)| {
        all.insert(Header { key: name.as_ref(), value: Some(value.as_ref()) })
    })
}
