//! With a spool, deliveries are kept on the node's disk while Kafka is away, and each comes out of its topic once, in order.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clearfeed_relay::simulator::{Delivery, Outcome};

use crate::support::relay::{self, Plan};
use crate::support::simulator::{Settings, load, rate};
use crate::support::{
    AFTER_TIMEOUTS, Deployment, Disk, Fault, Judge, Kafka, OUTAGE, Record, Relay, SOON, Sender, Simulation,
    outage, pause, wait_for,
};

fn directory(deployment: &Deployment, replica: &str) -> PathBuf {
    deployment.secret_file().with_file_name(format!("spool-{replica}"))
}

/// A replica with a spool.
pub(crate) fn with_spool(deployment: &Deployment, replica: &str) -> Plan {
    deployment
        .replica(replica)
        .at_one_port()
        .set("intake.shutdown_timeout", "\"11s\"")
        .set("intake.answer_timeout", "\"4s\"")
        .set("spool.directory", &format!("{:?}", directory(deployment, replica)))
}

/// Waits until deliveries go to Kafka again.
#[track_caller]
pub(crate) fn wait_drained(relay: &Relay) {
    wait_for("the spool is empty and not in use", AFTER_TIMEOUTS, || {
        (relay.metric("spool_records") == 0.0 && relay.metric("spool_in_use") == 0.0).then_some(())
    });
}

#[test]
fn a_replica_that_is_killed_while_kafka_is_away_loses_and_repeats_nothing() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("spooled", &kafka);
    let mut relay = with_spool(&deployment, "relay").up();
    wait_drained(&relay);
    let running = Simulation::start(Settings {
        rate: rate(100),
        connections: NonZeroU64::new(50).unwrap(),
        retries_on_failure: true,
        redeliver_percent: 10,
        ..load(vec![relay.target()], 3000, 50)
    });
    wait_for("the load has begun", SOON, || (running.finished() > 150).then_some(()));
    kafka.kill(None);
    wait_for("some are spooled", SOON, || (relay.metric("spool_records") > 100.0).then_some(()));
    assert!(relay.is_ready(), "a delivery would be kept");
    relay.kill9();
    relay.restart();
    assert!(relay.is_ready(), "also where Kafka was never seen: {:?}", relay.status());
    pause(OUTAGE);
    let in_use = relay.status().unwrap()["intake"]["spool"].clone();
    assert_eq!(
        (in_use["in_use"].as_bool(), in_use["failed"].as_bool()),
        (Some(true), Some(false)),
        "{in_use}"
    );
    kafka.restart(None);
    // Killed once more, while what was spooled is on its way.
    let drained = || (relay.metric("spool_drained_total") > 0.0).then_some(());
    wait_for("some are drained", AFTER_TIMEOUTS, drained);
    relay.kill9();
    relay.restart();
    let simulated = running.finish();
    wait_drained(&relay);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
    let summary = &simulated.summary;
    assert_eq!(summary.answers.get(&Outcome::Answered(503)), None, "{summary}");
    assert!(summary.accepted_events > 2500, "only the killed relay's connections may have failed: {summary}");
    assert_eq!(relay.metric("spool_damaged"), 0.0);
}

/// Each replica has a spool of its own, so what two of them had of one request may change places; nothing is lost or repeated.
#[test]
fn three_replicas_that_are_killed_in_turn_lose_and_repeat_nothing() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("spools", &kafka);
    let mut relays: Vec<Relay> =
        ["a", "b", "c"].map(|replica| with_spool(&deployment, replica).start()).into_iter().collect();
    relays.iter().for_each(Relay::wait_ready);
    relays.iter().for_each(wait_drained);
    let seconds = outage().as_secs();
    let per_second = if seconds > 60 { 200 } else { 100 };
    let events = u64::from(per_second) * (seconds + 30);
    let running = Simulation::start(Settings {
        rate: rate(per_second),
        connections: NonZeroU64::new(100).unwrap(),
        retries_on_failure: true,
        redeliver_percent: 10,
        ..load(relays.iter().map(Relay::target).collect(), events, 200)
    });
    wait_for("the load has begun", SOON, || (running.finished() > 150).then_some(()));
    kafka.kill(None);
    let each = outage() / 3;
    for relay in &mut relays {
        pause(each);
        relay.kill9();
        relay.restart();
    }
    kafka.restart(None);
    let simulated = running.finish();
    relays.iter().for_each(wait_drained);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    let judge = Judge::of(&simulated, &deployment.published());
    let cases: Vec<_> = judge.cases().filter(|(kind, _)| *kind != "out of order").collect();
    assert!(
        cases.is_empty(),
        "{} cases, of which the first: {}: {}",
        cases.len(),
        cases[0].0,
        cases[0].1.what
    );
    let summary = &simulated.summary;
    eprintln!("{summary}");
    assert_eq!(summary.answers.get(&Outcome::Answered(503)), None, "{summary}");
    assert!(summary.accepted_events + 50 > events, "{summary}");
}

#[test]
fn what_waited_longer_than_ids_are_remembered_is_a_dead_letter() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("spooled-too-long", &kafka);
    let plan = with_spool(&deployment, "relay")
        .set("sources.main.max_age", "\"5s\"")
        .set("sources.main.max_redelivery_age", "\"5s\"")
        .set("sources.main.max_clock_skew", "\"0s\"")
        .set("dedup.window", "\"1805s\"");
    let relay = plan.up();
    wait_drained(&relay);
    kafka.kill(None);
    let mut sender = Sender::new(vec![relay.target()]);
    let old = deployment.delivery(r#"{"id":"old","type":"request","request":{"id":1}}"#);
    let answer = sender.ask(&old);
    assert_eq!(answer, (200, r#"{"status":"spooled"}"#.to_owned()));
    pause(Duration::from_secs(7));
    let young = deployment.delivery(r#"{"id":"young","type":"request","request":{"id":1}}"#);
    assert_eq!(sender.send(&young), 200);
    kafka.restart(None);
    wait_drained(&relay);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    let letters = deployment.reader().all(&deployment.dead_letters());
    let reasons: Vec<_> = letters.iter().map(|letter| letter.header("reason")).collect();
    // The other one may have grown as old on a slow machine: then it is one, too.
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == "spooled_too_long"), "{reasons:?}");
    assert!(letters.iter().any(|letter| letter.value == old.body[..]), "{letters:?}");
    assert_eq!(letters.len() + deployment.published().len(), 2);
}

#[test]
fn a_second_relay_on_the_same_directory_does_not_start() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("one-spool", &kafka);
    let relay = with_spool(&deployment, "first").up();
    let second = with_spool(&deployment, "second")
        .set("spool.directory", &format!("{:?}", directory(&deployment, "first")))
        .write();
    let (code, _, log) = relay::run_to_end(&["serve", "--config", second.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another process has this spool open"), "{log}");
    assert!(relay.is_ready());
}

/// An event of request 1.
pub(crate) fn event(deployment: &Deployment, id: &str) -> Delivery {
    deployment.delivery(format!(r#"{{"id":"{id}","type":"request","request":{{"id":1}}}}"#))
}

pub(crate) fn ids(published: &[Record]) -> Vec<&str> {
    published.iter().map(|record| record.header("ce_id")).collect()
}

#[track_caller]
pub(crate) fn assert_spooled(sender: &mut Sender, delivery: &Delivery) {
    assert_eq!(sender.ask(delivery), (200, r#"{"status":"spooled"}"#.to_owned()));
}

/// What a sync that failed did with the bytes nobody knows: a disk that is well again says so of other bytes.
#[test]
fn after_a_sync_that_failed_nothing_is_entrusted_to_the_disk_and_all_that_was_answered_comes_out_once() {
    let (kafka, disk) = (Kafka::own(1), Disk::new());
    let deployment = Deployment::new("failed-sync", &kafka);
    let mut relay = with_spool(&deployment, "relay").on(&disk).up();
    wait_drained(&relay);
    kafka.kill(None);
    let mut sender = Sender::new(vec![relay.target()]);
    for id in ["a", "b"] {
        assert_spooled(&mut sender, &event(&deployment, id));
    }
    disk.begin(Fault::Sync);
    assert_eq!(sender.send(&event(&deployment, "c")), 503);
    disk.heal();
    assert_eq!(sender.send(&event(&deployment, "d")), 503, "the disk is well again");
    assert_eq!(relay.metric("spool_failed"), 1.0);
    wait_for("a delivery would not be kept", SOON, || (!relay.is_ready()).then_some(()));
    assert!(relay.log().iter().any(|line| line["message"] == "the spool is out of order"));

    kafka.restart(None);
    wait_for("deliveries go to Kafka", AFTER_TIMEOUTS, || relay.is_ready().then_some(()));
    let accepted = (200, r#"{"status":"accepted"}"#.to_owned());
    wait_for("one does", AFTER_TIMEOUTS, || (sender.ask(&event(&deployment, "e")) == accepted).then_some(()));
    wait_for("what could be read went there, too", SOON, || {
        (relay.metric("spool_in_use") == 0.0).then_some(())
    });
    assert_eq!(relay.metric("spool_failed"), 1.0);

    relay.stop();
    relay.restart();
    relay.wait_ready();
    wait_drained(&relay);
    assert_eq!(relay.metric("spool_failed"), 0.0);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    let published = deployment.published();
    for id in ["a", "b", "e"] {
        let times = ids(&published).iter().filter(|found| **found == id).count();
        assert_eq!(times, 1, "{id} in {:?}", ids(&published));
    }
}

#[test]
fn with_a_full_disk_deliveries_are_refused_until_there_is_room_and_the_drain_goes_on() {
    let (kafka, disk) = (Kafka::own(1), Disk::new());
    let deployment = Deployment::new("full-disk", &kafka);
    let relay = with_spool(&deployment, "relay").on(&disk).up();
    wait_drained(&relay);
    kafka.kill(None);
    let mut sender = Sender::new(vec![relay.target()]);
    assert_spooled(&mut sender, &event(&deployment, "a"));
    disk.begin(Fault::Full);
    assert_eq!(sender.send(&event(&deployment, "b")), 503);
    wait_for("a delivery would not be kept", SOON, || (!relay.is_ready()).then_some(()));
    disk.heal();
    // By itself: who is not ready is sent nothing that could find out.
    wait_for("there is room again", SOON, || relay.is_ready().then_some(()));
    assert_spooled(&mut sender, &event(&deployment, "c"));

    // What is in the inbox cannot be removed from a full disk. That is no fault of the disk's, and keeps nobody waiting.
    disk.begin(Fault::Full);
    kafka.restart(None);
    let accepted = (200, r#"{"status":"accepted"}"#.to_owned());
    wait_for("deliveries go to Kafka", AFTER_TIMEOUTS, || {
        (sender.ask(&event(&deployment, "d")) == accepted).then_some(())
    });
    assert_eq!((relay.metric("spool_failed"), relay.metric("spool_records")), (0.0, 2.0));
    disk.heal();
    wait_drained(&relay);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    assert_eq!(ids(&deployment.published()), ["a", "c", "d"]);
}

#[test]
fn a_disk_that_cannot_be_written_to_is_no_reason_not_to_serve() {
    let (kafka, disk) = (Kafka::shared(), Disk::new());
    let deployment = Deployment::new("read-only-disk", &kafka);
    disk.begin(Fault::ReadOnly);
    let relay = with_spool(&deployment, "relay").on(&disk).up();
    let mut sender = Sender::new(vec![relay.target()]);
    assert_eq!(sender.ask(&event(&deployment, "a")), (200, r#"{"status":"accepted"}"#.to_owned()));
    assert_eq!((relay.metric("spool_failed"), relay.metric("spool_in_use")), (1.0, 0.0));
    let told = "the spool cannot be used: without Kafka deliveries are answered 503";
    assert!(relay.log().iter().any(|line| line["level"] == "ERROR" && line["message"] == told));
    deployment.wait_until_forwarded(SOON);
    assert_eq!(ids(&deployment.published()), ["a"]);
}
