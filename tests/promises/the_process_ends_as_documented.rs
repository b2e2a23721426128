//! Exit codes: 0 for a clean end, 2 for a wrong command line, 78 for a wrong configuration, whose problems are told all at
//! once. A second signal ends the process at once.

use std::time::Instant;

use clearfeed_relay::kafka::properties::TRANSACTION_TIMEOUT;

use crate::support::proxy::{END_TXN, Proxy, Trouble};
use crate::support::relay::run_to_end;
use crate::support::simulator::{Settings, load, rate};
use crate::support::{Deployment, Kafka, SOON, Simulation, wait_for};

const WRONG_COMMAND_LINE: Option<i32> = Some(2);
const WRONG_CONFIGURATION: Option<i32> = Some(78);

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [
        &["serve"][..],
        &[],
        &["serve", "--config", "relay.toml", "--role", "both"],
        &["serve", "--config", "relay.toml", "--nonsense"],
        &["sereve"],
        &["simulate", "--url", "http://127.0.0.1:1/"],
    ] {
        let (code, stdout, stderr) = run_to_end(arguments);
        assert_eq!((code, stdout.as_str()), (WRONG_COMMAND_LINE, ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn the_demo_ends_with_0_after_a_backfill() {
    let (code, stdout, stderr) = run_to_end(&["demo"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let told = stdout.split_once("a backfill puts ").and_then(|(_, told)| told.split(' ').next());
    assert!(told.is_some_and(|snapshots| snapshots.parse::<u64>().unwrap() > 0), "{stdout}");
}

#[test]
fn a_wrong_configuration_is_78_and_all_its_problems_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "fifteen_bytes!!").unwrap();
    let text = format!(
        r#"
        intake.lisen = "0.0.0.0:80"
        intake.max_body = "many"
        intake.lame_duck = "30s"
        sources.main.public_url = "http://hooks.example.com/clearfeed/events"
        sources.main.signing_secret_files = [{secret:?}, "/no/previous/secret"]
        dedup.window = "1h"
        kafka.properties."enable.idempotence" = "false"
        kafka.properties."security.protokol" = "SSL"
        kafka.properties."security.protocol" = "SASL"
        kafka.property_files."sasl.password" = "/no/such/password"
        "#
    );
    std::fs::write(&config, text).unwrap();
    let (code, stdout, stderr) = run_to_end(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (WRONG_CONFIGURATION, ""), "{stderr}");
    for told in [
        "intake.lisen",
        "intake.max_body",
        "intake.shutdown_timeout",
        "sources.main.public_url",
        "sources.main.signing_secret_files[0]: found 15 bytes",
        "dedup.window",
        "enable.idempotence",
        "security.protokol",
        "security.protocol",
        "/no/such/password",
    ] {
        assert!(stderr.contains(told), "{told} in:\n{stderr}");
    }
    assert!(!stderr.contains("fifteen") && !stderr.contains("previous"), "{stderr}");

    let (code, _, stderr) = run_to_end(&["serve", "--config", "no-such-file.toml"]);
    assert_eq!(code, WRONG_CONFIGURATION, "{stderr}");
}

/// librdkafka looks at some properties only together, when a client is made.
#[test]
fn properties_that_do_not_go_together_are_a_wrong_configuration() {
    let deployment = Deployment::at("properties", "127.0.0.1:9");
    for (property, value) in [("max.in.flight", "10"), ("ssl.keystore.location", "/no/such/keystore")] {
        let plan = deployment.relay().set(&format!("kafka.properties.{property:?}"), &format!("{value:?}"));
        let config = plan.set(r#"kafka.properties."security.protocol""#, r#""SSL""#).write();
        let (code, stdout, stderr) = run_to_end(&["serve", "--config", config.to_str().unwrap()]);
        assert_eq!((code, stdout.as_str()), (WRONG_CONFIGURATION, ""), "{property}: {stderr}");
        assert!(stderr.contains(property.split('.').next().unwrap()), "{property}: {stderr}");
    }
}

#[test]
fn a_signal_ends_the_relay_cleanly_and_a_second_one_at_once() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("signals", &kafka);
    // librdkafka's default, which people write down; a transaction takes less.
    let patience = r#"kafka.properties."socket.timeout.ms""#;
    let mut relay = deployment.relay().set(patience, r#""60000""#).up();
    relay.stop();
    assert_eq!(relay.log().last().unwrap()["message"], "ended");

    let patient = deployment.replica("patient").set("intake.lame_duck", r#""60s""#);
    let mut relay = patient.set("intake.shutdown_timeout", r#""90s""#).up();
    relay.sigterm();
    wait_for("not ready", SOON, || (!relay.is_ready()).then_some(()));
    relay.signal("INT");
    let status = relay.wait_exit(SOON); // which would be a minute without the second
    assert_eq!(status.code(), Some(1), "what was not drained is no clean end");
}

/// What cannot be drained in time is no clean end, but it is an end.
#[test]
fn a_drain_that_kafka_holds_up_ends_at_its_deadline() {
    let (proxy, kafka) = Proxy::with_kafka();
    let deployment = Deployment::new("stuck", &kafka);
    let patience = ["intake.body_timeout", "intake.answer_timeout"];
    let plan =
        patience.iter().fold(deployment.relay().behind([&proxy]), |plan, key| plan.set(key, r#""1s""#));
    let mut relay = plan.set("intake.shutdown_timeout", r#""4s""#).up();
    let load = Simulation::start(Settings { rate: rate(50), ..load(vec![relay.target()], 10_000, 50) });
    proxy.begin(Trouble::LostAnswers(Some(END_TXN)));
    wait_for("a commit is under way", SOON, || (proxy.lost() > 0).then_some(()));
    relay.sigterm();
    let told = Instant::now();
    let status = relay.wait_exit(SOON);
    // Sooner than the commit gives up.
    assert!(told.elapsed() < TRANSACTION_TIMEOUT, "{:?}", told.elapsed());
    assert_eq!(status.code(), Some(1));
    load.stop();
}

#[test]
fn a_signal_ends_a_relay_that_waits_for_kafka() {
    let deployment = Deployment::at("no-kafka", "127.0.0.1:9");
    let mut relay = deployment.relay().start();
    assert!(!relay.is_ready());
    relay.stop();
}
