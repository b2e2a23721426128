//! Promise: what a spool holds whose relay is gone comes into the inbox by `spool recover`, and each event out of its topic
//! once, however often that is done.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::support::relay::run_to_end;
use crate::support::simulator::load;
use crate::support::{AFTER_TIMEOUTS, Deployment, Judge, Kafka, SOON, Simulation, wait_for};

fn recover(config: &Path, database: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let paths = ["--config", config.to_str().unwrap(), database.to_str().unwrap()];
    run_to_end(&[&["spool", "recover"], &paths[..], more].concat())
}

/// Runs the command to its good end.
#[track_caller]
fn recovered(config: &Path, database: &Path, more: &[&str]) -> Value {
    let (code, stdout, stderr) = recover(config, database, &[more, &["--json"]].concat());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[track_caller]
fn assert_all(summary: &Value, dry_run: bool, records: u64) {
    let found = ["dry_run", "found", "put", "unreadable"].map(|name| summary[name].clone());
    assert_eq!(found, [json!(dry_run), json!(records), json!(records), json!(0)], "{summary}");
}

#[test]
fn the_volume_of_a_relay_that_was_killed_gives_each_event_once() {
    let (kafka, address, authority) = Kafka::secure();
    let deployment = Deployment::new("recovered", &kafka);
    let folder = deployment.secret_file().with_file_name("spool");
    let plan = || deployment.relay().set("intake.answer_timeout", "\"4s\"");
    let plan = || plan().set("spool.directory", &format!("{folder:?}"));
    let mut relay = plan().up();
    wait_for("the spool is not in use", SOON, || (relay.metric("spool_in_use") == 0.0).then_some(()));
    kafka.kill(None);
    let simulated = Simulation::run(load(vec![relay.target()], 300, 20));
    assert_eq!(simulated.summary.accepted_events, 300, "{}", simulated.summary);
    let config = relay.config().to_owned();
    let (code, _, told) = recover(&config, &folder.join("spool.sqlite"), &[]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("another process has this spool open"), "{told}");
    relay.kill9();

    let volume = folder.with_file_name("volume");
    fs::rename(&folder, &volume).unwrap();
    let database = volume.join("spool.sqlite");
    let before = fs::read(&database).unwrap();
    assert_all(&recovered(&config, &database, &["--dry-run"]), true, 300);
    let (code, _, told) = recover(&config, &database, &[]);
    assert_eq!(code, Some(69), "{told}");
    assert!(told.contains("out of reach"), "{told}");

    kafka.restart(None);
    relay.restart();
    relay.wait_ready();
    let again = {
        let (config, database) = (config.clone(), database.clone());
        thread::spawn(move || recovered(&config, &database, &[]))
    };
    assert_all(&recovered(&config, &database, &[]), false, 300);
    assert_all(&again.join().unwrap(), false, 300);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    assert_all(&recovered(&config, &database, &[]), false, 300);
    deployment.wait_until_forwarded(AFTER_TIMEOUTS);
    Judge::of(&simulated, &deployment.published()).assert_flawless();
    assert_eq!(relay.metric(r#"forward_records_total{outcome="published"}"#), 300.0);
    assert!(fs::read(&database).unwrap() == before, "the file was changed");

    // What a broken page held is lost, and what the others hold is not.
    let page = before.len() as u64 / 4096 / 2;
    fs::OpenOptions::new()
        .write(true)
        .open(&database)
        .unwrap()
        .write_all_at(&[0x5a; 4096], page * 4096)
        .unwrap();
    // As a user who may do nothing yet, and then what intake may.
    let password = folder.with_file_name("password");
    fs::write(&password, "relay-secret").unwrap();
    let config = deployment.replica("recover").logged_in(&address, &authority, &password).write();
    let (code, _, told) = recover(&config, &database, &[]);
    assert!(code == Some(1) && told.contains(&deployment.inbox()), "{code:?} {told}");
    kafka.acls(&deployment.acls("intake"));
    let summary = recovered(&config, &database, &[]);
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert!((200..=300).contains(&count("put")) && count("found") == count("put"), "{summary}");
    assert!(count("found") + count("unreadable") >= 300 && count("unreadable") > 0, "{summary}");

    // A relay that finds such a file at its start does the same by itself.
    relay.kill9();
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::copy(&database, folder.join("spool.sqlite")).unwrap();
    relay.restart();
    relay.wait_ready();
    wait_for("it is drained", AFTER_TIMEOUTS, || (relay.metric("spool_in_use") == 0.0).then_some(()));
    let drained = relay.metric("spool_drained_total") as u64;
    assert_eq!((drained, relay.metric("spool_damaged")), (count("put"), 1.0));
    let told = "the spool was salvaged: the broken file is kept";
    assert!(relay.log().iter().any(|line| line["level"] == "ERROR" && line["message"] == told));
}

#[test]
fn what_cannot_be_recovered_is_told() {
    let deployment = Deployment::new("recover-told", &Kafka::shared());
    let config = deployment.relay().write();
    let database = deployment.secret_file();
    for (arguments, wanted, told) in [
        (&["spool"][..], 2, "Usage: clearfeed-relay spool <COMMAND>"),
        (&["spool", "recover", "--config", config.to_str().unwrap()], 2, "<DATABASE>"),
        (&["spool", "recover", "--config", "/none.toml", "/none.sqlite"], 78, "the configuration is wrong"),
    ] {
        let (code, _, stderr) = run_to_end(arguments);
        assert_eq!(code, Some(wanted), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
    let (code, _, stderr) = recover(&config, &database, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("file is not a database"), "{stderr}");
}
