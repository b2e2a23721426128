//! The snapshot topic, as `backfill` writes it: a page at a time, acknowledged before the next one is asked for.

use clearfeed_relay::config::{Api, Config};
use clearfeed_relay::domain::route::TopicName;
use clearfeed_relay::domain::snapshot::Snapshot;
use clearfeed_relay::kafka::monitor::Monitor;
use clearfeed_relay::kafka::{self, ClientError, properties};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

/// A producer for one topic.
pub(crate) struct SnapshotTopic {
    producer: FutureProducer<Monitor>,
    topic: TopicName,
}

impl SnapshotTopic {
    /// Makes the producer; it connects by itself.
    pub(crate) fn new(config: &Config, api: &Api, monitor: Monitor) -> Result<Self, ClientError> {
        let client = properties::snapshot_producer(config)?;
        let producer = FutureProducer::from_config_and_context(&client, monitor)?;
        Ok(Self { producer, topic: api.snapshot_topic.clone() })
    }

    /// Publishes them all; done when all in-sync replicas have them. Returns those that the topic finds too large.
    pub(super) async fn publish(&self, source: &str, snapshots: &[Snapshot]) -> Result<Vec<u64>, KafkaError> {
        let mut too_large = Vec::new();
        let sent: Vec<_> = snapshots.iter().map(|snapshot| (snapshot, self.send(source, snapshot))).collect();
        for (snapshot, sent) in sent {
            let acknowledged = match sent {
                Ok(acknowledged) => match acknowledged.await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err((error, _))) => Err(error),
                    Err(_) => Err(KafkaError::Canceled),
                },
                Err(error) => Err(error),
            };
            match acknowledged {
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    too_large.push(snapshot.request);
                }
                acknowledged => acknowledged?,
            }
        }
        Ok(too_large)
    }

    fn send(&self, source: &str, snapshot: &Snapshot) -> Result<DeliveryFuture, KafkaError> {
        let record = snapshot.record(source);
        let headers = kafka::headers(&record.headers);
        let message =
            FutureRecord::to(self.topic.as_str()).key(&record.key).payload(snapshot.json()).headers(headers);
        self.producer.send_result(message).map_err(|(error, _)| error)
    }
}
