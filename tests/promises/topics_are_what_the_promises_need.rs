//! Topics under which the promises would not hold keep the relay from being ready. It says what it found, what it wants and
//! the command for it, and goes on by itself once that is done.

use serde_json::Value;

use crate::support::deployment::PARTITIONS;
use crate::support::{Deployment, Kafka, Relay, SOON, Sender, wait_for};

#[test]
fn a_topic_with_wrong_settings_is_told_and_waited_for() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("settings", &kafka);
    let wrong = [("cleanup.policy", "compact"), ("message.timestamp.type", "CreateTime")];
    kafka.create_topic(&deployment.inbox(), PARTITIONS, &wrong);
    let relay = deployment.relay().start();
    let told = problems(&relay);
    for part in ["found cleanup.policy=\"compact\", wanted delete", "wanted LogAppendTime", "kafka-configs "]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
    let mut sender = Sender::new(vec![relay.target()]);
    let event = deployment.delivery(r#"{"id":"a","type":"request","request":{"id":1}}"#);
    assert!(!relay.is_ready());
    assert_eq!(sender.send(&event), 503, "nobody knows whether the inbox would keep it");

    let limit = ((1024 + 64) * 1024).to_string();
    kafka.alter_topic(
        &deployment.inbox(),
        &[
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "LogAppendTime"),
            ("retention.ms", "259200000"),
            ("retention.bytes", "-1"),
            ("segment.ms", "21600000"),
            ("max.message.bytes", &limit),
        ],
    );
    relay.wait_ready();
    assert_eq!(sender.send(&event.redelivered(1)), 200);
    deployment.wait_until_forwarded(SOON);
    assert_eq!(deployment.published().len(), 1);
}

#[test]
fn a_topic_with_too_few_partitions_is_told() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("partitions", &kafka);
    kafka.create_topic(&deployment.inbox(), PARTITIONS - 1, &[]);
    let told = problems(&deployment.relay().start());
    assert!(told.contains("found 2 partitions, wanted at least inbox.partitions = 3"), "{told}");
}

#[test]
fn missing_topics_are_told_where_they_may_not_be_created() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("missing", &kafka);
    let relay = deployment.replica("a").set("kafka.create_topics", "false").start();
    let told = problems(&relay);
    for topic in [deployment.inbox(), deployment.ledger(), deployment.dead_letters(), deployment.events()] {
        assert!(told.contains(&format!("--create --topic {topic} ")), "{topic} in {told}");
    }
    let other = deployment.replica("b").start();
    other.wait_ready();
    relay.wait_ready();
}

/// What `/status` says is wrong with the topics, once it has looked.
#[track_caller]
fn problems(relay: &Relay) -> String {
    wait_for("problems are told", SOON, || {
        let status = relay.status()?;
        let problems: Vec<_> =
            status["kafka"]["problems"].as_array()?.iter().filter_map(Value::as_str).collect();
        (!problems.is_empty()).then(|| problems.join("\n"))
    })
}
