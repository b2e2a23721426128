//! With `reconcile_every`, what changed while the webhook was dead is in the snapshot topic after one look, each once; and what
//! was created without an event is counted, once, whoever owns partition 0.

use std::collections::BTreeSet;
use std::time::Duration;

use clearfeed_relay::simulator::rest::Health;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::relay::Plan;
use crate::support::rest::Api;
use crate::support::simulator::load;
use crate::support::{AFTER_TIMEOUTS, Deployment, Kafka, Relay, SOON, Simulation, wait_for};

const GRACE: Duration = Duration::from_secs(2);

fn asks(api: &Api, plan: Plan, topic: &str) -> Plan {
    api.of(plan, topic)
        .set("sources.main.api.reconcile_every", r#""1s""#)
        .set("sources.main.api.grace", &format!("\"{}s\"", GRACE.as_secs()))
}

fn reconcile(relay: &Relay) -> Option<Value> {
    Some(relay.status()?["forward"]["reconcile"][0].clone()).filter(Value::is_object)
}

/// Waits until all that had changed by now was read.
#[track_caller]
fn wait_read(relays: &[&Relay]) {
    let since = Timestamp::now();
    wait_for("the API was read", AFTER_TIMEOUTS, || {
        let mut last = relays.iter().filter_map(|relay| {
            let last = reconcile(relay)?["last_success"].as_str()?.parse::<Timestamp>().ok();
            last.filter(|last| *last > since + SignedDuration::from_secs(2))
        });
        last.next().map(drop)
    });
}

#[test]
fn a_thousand_requests_of_a_dead_webhook_are_told_once_though_the_token_was_regenerated_half_way() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("reconcile", &kafka);
    let health = Health { rate: 4.try_into().ok(), fault_percent: 10 };
    let api = Api::empty(7, 1000, health, deployment.secret_file().parent().unwrap());
    let topic = deployment.topic("snapshots");
    let mut relay = asks(&api, deployment.relay(), &topic).up();
    wait_read(&[&relay]);
    assert_eq!(reconcile(&relay).unwrap()["state"], "active");

    // Nothing of this is delivered.
    (0..1000).for_each(|number| api.requests.occurred(number, Timestamp::now()));
    let reader = deployment.reader();
    reader.until("some are there", &topic, SOON, |records| !records.is_empty());
    api.regenerate("another-token-of-the-tests");
    let refused = wait_for("the token is refused", SOON, || {
        reconcile(&relay).filter(|status| status["state"] == "failing")
    });
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("401") && detail.contains(&api.token_file().display().to_string()), "{detail}");
    assert!(relay.metric(r#"clearfeed_api_requests_total{outcome="token_refused",source="main"}"#) > 0.0);
    assert!(relay.is_ready(), "deliveries and events go on");
    api.give("another-token-of-the-tests");

    let records = reader.until("all are there", &topic, AFTER_TIMEOUTS, |records| records.len() >= 1000);
    wait_for("all were missed", AFTER_TIMEOUTS, || {
        let missed = relay.metric(r#"reconcile_missed_events_total{kind="created",source="main"}"#);
        (missed >= 1000.0).then_some(())
    });
    wait_read(&[&relay]);
    let missed = relay.metric(r#"reconcile_missed_events_total{kind="created",source="main"}"#);
    assert_eq!(missed, 1000.0, "each once");
    assert_eq!(reconcile(&relay).unwrap()["missed"].as_array().unwrap().len(), 20);
    let keys = |records: &[crate::support::Record]| {
        records.iter().map(|record| record.key().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!((keys(&records).len(), reader.all(&topic).len()), (1000, 1000), "each once");

    // Who goes on knows it from the ledger.
    relay.kill9();
    relay.restart();
    relay.wait_active(3);
    wait_read(&[&relay]);
    assert_eq!(reader.all(&topic).len(), 1000, "nothing comes again");
    assert_eq!(relay.metric(r#"reconcile_missed_events_total{kind="created",source="main"}"#), 0.0);
    api.requests.occurred(7, Timestamp::now());
    reader.until("what changes is told", &topic, SOON, |records| records.len() == 1001);
    let log = relay.log();
    let said = |message: &str| log.iter().any(|line| line["message"].as_str().unwrap().starts_with(message));
    assert!(!said("no watermark in the ledger"), "it goes on where it was");
    assert!(!format!("{log:?}").contains("token-of-the-tests"));
}

#[test]
fn what_came_is_not_missed_and_the_owner_of_partition_0_alone_asks() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("reconcile-two", &kafka);
    let settings = load(Vec::new(), 60, 20);
    let api = Api::empty(settings.seed, 21, Health::default(), deployment.secret_file().parent().unwrap());
    let topic = deployment.topic("snapshots");
    let one = asks(&api, deployment.replica("one"), &topic).up();
    let two = asks(&api, deployment.replica("two"), &topic).start();
    wait_for("both own partitions", AFTER_TIMEOUTS, || {
        let owned = |relay: &Relay| {
            let status = relay.status()?;
            Some(status["forward"]["owned"].as_array()?.iter().filter(|it| it["state"] == "active").count())
        };
        (owned(&one)? + owned(&two)? == 3 && owned(&two)? > 0).then_some(())
    });
    wait_read(&[&one, &two]);
    for number in 0..60 {
        api.requests.occurred(number % 20, Timestamp::now());
    }
    let sent =
        Simulation::run(crate::support::simulator::Settings { targets: vec![one.target()], ..settings });
    assert_eq!(sent.summary.accepted_events, 60);
    // No event of this one is sent.
    api.requests.occurred(20, Timestamp::now());
    let missed =
        |relay: &Relay| relay.metric(r#"reconcile_missed_events_total{kind="created",source="main"}"#);
    wait_for("the silent one is missed", AFTER_TIMEOUTS, || {
        (missed(&one) + missed(&two) >= 1.0).then_some(())
    });
    wait_read(&[&one, &two]);
    assert_eq!(missed(&one) + missed(&two), 1.0);
    let states: BTreeSet<_> =
        [&one, &two].map(|relay| reconcile(relay).unwrap()["state"].to_string()).into_iter().collect();
    assert_eq!(states.len(), 2, "one asks: {states:?}");
    let records = || deployment.reader().all(&topic);
    let requests: BTreeSet<_> = records().iter().map(|record| record.key().to_owned()).collect();
    assert_eq!(requests.len(), 21);

    // The one that asks is paused for longer than its session lasts, and then goes on as if it were still to ask.
    let is_active = |relay: &&Relay| reconcile(relay).unwrap()["state"] == "active";
    let (paused, other) = if is_active(&&one) { (&one, &two) } else { (&two, &one) };
    let before = records().len();
    paused.signal("STOP");
    other.wait_active(3);
    api.requests.occurred(3, Timestamp::now());
    wait_read(&[other]);
    paused.signal("CONT");
    wait_for("both own partitions again", AFTER_TIMEOUTS, || {
        let owned = |relay: &Relay| relay.status()?["forward"]["owned"].as_array().map(Vec::len);
        (owned(&one)? > 0 && owned(&two)? > 0 && owned(&one)? + owned(&two)? == 3).then_some(())
    });
    wait_read(&[&one, &two]);
    assert_eq!(records().len(), before + 1, "what one wrote the other does not write again");
    assert_eq!(missed(&one) + missed(&two), 1.0);
}

#[test]
fn a_snapshot_topic_that_refuses_holds_up_no_event() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("reconcile-refused", &kafka);
    let api = Api::empty(7, 5, Health::default(), deployment.secret_file().parent().unwrap());
    let topic = deployment.topic("snapshots");
    let relay = asks(&api, deployment.relay(), &topic).up();
    wait_read(&[&relay]);
    kafka.forbid_writing(&topic);
    api.requests.occurred(0, Timestamp::now());
    wait_for("it is refused", AFTER_TIMEOUTS, || {
        let is_told = |line: &Value| line["message"] == "snapshots and watermarks were not written";
        relay.log().iter().any(is_told).then_some(())
    });
    let sent = Simulation::run(load(vec![relay.target()], 60, 20));
    assert_eq!(sent.summary.accepted_events, 60);
    deployment.wait_until_forwarded(SOON);
    relay.wait_active(3);
    assert_eq!(deployment.published().len(), 60);
    let held = relay.log().iter().filter(|line| line["message"] == "partition is held").count();
    assert_eq!(held, 0, "not even for a moment");
}
