//! Promise: what was answered 200 is out exactly once, and in order, also when replicas are killed without warning.

use std::time::Duration;

use clearfeed_relay::simulator::random_seed;

use crate::support::simulator::{load, rate};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, Relay, Simulation, pause, wait_for};

const KILLS: u32 = 20;
/// At least so many come while the killing goes on.
const EVENTS: u64 = 20_000;
/// So that the killing lasts about as long as these events.
const EVENTS_PER_SECOND: u32 = 450;
/// A kill comes at most this long after the last killed replica was started again: before it is ready as well as in
/// the middle of its work.
const LONGEST_PAUSE_MS: u64 = 3500;

#[test]
fn twenty_kills_lose_repeat_and_reorder_nothing() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("kills", &kafka);
    let mut replicas = ["a", "b"].map(|name| start(&deployment, name));
    for replica in &replicas {
        replica.wait_ready();
    }
    let targets = replicas.iter().map(Relay::target).collect();
    let mut settings = load(targets, 10 * EVENTS, 200);
    settings.redeliver_percent = 30;
    settings.retries_on_failure = true;
    settings.rate = rate(EVENTS_PER_SECOND);
    let simulation = Simulation::start(settings);

    let mut random = random_seed();
    eprintln!("kills drawn from seed {random}");
    for _ in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pause(Duration::from_millis((random >> 33) % LONGEST_PAUSE_MS));
        let replica = &mut replicas[usize::try_from(random >> 63).unwrap()];
        replica.kill9();
        replica.restart();
    }
    wait_for("the load is large enough", AFTER_TIMEOUTS, || (simulation.finished() >= EVENTS).then_some(()));
    let simulated = simulation.stop();
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    eprintln!("{}", simulated.summary);
    assert!(simulated.summary.accepted_events > EVENTS * 9 / 10, "too little was accepted to prove much");
    Judge::of(&simulated, &deployment.published()).assert_flawless();
}

/// On a port that it gets again after each kill.
fn start(deployment: &Deployment, name: &str) -> Relay {
    deployment.replica(name).at_one_port().start()
}
