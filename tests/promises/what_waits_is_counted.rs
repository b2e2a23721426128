//! Records that wait in the inbox are counted, also where nobody forwards them.

use crate::support::deployment::PARTITIONS;
use crate::support::relay::Plan;
use crate::support::simulator::load;
use crate::support::{Deployment, Kafka, Relay, SOON, Simulation, wait_for};

const EVENTS: u64 = 60;

/// A transaction on the ledger is waited for a minute before the partition is held.
#[test]
fn what_waits_while_a_partition_is_taken_over_is_counted() {
    let kafka = Kafka::shared();
    let deployment = waiting("takeover", &kafka);
    let _open = kafka.open_transaction(&deployment.ledger());
    let relay = deployment.replica("forward").set("role", r#""forward""#).start();
    wait_until_counted(&deployment, &relay, 0..1);
    let status = relay.status().unwrap();
    let partition = &status["forward"]["owned"].as_array().unwrap()[0];
    assert_eq!((&partition["partition"], &partition["state"]), (&0.into(), &"taking_over".into()));
}

/// Brokers refuse a session that is shorter than theirs may be: the relay never gets a partition.
#[test]
fn what_waits_where_no_member_of_the_group_has_a_partition_is_counted() {
    let kafka = Kafka::shared();
    let deployment = waiting("nobody", &kafka);
    let refused = |plan: Plan| plan.set(r#"kafka.properties."session.timeout.ms""#, "1000");
    let relay = refused(deployment.replica("forward")).set("role", r#""forward""#).start();
    wait_until_counted(&deployment, &relay, 0..PARTITIONS);
    assert_eq!(relay.status().unwrap()["forward"]["owned"].as_array().unwrap().len(), 0);
}

/// Events that were kept, and a ledger in which nothing stands.
fn waiting(name: &str, kafka: &Kafka) -> Deployment {
    let deployment = Deployment::new(name, kafka);
    let mut relay = deployment.relay().up();
    relay.stop();
    let mut intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    let simulated = Simulation::run(load(vec![intake.target()], EVENTS, 30));
    assert_eq!(simulated.summary.accepted_events, EVENTS, "{}", simulated.summary);
    intake.stop();
    deployment
}

fn wait_until_counted(deployment: &Deployment, relay: &Relay, partitions: std::ops::Range<i32>) {
    let ends = deployment.reader().ends(&deployment.inbox());
    wait_for("what waits is counted", SOON, || {
        let status = relay.status()?;
        let owned = status["forward"]["owned"].as_array()?;
        let lag = |number: i32| {
            let owned = owned.iter().find(|partition| partition["partition"] == number);
            owned.map_or(&status["forward"]["unowned"][number.to_string()], |partition| &partition["lag"])
        };
        partitions.clone().all(|number| *lag(number) == ends[&number]).then_some(())
    });
    for number in partitions {
        let counted = relay.metric(&format!("forward_lag_records{{partition=\"{number}\"}}"));
        assert_eq!(counted, ends[&number] as f64, "partition {number}");
    }
}
