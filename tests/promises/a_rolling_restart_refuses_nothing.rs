//! Replicas may be replaced one after the other under load: with a load balancer that learns three seconds late that one of
//! them is not ready, no delivery is refused or fails.

use std::collections::BTreeMap;
use std::time::Duration;

use clearfeed_relay::simulator::Outcome;

use crate::support::balancer::Balancer;
use crate::support::relay::target;
use crate::support::simulator::{Settings, load, rate};
use crate::support::{Deployment, Judge, Kafka, SOON, Simulation, wait_for};

#[test]
fn two_replicas_are_replaced_under_load() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("rolling", &kafka);
    // Longer than the balancer takes, also where it has to wait for a processor.
    let mut relays =
        ["a", "b"].map(|name| deployment.replica(name).set("intake.lame_duck", r#""10s""#).start());
    let balancer = Balancer::new(Duration::from_secs(3));
    for relay in &relays {
        relay.wait_ready();
        balancer.add(relay);
    }
    let running = Simulation::start(Settings {
        rate: rate(100),
        redeliver_percent: 20,
        ..load(vec![target(balancer.address())], 20_000, 100)
    });
    wait_for("the load has begun", SOON, || (running.finished() > 100).then_some(()));
    for relay in &mut relays {
        relay.stop();
        relay.restart();
        relay.wait_ready();
        balancer.add(relay);
        let so_far = running.finished();
        wait_for("the load goes on", SOON, || (running.finished() > so_far + 100).then_some(()));
    }
    let simulated = running.stop();
    let summary = &simulated.summary;
    assert_eq!(summary.answers, BTreeMap::from([(Outcome::Answered(200), summary.sent)]), "{summary}");
    deployment.wait_until_forwarded(SOON);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
}
