//! Offsets of the group that expired, or that somebody reset, change nothing: neither a repeat nor a loss.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use clearfeed_relay::config;
use clearfeed_relay::forward::progress::Progress;
use clearfeed_relay::forward::takeover::{Answer, Job, Order, Takeover};
use tokio_util::sync::CancellationToken;

use crate::support::simulator::{Simulated, load};
use crate::support::{Deployment, Judge, Kafka, SOON, Simulation, monitor, wait_for};

#[test]
fn deleted_offsets_change_nothing() {
    nothing_changes("deleted", |kafka, deployment, _| kafka.delete_group(&deployment.group()));
}

#[test]
fn offsets_reset_backwards_change_nothing() {
    nothing_changes("backwards", |kafka, deployment, ends| {
        let offsets = ends.keys().map(|partition| (*partition, 0)).collect();
        kafka.reset_offsets(&deployment.group(), &deployment.inbox(), &offsets);
    });
}

#[test]
fn offsets_reset_forwards_change_nothing() {
    nothing_changes("forwards", |kafka, deployment, ends| {
        kafka.reset_offsets(&deployment.group(), &deployment.inbox(), ends);
    });
}

/// After a long silence retention has taken the whole ledger, and with it ids that cannot come again. Our own offset still
/// says where to go on.
#[test]
fn a_ledger_that_aged_out_changes_nothing() {
    nothing_changes("aged-out", |kafka, deployment, _| {
        kafka.delete_records(&deployment.ledger(), &deployment.reader().ends(&deployment.ledger()));
    });
}

/// A takeover of much takes a while, and tells how far it is.
#[test]
fn a_takeover_tells_how_much_of_the_ledger_it_has_read() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("progress", &kafka);
    let mut relay = deployment.relay().up();
    accepted(Simulation::run(load(vec![relay.target()], 300, 30)));
    deployment.wait_until_forwarded(SOON);
    relay.stop();

    let config =
        config::load(&deployment.relay().write(), std::iter::empty(), None, |_, _| Vec::new()).unwrap();
    let takeover = Takeover::new(config, &monitor(), CancellationToken::new()).unwrap();
    let ((orders, order_receiver), (answer_sender, answers)) = (mpsc::channel(), mpsc::channel());
    let thread = std::thread::spawn(move || takeover.run(&order_receiver, &answer_sender));
    let progress = Arc::new(Progress::default());
    assert_eq!(progress.told().of, 0);
    let job = Job { partition: 0, progress: Arc::downgrade(&progress), unsettled: Some(1), is_fresh: true };
    orders.send(Order::TakeOver(job)).unwrap();
    let Answer::Done(done) = answers.recv_timeout(SOON).unwrap() else { panic!("nothing was to be counted") };
    let taken = done.result.unwrap_or_else(|held| panic!("{held:?}"));
    assert!(!taken.partition.window.is_empty());
    let ends = deployment.reader().ends(&deployment.ledger());
    // The last offset is the last transaction's marker, which nobody reads.
    assert_eq!((progress.told().read + 1, progress.told().of), (ends[&0] as u64, ends[&0] as u64));
    drop(orders);
    thread.join().unwrap();
}

/// Retention may take records of which the consumer was about to fetch the first. librdkafka fetches such a partition no
/// more by itself.
#[test]
fn what_retention_took_unread_is_counted_and_the_rest_is_forwarded() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("retention", &kafka);
    let relay = deployment.relay().up();
    let mut intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    accepted(Simulation::run(load(vec![intake.target()], 300, 30)));
    deployment.wait_until_forwarded(SOON);

    relay.signal("STOP");
    accepted(Simulation::run(load(vec![intake.target()], 300, 30)));
    let mut ends = deployment.reader().ends(&deployment.inbox());
    ends.values_mut().for_each(|end| *end -= 10);
    kafka.delete_records(&deployment.inbox(), &ends);
    relay.signal("CONT");

    deployment.wait_until_forwarded(SOON);
    let lost = wait_for("the loss is counted", SOON, || {
        Some(relay.metric("inbox_records_lost_total")).filter(|lost| *lost > 0.0)
    });
    assert_eq!(deployment.published().len() as f64 + lost, 600.0);

    accepted(Simulation::run(load(vec![intake.target()], 300, 30)));
    deployment.wait_until_forwarded(SOON);
    assert_eq!(deployment.published().len() as f64 + lost, 900.0, "and it goes on");
    intake.stop();
}

/// Events are forwarded; more are kept while nobody forwards; another hand goes at the offsets; forwarding goes on.
fn nothing_changes(name: &str, tamper: impl Fn(&Kafka, &Deployment, &BTreeMap<i32, i64>)) {
    let kafka = Kafka::shared();
    let deployment = Deployment::new(name, &kafka);
    let mut relay = deployment.relay().up();
    let before = accepted(Simulation::run(load(vec![relay.target()], 300, 30)));
    deployment.wait_until_forwarded(SOON);
    relay.stop();

    let mut intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    let waiting = accepted(Simulation::run(load(vec![intake.target()], 300, 30)));
    intake.stop();

    tamper(&kafka, &deployment, &deployment.reader().ends(&deployment.inbox()));

    relay.restart();
    deployment.wait_until_forwarded(SOON);
    Judge::of(&before.and(waiting), &deployment.published()).assert_flawless();
    // Not even read again: the window would have dropped repeats, but for as long as it lasts only.
    assert_eq!(relay.metric(r#"forward_records_total{outcome="repeat"}"#), 0.0);
    assert_eq!(relay.metric("inbox_records_lost_total"), 0.0);
}

#[track_caller]
fn accepted(simulated: Simulated) -> Simulated {
    assert_eq!(simulated.summary.accepted_events, 300, "{}", simulated.summary);
    simulated
}
