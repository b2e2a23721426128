//! Whether a transaction took place whose commit got no answer is read in the ledger, never assumed.

use crate::support::proxy::{END_TXN, Proxy, Trouble};
use crate::support::simulator::{Settings, load, rate};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, SOON, Simulation, wait_for};

#[test]
fn events_whose_commit_lost_its_answer_are_out_once() {
    let (proxy, kafka) = Proxy::with_kafka();
    let deployment = Deployment::new("lost-answer", &kafka);
    let relay = deployment.relay().behind([&proxy]).up();
    let running = Simulation::start(Settings {
        rate: rate(50),
        redeliver_percent: 20,
        ..load(vec![relay.target()], 1000, 50)
    });
    wait_for("events are forwarded", SOON, || {
        (relay.metric(r#"forward_records_total{outcome="published"}"#) > 100.0).then_some(())
    });
    proxy.begin(Trouble::LostAnswers(Some(END_TXN)));
    wait_for("a commit is given up", AFTER_TIMEOUTS, || {
        let ended = r#"forward_transaction_duration_seconds_count{outcome="unknown"}"#;
        (relay.metric(ended) > 0.0).then_some(())
    });
    assert!(proxy.lost() > 0);
    proxy.heal();

    let simulated = running.finish();
    assert_eq!(simulated.summary.accepted_events, 1000, "{}", simulated.summary);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    let published = deployment.published();
    Judge::of(&simulated, &published).assert_flawless();
    // The relay counts what it knows to be committed: the transactions in question did take place.
    let counted = relay.metric(r#"forward_records_total{outcome="published"}"#);
    assert!(counted < published.len() as f64, "{counted} of {}", published.len());
}
