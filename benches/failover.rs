//! How long nothing is forwarded when a replica ends: two replicas of the release build on one broker, 200 events/s, and a
//! reader that notes when the records of each partition come.
//!
//!     cargo bench --bench failover     (a quarter of an hour)
//!
//! The time is the longest pause between two records of one partition that a `read_committed` reader saw around the end,
//! so it contains what a pause is without any: some 20 ms.

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

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use support::deployment::PARTITIONS;
use support::simulator::{Settings, load, rate};
use support::{AFTER_TIMEOUTS, Deployment, Kafka, Relay, SOON, Simulation, kafka, wait_for};

const ROUNDS: usize = 20;
/// Records of each partition that are seen after the end before it is over.
const ENOUGH: usize = 40;

fn main() {
    let cluster = Kafka::own(1);
    println!("{:<44} {:>8} {:>8}", "time without forwarding, s", "median", "worst");
    measure(&cluster, "SIGTERM", |relay| {
        relay.sigterm();
        relay.wait_exit(SOON);
    });
    measure(&cluster, "kill -9, back under its transactional id", |relay| {
        relay.kill9();
        relay.restart();
    });
    measure(&cluster, "kill -9, taken over by the other replica", Relay::kill9);
}

fn measure(cluster: &Kafka, name: &str, end: impl Fn(&mut Relay)) {
    let deployment = Deployment::new("failover", cluster);
    let mut replicas = [deployment.replica("a").start(), deployment.replica("b").start()];
    replicas.iter().for_each(Relay::wait_ready);
    // What listens is not what ends: the load goes on.
    let intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    let settings = Settings { rate: rate(200), ..load(vec![intake.target()], 1_000_000, 300) };
    let running = Simulation::start(settings);
    wait_for("events come", SOON, || (running.finished() > 200).then_some(()));
    let watch = Watch::start(cluster.servers(), &deployment.events());
    let mut pauses = Vec::new();
    for round in 0..ROUNDS {
        wait_for("both have partitions", AFTER_TIMEOUTS, || replicas.iter().all(has_some).then_some(()));
        watch.wait_for_more();
        let began = Instant::now();
        let relay = &mut replicas[round % 2];
        end(relay);
        watch.wait_for_more();
        pauses.push(watch.longest_pause(began).as_secs_f64());
        if relay.has_ended() {
            relay.restart();
        }
    }
    running.stop();
    pauses.sort_by(f64::total_cmp);
    println!("{name:<44} {:>8.2} {:>8.2}", pauses[ROUNDS / 2], pauses[ROUNDS - 1]);
}

fn has_some(relay: &Relay) -> bool {
    let status = relay.status().unwrap_or_default();
    let owned = status["forward"]["owned"].as_array().cloned().unwrap_or_default();
    !owned.is_empty() && owned.iter().all(|partition| partition["state"] == "active")
}

/// Notes when records come.
struct Watch {
    arrivals: Arc<Mutex<BTreeMap<i32, Vec<Instant>>>>,
    is_over: Arc<AtomicBool>,
}

impl Watch {
    fn start(servers: &str, topic: &str) -> Self {
        let mut client = kafka::client(servers);
        client.set("group.id", "watch").set("enable.auto.commit", "false").set("auto.offset.reset", "latest");
        let consumer: BaseConsumer = client.set("isolation.level", "read_committed").create().unwrap();
        let mut assignment = rdkafka::TopicPartitionList::new();
        assignment.add_partition_range(topic, 0, PARTITIONS - 1);
        consumer.assign(&assignment).unwrap();
        let watch = Self { arrivals: Arc::default(), is_over: Arc::default() };
        let (arrivals, is_over) = (Arc::clone(&watch.arrivals), Arc::clone(&watch.is_over));
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
                    arrivals.lock().unwrap().entry(record.partition()).or_default().push(Instant::now());
                }
            }
        });
        watch
    }

    /// Waits until enough came from each partition.
    fn wait_for_more(&self) {
        let counts = || {
            let arrivals = self.arrivals.lock().unwrap();
            (0..PARTITIONS).map(|partition| arrivals.get(&partition).map_or(0, Vec::len)).collect::<Vec<_>>()
        };
        let before = counts();
        wait_for("each partition is forwarded", AFTER_TIMEOUTS, || {
            counts().iter().zip(&before).all(|(now, before)| now - before > ENOUGH).then_some(())
        });
    }

    /// The longest pause of a partition that ended after this.
    fn longest_pause(&self, after: Instant) -> Duration {
        let arrivals = self.arrivals.lock().unwrap();
        let pauses = arrivals.values().flat_map(|times| times.windows(2));
        pauses.filter(|pair| pair[1] > after).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
