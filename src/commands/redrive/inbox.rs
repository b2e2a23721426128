//! Puts copies of dead letters back into the inbox, with the producer that intake has.

use clearfeed_relay::config::Config;
use clearfeed_relay::domain::dead_letter::DeadLetter;
use clearfeed_relay::domain::inbox_record::{Position, StoredDelivery};
use clearfeed_relay::kafka::{self, properties};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::runtime::Runtime;

use super::letter::Found;
use crate::commands::exit::not_taken;

/// What will stand in the inbox.
pub(super) struct Copy {
    /// Where the dead letter stood: the copy goes to the same partition.
    pub(super) of: Position,
    key: String,
    headers: OwnedHeaders,
    body: Vec<u8>,
}

impl Copy {
    /// Of a dead letter that may be put back; nothing of any other record.
    pub(super) fn new(found: &Found<'_>) -> Option<Self> {
        let letter = DeadLetter::read(found.headers.iter().copied())?;
        let delivery = StoredDelivery::read(letter.original.iter().copied(), found.body).ok()?;
        let headers = kafka::headers(&letter.copy());
        Some(Self { of: letter.position, key: delivery.key(), headers, body: found.body.to_vec() })
    }
}

/// The inbox topic, written to.
pub(super) struct Inbox {
    producer: FutureProducer,
    topic: String,
    runtime: Runtime,
}

impl Inbox {
    /// Makes the producer; it connects by itself.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            producer: properties::inbox_producer(config)?.create()?,
            topic: config.inbox.topic.as_str().to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
        })
    }

    /// Appends copies, those of one partition in their order. Calls `done` for each that all in-sync replicas have. After a
    /// failure all may simply be put back once more: the forward half drops what is there twice.
    pub(super) fn append(&self, copies: &[Copy], mut done: impl FnMut()) -> anyhow::Result<()> {
        let mut acknowledged = Vec::with_capacity(copies.len());
        let mut first_failure = None;
        for copy in copies {
            let record = FutureRecord::to(&self.topic)
                .partition(copy.of.partition)
                .key(&copy.key)
                .payload(&copy.body)
                .headers(copy.headers.clone());
            match self.producer.send_result(record) {
                Ok(delivery) => acknowledged.push((copy.of, delivery)),
                Err((error, _)) => {
                    first_failure = Some((copy.of, error));
                    break;
                }
            }
        }
        for (of, delivery) in acknowledged {
            match self.runtime.block_on(delivery) {
                Ok(Ok(_)) => done(),
                Ok(Err((error, _))) => drop(first_failure.get_or_insert((of, error))),
                Err(_) => drop(first_failure.get_or_insert((of, KafkaError::Canceled))),
            }
        }
        first_failure.map_or(Ok(()), |(of, error)| {
            Err(not_taken(format!("the dead letter of {of} was not put back: {error}"), &error))
        })
    }
}
