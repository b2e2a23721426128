//! How fast a partition is taken over, and how much memory an id takes: the ledger is filled with ids on a real broker,
//! and read by the product's own takeover.
//!
//!     cargo bench --bench takeover [-- IDS IN_RECORD]     (one line of the table alone)
//!
//! Ids stand in the ledger as the forward half writes them, one record for each transaction and partition. What is read
//! is records, so two forms are measured: 500 ids in a record (catching up), and 1 (a quiet day). CPU time is the whole
//! process's, librdkafka's threads with it. Each figure is the best of three. It takes about four minutes, nearly all of
//! them to fill the ledgers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a program for developers")]
#![allow(
    clippy::pedantic,
    clippy::type_complexity,
    reason = "helps the product; such a program is read more than called"
)]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "names of helpers tell what they do")]

#[allow(dead_code, unused_imports, reason = "the promises use the rest")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use clearfeed_relay::config::{self, Config};
use clearfeed_relay::domain::fingerprint::{BodyHash, Fingerprint};
use clearfeed_relay::domain::ledger_entry::LedgerEntry;
use clearfeed_relay::domain::window::{Decided, Fate, Sighting};
use clearfeed_relay::forward::takeover::{Answer, Job, Order, Taken, Takeover};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use support::deployment::PARTITIONS;
use support::{Deployment, Kafka};
use tokio_util::sync::CancellationToken;

const PARTITION: i32 = 0;
const ROUNDS: usize = 3;
/// Of a ledger that nobody fills faster than a broker can take it.
const LONGEST: Duration = Duration::from_secs(600);

fn main() {
    println!("{:>10} {:>10} {:>8} {:>8} {:>12} {:>10}", "ids", "a record", "s", "cpu s", "ids/s", "bytes/id");
    // `cargo bench` adds an argument of its own.
    let given: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if let [ids, in_record] = given[..] {
        return measure(ids, in_record);
    }
    for (ids, in_record) in
        [(100_000, 500), (1_000_000, 500), (10_000_000, 500), (100_000, 1), (1_000_000, 1)]
    {
        measure(ids, in_record);
    }
}

fn measure(ids: u64, in_record: u64) {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("takeover", &kafka);
    let config = config(&deployment);
    kafka.create_topic(&deployment.inbox(), PARTITIONS, &[]);
    kafka.create_topic(&deployment.ledger(), PARTITIONS, &[]);
    fill(&kafka, &deployment, ids, in_record);
    let takeovers = Takeovers::start(config);
    let best = (0..ROUNDS).map(|_| takeovers.one()).min_by(|a, b| a.wall.total_cmp(&b.wall)).unwrap();
    assert_eq!(best.ids as u64, ids);
    println!(
        "{ids:>10} {in_record:>10} {:>8.2} {:>8.2} {:>12.0} {:>10.1}",
        best.wall,
        best.cpu,
        ids as f64 / best.wall,
        best.bytes as f64 / ids as f64
    );
    kafka.delete_topic(&deployment.ledger());
}

fn config(deployment: &Deployment) -> Config {
    let file = deployment.relay().write();
    config::load(&file, std::iter::empty(), None, |_, _| Vec::new()).unwrap()
}

/// Writes the ledger of one partition, and the group's offset that goes with it.
fn fill(kafka: &Kafka, deployment: &Deployment, ids: u64, in_record: u64) {
    let mut client = kafka.client();
    // As a transaction leaves it: what one wrote to a partition is a batch of its own.
    client.set("batch.num.messages", "1").set("queue.buffering.max.messages", "100000");
    let producer: BaseProducer = client.set("max.in.flight", "100").create().unwrap();
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let topic = deployment.ledger();
    let began = Instant::now();
    for first in (0..ids).step_by(usize::try_from(in_record).unwrap()) {
        let decided = (first..ids.min(first + in_record)).map(|id| Decided {
            sighting: Sighting {
                fingerprint: Fingerprint::body(
                    "bench",
                    &clearfeed_relay::domain::fingerprint::body_digest(&id.to_le_bytes()),
                ),
                body: BodyHash(id),
                offset: 0,
                appended_ms: now_ms,
            },
            fate: Fate::Published,
        });
        let entry = LedgerEntry {
            inbox_partitions: PARTITIONS.unsigned_abs(),
            from: 0,
            to: 0, // the inbox is empty: this is about the ledger
            last_ms: 0,
            newest_ms: now_ms,
            ids: decided.collect(),
        };
        let value = entry.encode();
        let headers = || OwnedHeaders::new().insert(Header { key: "v", value: Some("1") });
        let mut record =
            BaseRecord::<str, _>::to(&topic).partition(PARTITION).payload(&value).headers(headers());
        while let Err((_, unsent)) = producer.send(record) {
            producer.poll(Duration::from_millis(1));
            record = unsent;
            assert!(began.elapsed() < LONGEST, "the broker takes no more");
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(LONGEST).unwrap();
    let consumer: BaseConsumer = kafka.client().set("group.id", deployment.group()).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&deployment.inbox(), PARTITION, Offset::Offset(0)).unwrap();
    offsets.find_partition(&deployment.inbox(), PARTITION).unwrap().set_metadata("clearfeed-relay");
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
}

/// The thread that takes partitions over.
struct Takeovers {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
}

struct Measured {
    wall: f64,
    cpu: f64,
    ids: usize,
    bytes: usize,
}

impl Takeovers {
    fn start(config: Config) -> Self {
        let takeover = Takeover::new(config, &support::monitor(), CancellationToken::new()).unwrap();
        let ((orders, order_receiver), (answer_sender, answers)) = (mpsc::channel(), mpsc::channel());
        std::thread::spawn(move || takeover.run(&order_receiver, &answer_sender));
        Self { orders, answers }
    }

    fn one(&self) -> Measured {
        let (progress, cpu, began) = (Arc::default(), cpu_seconds(), Instant::now());
        let progress = Arc::downgrade(&progress);
        let job = Job { partition: PARTITION, progress, unsettled: None, is_fresh: true };
        self.orders.send(Order::TakeOver(job)).unwrap();
        let Answer::Done(done) = self.answers.recv_timeout(LONGEST).unwrap() else {
            panic!("nothing was to be counted")
        };
        let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let Taken { partition, .. } = done.result.unwrap_or_else(|held| panic!("held: {held:?}"));
        Measured { wall, cpu, ids: partition.window.len(), bytes: partition.window.bytes() }
    }
}

/// User and system time of this process so far: fields 14 and 15 of its `stat`, in Linux's 100 ticks a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: f64 = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}
