//! Appending to the inbox through one idempotent producer, which is replaced where it fails again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
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
use crate::kafka::streak::{Blame, Streak};
use crate::kafka::{self, ClientError, REQUEST_TIMEOUT, bootstrap, properties};
use crate::telemetry::metrics::Metrics;

/// Between two looks at the producer's health: as often as there are statistics.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long one look for acknowledgements waits, and so how long the end may take. rust-rdkafka spins through the last
/// millisecond of it: with the 100 ms of its own `FutureProducer` that was 1 % of a core, for nothing.
const ACKNOWLEDGEMENT_POLL: Duration = Duration::from_millis(500);

/// The longest pause before a producer that ended with a fatal error is replaced once more.
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// A replaced producer has given up all of its records by then: nobody waits for an answer longer.
const OLD_RECORDS: Duration = Duration::from_secs(60);

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
    client: ArcSwap<Client>,
    config: Config,
    failures: Mutex<Streak>,
    is_failing: AtomicBool,
    is_spent: AtomicBool,
    monitor: Monitor,
    topic: TopicName,
    partitions: i32,
    metrics: Arc<Metrics>,
}

/// A producer, and the thread that hears what became of its records.
struct Client {
    producer: Arc<BaseProducer<Monitor>>,
    polling: Option<JoinHandle<()>>,
    is_over: CancellationToken,
}

impl Client {
    /// Makes the producer; it connects by itself.
    fn start(config: &Config, monitor: &Monitor) -> Result<Self, ClientError> {
        let client = properties::inbox_producer(config)?;
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
        Ok(Self { producer, polling: Some(polling), is_over })
    }
}

/// With its thread, so that the process does not end while librdkafka works.
impl Drop for Client {
    fn drop(&mut self) {
        self.is_over.cancel();
        if let Some(polling) = self.polling.take() {
            _ = polling.join(); // it panicked, and said so
        }
    }
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
        let monitor = monitor.principal();
        Ok(Self {
            client: ArcSwap::from_pointee(Client::start(config, &monitor)?),
            config: config.clone(),
            failures: Mutex::default(),
            is_failing: AtomicBool::new(false),
            is_spent: AtomicBool::new(false),
            monitor,
            topic: config.inbox.topic.clone(),
            partitions: config.inbox.partitions,
            metrics,
        })
    }

    /// Appends a record; done when all in-sync replicas have it. Once called it is not cancelled by dropping the
    /// future: the record is in the producer's hands.
    pub async fn append(&self, record: InboxRecord, patience: Duration) -> Result<(), InboxError> {
        let started = Instant::now();
        let acknowledged = self.send(&record).inspect_err(|_| self.note(false))?;
        // The producer has a copy of its own.
        drop(record);
        let result = match tokio::time::timeout(patience, acknowledged).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(InboxError::Refused(error)),
            Ok(Err(_)) => Err(InboxError::Refused(KafkaError::Canceled)),
            Err(_) => Err(InboxError::TimedOut),
        };
        self.metrics.intake.append_duration.observe(started.elapsed().as_secs_f64());
        self.note(result.is_ok());
        result
    }

    /// Keeps count of failures; without any this is one look at a flag.
    fn note(&self, is_appended: bool) {
        if is_appended && !self.is_failing.load(Ordering::Relaxed) {
            return;
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_failing.store(!is_appended, Ordering::Relaxed);
        if is_appended {
            failures.ends();
        } else if failures.failed(Blame::Environment, Instant::now()) {
            self.is_spent.store(true, Ordering::Relaxed);
        }
    }

    fn send(&self, record: &InboxRecord) -> Result<oneshot::Receiver<Acknowledgement>, InboxError> {
        let (waiting, acknowledged) = oneshot::channel();
        let message = BaseRecord::with_opaque_to(self.topic.as_str(), Box::new(waiting))
            .partition(self.partition(&record.key))
            .key(&record.key)
            .payload(record.body.as_ref())
            .headers(kafka::headers(&record.headers));
        self.client.load().producer.send(message).map_err(|(error, _)| InboxError::Refused(error))?;
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
        self.client
            .load()
            .producer
            .client()
            .fetch_metadata(Some(self.topic.as_str()), REQUEST_TIMEOUT)
            .map(|_| ())
    }

    /// Finds Kafka again whenever it was lost, and replaces a producer that is of no use; never ends.
    pub(super) async fn stay_connected(&self) {
        let servers = &self.config.kafka.bootstrap_servers;
        let (mut not_before, mut pause) = (Instant::now(), LOOK_PAUSE);
        loop {
            let fatal = {
                let client = self.client.load();
                bootstrap::restore_if_lost(client.producer.client(), &self.monitor, servers);
                client.producer.client().fatal_error()
            };
            if self.is_spent.swap(false, Ordering::Relaxed) {
                self.replace("it appends nothing any more");
            } else if let Some((_, fatal)) = fatal.filter(|_| Instant::now() >= not_before) {
                self.replace(&fatal);
                // The next one may end at once as well, as where it may not write.
                (not_before, pause) = (Instant::now() + pause, LAST_PAUSE.min(pause * 2));
            } else if !self.is_failing.load(Ordering::Relaxed) {
                pause = LOOK_PAUSE;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// The old producer lives until it has said what became of its records.
    fn replace(&self, reason: &str) {
        match Client::start(&self.config, &self.monitor) {
            Ok(client) => {
                tracing::warn!(reason, "the producer of the inbox is replaced");
                let old = self.client.swap(Arc::new(client));
                let ending = std::thread::Builder::new().name("flush".to_owned());
                drop(ending.spawn(move || old.producer.flush(OLD_RECORDS)));
            }
            Err(error) => tracing::warn!(reason, %error, "the producer of the inbox cannot be replaced"),
        }
    }

    /// Waits until everything that was appended is acknowledged or given up. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.client.load().producer.flush(timeout)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::config;
    use crate::config::Role;
    use crate::telemetry::health::Health;
    use crate::telemetry::labels::Half;
    use crate::telemetry::metrics::ProcessLabels;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_producer_that_is_of_no_use_any_more_is_replaced() {
        let kafka = MockCluster::new(1).unwrap();
        kafka.create_topic("clearfeed.inbox", 12, 1).unwrap();
        let text = format!(
            "[kafka]\nbootstrap_servers = {:?}\n\
             [sources.main]\npublic_url = \"https://a.example/e\"\nsigning_secret_files = [\"s\"]",
            kafka.bootstrap_servers()
        );
        let config = config::from_toml(&text).unwrap();
        let metrics = Arc::new(Metrics::new([], &ProcessLabels::of_role(Role::Intake)).unwrap());
        let health = Arc::new(Health::apart(Role::Intake));
        let monitor = Monitor::new(Half::Intake, Arc::clone(&metrics), health);
        let inbox = Inbox::new(&config, &monitor, metrics).unwrap();
        let record = || InboxRecord { key: "1".to_owned(), headers: Vec::new(), body: "{}".into() };
        inbox.append(record(), PATIENCE).await.unwrap();

        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        kafka.request_errors(RDKafkaApiKey::Produce, &[refusal; 3]);
        inbox.append(record(), PATIENCE).await.unwrap_err();
        assert!(inbox.client.load().producer.client().fatal_error().is_some());
        inbox.append(record(), PATIENCE).await.unwrap_err();
        kafka.clear_request_errors(RDKafkaApiKey::Produce);

        let mended = async {
            while inbox.append(record(), PATIENCE).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = inbox.stay_connected() => unreachable!("it never ends"),
            mended = tokio::time::timeout(PATIENCE, mended) => mended.unwrap(),
        }
    }
}
