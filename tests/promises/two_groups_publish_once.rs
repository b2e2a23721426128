//! Two relays in different consumer groups on one inbox and ledger publish each event once: one of them forwards, the other
//! one waits and names it. A group that was renamed takes over what its old name had.

use std::time::Duration;

use crate::support::deployment::PARTITIONS;
use crate::support::relay::{Plan, run_to_end};
use crate::support::simulator::{Settings, Simulated, load, rate};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, Relay, SOON, Simulation, wait_for};

const EVENTS: u64 = 100;
/// So long after the end of one group the other one has taken over.
const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_second_group_waits_and_names_the_first_until_that_is_gone() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("two-groups", &kafka);
    let mut first = deployment.replica("first").up();
    let mut sent = forwarded(&deployment, &first);

    let second = other_group(&deployment, "second").start();
    second.wait_ready();
    wait_until_held(&second, &deployment.group());
    assert_eq!(second.metric(r#"forward_partitions_held{reason="other_group"}"#), f64::from(PARTITIONS));
    // It counts what the first has not forwarded either, not all that is in the inbox.
    assert_eq!(second.metric(r#"forward_lag_records{partition="0"}"#), 0.0);
    for relay in [&first, &second] {
        sent = sent.and(forwarded(&deployment, relay));
    }
    assert_eq!(second.metric(r#"forward_records_total{outcome="published"}"#), 0.0);

    let config = second.config().display().to_string();
    let (status, table, _) = run_to_end(&["check", "--config", &config]);
    assert_eq!(status, Some(1), "{table}");
    let line = table.lines().find(|line| line.contains("consumer group")).unwrap();
    assert!(line.starts_with("WRONG") && line.contains(&deployment.group()), "{line}");

    first.stop();
    wait_for("the second group has taken over", WITHIN, || is_active(&second).then_some(()));
    sent = sent.and(forwarded(&deployment, &second));
    Judge::of(&sent, &deployment.published()).assert_flawless();
    let (_, table, _) = run_to_end(&["check", "--config", &config]);
    let line = table.lines().find(|line| line.contains("consumer group")).unwrap();
    assert!(line.starts_with("ok"), "{line}");
}

/// Who may not ask whether the other group has members goes on, and finds its records before each commit.
#[test]
fn a_group_that_may_not_be_asked_for_is_found_by_what_it_writes() {
    let (kafka, address, authority) = Kafka::secure();
    let deployment = Deployment::new("unasked", &kafka);
    kafka.acls(&deployment.acls("all"));
    let password = deployment.secret_file().with_file_name("password");
    std::fs::write(&password, "relay-secret").unwrap();
    let first = other_group(&deployment, "first").up();
    let sent = forwarded(&deployment, &first);
    // The user `relay` has rights to its own group alone.
    let second = deployment.replica("second").logged_in(&address, &authority, &password).start();
    second.wait_ready();
    let contested = || {
        let mut failures = second.log().into_iter().filter(|line| line["message"] == "transaction failed");
        failures.any(|line| line["failure"].as_str().unwrap().contains("is contested")).then_some(())
    };
    let running =
        Simulation::start(Settings { rate: rate(100), ..load(vec![first.target()], 100 * EVENTS, 30) });
    wait_for("the second found what the first wrote", AFTER_TIMEOUTS, contested);
    let sent = sent.and(running.stop());
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&sent, &deployment.published()).assert_flawless();
}

/// Both begin at once, with nothing in the ledger that says whose the partitions are.
#[test]
fn two_groups_that_begin_together_share_the_partitions_or_not_but_never_an_event() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("together", &kafka);
    let mut intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    let waiting = Simulation::run(load(vec![intake.target()], EVENTS, 30));
    let relays = [deployment.replica("one"), other_group(&deployment, "two")].map(Plan::start);
    relays.iter().for_each(Relay::wait_ready);
    let running = Simulation::start(load(vec![intake.target()], 5 * EVENTS, 30));
    let sent = waiting.and(running.finish());
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&sent, &deployment.published()).assert_flawless();
    let published = |relay: &Relay| relay.metric(r#"forward_records_total{outcome="published"}"#);
    assert_eq!(relays.iter().map(published).sum::<f64>(), 6.0 * EVENTS as f64);
    intake.stop();
}

/// A broker that is away cannot be asked for its groups, and need not be.
#[test]
fn a_group_takes_over_while_a_broker_is_away() {
    let kafka = Kafka::own(3);
    let deployment = Deployment::new("away", &kafka);
    let mut first = deployment.replica("first").up();
    let second = other_group(&deployment, "second").start();
    wait_until_held(&second, &deployment.group());
    let sent = forwarded(&deployment, &first);
    kafka.kill(Some(3));
    wait_for("the others know that it is away", AFTER_TIMEOUTS, || (kafka.brokers() == 2).then_some(()));
    first.stop();
    wait_for("the second group has taken over", AFTER_TIMEOUTS, || is_active(&second).then_some(()));
    let sent = sent.and(forwarded(&deployment, &second));
    Judge::of(&sent, &deployment.published()).assert_flawless();
}

/// A process that is frozen for longer than its session does not know that another group has taken over.
#[test]
fn a_zombie_of_another_group_repeats_nothing() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("zombie-group", &kafka);
    let mut intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    let zombie = deployment.replica("zombie").up();
    let heir = other_group(&deployment, "heir").start();
    let running = Simulation::start(load(vec![intake.target()], 10 * EVENTS, 30));
    wait_until_held(&heir, &deployment.group());
    zombie.signal("STOP");
    wait_for("the heir has taken over", AFTER_TIMEOUTS, || is_active(&heir).then_some(()));
    let sent = running.finish();
    deployment.wait_until_forwarded(SOON);
    let later = Simulation::start(load(vec![intake.target()], 10 * EVENTS, 30));
    zombie.signal("CONT");
    let sent = sent.and(later.finish());
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&sent, &deployment.published()).assert_flawless();
    intake.stop();
}

/// A replica in a group of its own.
fn other_group(deployment: &Deployment, name: &str) -> Plan {
    deployment.replica(name).set("forward.group", &format!("{:?}", format!("{}-{name}", deployment.group())))
}

fn wait_until_held(relay: &Relay, by: &str) {
    let names = |partition: &serde_json::Value| {
        partition["reason"] == "other_group"
            && partition["detail"].as_str().unwrap().contains(&format!("{by:?}"))
    };
    wait_for("all partitions are held and name the other group", AFTER_TIMEOUTS, || {
        let status = relay.status()?;
        let owned = status["forward"]["owned"].as_array()?;
        (owned.len() == PARTITIONS as usize && owned.iter().all(names)).then_some(())
    });
}

fn is_active(relay: &Relay) -> bool {
    let status = relay.status().unwrap();
    let owned = status["forward"]["owned"].as_array().unwrap();
    owned.len() == PARTITIONS as usize && owned.iter().all(|partition| partition["state"] == "active")
}

#[track_caller]
fn forwarded(deployment: &Deployment, relay: &Relay) -> Simulated {
    let simulated = Simulation::run(load(vec![relay.target()], EVENTS, 30));
    assert_eq!(simulated.summary.accepted_events, EVENTS, "{}", simulated.summary);
    deployment.wait_until_forwarded(SOON);
    simulated
}
