//! Promise: a dead letter that is put back is published once, however often it is put back, and whoever is killed meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::support::deployment::PARTITIONS;
use crate::support::relay::run_to_end;
use crate::support::simulator::load;
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, Record, Relay, SOON, Sender, Simulation};

/// Longer ago than `dedup.window` is long.
const FORGOTTEN: Duration = Duration::from_secs(26 * 3600);

/// Runs the command to its good end.
#[track_caller]
fn redrive(config: &Path, more: &[&str]) -> Value {
    let arguments = [&["redrive", "--config", config.to_str().unwrap(), "--json"], more].concat();
    let (code, stdout, stderr) = run_to_end(&arguments);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[track_caller]
fn assert_put_back(summary: &Value, put_back: u64, left: Value) {
    assert_eq!((&summary["put_back"], &summary["left"]), (&json!(put_back), &left), "{summary}");
}

/// Where each topic of the relay ends.
fn ends(deployment: &Deployment) -> Vec<BTreeMap<i32, i64>> {
    let topics = [deployment.inbox(), deployment.ledger(), deployment.dead_letters(), deployment.events()];
    topics.iter().map(|topic| deployment.reader().ends(topic)).collect()
}

fn letters(deployment: &Deployment) -> Vec<Record> {
    deployment.reader().all(&deployment.dead_letters())
}

fn again(relay: &mut Relay) {
    relay.stop();
    relay.restart();
    relay.wait_ready();
    relay.wait_active(PARTITIONS);
}

#[test]
fn an_event_whose_type_had_no_topic_is_published_when_there_is_one() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("redriven", &kafka);
    deployment.relay().up().stop();
    let mut relay = deployment.relay().set("kafka.create_topics", "false").up();
    let config = relay.config().to_owned();
    let body = r#"{"id":"i-1","type":"incident","request":{"id":5},"text":"Grüße"}"#;
    assert_eq!(Sender::new(vec![relay.target()]).send(&deployment.delivery(body)), 200);
    deployment.wait_until_forwarded(SOON);
    let first = letters(&deployment).pop().unwrap();

    let before = ends(&deployment);
    let listed = redrive(&config, &["--dry-run"]);
    assert_put_back(&listed, 1, json!({}));
    assert_eq!((&listed["found"], &listed["reasons"]), (&json!(1), &json!({"no_topic": 1})));
    let letter = &listed["letters"][0];
    assert_eq!(letter["inbox"], first.header("inbox"));
    assert_eq!(
        (&letter["id"], &letter["request"], &letter["redrive"]),
        (&json!("i-1"), &json!(5), &json!("put_back"))
    );
    for which in [&["--show"][..], &["--show", first.header("inbox")]] {
        let shown = redrive(&config, which);
        assert_eq!((shown["body"].as_str(), &shown["reason"]), (Some(body), &json!("no_topic")));
        assert!(shown["headers"].as_array().unwrap().contains(&json!(["id", "i-1"])), "{shown}");
    }
    assert_eq!(redrive(&config, &["--dry-run", "--reason", "malformed"])["found"], 0);
    assert_eq!(redrive(&config, &["--dry-run", "--since", "2999-01-01T00:00:00Z"])["found"], 0);
    assert_eq!(redrive(&config, &["--dry-run", "--since", "2001-01-01T00:00:00Z"])["found"], 1);
    assert_eq!(ends(&deployment), before, "nothing was changed");

    // Too early: it dies again, and it is the copy that is to be put back from then on.
    assert_put_back(&redrive(&config, &[]), 1, json!({}));
    deployment.wait_until_forwarded(SOON);
    let second =
        letters(&deployment).into_iter().find(|letter| letter.headers.contains_key("redriven")).unwrap();
    assert_eq!((second.header("redriven"), &second.value), (first.header("inbox"), &first.value));
    assert_eq!(redrive(&config, &["--dry-run"])["left"], json!({"died_again": 1}));

    kafka.create_topic(&deployment.topic("incident"), PARTITIONS, &[]);
    again(&mut relay);
    assert_put_back(&redrive(&config, &["--reason", "no_topic"]), 1, json!({"died_again": 1}));
    deployment.wait_until_forwarded(SOON);
    let published = deployment.reader().all(&deployment.topic("incident"));
    let [event] = &published[..] else { panic!("{published:#?}") };
    assert_eq!((event.header("ce_id"), event.value.as_slice(), event.key()), ("i-1", body.as_bytes(), "5"));
    assert!(!event.headers.contains_key("redriven"));

    assert_put_back(&redrive(&config, &["--forgotten"]), 0, json!({"published": 2}));
    assert_eq!(relay.metric(r#"forward_records_total{outcome="published"}"#), 1.0);
    let skew = relay.metric("inbox_clock_skew_seconds");
    assert_eq!(skew, 0.0, "what was put back says nothing about clocks");
}

/// All of it is put back twice, and once more while relays that forward it are killed.
#[test]
fn put_back_twice_under_kills_each_event_is_published_once_and_in_order() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("redriven-kills", &kafka);
    let forward = |name: &str| deployment.replica(name).set("role", r#""forward""#);
    let mut intake = deployment.replica("intake").set("role", r#""intake""#).start();
    intake.wait_ready();
    // It does not know the source: everything dies.
    let secrets = format!("[{:?}]", deployment.secret_file().display().to_string());
    let mut stranger = forward("stranger")
        .without("sources.main.")
        .set("sources.other.public_url", r#""https://other.example.com/events""#)
        .set("sources.other.signing_secret_files", &secrets)
        .set("sources.other.topic", &format!("{:?}", deployment.topic("{type}")))
        .up();
    let simulated = Simulation::run(load(vec![intake.target()], 3000, 100));
    assert_eq!(simulated.summary.accepted_events, 3000);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    assert_eq!(deployment.published().len(), 0);
    stranger.stop();
    intake.stop();

    let config = forward("relay").write();
    for _ in 0..2 {
        assert_put_back(&redrive(&config, &["--reason", "unknown_source"]), 3000, json!({}));
    }
    let mut relay = forward("relay").start();
    let meanwhile = {
        let config = config.clone();
        thread::spawn(move || redrive(&config, &[]))
    };
    for least in [1, 1000] {
        deployment.reader().until("some are published", &deployment.events(), AFTER_TIMEOUTS, |events| {
            events.len() >= least
        });
        relay.kill9();
        relay.restart();
    }
    meanwhile.join().unwrap();
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
    assert_put_back(&redrive(&config, &["--forgotten"]), 0, json!({"published": 3000}));

    // A tool that does not ask the ledger puts back what is published by now. Who rebuilt the window knows that, too.
    relay.kill9();
    relay.restart();
    for letter in letters(&deployment).iter().take(20) {
        let text = |value: &Vec<u8>| String::from_utf8(value.clone()).unwrap();
        let mut headers: Vec<_> =
            letter.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        headers.push(("redriven", letter.header("inbox").to_owned()));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (partition, _) = letter.header("inbox").split_once(':').unwrap();
        kafka.append(&deployment.inbox(), partition.parse().unwrap(), &headers, &letter.value);
    }
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
    assert_eq!(letters(&deployment).len(), 3000, "nor is it a dead letter once more");
}

#[test]
fn a_conflict_is_never_put_back_and_what_is_forgotten_only_when_that_is_said() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("redriven-never", &kafka);
    let relay = deployment.relay().up();
    let config = relay.config().to_owned();
    let mut sender = Sender::new(vec![relay.target()]);
    let event = |text: &str| format!(r#"{{"id":"e","type":"request","request":{{"id":5}},"text":"{text}"}}"#);
    for body in [event("first"), event("other"), "not an event".to_owned()] {
        assert_eq!(sender.send(&deployment.delivery(body)), 200);
    }
    deployment.wait_until_forwarded(SOON);
    let malformed =
        letters(&deployment).into_iter().find(|letter| letter.header("reason") == "malformed").unwrap();
    assert_put_back(&redrive(&config, &["--forgotten", "--reason", "conflict"]), 0, json!({"conflict": 1}));
    assert_put_back(&redrive(&config, &[]), 1, json!({"conflict": 1}));
    deployment.wait_until_forwarded(SOON);
    let now = letters(&deployment);
    assert_eq!(now.len(), 3, "what is no event is none again: {now:#?}");
    assert_eq!(now.iter().filter(|letter| letter.header("reason") == "conflict").count(), 1);

    // The same dead letter, if it had become one yesterday.
    let copy = now.iter().find(|letter| letter.headers.contains_key("redriven")).unwrap();
    assert_eq!(copy.value, malformed.value);
    kafka.delete_records(&deployment.dead_letters(), &deployment.reader().ends(&deployment.dead_letters()));
    append_aged(&kafka, copy, &["reason", "detail", "inbox"]);
    assert_put_back(&redrive(&config, &[]), 0, json!({"forgotten": 1}));
    assert_put_back(&redrive(&config, &["--forgotten"]), 1, json!({}));
    deployment.wait_until_forwarded(SOON);
    let letters = letters(&deployment);
    assert_eq!(letters.len(), 2, "{letters:#?}");
    assert_eq!(letters.iter().filter(|letter| letter.header("redriven") == copy.header("inbox")).count(), 1);
    assert_eq!(deployment.published().len(), 1);
}

/// Writes a record once more as it is, but older. These headers come first.
fn append_aged(kafka: &Kafka, record: &Record, first: &[&str]) {
    let producer: BaseProducer = kafka.client().create().unwrap();
    let rest = record.headers.keys().map(String::as_str).filter(|name| !first.contains(name));
    let headers = first.iter().copied().chain(rest).fold(OwnedHeaders::new(), |headers, key| {
        headers.insert(Header { key, value: Some(&record.headers[key]) })
    });
    let became = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - FORGOTTEN;
    let aged = BaseRecord::to(&record.topic)
        .key(&record.key)
        .payload(&record.value)
        .timestamp(became.as_millis().try_into().unwrap())
        .headers(headers);
    producer.send(aged).unwrap();
    producer.flush(SOON).unwrap();
}

/// SCRAM over TLS, and a Kafka that forbids what no rule allows.
#[test]
fn the_rights_that_are_documented_are_enough() {
    let (kafka, address, authority) = Kafka::secure();
    let deployment = Deployment::new("redriven-acls", &kafka);
    let relay = deployment.relay().up();
    assert_eq!(Sender::new(vec![relay.target()]).send(&deployment.delivery("not an event")), 200);
    deployment.wait_until_forwarded(SOON);

    let password = deployment.secret_file().with_file_name("password");
    std::fs::write(&password, "relay-secret").unwrap();
    let config = deployment.replica("redrive").logged_in(&address, &authority, &password).write();
    let arguments = ["redrive", "--config", config.to_str().unwrap()];
    let (code, _, stderr) = run_to_end(&arguments);
    let told = format!("topic {}: ", deployment.dead_letters());
    assert!(code == Some(1) && stderr.contains(&told), "{code:?} {stderr}");

    kafka.acls(&deployment.acls("redrive"));
    assert_put_back(&redrive(&config, &[]), 1, json!({}));
    deployment.wait_until_forwarded(SOON);
    assert_eq!(letters(&deployment).len(), 2);
}

#[test]
fn it_ends_with_the_code_that_is_documented() {
    let deployment = Deployment::at("redriven-codes", "127.0.0.1:1");
    let config = deployment.relay().write();
    let code = |more: &[&str]| {
        let (code, stdout, stderr) = run_to_end(&[&["redrive", "--config"], more].concat());
        assert_eq!(stdout, "");
        (code.unwrap(), stderr)
    };
    let config = config.to_str().unwrap();
    for wrong in
        [&["--dry-run", "--show"][..], &["--reason", "nonsense"], &["--show", "5"], &["--since", "today"]]
    {
        let (code, stderr) = code(&[&[config], wrong].concat());
        assert_eq!(code, 2, "{wrong:?}: {stderr}");
    }
    let (unreachable, stderr) = code(&[config, "--dry-run"]);
    assert_eq!(unreachable, 69, "{stderr}");
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
    let wrong = deployment.replica("wrong").set("dedup.window", r#""1s""#).write();
    assert_eq!(code(&[wrong.to_str().unwrap()]).0, 78);
}
