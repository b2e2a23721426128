//! Appending to the inbox through one idempotent producer.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::inbox_record::InboxRecord;
use crate::domain::partitioner::partition_for_key;
use crate::domain::route::TopicName;
use crate::kafka::monitor::Monitor;
use crate::kafka::{self, ClientError, REQUEST_TIMEOUT, bootstrap, properties};
use crate::telemetry::metrics::Metrics;

/// Between two looks whether Kafka was lost: as often as there are statistics.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long one look for acknowledgements waits, and so how long the end may take. rust-rdkafka spins through the last
/// millisecond of it: with the 100 ms of its own `FutureProducer` that was 1 % of a core, for nothing.
const ACKNOWLEDGEMENT_POLL: Duration = Duration::from_millis(500);

/// What became of a record.
type Acknowledgement = Result<(), KafkaError>;

impl ProducerContext for Monitor {
    type DeliveryOpaque = Box<oneshot::Sender<Acknowledgement>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        _ = waiting.send(result); // perhaps nobody waits any more
    }
}

/// The inbox topic, as intake writes it.
pub struct Inbox {
    producer: Arc<BaseProducer<Monitor>>,
    /// Hears what became of records.
    polling: Option<JoinHandle<()>>,
    is_over: CancellationToken,
    monitor: Monitor,
    servers: String,
    topic: TopicName,
    partitions: i32,
    metrics: Arc<Metrics>,
}

/// Why a record may not be in the inbox. It may be there all the same: then the redelivery is a repeat.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The producer's queue is full, or Kafka refused the record.
    #[error("Kafka did not take the record: {0}")]
    Refused(KafkaError),
    /// No acknowledgement within the time that there was.
    #[error("no acknowledgement from Kafka in time")]
    TimedOut,
}

impl Inbox {
    /// Makes the producer; it connects by itself.
    pub fn new(config: &Config, monitor: &Monitor, metrics: Arc<Metrics>) -> Result<Self, ClientError> {
        let client = properties::inbox_producer(config)?;
        let monitor = monitor.principal();
        let producer = Arc::new(BaseProducer::from_config_and_context(&client, monitor.clone())?);
        let is_over = CancellationToken::new();
        let polling = {
            let (producer, is_over) = (Arc::clone(&producer), is_over.clone());
            std::thread::Builder::new().name("acknowledgements".to_owned()).spawn(move || {
                while !is_over.is_cancelled() {
                    producer.poll(ACKNOWLEDGEMENT_POLL);
                }
            })?
        };
        Ok(Self {
            producer,
            polling: Some(polling),
            is_over,
            monitor,
            servers: config.kafka.bootstrap_servers.clone(),
            topic: config.inbox.topic.clone(),
            partitions: config.inbox.partitions,
            metrics,
        })
    }

    /// Appends a record; done when all in-sync replicas have it. Once called it is not cancelled by dropping the
    /// future: the record is in the producer's hands.
    pub async fn append(&self, record: InboxRecord, patience: Duration) -> Result<(), InboxError> {
        let started = Instant::now();
        let acknowledged = self.send(&record)?;
        // The producer has a copy of its own.
        drop(record);
        let result = match tokio::time::timeout(patience, acknowledged).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(InboxError::Refused(error)),
            Ok(Err(_)) => Err(InboxError::Refused(KafkaError::Canceled)),
            Err(_) => Err(InboxError::TimedOut),
        };
        self.metrics.intake.append_duration.observe(started.elapsed().as_secs_f64());
        result
    }

    fn send(&self, record: &InboxRecord) -> Result<oneshot::Receiver<Acknowledgement>, InboxError> {
        let (waiting, acknowledged) = oneshot::channel();
        let message = BaseRecord::with_opaque_to(self.topic.as_str(), Box::new(waiting))
            .partition(self.partition(&record.key))
            .key(&record.key)
            .payload(record.body.as_ref())
            .headers(kafka::headers(&record.headers));
        self.producer.send(message).map_err(|(error, _)| InboxError::Refused(error))?;
        Ok(acknowledged)
    }

    /// The partition of a key.
    pub(super) fn partition(&self, key: &str) -> i32 {
        partition_for_key(key.as_bytes(), self.partitions)
    }

    /// How many there are.
    pub(super) fn partitions(&self) -> usize {
        usize::try_from(self.partitions).unwrap_or_default()
    }

    /// Connects and learns where partitions are, so that the first delivery does not wait for it. Blocks.
    pub fn warm_up(&self) -> Result<(), KafkaError> {
        self.producer.client().fetch_metadata(Some(self.topic.as_str()), REQUEST_TIMEOUT).map(|_| ())
    }

    /// Finds Kafka again whenever it was lost; never ends.
    pub(super) async fn stay_connected(&self) {
        loop {
            bootstrap::restore_if_lost(self.producer.client(), &self.monitor, &self.servers);
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Waits until everything that was appended is acknowledged or given up. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.producer.flush(timeout)
    }
}

/// With its thread, so that the process does not end while librdkafka works.
impl Drop for Inbox {
    fn drop(&mut self) {
        self.is_over.cancel();
        if let Some(polling) = self.polling.take() {
            _ = polling.join(); // it panicked, and said so
        }
    }
}
