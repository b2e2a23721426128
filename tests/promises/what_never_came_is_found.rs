//! With `reconcile_every`, what changed while the webhook was dead is in the snapshot topic after one look, each once; and what
//! was created without an event is counted, once, whoever owns partition 0.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use clearfeed_relay::simulator::rest::Health;
use clearfeed_relay::simulator::{Events, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::check_finds_what_is_wrong::{assert_wrong, check};
use crate::support::relay::Plan;
use crate::support::rest::Api;
use crate::support::simulator::{Settings, load, rate};
use crate::support::{
    AFTER_TIMEOUTS, Deployment, Judge, Kafka, Relay, SOON, Simulation, asyncapi, http, outage, pause,
    wait_for,
};

const GRACE: Duration = Duration::from_secs(2);
/// Where more requests change at once, some of their snapshots come twice.
const KEPT_BY_A_WATERMARK: u64 = 4000;

fn asks(api: &Api, plan: Plan, topic: &str) -> Plan {
    api.of(plan, topic)
        .set("sources.main.api.reconcile_every", r#""1s""#)
        .set("sources.main.api.grace", &format!("\"{}s\"", GRACE.as_secs()))
}

fn missed(relay: &Relay) -> f64 {
    relay.metric(r#"reconcile_missed_events_total{kind="created",source="main"}"#)
}

fn reconcile(relay: &Relay) -> Option<Value> {
    Some(relay.status()?["forward"]["reconcile"][0].clone()).filter(Value::is_object)
}

/// Waits until all that had changed by now was read.
#[track_caller]
fn wait_read(relays: &[&Relay]) {
    wait_asked(relays, Timestamp::now() + SignedDuration::from_secs(2));
}

/// Waits until the API was read after this; where an outage was long, so is one look.
#[track_caller]
fn wait_asked(relays: &[&Relay], after: Timestamp) {
    wait_for("the API was read", AFTER_TIMEOUTS + outage(), || {
        let mut last = relays.iter().filter_map(|relay| {
            let last = reconcile(relay)?["last_success"].as_str()?.parse::<Timestamp>().ok();
            last.filter(|last| *last > after)
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
    // What is in the topic the ledger knows of, and nothing else: they are one transaction.
    relay.kill9();
    relay.restart();
    api.regenerate("another-token-of-the-tests");
    let refused = wait_for("the token is refused", SOON, || {
        reconcile(&relay).filter(|status| status["state"] == "failing")
    });
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("401") && detail.contains(&api.token_file().display().to_string()), "{detail}");
    assert!(relay.metric(r#"clearfeed_api_requests_total{outcome="token_refused",source="main"}"#) > 0.0);
    for path in ["/", "/status", "/metrics"] {
        let told = http::get(relay.admin(), path).unwrap();
        assert!(told.status == 200 && !told.body.contains("token-of-the-tests"), "{path}: {}", told.body);
    }
    assert!(relay.is_ready(), "deliveries and events go on");
    api.give("another-token-of-the-tests");

    let records = reader.until("all are there", &topic, AFTER_TIMEOUTS, |records| records.len() >= 1000);
    wait_for("all were missed", AFTER_TIMEOUTS, || (missed(&relay) >= 1000.0).then_some(()));
    wait_read(&[&relay]);
    assert_eq!(missed(&relay), 1000.0, "each once");
    assert_eq!(reconcile(&relay).unwrap()["missed"].as_array().unwrap().len(), 20);
    let keys = |records: &[crate::support::Record]| {
        records.iter().map(|record| record.key().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!((keys(&records).len(), reader.all(&topic).len()), (1000, 1000), "each once");
    asyncapi::assert_messages("requestSnapshots", &records, &[("requestSnapshot", 1000)]);
    asyncapi::assert_headers("snapshotHeaders", records.iter());
    for outcome in ["rate_limited", "unavailable"] {
        let series = format!(r#"clearfeed_api_requests_total{{outcome="{outcome}",source="main"}}"#);
        assert!(relay.metric(&series) > 0.0, "{outcome}");
    }

    // Who goes on knows it from the ledger.
    relay.kill9();
    relay.restart();
    relay.wait_active(3);
    wait_read(&[&relay]);
    assert_eq!(reader.all(&topic).len(), 1000, "nothing comes again");
    assert_eq!(missed(&relay), 0.0);
    api.requests.occurred(7, Timestamp::now());
    reader.until("what changes is told", &topic, SOON, |records| records.len() == 1001);
    let log = relay.log();
    let said = |message: &str| log.iter().any(|line| line["message"].as_str().unwrap().starts_with(message));
    assert!(!said("no watermark in the ledger"), "it goes on where it was");
    assert!(!format!("{log:?}").contains("token-of-the-tests"));
    let ledger = reader.all(&deployment.ledger());
    let mut marks = ledger.iter().filter_map(|record| record.headers.get("reconcile")).peekable();
    assert!(marks.peek().is_some());
    assert!(marks.all(|mark| !String::from_utf8_lossy(mark).contains("token-of-the-tests")));
    assert_eq!(api.most_at_once(), 1);
}

#[test]
fn what_came_is_not_missed_and_the_owner_of_partition_0_alone_asks() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("reconcile-two", &kafka);
    let settings = load(Vec::new(), 60, 20);
    let silent = Events::new(settings.seed, NonZeroU64::new(21).unwrap()).event(20).request;
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
    let sent = Simulation::run(Settings { targets: vec![one.target()], ..settings });
    assert_eq!(sent.summary.accepted_events, 60);
    // No event of this one is sent.
    api.requests.occurred(20, Timestamp::now());
    wait_for("the silent one is missed", AFTER_TIMEOUTS, || {
        (missed(&one) + missed(&two) >= 1.0).then_some(())
    });
    wait_read(&[&one, &two]);
    assert_eq!(missed(&one) + missed(&two), 1.0);
    let listed = [&one, &two].map(|relay| reconcile(relay).unwrap()["missed"].as_array().unwrap().clone());
    let told: Value = serde_json::from_str(&api.requests.json(silent).unwrap()).unwrap();
    let created = told["created_at"].as_str().unwrap().parse::<Timestamp>().unwrap().to_string();
    assert_eq!(listed.concat(), [json!({ "request": silent, "created": created })]);
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
    api.requests.occurred(20, Timestamp::now());
    wait_read(&[other]);
    paused.signal("CONT");
    wait_for("both own partitions again", AFTER_TIMEOUTS, || {
        let owned = |relay: &Relay| relay.status()?["forward"]["owned"].as_array().map(Vec::len);
        (owned(&one)? > 0 && owned(&two)? > 0 && owned(&one)? + owned(&two)? == 3).then_some(())
    });
    wait_read(&[&one, &two]);
    assert_eq!(records().len(), before + 1, "what one wrote the other does not write again");
    assert_eq!(missed(&one) + missed(&two), 1.0);
    let changed =
        |relay: &Relay| relay.metric(r#"reconcile_missed_events_total{kind="updated",source="main"}"#);
    assert_eq!(changed(&one) + changed(&two), 1.0, "that the silent one was changed, too");
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
    let repair = format!("--operation Write --topic {topic}");
    assert_wrong(&check(relay.config(), &[]), 1, &format!("may use topic {topic}"), &repair);
    let sent = Simulation::run(load(vec![relay.target()], 60, 20));
    assert_eq!(sent.summary.accepted_events, 60);
    deployment.wait_until_forwarded(SOON);
    relay.wait_active(3);
    assert_eq!(deployment.published().len(), 60);
    let held = relay.log().iter().filter(|line| line["message"] == "partition is held").count();
    assert_eq!(held, 0, "not even for a moment");
}

/// Without a spool, what `ClearFeed` gives up on while Kafka is away is lost; and it is what is missed afterwards, to the last.
#[test]
fn what_clearfeed_gave_up_on_while_kafka_was_away_is_what_is_missed() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("given-up", &kafka);
    let seconds = outage().as_secs();
    let per_second = if seconds > 60 { 200 } else { 50 };
    // Each event is a request's first.
    let events = u64::from(per_second) * (seconds + 12);
    let settings = Settings {
        rate: rate(per_second),
        connections: NonZeroU64::new(400).unwrap(),
        retries_on_failure: true,
        ..load(Vec::new(), events, events)
    };
    let api =
        Api::empty(settings.seed, events, Health::default(), deployment.secret_file().parent().unwrap());
    let topic = deployment.topic("snapshots");
    let mut relays = ["a", "b", "c"].map(|replica| {
        let plan = asks(&api, deployment.replica(replica), &topic).at_one_port();
        // Longer than four tries take.
        plan.set("intake.answer_timeout", "\"2s\"").set("sources.main.api.grace", "\"11s\"").start()
    });
    relays.iter().for_each(Relay::wait_ready);
    wait_read(&relays.each_ref());

    let targets = relays.iter().map(Relay::target).collect();
    let running = Simulation::start_known_to(Arc::clone(&api.requests), Settings { targets, ..settings });
    wait_for("the load has begun", SOON, || (running.finished() > 150).then_some(()));
    kafka.kill(None);
    for relay in &mut relays {
        pause(outage() / 3);
        relay.kill9();
        relay.restart();
    }
    kafka.restart(None);
    let simulated = running.finish();
    relays.iter().for_each(|relay| relay.wait_active(1)); // those that began without Kafka, too
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);

    let summary = &simulated.summary;
    eprintln!("{summary}");
    assert!(summary.answers[&Outcome::Answered(503)] > 0, "{summary}");
    let answered = |outcome: &&Outcome| matches!(outcome, Outcome::Answered(_));
    assert_eq!(summary.answers.keys().filter(answered).count(), 2, "200 and 503: {summary}");
    let published = deployment.published();
    Judge::of(&simulated, &published).assert_flawless();
    let lost = events - published.len() as u64;
    let given_up = events - summary.accepted_events;
    assert!(
        0 < lost && lost <= given_up,
        "{lost} of {given_up}: some came in all the same, without an answer"
    );

    // A look reads every request that changed meanwhile.
    wait_for("the lost are missed", AFTER_TIMEOUTS + outage(), || {
        (relays.iter().map(missed).sum::<f64>() >= lost as f64).then_some(())
    });
    wait_asked(&relays.each_ref(), Timestamp::now() + SignedDuration::from_secs(12));
    assert_eq!(relays.iter().map(missed).sum::<f64>(), lost as f64);
    let snapshots = deployment.reader().all(&topic);
    let requests: BTreeSet<_> = snapshots.iter().map(|record| record.key()).collect();
    assert_eq!(requests.len() as u64, events, "and all requests are there as snapshots");
    if events <= KEPT_BY_A_WATERMARK {
        assert_eq!(snapshots.len() as u64, events, "each once");
    }
}
