//! However often an event is delivered, it stands in its topic once.

use clearfeed_relay::simulator::{Client, unix_seconds};

use crate::support::deployment::PARTITIONS;
use crate::support::simulator::load;
use crate::support::{
    AFTER_TIMEOUTS, Deployment, Kafka, SOON, Sender, Simulation, block_on, runtime, wait_for,
};

const EVENT: &str = r#"{"id":"e-1","type":"request","sub_type":"created","request":{"id":77}}"#;
const MINUTES: u64 = 60;

#[test]
fn redeliveries_are_repeats() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("redeliveries", &kafka);
    let relay = deployment.relay().up();
    let mut sender = Sender::new(vec![relay.target()]);
    let delivery = deployment.delivery(EVENT);
    for retry in [0, 1, 2, 3, 3, 1] {
        assert_eq!(sender.send(&delivery.redelivered(retry)), 200, "retry {retry}");
    }
    deployment.wait_until_forwarded(SOON);
    let records = deployment.published();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].header("ce_cfretrycount"), "0");
    assert_eq!(deployment.reader().all(&deployment.inbox()).len(), 6, "the inbox may repeat");
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0);
    assert_eq!(relay.metric(r#"redeliveries_total{retry="3",source="main"}"#), 2.0);
    wait_for("repeats are counted", SOON, || {
        (relay.metric(r#"forward_records_total{outcome="repeat"}"#) == 5.0).then_some(())
    });
}

#[test]
fn an_old_event_is_taken_as_a_redelivery_only() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("old", &kafka);
    let relay = deployment.relay().up();
    let mut sender = Sender::new(vec![relay.target()]);
    let old = deployment.delivery_at(EVENT, unix_seconds() - 10 * MINUTES);
    assert_eq!(sender.send(&old), 401, "a first delivery is at most five minutes old");
    assert_eq!(sender.send(&old.redelivered(2)), 200);
    assert_eq!(sender.send(&old.redelivered(3)), 200);
    assert_eq!(sender.send(&old), 401, "nor is it taken when it was seen before");
    let ancient = deployment.delivery_at(EVENT, unix_seconds() - (24 * 60 + 1) * MINUTES);
    assert_eq!(sender.send(&ancient.redelivered(3)), 401);
    deployment.wait_until_forwarded(SOON);
    let records = deployment.published();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].header("ce_cfretrycount"), "2");
}

#[test]
fn a_thousand_concurrent_replays_through_two_replicas_are_one_record() {
    const CONNECTIONS: usize = 200;
    let kafka = Kafka::shared();
    let deployment = Deployment::new("replays", &kafka);
    let relays = [deployment.replica("a").start(), deployment.replica("b").start()];
    for relay in &relays {
        relay.wait_ready();
        // Of three partitions the one replica has two, the other one.
        wait_for("both replicas forward", SOON, || {
            let status = relay.status()?;
            let owned = status["forward"]["owned"].as_array()?;
            (!owned.is_empty() && owned.iter().all(|partition| partition["state"] == "active")).then_some(())
        });
    }
    let targets: Vec<_> = relays.iter().map(crate::support::Relay::target).collect();
    let delivery = deployment.delivery(EVENT);
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|turn| {
            let mut client = Client::new(targets.clone()).beginning_at(turn);
            let delivery = delivery.clone();
            runtime().spawn(async move {
                for retry in [0, 1, 2, 3, 0] {
                    let reply = client.send(&delivery.redelivered(retry)).await.unwrap();
                    assert_eq!(reply.status.as_u16(), 200, "{reply:?}");
                }
            })
        })
        .collect();
    for sender in senders {
        block_on(sender).unwrap();
    }
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    assert_eq!(deployment.reader().all(&deployment.inbox()).len(), 1000);
    assert_eq!(deployment.published().len(), 1);
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0);
}

/// Memory has its bound. What goes beyond is told, for a repeat of it would be out once more.
#[test]
fn ids_beyond_the_cap_are_forgotten_and_counted() {
    const CAP: u64 = 100;
    const EVENTS: u64 = 300;
    let kafka = Kafka::shared();
    let deployment = Deployment::new("cap", &kafka);
    let mut relay = deployment.relay().set("dedup.max_ids", &CAP.to_string()).up();
    let simulated = Simulation::run(load(vec![relay.target()], EVENTS, 30));
    assert_eq!(simulated.summary.accepted_events, EVENTS);
    deployment.wait_until_forwarded(SOON);
    let evicted = r#"window_evictions_total{reason="cap"}"#;
    wait_for("the oldest went", SOON, || (relay.metric(evicted) == (EVENTS - CAP) as f64).then_some(()));
    let is_told =
        |line: &serde_json::Value| line["message"].to_string().contains("more ids than dedup.max_ids");
    assert!(relay.log().iter().any(is_told));
    wait_for("the rest is left", SOON, || (relay.metric("window_ids") == CAP as f64).then_some(()));
    relay.stop();
    // A new owner reads them all, and keeps no more of them.
    relay.restart();
    relay.wait_active(PARTITIONS);
    wait_for("no more is left", SOON, || (relay.metric("window_ids") == CAP as f64).then_some(()));
}
