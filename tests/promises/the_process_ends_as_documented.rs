//! Exit codes: 0 for a clean end, 2 for a wrong command line, 78 for a wrong configuration, whose problems are told all at
//! once. A second signal ends the process at once.

use std::time::{Duration, Instant};

use crate::support::relay::run_to_end;
use crate::support::{Deployment, Kafka, SOON, wait_for};

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
fn a_wrong_configuration_is_78_and_all_its_problems_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    let secret = folder.path().join("short-secret");
    std::fs::write(&secret, "fifteen bytes!!").unwrap();
    let text = r#"
        intake.lisen = "0.0.0.0:80"
        intake.max_body = "many"
        intake.lame_duck = "30s"
        sources.main.public_url = "http://hooks.example.com/clearfeed/events"
        sources.main.signing_secret_files = ["SECRET"]
        dedup.window = "1h"
        kafka.properties."enable.idempotence" = "false"
    "#;
    std::fs::write(&config, text).unwrap();
    let (code, stdout, stderr) = run_to_end(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (WRONG_CONFIGURATION, ""), "{stderr}");
    for told in [
        "intake.lisen",
        "intake.max_body",
        "intake.shutdown_timeout",
        "sources.main.public_url",
        "dedup.window",
        "enable.idempotence",
    ] {
        assert!(stderr.contains(told), "{told} in:\n{stderr}");
    }

    // Secrets are looked at when the rest is right.
    let right = format!(
        "sources.main.public_url = \"https://hooks.example.com/e\"\nsources.main.signing_secret_files = [{:?}]\n",
        secret.display().to_string()
    );
    std::fs::write(&config, right).unwrap();
    let (code, _, stderr) = run_to_end(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(code, WRONG_CONFIGURATION, "{stderr}");
    assert!(stderr.contains("short-secret") && !stderr.contains("fifteen"), "{stderr}");

    let (code, _, stderr) = run_to_end(&["serve", "--config", "no-such-file.toml"]);
    assert_eq!(code, WRONG_CONFIGURATION, "{stderr}");
}

#[test]
fn a_signal_ends_the_relay_cleanly_and_a_second_one_at_once() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("signals", &kafka);
    let mut relay = deployment.relay().up();
    relay.stop();
    assert_eq!(relay.log().last().unwrap()["message"], "ended");

    let patient = deployment.replica("patient").set("intake.lame_duck", r#""60s""#);
    let mut relay = patient.set("intake.shutdown_timeout", r#""90s""#).up();
    relay.sigterm();
    wait_for("not ready", SOON, || (!relay.is_ready()).then_some(()));
    let again = Instant::now();
    relay.signal("INT");
    let status = relay.wait_exit(SOON);
    assert!(again.elapsed() < Duration::from_secs(2), "{:?}", again.elapsed());
    assert_eq!(status.code(), Some(1), "what was not drained is no clean end");
}

#[test]
fn a_signal_ends_a_relay_that_waits_for_kafka() {
    let deployment = Deployment::at("no-kafka", "127.0.0.1:9");
    let mut relay = deployment.relay().start();
    assert!(!relay.is_ready());
    relay.stop();
}
