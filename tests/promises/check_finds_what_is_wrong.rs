//! `check` finds what is wrong before deliveries come, says how to repair it, and changes nothing.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::deployment::SECRET;
use crate::support::relay::run_to_end;
use crate::support::{Deployment, Kafka, Relay};

/// Exit code, and each subject that is wrong with its detail.
fn check(relay: &Relay, more: &[&str]) -> (i32, Vec<(String, String)>) {
    let arguments = [&["check", "--config", relay.config().to_str().unwrap(), "--json"], more].concat();
    let (code, stdout, stderr) = run_to_end(&arguments);
    let checks: Vec<Value> = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    let text = |check: &Value, key| check[key].as_str().unwrap().to_owned();
    let wrong = checks.iter().filter(|check| check["outcome"] == "wrong");
    (code.unwrap(), wrong.map(|check| (text(check, "subject"), text(check, "detail"))).collect())
}

#[track_caller]
fn assert_wrong(found: &(i32, Vec<(String, String)>), code: i32, subject: &str, detail: &str) {
    let is_it = |(found, told): &(String, String)| found == subject && told.contains(detail);
    assert!(found.0 == code && found.1.iter().any(is_it), "{subject}: {detail}: {found:#?}");
}

fn set_mode(deployment: &Deployment, mode: u32) {
    std::fs::set_permissions(deployment.secret_file(), PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn three_brokers_and_private_files_are_all_right() {
    let kafka = Kafka::own(3);
    let deployment = Deployment::new("check-all", &kafka);
    set_mode(&deployment, 0o440);
    let relay = deployment.relay().up();
    let before = deployment.reader().ends(&deployment.inbox());
    assert_eq!(check(&relay, &[]), (0, Vec::new()));
    let ends = |topic: &str| deployment.reader().ends(topic);
    assert_eq!(ends(&deployment.inbox()), before, "nothing was written");
    assert!(ends(&deployment.events()).values().all(|end| *end == 0), "nothing was written");
    assert!(relay.is_ready(), "nor was the relay disturbed");
    assert_eq!(
        relay.metric(&format!(
            r#"forward_fenced_total{{transactional_id="{}"}}"#,
            deployment.transactional_id("relay")
        )),
        0.0
    );
}

#[test]
fn what_is_wrong_is_told_with_its_repair() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("check-wrong", &kafka);
    let relay = deployment.relay().up();
    let found = check(&relay, &[]);
    assert_wrong(&found, 1, "source main, signing secret 0", "repair it with: chmod o= ");
    assert_wrong(
        &found,
        1,
        "durability",
        "found 1 replicas and min.insync.replicas=1, wanted at least 3 and 2",
    );
    assert_eq!(found.1.len(), 2, "{found:#?}");

    set_mode(&deployment, 0o400);
    assert_eq!(check(&relay, &["--offline"]), (0, Vec::new()));
    std::fs::set_permissions(deployment.secret_file(), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(deployment.secret_file(), "short").unwrap();
    let found = check(&relay, &["--offline"]);
    assert_wrong(&found, 1, "source main, signing secret 0", "5 bytes, wanted at least 16");
    std::fs::write(deployment.secret_file(), SECRET).unwrap();

    for (topic, operations) in
        [(deployment.inbox(), "Write"), (deployment.events(), "Write"), (deployment.ledger(), "Write")]
    {
        kafka.forbid_writing(&topic);
        let repair = format!("--add --allow-principal User:THE_RELAY --operation {operations}");
        let found = check(&relay, &[]);
        assert_wrong(&found, 1, &format!("may use topic {topic}"), &repair);
        kafka.permit_writing(&topic);
    }
    kafka.alter_topic(&deployment.inbox(), &[("retention.ms", "3600000")]);
    let found = check(&relay, &[]);
    assert_wrong(&found, 1, &format!("topic {}", deployment.inbox()), "kafka-configs --bootstrap-server");

    kafka.kill(None);
    let found = check(&relay, &[]);
    assert_wrong(&found, 69, "kafka", kafka.servers());
}
