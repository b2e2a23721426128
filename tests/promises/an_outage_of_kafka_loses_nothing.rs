//! Kafka may go away in the middle of a load: what was answered 200 is out once, before or after.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::support::deployment::PATH;
use crate::support::simulator::{Settings, load, rate};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, SOON, Simulation, http, pause, wait_for};

/// Longer than a group's session (6 s) and than an answer is waited for (8 s).
const OUTAGE: Duration = Duration::from_secs(10);

#[test]
fn ten_seconds_without_brokers_that_were_killed() {
    survives("killed", |kafka| {
        kafka.kill(None);
        pause(OUTAGE);
        kafka.restart(None);
    });
}

#[test]
fn ten_seconds_without_brokers_that_were_paused() {
    survives("paused", |kafka| {
        kafka.pause(None);
        pause(OUTAGE);
        kafka.resume(None);
    });
}

/// `ClearFeed`'s patience is not documented: it may be shorter than `intake.answer_timeout`. What it gave up on was ours to
/// keep.
#[test]
fn a_sender_that_loses_patience_is_counted_as_our_failure() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("patience", &kafka);
    let relay = deployment.relay().up();
    kafka.pause(None);
    let delivery = deployment.delivery(r#"{"id":"a","type":"request","request":{"id":1}}"#).redelivered(3);
    let connection = http::begin(relay.intake(), &http::post(PATH, &delivery)).unwrap();
    let authenticated = r#"redeliveries_total{retry="3",source="main"}"#;
    wait_for("it is authenticated", SOON, || (relay.metric(authenticated) == 1.0).then_some(()));
    drop(connection);
    let failed = r#"last_attempt_failures_total{source="main"}"#;
    wait_for("it is counted", SOON, || (relay.metric(failed) == 1.0).then_some(()));
    assert_eq!(relay.metric(r#"deliveries_total{outcome="unavailable",source="main"}"#), 1.0);
    kafka.resume(None);
}

fn survives(name: &str, outage: impl Fn(&Kafka)) {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new(name, &kafka);
    let relay = deployment.relay().up();
    let running = Simulation::start(Settings {
        rate: rate(50),
        connections: NonZeroU64::new(50).unwrap(),
        retries_on_failure: true,
        redeliver_percent: 10,
        ..load(vec![relay.target()], 1000, 50)
    });
    wait_for("the load has begun", SOON, || (running.finished() > 150).then_some(()));
    outage(&kafka);
    let simulated = running.finish();
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
    let summary = &simulated.summary;
    assert!(summary.retried > 0, "the outage was not felt: {summary}");
    assert!(summary.accepted_events > 500, "deliveries go on after the outage: {summary}");
    relay.wait_ready();
}
