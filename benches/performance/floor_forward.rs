//! The floor of the other half: the least that it costs to move the inbox's records on within transactions. What librdkafka
//! has to do for it, and nothing else: no window of ids, no ledger, no routes, no takeover; who owns a partition is not asked,
//! and after any error it is over.
//!
//! The records are those that the relay writes. The offsets go first, for what a transaction begins with waits until the last
//! one is settled, and records would wait for 20 ms; and only once, where the relay's fence wants them again in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::floor;
use crate::support::{SOON, kafka, pause};

/// The relay's own.
const MAX_BATCH_RECORDS: usize = 2000;
const NAP: Duration = Duration::from_micros(500);

/// Forwards until the process is killed, in a thread of its own; tells how many records are committed.
pub fn start(servers: &str, inbox: &str, events: &str) -> Arc<AtomicU64> {
    let forwarded = Arc::<AtomicU64>::default();
    let [servers, inbox, events] = [servers, inbox, events].map(str::to_owned);
    let counter = Arc::clone(&forwarded);
    std::thread::spawn(move || run(&servers, &inbox, &events, &counter));
    forwarded
}

fn run(servers: &str, inbox: &str, events: &str, forwarded: &AtomicU64) {
    let consumer: BaseConsumer = kafka::client(servers)
        .set("group.id", inbox)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "10")
        .create()
        .unwrap();
    let producer: BaseProducer = floor::client(servers)
        .set("transactional.id", inbox)
        .set("retry.backoff.ms", "5")
        .set("retry.backoff.max.ms", "50")
        .create()
        .unwrap();
    producer.init_transactions(SOON).unwrap();
    consumer.subscribe(&[inbox]).unwrap();
    loop {
        let mut batch = Vec::new();
        let mut wait = Duration::from_millis(100);
        while batch.len() < MAX_BATCH_RECORDS
            && let Some(record) = consumer.poll(wait)
        {
            batch.push(record.unwrap());
            wait = Duration::ZERO;
        }
        if !batch.is_empty() {
            transact(&producer, &consumer, &batch, events);
            forwarded.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }
}

fn transact(producer: &BaseProducer, consumer: &BaseConsumer, batch: &[BorrowedMessage<'_>], events: &str) {
    let next: BTreeMap<i32, i64> =
        batch.iter().map(|record| (record.partition(), record.offset() + 1)).collect();
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset(batch[0].topic(), partition, Offset::Offset(offset)).unwrap();
    }
    producer.begin_transaction().unwrap();
    producer.send_offsets_to_transaction(&offsets, &consumer.group_metadata().unwrap(), SOON).unwrap();
    for record in batch {
        let event = BaseRecord::to(events)
            .key(record.key().unwrap())
            .payload(record.payload().unwrap())
            .headers(headers(record));
        producer.send(event).map_err(|(error, _)| error).unwrap();
    }
    while producer.in_flight_count() > 0 {
        let before = producer.in_flight_count();
        producer.poll(Duration::ZERO);
        if producer.in_flight_count() == before {
            pause(NAP);
        }
    }
    producer.commit_transaction(SOON).unwrap();
}

/// CloudEvents', out of the inbox's.
fn headers(record: &BorrowedMessage<'_>) -> OwnedHeaders {
    let found: Vec<_> = record.headers().unwrap().iter().collect();
    let value = |name| {
        let header = found.iter().find(|header| header.key == name);
        std::str::from_utf8(header.and_then(|header| header.value).unwrap()).unwrap()
    };
    let seconds = value("timestamp").parse().unwrap();
    let fields = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", value("id")),
        ("ce_source", &format!("/clearfeed/{}", value("source"))),
        ("ce_type", &format!("ai.clearfeed.{}", value("type"))),
        ("ce_time", &jiff::Timestamp::from_second(seconds).unwrap().to_string()),
        ("ce_cfretrycount", value("retry")),
        ("ce_cfinbox", &format!("{}:{}", record.partition(), record.offset())),
        ("ce_subject", value("request")),
    ];
    floor::headers(fields.into_iter().map(|(name, value)| (name, Some(value))))
}
