//! The one place that names librdkafka's property keys.
//!
//! Each client is made in three steps: our tuning, over it the user's `kafka.properties`, over both what the promise
//! rests on. The configuration refuses the last by name, so nothing of the user's is overridden silently (but for one
//! time-out that librdkafka bounds for transactions).

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use crate::config::{self, Config, Kafka, Problem};

/// Room for a record's headers and framing beside the body.
pub const RECORD_OVERHEAD_BYTES: usize = 64 * 1024;

/// How long a transaction may stay open before the broker aborts it: a killed owner holds back its successor and
/// every `read_committed` reader for this long, and up to 10 s more until the broker looks.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A file of `kafka.property_files` that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("kafka.property_files.\"{key}\": cannot read {path}: {source}")]
pub struct PropertyError {
    /// The property.
    key: String,
    /// Its file.
    path: String,
    /// What the system said.
    source: std::io::Error,
}

/// Second names that librdkafka has for properties which the relay tunes: the user's value must replace ours, whatever
/// it is called.
const SECOND_NAMES: [(&str, &str); 4] = [
    ("queue.buffering.max.ms", "linger.ms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("message.send.max.retries", "retries"),
];

fn first_name(key: &str) -> &str {
    SECOND_NAMES.iter().find(|(second, _)| *second == key).map_or(key, |(_, first)| first)
}

/// Properties in the order in which they are set.
type Properties<'a> = &'a [(&'a str, &'a str)];

/// What all clients share, whatever they are for.
const COMMON: Properties<'static> = &[
    ("client.id", "clearfeed-relay"),
    // librdkafka waits up to 10 s between attempts to connect: a short outage would look long.
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    // An answer that is lost is missed after this; a minute would be longer than any deadline of ours.
    ("socket.timeout.ms", "10000"),
    // Also how soon an idle producer finds out that Kafka is back: it connects only when it has something to ask.
    ("topic.metadata.refresh.interval.ms", "5000"),
];

/// A property of the user's.
struct User<'a> {
    section: &'static str,
    key: &'a str,
    value: Result<String, PropertyError>,
}

fn users(kafka: &Kafka) -> impl Iterator<Item = User<'_>> {
    let direct = kafka.properties.iter().map(|(key, value)| User {
        section: "kafka.properties",
        key,
        value: Ok(value.clone()),
    });
    let from_files = kafka.property_files.iter().map(|(key, path)| {
        let value = match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(source) => Err(PropertyError { key: key.clone(), path: path.display().to_string(), source }),
        };
        User { section: "kafka.property_files", key, value }
    });
    direct.chain(from_files)
}

/// All that librdkafka will not take of the user's properties: each value by itself and then, where all are good, all
/// of them together in each client that this role needs. Connects to nobody.
pub fn check(config: &Config, file: &str) -> Vec<Problem> {
    let problem = |key: String, found: String, wanted: &str| Problem {
        key,
        found,
        wanted: wanted.to_owned(),
        whence: file.to_owned(),
    };
    let mut problems = Vec::new();
    for User { section, key, value } in users(&config.kafka) {
        let path = format!("{section}.{key:?}");
        match value {
            Err(PropertyError { path: file, source, .. }) => {
                problems.push(problem(path, format!("{file}: {source}"), "a readable file"));
            }
            Ok(value) => {
                if let Err(reason) = taken(ClientConfig::new().set(key, &value)) {
                    let shown =
                        if config::is_secret(key) { "\"…\"".to_owned() } else { format!("{value:?}") };
                    problems.push(problem(path, shown, &format!("what librdkafka takes: {reason}")));
                }
            }
        }
    }
    if problems.is_empty() {
        let refusals: BTreeSet<String> = clients(config).into_iter().filter_map(Result::err).collect();
        let wanted = "properties that go together";
        problems
            .extend(refusals.into_iter().map(|found| problem("kafka.properties".to_owned(), found, wanted)));
    }
    problems
}

/// Whether librdkafka knows all names and values.
fn taken(client: &ClientConfig) -> Result<(), String> {
    match client.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, reason, ..)) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes each client of this role once, without a server that it could connect to.
fn clients(config: &Config) -> Vec<Result<(), String>> {
    let mut made = Vec::new();
    if config.role.has_intake() {
        made.push(make::<BaseProducer>(inbox_producer(config)));
    }
    if config.role.has_forward() {
        made.push(make::<BaseProducer>(transactional_producer(config)));
        made.push(make::<BaseConsumer>(inbox_consumer(config)));
        made.push(make::<BaseConsumer>(ledger_reader(config)));
        made.push(make::<BaseConsumer>(uncommitted_reader(config)));
    }
    made
}

fn make<C: FromClientConfig>(client: Result<ClientConfig, PropertyError>) -> Result<(), String> {
    let mut client = client.map_err(|error| error.to_string())?;
    client.remove("bootstrap.servers").create::<C>().map(drop).map_err(|error| error.to_string())
}

/// For clients that are polled all the time: in any other, statistics would pile up in a queue that nobody empties.
const STATISTICS: (&str, &str) = ("statistics.interval.ms", "1000");

/// A client without a part of its own, for look-ups.
pub fn base(kafka: &Kafka) -> Result<ClientConfig, PropertyError> {
    client(kafka, &[], &[])
}

fn client(
    kafka: &Kafka,
    tuning: Properties<'_>,
    vital: Properties<'_>,
) -> Result<ClientConfig, PropertyError> {
    let mut client = ClientConfig::new();
    for (key, value) in COMMON.iter().chain(tuning) {
        client.set(*key, *value);
    }
    for User { key, value, .. } in users(kafka) {
        client.set(first_name(key), value?);
    }
    client.set("bootstrap.servers", &kafka.bootstrap_servers).set("allow.auto.create.topics", "false");
    for (key, value) in vital {
        client.set(*key, *value);
    }
    Ok(client)
}

/// The largest record that the relay writes, in bytes: `max.message.bytes` of its topics.
pub fn max_record_bytes(config: &Config) -> usize {
    config.intake.max_body_bytes + RECORD_OVERHEAD_BYTES
}

/// The producer that appends deliveries to the inbox.
pub fn inbox_producer(config: &Config) -> Result<ClientConfig, PropertyError> {
    // Nobody waits for an answer longer.
    let timeout_ms = config.intake.answer_timeout.as_millis().to_string();
    // Nobody waits for others to join a batch: librdkafka has at most five requests on their way to a broker, and what comes
    // meanwhile joins by itself, the more the busier it is. With 5 ms each answer took 5 ms more, 64 connections got half the
    // rate, and at 1,000 deliveries/s into 12 partitions the CPU time was the same. No compression: batches of one partition
    // are small, and at 10,000 deliveries/s of 1.5 KB, in batches of 5 ms, lz4 cost 14 % of the rate and zstd 21 %, with
    // broker and relay on the same two cores. Who pays for disks sets compression.codec.
    producer(config, &[("linger.ms", "0"), ("message.timeout.ms", &timeout_ms)], &[])
}

/// The producer of `backfill`: whole pages at a time, with nobody but a person waiting.
pub fn snapshot_producer(config: &Config) -> Result<ClientConfig, PropertyError> {
    // Longer than an election of leaders, and not so long that nobody believes in it any more.
    producer(config, &[("linger.ms", "5"), ("message.timeout.ms", "30000")], &[])
}

/// The producer of the forward half.
pub fn transactional_producer(config: &Config) -> Result<ClientConfig, PropertyError> {
    let timeout_ms = TRANSACTION_TIMEOUT.as_millis().to_string();
    let tuning = &[
        // A batch is complete when it is sent: nothing to wait for.
        ("linger.ms", "0"),
        // The coordinator answers CONCURRENT_TRANSACTIONS while it writes the markers of the last commit;
        // librdkafka's 100 ms of patience would be most of a transaction's time.
        ("retry.backoff.ms", "5"),
        ("retry.backoff.max.ms", "50"),
    ];
    let vital = &[
        // librdkafka wants no request to outlive the transaction.
        ("socket.timeout.ms", timeout_ms.as_str()),
        ("transactional.id", config.forward.transactional_id.as_str()),
        ("transaction.timeout.ms", &timeout_ms),
        ("message.timeout.ms", &timeout_ms),
    ];
    producer(config, tuning, vital)
}

fn producer(
    config: &Config,
    tuning: Properties<'_>,
    vital: Properties<'_>,
) -> Result<ClientConfig, PropertyError> {
    let record_bytes = max_record_bytes(config);
    let (message_bytes, batch_bytes) =
        (record_bytes.to_string(), (record_bytes / 2).min(1_000_000).to_string());
    let common = [
        STATISTICS,
        // What waits for Kafka, in memory: what a listener can answer for within its time-out.
        ("queue.buffering.max.kbytes", "65536"),
        ("queue.buffering.max.messages", "100000"),
        // librdkafka never splits a batch: one larger than the topic takes would fail with all its records.
        ("batch.size", batch_bytes.as_str()),
    ];
    let common_vital = [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("partitioner", "murmur2_random"),
        ("message.max.bytes", message_bytes.as_str()),
    ];
    client(&config.kafka, &[&common, tuning].concat(), &[&common_vital, vital].concat())
}

/// The consumer of the inbox, member of the group.
pub fn inbox_consumer(config: &Config) -> Result<ClientConfig, PropertyError> {
    let tuning = &[
        STATISTICS,
        // A killed owner's partitions move that much sooner than with 45 s.
        ("session.timeout.ms", "6000"),
        // How late the others hear of a rebalance.
        ("heartbeat.interval.ms", "300"),
        // Per partition, of which a replica may own dozens.
        ("queued.min.messages", "10000"),
        ("queued.max.messages.kbytes", "16384"),
        // A full queue is looked at again after 1 s by default.
        ("fetch.queue.backoff.ms", "10"),
    ];
    consumer(config, tuning, &[("partition.assignment.strategy", "cooperative-sticky")])
}

/// The reader of ledger partitions and of the group's offsets; never a member of the group.
pub fn ledger_reader(config: &Config) -> Result<ClientConfig, PropertyError> {
    let tuning = &[
        // The end of a partition is told by a fetch that brings nothing, and the next partition waits for its answer.
        ("fetch.wait.max.ms", "5"),
        ("fetch.message.max.bytes", "4194304"),
        ("queued.max.messages.kbytes", "65536"),
        ("fetch.queue.backoff.ms", "1"),
    ];
    consumer(config, tuning, &[("enable.partition.eof", "true")])
}

/// Asks where partitions end, and how far the group is, and reads the ledger's last records, for readers that do not wait
/// for open transactions.
pub fn uncommitted_reader(config: &Config) -> Result<ClientConfig, PropertyError> {
    let mut client = ledger_reader(config)?;
    client.set("isolation.level", "read_uncommitted");
    Ok(client)
}

fn consumer(
    config: &Config,
    tuning: Properties<'_>,
    vital: Properties<'_>,
) -> Result<ClientConfig, PropertyError> {
    let common_vital = [
        ("group.id", config.forward.group.as_str()),
        // Also makes the broker wait for a predecessor's open transaction before it tells the group's offsets.
        ("isolation.level", "read_committed"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // Where a partition goes on is the ledger's to say; an offset out of range is an error.
        ("auto.offset.reset", "error"),
    ];
    client(&config.kafka, tuning, &[&common_vital, vital].concat())
}
