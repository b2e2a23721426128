//! The inbox's time is its brokers' clocks. One that jumps, or two that differ, make nobody forget what was there.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::simulator::{Settings, load};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, Simulation, wait_for};

const EVENTS: u64 = 200;
const HOUR: u64 = 3600;
const HOUR_MS: i64 = 3_600_000;

/// Longer than the window of 25 h and its margin of 1 h.
#[test]
fn a_broker_s_clock_that_jumps_beyond_the_window_repeats_nothing() {
    let kafka = Kafka::own(1);
    all_is_remembered("jump", &kafka, || kafka.restart_ahead(1, 27 * HOUR));
}

#[test]
fn a_leader_whose_clock_is_two_hours_ahead_and_its_successors_repeat_nothing() {
    let kafka = Kafka::own(3);
    kafka.restart_ahead(2, 2 * HOUR);
    all_is_remembered("ahead", &kafka, || {
        kafka.wait_until_whole();
        kafka.kill(Some(2));
    });
}

/// Events are sent; the clocks change; others are sent, and then the first ones again.
fn all_is_remembered(name: &str, kafka: &Kafka, change_clocks: impl Fn()) {
    let deployment = Deployment::new(name, kafka);
    let relay = deployment.relay().up();
    let send = |seed| {
        wait_for("all are kept", AFTER_TIMEOUTS, || {
            let simulated = Simulation::run(Settings { seed, ..load(vec![relay.target()], EVENTS, 30) });
            (simulated.summary.accepted_events == EVENTS).then_some(simulated)
        })
    };
    let first = send(1);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    change_clocks();
    let others = send(2);
    assert_eq!(first.sent, send(1).sent, "a seed gives the same events");
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);

    let mut times: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for record in deployment.reader().all(&deployment.inbox()) {
        times.entry(record.partition).or_default().insert(record.appended_ms);
    }
    let jumps = times.values().filter(|times| times.last().unwrap() - times.first().unwrap() > HOUR_MS);
    assert!(jumps.count() > 0, "no clock was wrong");
    assert_eq!(relay.metric(r#"window_evictions_total{reason="age"}"#), 0.0);
    Judge::of(&first.and(others), &deployment.published()).assert_flawless();
}
