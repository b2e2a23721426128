//! An operator, or a second deployment, may take away what the relay rests on. It never guesses: it goes on where that is
//! known to be right, and else waits, and says for whom.

use std::time::{Duration, Instant};

use rdkafka::producer::Producer;

use crate::support::deployment::PARTITIONS;
use crate::support::simulator::{Settings, Simulated, load, rate};
use crate::support::{
    AFTER_TIMEOUTS, Deployment, Judge, Kafka, Relay, SOON, Simulation, http, pause, wait_for,
};

const EVENTS: u64 = 200;
/// A broker ends a transaction after 10 s, and looks every 10 s.
const TRANSACTIONS_END: Duration = Duration::from_secs(22);

#[test]
fn an_event_topic_that_was_deleted_is_there_again_with_the_next_event() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("deleted-events", &kafka);
    let relay = deployment.relay().up();
    accepted(&relay);
    deployment.wait_until_forwarded(SOON);
    kafka.delete_topic(&deployment.events());
    let after = accepted(&relay);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&after, &deployment.published()).assert_flawless();
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0, "it was no event's fault");
}

#[test]
fn without_its_ledger_a_partition_waits_to_be_told_where_to_go_on() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("deleted-ledger", &kafka);
    let mut relay = deployment.relay().up();
    accepted(&relay);
    deployment.wait_until_forwarded(SOON);
    relay.stop();
    kafka.delete_topic(&deployment.ledger());

    let mut relay = deployment.relay().start();
    wait_for_held(&relay, "ledger_gone");
    let waiting = accepted(&relay);
    relay.stop();
    let relay = deployment.relay().set("forward.start_at", r#""beginning""#).start();
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    assert_eq!(relay.metric(r#"forward_partitions_held{reason="ledger_gone"}"#), 0.0);
    let published = deployment.published();
    let of_waiting: Vec<_> =
        published.iter().filter(|record| waiting.sent.contains(record.header("ce_id"))).cloned().collect();
    Judge::of(&waiting, &of_waiting).assert_flawless();
    // `beginning` was asked for, with the ledger gone: what was out before is out once more.
    assert_eq!(published.len() as u64, 3 * EVENTS);
}

/// Nothing is consumed from a held partition: how much waits in it, and since when, Kafka has to be asked, or the alert on what
/// retention is about to take would begin anew with each restart.
#[test]
fn what_waits_in_held_partitions_is_known_after_a_restart() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("held-age", &kafka);
    let mut relay = deployment.relay().up();
    accepted(&relay);
    deployment.wait_until_forwarded(SOON);
    relay.stop();
    let fewer = PARTITIONS - 1;
    let mut relay = deployment.relay().set("inbox.partitions", &fewer.to_string()).start();
    let since = Instant::now();
    accepted(&relay);
    let known = |relay: &Relay| {
        wait_for("all of them are held, and known", SOON, || {
            let status = relay.status()?["forward"].clone();
            let lags = status["owned"].as_array()?.iter().filter(|partition| partition["state"] == "held");
            let lags: Vec<_> = lags.filter_map(|partition| partition["lag"].as_u64()).collect();
            let lag_s = status["lag_seconds"].as_f64()?;
            let is_all = lags.len() == fewer as usize && lags.iter().sum::<u64>() == EVENTS;
            // The status is a second old, and the events took a moment.
            (is_all && lag_s > since.elapsed().as_secs_f64() - 3.0).then_some(lag_s)
        })
    };
    wait_for("they wait for a while", SOON, || (known(&relay) > 6.0).then_some(()));
    relay.stop();
    relay.restart();
    known(&relay);
}

/// The ledger aged out, and the group's offsets expired as well: nothing says any more what was forwarded.
#[test]
fn without_ledger_and_offsets_a_partition_waits_too() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("aged-ledger", &kafka);
    let mut relay = deployment.relay().up();
    accepted(&relay);
    deployment.wait_until_forwarded(SOON);
    relay.stop();
    kafka.delete_records(&deployment.ledger(), &deployment.reader().ends(&deployment.ledger()));
    kafka.delete_group(&deployment.group());
    relay.restart();
    let held = r#"forward_partitions_held{reason="ledger_gone"}"#;
    wait_for("all partitions are held", SOON, || (relay.metric(held) == f64::from(PARTITIONS)).then_some(()));
    accepted(&relay);
    assert_eq!(deployment.published().len() as u64, EVENTS, "nothing was guessed");
}

/// Where a transaction of ours hangs, our next commit would make visible what was aborted (Kafka 4.3 lets that happen). Whose
/// it is cannot be told: so whatever is open is waited for, once, when a producer was opened.
#[test]
fn what_hangs_in_an_event_topic_is_waited_for_before_anything_is_sent() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("hanging", &kafka);
    let mut relay = deployment.relay().up();
    let before = accepted(&relay);
    deployment.wait_until_forwarded(SOON);
    relay.stop();
    let hanging = kafka.open_transaction(&deployment.events());
    relay.restart();
    let waiting = accepted(&relay);
    let held = r#"forward_partitions_held{reason="topic_open"}"#;
    wait_for("all wait, and say so", AFTER_TIMEOUTS, || {
        (relay.metric(held) == f64::from(PARTITIONS)).then_some(())
    });
    assert_eq!(relay.metric(r#"forward_records_total{outcome="published"}"#), 0.0);
    hanging.abort_transaction(SOON).unwrap();
    deployment.wait_until_forwarded(SOON);
    Judge::of(&before.and(waiting), &deployment.published()).assert_flawless();
}

/// A whole process may sleep through the end of its transaction, and of its membership: its disk was slow, its host was
/// migrated.
#[test]
fn a_process_that_slept_through_its_transaction_repeats_nothing() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("slept", &kafka);
    let relay = deployment.relay().up();
    let intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    let running = Simulation::start(Settings {
        rate: rate(300),
        redeliver_percent: 20,
        ..load(vec![intake.target()], 100_000, 30)
    });
    wait_for("events are forwarded", SOON, || {
        (relay.metric(r#"forward_records_total{outcome="published"}"#) > 300.0).then_some(())
    });
    let failed = || {
        let ends = ["aborted", "unknown"].map(|outcome| {
            relay.metric(&format!(r#"forward_transaction_duration_seconds_count{{outcome="{outcome}"}}"#))
        });
        ends.iter().sum::<f64>()
    };
    // It is nearly always in a transaction.
    wait_for("it slept through one", AFTER_TIMEOUTS, || {
        let before = failed();
        relay.signal("STOP");
        pause(TRANSACTIONS_END);
        relay.signal("CONT");
        let sent = running.finished();
        wait_for("the load goes on", SOON, || (running.finished() > sent + 300).then_some(()));
        deployment.wait_until_forwarded(AFTER_TIMEOUTS);
        (failed() > before).then_some(())
    });
    let simulated = running.stop();
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0);
}

/// Rights to one topic may be taken away by mistake, and given back.
#[test]
fn what_may_not_be_written_waits_and_is_no_dead_letter() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("forbidden", &kafka);
    let mut relay = deployment.relay().up();
    let before = accepted(&relay);
    deployment.wait_until_forwarded(SOON);
    kafka.forbid_writing(&deployment.events());
    let waiting = accepted(&relay);
    let since = Instant::now();
    wait_for_held(&relay, "kafka");
    relay.stop();
    relay.restart();
    let waited = since.elapsed().as_secs_f64();
    wait_for_held(&relay, "kafka");
    // Not only since the partitions came to this process.
    let lag = relay.metric("forward_lag_seconds");
    assert!(lag >= waited, "a lag of {lag} s after {waited} s");
    relay.wait_ready();
    assert!(relay.is_ready(), "deliveries are kept all the same");
    let told = relay.status().unwrap()["forward"]["owned"].to_string();
    assert!(told.contains("authoriz"), "{told}");
    // What comes again and again from one producer another one has to try, whatever it is.
    let told = wait_for("another producer was tried", AFTER_TIMEOUTS, || {
        let told = relay.status()?["forward"]["owned"].to_string();
        told.contains("producer replaced").then_some(told)
    });
    assert!(told.contains("; has failed since 20") && told.contains("; producer replaced once"), "{told}");
    let alive = http::get(relay.admin(), "/livez").unwrap();
    assert_eq!(alive.status, 200, "no other process could do it either: {}", alive.body);
    kafka.permit_writing(&deployment.events());
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&before.and(waiting), &deployment.published()).assert_flawless();
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0);
}

#[test]
fn an_inbox_that_was_made_anew_is_not_taken_for_the_old_one() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("new-inbox", &kafka);
    let mut relay = deployment.relay().up();
    accepted(&relay);
    deployment.wait_until_forwarded(SOON);
    relay.stop();
    let ends = deployment.reader().ends(&deployment.inbox());
    kafka.delete_topic(&deployment.inbox());

    let old_ends = ends;
    let mut relay = deployment.relay().start();
    wait_for_held(&relay, "inbox_recreated");
    // Deliveries are kept all the same, until the new inbox is longer than the old one was: only its times tell them apart.
    let is_longer = || {
        let ends = deployment.reader().ends(&deployment.inbox());
        old_ends.iter().all(|(partition, old)| ends[partition] > *old)
    };
    while !is_longer() {
        accepted(&relay);
    }
    relay.stop();
    relay.restart();
    let held = r#"forward_partitions_held{reason="inbox_recreated"}"#;
    let partitions = old_ends.values().filter(|end| **end > 0).count();
    wait_for("all of them are held again", SOON, || (relay.metric(held) == partitions as f64).then_some(()));
    assert_eq!(deployment.published().len() as u64, EVENTS);
}

#[test]
fn a_second_process_with_the_same_transactional_id_is_told_and_repeats_nothing() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("same-id", &kafka);
    let id = format!("{:?}", deployment.transactional_id("relay"));
    let relay = deployment.relay().up();
    let mut second = deployment.replica("second").set("forward.transactional_id", &id).start();
    second.wait_ready();
    let running = Simulation::start(Settings { rate: rate(200), ..load(vec![relay.target()], 100_000, 30) });
    let fenced = format!(r#"forward_fenced_total{{transactional_id={id}}}"#);
    wait_for("one of them is fenced three times", AFTER_TIMEOUTS, || {
        [&relay, &second].iter().any(|relay| relay.metric(&fenced) >= 3.0).then_some(())
    });
    let is_told = |relay: &Relay| {
        relay.log().iter().any(|line| {
            line["reason"] == "fenced"
                && line["detail"].to_string().contains("another process has the transactional id")
        })
    };
    assert!(is_told(&relay) || is_told(&second), "neither says so");
    second.kill9();
    let simulated = running.stop();
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
}

#[track_caller]
fn accepted(relay: &Relay) -> Simulated {
    relay.wait_ready();
    let simulated = Simulation::run(load(vec![relay.target()], EVENTS, 30));
    assert_eq!(simulated.summary.accepted_events, EVENTS, "{}", simulated.summary);
    simulated
}

#[track_caller]
fn wait_for_held(relay: &Relay, reason: &str) {
    let held = format!(r#"forward_partitions_held{{reason="{reason}"}}"#);
    wait_for(&held, SOON, || (relay.metric(&held) > 0.0).then_some(()));
}
