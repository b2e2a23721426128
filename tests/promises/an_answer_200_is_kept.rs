//! Nothing is answered 200 that is not on all in-sync replicas; and what is kept is out once, however often it is sent and
//! whoever heard the answer.

use std::sync::Barrier;

use crate::support::deployment::PATH;
use crate::support::simulator::{Sender, Settings, load};
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, Relay, SOON, Simulation, http, wait_for};

/// One broker of three may be away, and two replicas of three with it; two brokers may not. While they are, forwarding has no
/// coordinator either; a minute is longer than all its time-outs, and it goes on in the same process.
#[test]
fn one_broker_of_three_may_be_away_and_two_may_not() {
    let kafka = Kafka::own(3);
    let deployment = Deployment::new("brokers", &kafka);
    let mut replicas = ["a", "b", "c"].map(|name| deployment.replica(name).start());
    replicas.iter().for_each(Relay::wait_ready);
    let targets = replicas.iter().map(Relay::target).collect();
    // A cluster that has just begun may be busy with that.
    let before = Simulation::run(Settings { retries_on_failure: true, ..load(targets, 30, 10) });
    assert_eq!(before.summary.accepted_events, 30, "{}", before.summary);

    let [relay, others @ ..] = &mut replicas;
    let send = |events| Simulation::run(load(vec![relay.target()], events, 10));
    kafka.kill(Some(3));
    others.iter_mut().for_each(Relay::kill9);
    // Some partitions have no leader until the controller has missed the broker.
    wait_for("other leaders are found", AFTER_TIMEOUTS, || {
        (send(10).summary.accepted_events == 10).then_some(())
    });
    let without_one = send(30);
    assert_eq!(without_one.summary.accepted_events, 30, "one of three is away: {}", without_one.summary);

    kafka.kill(Some(2));
    let away = std::time::Instant::now();
    while away.elapsed().as_secs() < 60 {
        // Each waits for its answer as long as the relay does.
        let without_two = send(10);
        assert_eq!(without_two.summary.accepted_events, 0, "two of three are away: {}", without_two.summary);
    }

    kafka.restart(Some(2));
    kafka.restart(Some(3));
    wait_for("deliveries are kept again", AFTER_TIMEOUTS, || relay.is_ready().then_some(()));
    let after = send(30);
    assert_eq!(after.summary.accepted_events, 30, "all are back: {}", after.summary);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    let published = deployment.published();
    let of = |sent: &std::collections::HashSet<String>| {
        published.iter().filter(|record| sent.contains(record.header("ce_id"))).cloned().collect::<Vec<_>>()
    };
    for simulated in [before, without_one, after] {
        Judge::of(&simulated, &of(&simulated.sent)).assert_flawless();
    }
}

#[test]
fn a_delivery_that_two_replicas_get_at_once_is_one_record() {
    const DELIVERIES: usize = 50;
    let kafka = Kafka::shared();
    let deployment = Deployment::new("at-once", &kafka);
    let replicas = [deployment.replica("a").start(), deployment.replica("b").start()];
    replicas.iter().for_each(Relay::wait_ready);
    let deliveries: Vec<_> = (0..DELIVERIES)
        .map(|n| {
            deployment.delivery(format!(r#"{{"id":"{n}","type":"request","request":{{"id":{}}}}}"#, n % 7))
        })
        .collect();
    let together = Barrier::new(replicas.len());
    let send_all = |replica: &Relay| {
        let mut sender = Sender::new(vec![replica.target()]);
        let each = deliveries.iter().map(|delivery| {
            together.wait();
            sender.send(delivery)
        });
        each.collect::<Vec<_>>()
    };
    let answers = std::thread::scope(|scope| {
        let running: Vec<_> = replicas.iter().map(|replica| scope.spawn(|| send_all(replica))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(answers, [200; 2 * DELIVERIES]);
    deployment.wait_until_forwarded(SOON);
    let mut published: Vec<usize> =
        deployment.published().iter().map(|record| record.header("ce_id").parse().unwrap()).collect();
    published.sort_unstable();
    assert_eq!(published, (0..DELIVERIES).collect::<Vec<_>>());
    assert_eq!(deployment.reader().all(&deployment.inbox()).len(), 2 * DELIVERIES, "the inbox may repeat");
}

/// `ClearFeed` loses patience, and with it our answer; it sends again what we had kept.
#[test]
fn what_was_kept_after_the_sender_went_away_is_out_once_when_it_is_sent_again() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("went-away", &kafka);
    let relay = deployment.relay().up();
    let delivery = deployment.delivery(r#"{"id":"a","type":"request","request":{"id":1}}"#);
    kafka.pause(None);
    let connection = http::begin(relay.intake(), &http::post(PATH, &delivery)).unwrap();
    // From there to the producer nothing is waited for.
    let authenticated = r#"auth_key_used_total{slot="0",source="main"}"#;
    wait_for("it is being kept", SOON, || (relay.metric(authenticated) == 1.0).then_some(()));
    drop(connection);
    kafka.resume(None);
    wait_for("it is out", AFTER_TIMEOUTS, || (deployment.published().len() == 1).then_some(()));
    assert_eq!(Sender::new(vec![relay.target()]).send(&delivery.redelivered(1)), 200);
    deployment.wait_until_forwarded(SOON);
    assert_eq!(deployment.published().len(), 1);
    assert_eq!(relay.metric(r#"forward_records_total{outcome="repeat"}"#), 1.0);
}
