//! However long nothing comes: what comes then is published, once. Kafka forgets a transactional id that was not used for
//! `transactional.id.expiration.ms`, seven days by default.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::support::simulator::{Simulated, load};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, Relay, SOON, Simulation, wait_for};

/// A week, in short.
const EXPIRY: [&str; 2] = [
    "transactional.id.expiration.ms=4000",
    "transaction.remove.expired.transaction.cleanup.interval.ms=1000",
];
/// So long a silence may hold up what comes after it.
const WITHIN: Duration = Duration::from_secs(15);
const EVENTS: u64 = 40;

#[test]
fn what_comes_after_a_quiet_week_is_published_once() {
    let kafka = Kafka::with(1, &EXPIRY);
    let deployment = Deployment::new("silence", &kafka);
    let relay = deployment.relay().up();
    // Of one request, so that the other partitions never had anything.
    let before = forwarded(&deployment, &relay, 1);
    wait_until_forgotten(&kafka, &deployment.transactional_id("relay"));
    let after = forwarded(&deployment, &relay, 30);
    Judge::of(&before.and(after), &deployment.published()).assert_flawless();
}

#[test]
fn a_replica_that_waited_for_partitions_all_week_forwards_them() {
    let kafka = Kafka::with(1, &EXPIRY);
    let deployment = Deployment::new("standby", &kafka);
    // One more than there are partitions.
    let mut relays: Vec<_> =
        (0..4).map(|number| deployment.replica(&format!("replica-{number}")).start()).collect();
    let owned = |relay: &Relay| relay.status().unwrap()["forward"]["owned"].as_array().unwrap().len();
    let is_settled = |relays: &[Relay]| {
        let mut each: Vec<_> = relays.iter().map(owned).collect();
        each.sort_unstable();
        each == [0, 1, 1, 1]
    };
    wait_for("each has a partition but one", AFTER_TIMEOUTS, || is_settled(&relays).then_some(()));
    let standby = relays.iter().position(|relay| owned(relay) == 0).unwrap();
    relays.swap(0, standby);
    let before = forwarded(&deployment, &relays[1], 30);
    wait_until_forgotten(&kafka, &deployment.transactional_id(relays[0].name()));
    for owner in &mut relays[1..] {
        owner.stop();
    }
    let after = forwarded(&deployment, &relays[0], 30);
    Judge::of(&before.and(after), &deployment.published()).assert_flawless();
}

/// Forty events go in, and come out in time.
#[track_caller]
fn forwarded(deployment: &Deployment, relay: &Relay, requests: u64) -> Simulated {
    let simulated = Simulation::run(load(vec![relay.target()], EVENTS, requests));
    assert_eq!(simulated.summary.accepted_events, EVENTS, "{}", simulated.summary);
    deployment.wait_until_forwarded(WITHIN);
    simulated
}

/// Waits for the tombstone that Kafka writes when it forgets the id.
fn wait_until_forgotten(kafka: &Kafka, transactional_id: &str) {
    let consumer: BaseConsumer = kafka.client().set("group.id", "tombstones").create().unwrap();
    let metadata = consumer.fetch_metadata(Some("__transaction_state"), SOON).unwrap();
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        all.add_partition_offset("__transaction_state", partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    // The key is a version of two bytes, the length of the id in two more, and the id.
    let is_its = |key: &[u8]| key.get(4..) == Some(transactional_id.as_bytes());
    wait_for("the transactional id is forgotten", AFTER_TIMEOUTS, || {
        let record = consumer.poll(Duration::from_millis(100))?.unwrap();
        (record.key().is_some_and(is_its) && record.payload().is_none()).then_some(())
    });
}
