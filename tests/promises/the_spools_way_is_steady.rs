//! A broker that comes and goes does not take deliveries to and fro, and a disk that hangs takes none from Kafka.

use std::time::Duration;

use crate::support::{AFTER_TIMEOUTS, Deployment, Disk, Fault, Kafka, SOON, Sender, wait_for};
use crate::the_spool_keeps_what_kafka_does_not::{assert_spooled, event, ids, wait_drained, with_spool};

#[test]
fn deliveries_change_their_way_once_although_kafka_comes_and_goes_and_a_hanging_disk_is_passed_by() {
    let (kafka, disk) = (Kafka::own(1), Disk::new());
    let deployment = Deployment::new("steady", &kafka);
    let relay = with_spool(&deployment, "relay").on(&disk).up();
    wait_drained(&relay);
    let mut sender = Sender::new(vec![relay.target()]);
    let mut sent = Vec::new();
    for round in 0..2 {
        kafka.pause(None);
        sent.push(format!("away {round}"));
        assert_spooled(&mut sender, &event(&deployment, sent.last().unwrap()));
        kafka.resume(None);
        // Kafka takes what was spooled, and each that comes is spooled all the same.
        for number in 0..10 {
            wait_for("all is drained", AFTER_TIMEOUTS, || {
                (relay.metric("spool_records") == 0.0).then_some(())
            });
            sent.push(format!("back {round} {number}"));
            assert_spooled(&mut sender, &event(&deployment, sent.last().unwrap()));
        }
    }
    assert_eq!(relay.metric("spool_switches_total"), 1.0);

    disk.begin(Fault::Hang);
    assert_eq!(sender.send(&event(&deployment, "hangs")), 503);
    let accepted = (200, r#"{"status":"accepted"}"#.to_owned());
    wait_for("deliveries go to Kafka alone", Duration::from_secs(15), || {
        sent.push(format!("alone {}", sent.len()));
        let answer = sender.ask(&event(&deployment, sent.last().unwrap()));
        if answer != accepted {
            sent.pop();
        }
        (answer == accepted).then_some(())
    });
    assert_eq!(relay.metric("spool_failed"), 1.0);
    disk.heal();
    wait_drained(&relay);
    assert_eq!(relay.metric("spool_failed"), 0.0);
    for (message, times) in [
        ("Kafka does not acknowledge: deliveries go to the spool", 1),
        ("the spool's disk does not answer: deliveries go to Kafka alone", 1),
        ("the spool's disk answers again", 1),
        ("the spool is empty: deliveries go to Kafka", 2),
    ] {
        let found = relay.log().iter().filter(|line| line["message"] == message).count();
        assert_eq!(found, times, "{message}");
    }
    deployment.wait_until_forwarded(SOON);
    let published = deployment.published();
    for id in &sent {
        let times = ids(&published).iter().filter(|found| *found == id).count();
        assert_eq!(times, 1, "{id} in {:?}", ids(&published));
    }
}
