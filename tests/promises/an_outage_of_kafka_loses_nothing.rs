//! Kafka may go away in the middle of a load: what was answered 200 is out once, before or after.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::support::simulator::{Settings, load, rate};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, SOON, Simulation, pause, wait_for};

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
