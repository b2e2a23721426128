//! `check` finds what is wrong before deliveries come, says how to repair it, and changes nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clearfeed_relay::kafka::version;
use serde_json::Value;

use crate::support::deployment::{PARTITIONS, SECRET};
use crate::support::relay::run_to_end;
use crate::support::simulator::{Settings, load};
use crate::support::{AFTER_TIMEOUTS, Deployment, Kafka, Relay, SOON, Simulation, wait_for};

/// Exit code, and all lines.
fn lines(config: &Path, more: &[&str]) -> (i32, Vec<Value>) {
    let arguments = [&["check", "--config", config.to_str().unwrap(), "--json"], more].concat();
    let (code, stdout, stderr) = run_to_end(&arguments);
    (code.unwrap(), serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}")))
}

/// Exit code, and each subject that is wrong with its detail.
pub(super) fn check(config: &Path, more: &[&str]) -> (i32, Vec<(String, String)>) {
    let (code, checks) = lines(config, more);
    let text = |check: &Value, key| check[key].as_str().unwrap().to_owned();
    let wrong = checks.iter().filter(|check| check["outcome"] == "wrong");
    (code, wrong.map(|check| (text(check, "subject"), text(check, "detail"))).collect())
}

/// What is said of the brokers' version, if anything.
fn version_of(config: &Path) -> Option<(String, String)> {
    let (_, checks) = lines(config, &[]);
    let line = checks.iter().find(|check| check["subject"] == "kafka version")?;
    Some((line["outcome"].as_str()?.to_owned(), line["detail"].as_str()?.to_owned()))
}

#[track_caller]
pub(super) fn assert_wrong(found: &(i32, Vec<(String, String)>), code: i32, subject: &str, detail: &str) {
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
    assert_eq!(check(relay.config(), &[]), (0, Vec::new()));
    assert_eq!(
        version_of(relay.config()),
        Some(("ok".to_owned(), "each broker is older than 4.3".to_owned()))
    );
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

    // A ledger that goes with one broker takes the memory with it, however safe the inbox is.
    kafka.create_topic(&deployment.topic("frail"), PARTITIONS, &[("min.insync.replicas", "1")]);
    let frail = format!("{:?}", deployment.topic("frail"));
    let found = check(&deployment.replica("frail").set("ledger.topic", &frail).write(), &[]);
    assert_wrong(&found, 1, "durability", ".frail: found 3 replicas and min.insync.replicas=1");
}

#[test]
fn what_is_wrong_is_told_with_its_repair() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("check-wrong", &kafka);
    let relay = deployment.relay().up();
    let found = check(relay.config(), &[]);
    assert_wrong(&found, 1, "source main, signing secret 0", "repair it with: chmod o= ");
    assert_wrong(
        &found,
        1,
        "durability",
        "found 1 replicas and min.insync.replicas=1, wanted at least 3 and 2",
    );
    assert_eq!(found.1.len(), 2, "{found:#?}");

    set_mode(&deployment, 0o400);
    assert_eq!(check(relay.config(), &["--offline"]), (0, Vec::new()));
    std::fs::set_permissions(deployment.secret_file(), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(deployment.secret_file(), "short").unwrap();
    let found = check(relay.config(), &["--offline"]);
    assert_wrong(&found, 1, "source main, signing secret 0", "5 bytes, wanted at least 16");
    std::fs::write(deployment.secret_file(), SECRET).unwrap();

    for (topic, operations) in
        [(deployment.inbox(), "Write"), (deployment.events(), "Write"), (deployment.ledger(), "Write")]
    {
        kafka.forbid_writing(&topic);
        let repair = format!("--add --allow-principal User:THE_RELAY --operation {operations}");
        let found = check(relay.config(), &[]);
        assert_wrong(&found, 1, &format!("may use topic {topic}"), &repair);
        kafka.permit_writing(&topic);
    }
    let fewer = deployment.replica("fewer").set("inbox.partitions", "2").write();
    let found = check(&fewer, &[]);
    assert_wrong(&found, 1, "inbox partitions", "repair it with: inbox.partitions = 3");
    assert!(Simulation::run(load(vec![relay.target()], 1, 1)).summary.accepted_events == 1);
    assert!(!check(relay.config(), &[]).1.iter().any(|(subject, _)| subject == "clocks"));
    kafka.restart_ahead(1, 3600);
    wait_for("the relay is back", AFTER_TIMEOUTS, || {
        (Simulation::run(Settings { seed: 2, ..load(vec![relay.target()], 1, 1) }).summary.accepted_events
            == 1)
            .then_some(())
    });
    assert_wrong(&check(relay.config(), &[]), 1, "clocks", "repair it with NTP");

    kafka.alter_topic(&deployment.inbox(), &[("retention.ms", "3600000")]);
    let found = check(relay.config(), &[]);
    assert_wrong(&found, 1, &format!("topic {}", deployment.inbox()), "kafka-configs --bootstrap-server");

    kafka.kill(None);
    let found = check(relay.config(), &[]);
    assert_wrong(&found, 69, "kafka", kafka.servers());
}

/// KAFKA-20734: that the version breaks the promise is tried nowhere here, only that it is named.
#[test]
fn a_version_that_can_break_the_promise_is_told_by_check_and_at_the_start() {
    let kafka = Kafka::of_version("4.4.0");
    let deployment = Deployment::new("check-version", &kafka);
    let relay = deployment.relay().up();
    let detail = format!("broker 1 is 4.4 or later; Kafka {} leave out the marker", version::FAULTY);
    assert_wrong(&check(relay.config(), &[]), 1, "kafka version", &detail);
    let told = wait_for("the start tells it", SOON, || {
        let status = relay.status()?;
        let is_it = |told: &Value| told.as_str().is_some_and(|told| told.starts_with(&detail));
        status["kafka"]["problems"].as_array()?.iter().any(is_it).then_some(status)
    });
    let line = |line: &&Value| line["message"] == "the version of a broker can break the promise";
    assert_eq!(told["logged"].as_array().unwrap().iter().filter(line).count(), 1, "{told:#}");
    assert!(relay.is_ready(), "it works, as long as every partition has a leader");

    let intake = deployment.replica("intake").set("role", r#""intake""#).write();
    assert_eq!(version_of(&intake), None, "an intake has no transactions");
}

#[test]
fn the_directory_of_the_spool_is_looked_at_and_nothing_is_left_in_it() {
    let deployment = Deployment::at("check-spool", "127.0.0.1:9");
    set_mode(&deployment, 0o440);
    let spool = deployment.secret_file().with_file_name("spool");
    let config = deployment.relay().set("spool.directory", &format!("{spool:?}")).write();
    let found = || check(&config, &["--offline"]);
    assert_eq!(found(), (0, Vec::new()), "it is made at the start");
    std::fs::create_dir(&spool).unwrap();
    assert_eq!(found(), (0, Vec::new()));
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    std::fs::write(spool.join("broken-1.sqlite"), "").unwrap();
    assert_wrong(&found(), 1, "spool", "broken-1.sqlite: was broken, and is set aside");
    std::fs::remove_dir_all(&spool).unwrap();
    std::fs::write(&spool, "").unwrap();
    assert_wrong(&found(), 1, "spool", "wanted a directory that the relay can write to");
}

/// SCRAM over TLS, and a Kafka that forbids what no rule allows.
#[test]
fn one_right_at_a_time_is_missed_and_comes_back_by_the_command_that_check_prints() {
    let (kafka, address, authority) = Kafka::secure();
    let deployment = Deployment::new("check-acls", &kafka);
    set_mode(&deployment, 0o440);
    let password = deployment.secret_file().with_file_name("password");
    std::fs::write(&password, "relay-secret\n").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o440)).unwrap();
    let plan = |name: &str| deployment.replica(name).logged_in(&address, &authority, &password);
    kafka.acls(&deployment.acls("all"));
    let relay = plan("relay").up();
    let durability = "durability".to_owned();
    let wrong = |relay: &Relay| {
        let (_, found) = check(relay.config(), &[]);
        found.into_iter().filter(|(subject, _)| *subject != durability).collect::<Vec<_>>()
    };
    assert_eq!(wrong(&relay), Vec::new(), "all that deploy/kafka/acls gives is enough");
    let (outcome, reason) = version_of(relay.config()).unwrap();
    assert!(outcome == "skipped" && reason.contains("DescribeConfigs on the cluster"), "{outcome}: {reason}");
    let right = "--allow-principal User:relay --operation DescribeConfigs --cluster";
    kafka.acls(&[format!("--add {right}")]);
    assert_eq!(version_of(relay.config()).unwrap().0, "ok");
    kafka.acls(&[format!("--remove --force {right}")]);

    let rights = [
        ("Read", format!("--topic {}", deployment.inbox()), "literal"),
        ("Write", format!("--topic {}", deployment.inbox()), "literal"),
        ("Read", format!("--topic {}", deployment.ledger()), "literal"),
        ("Write", format!("--topic {}", deployment.ledger()), "literal"),
        ("Write", format!("--topic {}", deployment.dead_letters()), "literal"),
        ("Write", format!("--topic {}", deployment.events()), "prefixed"),
        ("DescribeConfigs", format!("--topic {}", deployment.events()), "prefixed"),
        ("Read", format!("--group {}", deployment.group()), "literal"),
        ("Write", format!("--transactional-id {}", deployment.transactional_id("")), "prefixed"),
    ];
    for (operation, resource, pattern) in rights {
        kafka.acls(&[format!(
            "--remove --force --allow-principal User:relay --operation {operation} {resource} --resource-pattern-type {pattern}"
        )]);
        let found = wrong(&relay);
        let repair = format!("repair it with: kafka-acls --bootstrap-server {address} ");
        let repairs: Vec<_> =
            found.iter().filter_map(|(_, detail)| Some(detail.split_once(&repair)?.1)).collect();
        // What was taken away before is back, then.
        let is_all = repairs.iter().all(|repair| {
            repair.contains(&format!("--operation {operation} ")) && repair.contains(&resource)
        });
        assert!(
            !found.is_empty() && repairs.len() == found.len() && is_all,
            "{operation} {resource}: {found:#?}"
        );
        kafka.acls(&repairs);
    }
    assert_eq!(wrong(&relay), Vec::new(), "all came back");

    std::fs::write(&password, "another").unwrap();
    assert_wrong(&check(relay.config(), &[]), 69, "kafka", "Authentication failed");
    std::fs::write(&password, "relay-secret").unwrap();
    let untrusted = plan("untrusted")
        .set(r#"kafka.properties."ssl.ca.location""#, r#""/etc/ssl/certs/ca-certificates.crt""#);
    assert_wrong(&check(&untrusted.write(), &[]), 69, "kafka", "certificate");
}
