//! What is authentic and cannot be published goes to the dead letters: whole, once, and with the reason. It holds nothing up.

use std::time::Duration;

use clearfeed_relay::domain::partitioner::partition_for_key;
use sha2::{Digest, Sha256};

use crate::support::deployment::PARTITIONS;
use crate::support::simulator::{Settings, load, rate};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, Record, SOON, Sender, Simulation, wait_for};

#[test]
fn what_is_not_understood_is_a_dead_letter_once() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("malformed", &kafka);
    let relay = deployment.relay().up();
    let mut sender = Sender::new(vec![relay.target()]);
    let bodies = not_understood();
    for retry in [0, 1] {
        for body in &bodies {
            let delivery = deployment.delivery(body.clone()).redelivered(retry);
            assert_eq!(sender.send(&delivery), 200, "{}", String::from_utf8_lossy(body));
        }
    }
    deployment.wait_until_forwarded(SOON);
    let letters = deployment.reader().all(&deployment.dead_letters());
    for body in &bodies {
        let of_body: Vec<_> = letters.iter().filter(|letter| letter.value == *body).collect();
        let [letter] = of_body[..] else {
            panic!("{} dead letters of {}", of_body.len(), String::from_utf8_lossy(body))
        };
        assert_dead_letter(letter, body, "malformed");
        assert_eq!((letter.header("v"), letter.header("source")), ("1", "main"));
        assert_eq!(letter.header("detail"), letter.header("malformed"));
        assert!(!letter.header("malformed").is_empty());
    }
    assert_eq!(letters.len(), bodies.len());
    assert_eq!(deployment.published().len(), 0);
}

/// No event, for one reason each.
fn not_understood() -> Vec<Vec<u8>> {
    let deep = format!(r#"{{"id":"a","type":"request","event":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let long_id = format!(r#"{{"id":"{}","type":"request","request":{{"id":1}}}}"#, "x".repeat(257));
    let mut bodies: Vec<Vec<u8>> = [
        r#"[{"id":"a","type":"request","request":{"id":1}}]"#,
        r#"{"id":"a","id":"b","type":"request","request":{"id":1}}"#,
        r#"{"id":"a","type":"request","request":{"id":1},"request":{"id":2}}"#,
        r#"{"id":"a","type":"request","request":{"id":1,"id":2}}"#,
        r#"{"type":"request","request":{"id":1}}"#,
        r#"{"id":"","type":"request","request":{"id":1}}"#,
        r#"{"id":7,"type":"request","request":{"id":1}}"#,
        r#"{"id":"a","request":{"id":1}}"#,
        r#"{"id":"a","type":"request","request":{"id":-1}}"#,
        r#"{"id":"a","type":"request","request":{"id":"1"}}"#,
        r#"{"id":"a","type":"request","request":{"id":1.0}}"#,
        r#"{"id":"a","type":"request","request":{"id":18446744073709551616}}"#,
        r#"{"id":"a","type":"request","request":[1]}"#,
        r#"{"id":"a\u0000","type":"request","request":{"id":1}}"#,
        r#"{"id":"a","type":"request","request":{"id":1}} {}"#,
        r#"{"id":"a","type":"request","request":{"id":1}"#,
        r#"{"type":"ping","request":{"id":1}}"#,
        "null",
        "hello",
        &deep,
        &long_id,
    ]
    .into_iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    bodies.push(b"{\"id\":\"a\",\"type\":\"request\",\"text\":\"\xff\xfe\"}".to_vec());
    bodies.push(vec![0; 100]);
    bodies
}

#[test]
fn the_same_id_with_another_body_is_a_conflict_within_its_request_alone() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("conflict", &kafka);
    let relay = deployment.relay().up();
    let mut sender = Sender::new(vec![relay.target()]);
    let event = |request: u64, text: &str| {
        format!(r#"{{"id":"e-1","type":"request","request":{{"id":{request}}},"text":"{text}"}}"#)
    };
    let (first, other, third) = (event(5, "first"), event(5, "other"), event(5, "third"));
    let elsewhere = event(6, "first");
    for body in [&first, &other, &other, &first, &elsewhere, &third, &other, &elsewhere] {
        assert_eq!(sender.send(&deployment.delivery(body.clone())), 200);
    }
    deployment.wait_until_forwarded(SOON);
    let mut published: Vec<_> = deployment.published().into_iter().map(|record| record.value).collect();
    published.sort();
    assert_eq!(published, [first.into_bytes(), elsewhere.into_bytes()]);
    let letters = deployment.reader().all(&deployment.dead_letters());
    assert_eq!(letters.len(), 2, "each body once: {letters:#?}");
    for body in [other, third] {
        let letter = letters.iter().find(|letter| letter.value == body.as_bytes()).unwrap();
        assert_dead_letter(letter, body.as_bytes(), "conflict");
        assert_eq!((letter.header("id"), letter.header("request")), ("e-1", "5"));
    }
}

#[test]
fn records_of_another_hand_in_the_inbox_are_dead_letters_and_hold_nothing_up() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("foreign", &kafka);
    let relay = deployment.relay().up();
    let mut sender = Sender::new(vec![relay.target()]);
    let request = request_of_partition(0);
    let event = |id| format!(r#"{{"id":"{id}","type":"request","request":{{"id":{request}}}}}"#);
    assert_eq!(sender.send(&deployment.delivery(event("before"))), 200);

    let noise: Vec<u8> = (0..=255).rev().collect();
    let looks_right = event("by-hand");
    let foreign: [(&[(&str, &str)], &[u8]); 5] = [
        (&[], b"no headers"),
        (&[], &noise),
        (&[], b""),
        (&[("v", "1")], looks_right.as_bytes()),
        (
            &[("v", "1"), ("source", "main"), ("received", "yesterday"), ("retry", "0"), ("timestamp", "1")],
            b"{ }",
        ),
    ];
    for (headers, value) in foreign {
        kafka.append(&deployment.inbox(), 0, headers, value);
    }
    assert_eq!(sender.send(&deployment.delivery(event("after"))), 200);

    deployment.wait_until_forwarded(SOON);
    let published = deployment.published();
    let ids: Vec<_> = published.iter().map(|record| record.header("ce_id")).collect();
    assert_eq!(ids, ["before", "after"]);
    let letters = deployment.reader().all(&deployment.dead_letters());
    assert_eq!(letters.len(), foreign.len());
    for (place, (headers, value)) in (1..).zip(foreign) {
        let letter = letters.iter().find(|letter| letter.value == value).unwrap();
        assert_dead_letter(letter, value, "malformed");
        assert_eq!(letter.header("inbox"), format!("0:{place}"));
        for (name, value) in headers {
            assert_eq!(letter.header(name), *value, "the original headers go along");
        }
    }
}

/// So large that its dead letter, with the reason beside it, fits no topic.
#[test]
fn a_record_of_another_hand_that_no_topic_takes_stops_nothing() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("giant", &kafka);
    let relay = deployment.relay().up();
    let giant = "x".repeat((1024 + 64) * 1024 - 110);
    kafka.append(&deployment.inbox(), 0, &[("giant", &giant), ("small", "y")], b"garbage");
    let request = request_of_partition(0);
    let event = format!(r#"{{"id":"after","type":"request","request":{{"id":{request}}}}}"#);
    assert_eq!(Sender::new(vec![relay.target()]).send(&deployment.delivery(event)), 200);

    deployment.wait_until_forwarded(SOON);
    assert_eq!(deployment.published().len(), 1);
    let letters = deployment.reader().all(&deployment.dead_letters());
    let [letter] = &letters[..] else { panic!("{} dead letters", letters.len()) };
    assert_dead_letter(letter, b"garbage", "malformed");
    assert!(letter.header("detail").contains("the head of a record"), "{}", letter.header("detail"));
    assert_eq!((letter.header("giant").len(), letter.header("small")), (1024, "y"));
}

#[test]
fn a_newer_format_holds_its_partition_and_no_other() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("newer", &kafka);
    let relay = deployment.relay().up();
    kafka.append(&deployment.inbox(), 0, &[("v", "2")], b"from the future");
    let held = r#"forward_partitions_held{reason="newer_format"}"#;
    wait_for("it is held", SOON, || (relay.metric(held) == 1.0).then_some(()));

    let mut sender = Sender::new(vec![relay.target()]);
    for (id, partition) in [("a", 0), ("b", 1), ("c", 2)] {
        let request = request_of_partition(partition);
        let event = format!(r#"{{"id":"{id}","type":"request","request":{{"id":{request}}}}}"#);
        assert_eq!(sender.send(&deployment.delivery(event)), 200);
    }
    let published = deployment
        .reader()
        .until("the others go on", &deployment.events(), SOON, |records| records.len() == 2);
    let mut ids: Vec<_> = published.iter().map(|record| record.header("ce_id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["b", "c"]);
    assert_eq!(relay.metric(held), 1.0);
    let lag = wait_for("the lag is told", SOON, || {
        Some(relay.metric("forward_lag_seconds")).filter(|lag| *lag > 0.0)
    });
    assert!(lag < SOON.as_secs_f64());
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0);
}

/// That the dead-letter topic takes less than it should is not the event's own fault.
#[test]
fn an_event_that_the_dead_letters_do_not_take_waits_until_they_do() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("no-room", &kafka);
    let relay = deployment.relay().up();
    let small = [("max.message.bytes", "20480")];
    kafka.alter_topic(&deployment.events(), &small);
    kafka.alter_topic(&deployment.dead_letters(), &small);
    let large = large_event();
    let mut sender = Sender::new(vec![relay.target()]);
    assert_eq!(sender.send(&deployment.delivery(large.clone())), 200);
    wait_for("it is held, and why", SOON, || {
        let status = relay.status()?;
        let owned = status["forward"]["owned"].as_array()?;
        let wanted = "raise its max.message.bytes";
        owned.iter().any(|partition| partition.to_string().contains(wanted)).then_some(())
    });
    let elsewhere = Simulation::run(load(vec![relay.target()], 100, 30));
    assert_eq!(elsewhere.summary.accepted_events, 100);
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0);

    kafka.alter_topic(&deployment.dead_letters(), &[("max.message.bytes", "2000000")]);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&elsewhere, &deployment.published()).assert_flawless();
    let letters = deployment.reader().all(&deployment.dead_letters());
    assert_eq!(letters.len(), 1);
    assert_dead_letter(&letters[0], large.as_bytes(), "too_large");
}

/// Larger than the topics of these tests take, smaller than `intake.max_body`.
fn large_event() -> String {
    let text = "x".repeat(100 * 1024);
    format!(r#"{{"id":"large","type":"request","request":{{"id":1}},"text":"{text}"}}"#)
}

/// In a full batch the refusal comes while later records are still on their way into the transaction.
#[test]
fn an_event_too_large_for_its_topic_is_found_among_thousands() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("needle", &kafka);
    let relay = deployment.relay().up();
    let mut intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    kafka.alter_topic(&deployment.events(), &[("max.message.bytes", "20480")]);
    relay.signal("STOP");
    let large = large_event();
    assert_eq!(Sender::new(vec![intake.target()]).send(&deployment.delivery(large.clone())), 200);
    let behind = Simulation::run(load(vec![intake.target()], 5000, 300));
    assert_eq!(behind.summary.accepted_events, 5000);
    relay.signal("CONT");

    // While it is searched for, transactions are small, and there are hundreds of them.
    deployment.wait_until_forwarded(2 * AFTER_TIMEOUTS);
    Judge::of(&behind, &deployment.published()).assert_flawless();
    let letters = deployment.reader().all(&deployment.dead_letters());
    assert_eq!(letters.len(), 1);
    assert_dead_letter(&letters[0], large.as_bytes(), "too_large");
    let replaced = r#"forward_transaction_duration_seconds_count{outcome="unknown"}"#;
    assert_eq!(relay.metric(replaced), 0.0, "each failed transaction could be aborted");
    intake.stop();
}

#[test]
fn an_event_too_large_for_its_topic_is_alone_a_dead_letter() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("too-large", &kafka);
    let relay = deployment.relay().up();
    // Only now: at its start the relay wants room for `intake.max_body`.
    kafka.alter_topic(&deployment.events(), &[("max.message.bytes", "20480")]);
    let running = Simulation::start(Settings { rate: rate(100), ..load(vec![relay.target()], 300, 30) });
    wait_for("the load has begun", SOON, || (running.finished() > 50).then_some(()));
    let large = large_event();
    let mut sender = Sender::new(vec![relay.target()]);
    assert_eq!(sender.send(&deployment.delivery(large.clone())), 200);
    let simulated = running.finish();
    assert_eq!(simulated.summary.accepted_events, 300);

    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
    let letters = deployment.reader().all(&deployment.dead_letters());
    assert_eq!(letters.len(), 1);
    assert_dead_letter(&letters[0], large.as_bytes(), "too_large");

    // Its repeat is a repeat.
    assert_eq!(sender.send(&deployment.delivery(large).redelivered(1)), 200);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 1);
    relay_is_idle(&relay);
}

/// Whether what was refused is not tried for ever.
fn relay_is_idle(relay: &crate::support::Relay) {
    wait_for("no lag", Duration::from_secs(10), || {
        let status = relay.status()?;
        let owned = status["forward"]["owned"].as_array()?;
        owned.iter().all(|partition| partition["state"] == "active" && partition["lag"] == 0).then_some(())
    });
}

/// A request whose events stand in this partition of the inbox.
fn request_of_partition(partition: i32) -> u64 {
    let is_there = |id: &u64| partition_for_key(id.to_string().as_bytes(), PARTITIONS) == partition;
    (1..).find(is_there).unwrap()
}

#[track_caller]
fn assert_dead_letter(letter: &Record, body: &[u8], reason: &str) {
    assert_eq!(letter.value, body, "whole");
    assert_eq!(letter.header("reason"), reason);
    assert!(!letter.header("detail").is_empty());
    assert_eq!(letter.key(), hex::encode(Sha256::digest(body)));
    let (partition, offset) = letter.header("inbox").split_once(':').unwrap();
    assert!(partition.parse::<i32>().unwrap() < PARTITIONS && offset.parse::<i64>().unwrap() >= 0);
}
