//! Topics under which the promises would not hold keep the relay from being ready. It says what it found, what it wants and
//! the command for it, and goes on by itself once that is done.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::deployment::PARTITIONS;
use crate::support::{Deployment, Kafka, Relay, SOON, Sender, tools, wait_for};

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
    let mut other = deployment.replica("b").start();
    other.wait_ready();
    relay.wait_ready();
    other.stop();

    // Of a type that nobody knew there is no topic to be told of before.
    let event = deployment.delivery(r#"{"id":"a","type":"new","request":{"id":1}}"#);
    assert_eq!(Sender::new(vec![relay.target()]).send(&event), 200);
    deployment.wait_until_forwarded(SOON);
    let dead_letters = deployment.reader().all(&deployment.dead_letters());
    let detail = dead_letters[0].header("detail");
    let command = format!("--create --topic {} --partitions {PARTITIONS} ", deployment.topic("new"));
    assert!(detail.contains(&command), "{command} in {detail}");
}

#[test]
fn what_the_chart_lets_strimzi_make_is_what_the_relay_wants() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("strimzi", &kafka);
    let names = [
        ("config.inbox.topic", deployment.inbox()),
        ("config.ledger.topic", deployment.ledger()),
        ("config.forward.dead_letter_topic", deployment.dead_letters()),
        ("config.sources.main.topic", deployment.topic("{type}").replace("{type}", "request")),
        (r"config.sources.main.routes.request\.updated", deployment.topic("updates")),
        ("config.inbox.partitions", PARTITIONS.to_string()),
        ("config.intake.max_body", "2MiB".to_owned()),
        ("strimzi.replicas", "1".to_owned()),
    ];
    let manifests = render("strimzi", &names);
    let topics = manifests.split("\n---\n").filter(|manifest| manifest.contains("kind: KafkaTopic"));
    let mut made = 0;
    for topic in topics {
        let value = |key: &str| topic.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let settings = topic.split_once("  config:\n").unwrap().1.lines();
        let settings: Vec<_> = settings.filter_map(|line| line.trim().split_once(": ")).collect();
        kafka.create_topic(
            value("  topicName: ").trim_matches('"'),
            value("  partitions: ").parse().unwrap(),
            &settings,
        );
        made += 1;
    }
    assert_eq!(made, 5, "with the route's: {manifests}");
    let relay = deployment
        .relay()
        .set("kafka.create_topics", "false")
        .set("inbox.retention", r#""3d""#)
        .set("dedup.window", r#""1d2h30m""#)
        .set("intake.max_body", r#""2MiB""#)
        .up();
    let event = deployment.delivery(r#"{"id":"a","type":"request","request":{"id":1}}"#);
    assert_eq!(Sender::new(vec![relay.target()]).send(&event), 200);
    deployment.wait_until_forwarded(SOON);
    assert_eq!(deployment.published().len(), 1);
}

/// A scenario of the chart, as Helm renders it with these values over its own.
fn render(scenario: &str, values: &[(&str, String)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chart = root.join("helm/clearfeed-relay");
    let mut helm = Command::new(tools(&["script/chart", "--tools"]).join("bin/helm4"));
    helm.args(["template", "relay"]).arg(&chart);
    helm.arg("--values").arg(chart.join(format!("ci/{scenario}-values.yaml")));
    for (key, value) in values {
        helm.arg("--set").arg(format!("{key}={value}"));
    }
    let output = helm.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
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
