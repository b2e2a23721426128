//! `backfill` puts each request of a span into the snapshot topic, as ClearFeed's REST API tells it, byte for byte; what breaks
//! off goes on where it was; and the token is told to nobody but ClearFeed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use clearfeed_relay::simulator::rest::Health;
use serde_json::Value;

use crate::support::relay::{command, run_to_end};
use crate::support::rest::{Api, TOKEN, created};
use crate::support::{Deployment, Kafka, Record, SOON, asyncapi, http, wait_for};

/// What a backfill came to.
struct Backfill {
    code: Option<i32>,
    summary: Value,
    stderr: String,
}

fn backfill(config: &Path, since: &str, more: &[&str]) -> Backfill {
    let config = config.to_str().unwrap();
    let arguments = [&["backfill", "--config", config, "--since", since, "--json"], more].concat();
    let (code, stdout, stderr) = run_to_end(&arguments);
    assert!(!stdout.contains(TOKEN) && !stderr.contains(TOKEN), "{stdout}{stderr}");
    Backfill { code, summary: serde_json::from_str(&stdout).unwrap_or_default(), stderr }
}

fn count(summary: &Value, key: &str) -> u64 {
    summary[key].as_u64().unwrap_or_else(|| panic!("{key} of {summary}"))
}

/// The newest record of each request.
fn newest(records: &[Record]) -> BTreeMap<u64, &Record> {
    records.iter().map(|record| (record.key().parse().unwrap(), record)).collect()
}

#[test]
fn each_request_of_a_span_is_in_the_topic_as_it_came_although_the_api_fails_and_limits() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("backfill", &kafka);
    let health = Health { rate: 3.try_into().ok(), fault_percent: 20 };
    let api = Api::with(1000, health, deployment.secret_file().parent().unwrap());
    let topic = deployment.topic("snapshots");
    let config = api.of(deployment.relay(), &topic).write();
    let (since, until) = (created(100).to_string(), created(900).to_string());

    let dry = backfill(&config, &since, &["--until", &created(300).to_string(), "--dry-run"]);
    assert_eq!((dry.code, count(&dry.summary, "requests")), (Some(0), 200), "{}", dry.stderr);
    assert!(!kafka.topics().contains(&topic), "--dry-run creates nothing");

    let done = backfill(&config, &since, &["--until", &until, "--source", "main"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!((count(&done.summary, "published"), &done.summary["complete"]), (800, &true.into()));
    let records = deployment.reader().all(&topic);
    asyncapi::assert_messages("requestSnapshots", &records, &[("requestSnapshot", records.len())]);
    asyncapi::assert_headers("snapshotHeaders", records.iter());
    let newest = newest(&records);
    assert_eq!((records.len(), newest.len()), (800, 800), "each once");
    // Three and nine pages; each fifth request failed, which makes 14, and more came too early.
    assert!(api.asked() > 14, "asked {} times", api.asked());
    assert_eq!(api.most_at_once(), 1);
    for (request, record) in newest {
        assert_eq!(Some(String::from_utf8(record.value.clone()).unwrap()), api.requests.json(request));
        let value: Value = serde_json::from_slice(&record.value).unwrap();
        let updated: jiff::Timestamp = value["updated_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(record.header("ce_type"), "ai.clearfeed.request.snapshot");
        assert_eq!(record.header("ce_source"), "/clearfeed/main");
        assert_eq!(record.header("ce_subject"), request.to_string());
        assert_eq!(record.header("ce_time"), updated.to_string());
        assert_eq!(record.header("content-type"), "application/json");
        assert!((created(100)..created(900)).contains(&updated));
    }
    let faulty = deployment.replica("faulty").set("kafka.create_topics", "false");
    kafka.alter_topic(&topic, &[("cleanup.policy", "delete")]);
    let refused = backfill(&api.of(faulty, &topic).write(), &since, &[]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("--add-config cleanup.policy=compact"),
        "{}",
        refused.stderr
    );
    let missing = deployment.replica("missing").set("kafka.create_topics", "false");
    let refused = backfill(&api.of(missing, &deployment.topic("none")).write(), &since, &[]);
    let told = "kafka-topics --bootstrap-server";
    assert!(
        refused.stderr.contains(told) && refused.stderr.contains("--config cleanup.policy=compact"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_token_that_was_regenerated_half_way_ends_it_and_it_goes_on_with_the_new_one() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("token", &kafka);
    let health = Health { rate: 2.try_into().ok(), fault_percent: 0 };
    let api = Api::with(1000, health, deployment.secret_file().parent().unwrap());
    let topic = deployment.topic("snapshots");
    let config = api.of(deployment.relay(), &topic).write();
    let since = created(0).to_string();
    let first = std::thread::scope(|scope| {
        let running = scope.spawn(|| backfill(&config, &since, &["--until", &created(1000).to_string()]));
        wait_for("some pages were asked for", SOON, || (api.asked() >= 3).then_some(()));
        api.regenerate("another-token-of-the-tests");
        running.join().unwrap()
    });
    let Backfill { code, summary, stderr } = first;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("401")
            && stderr.contains(&format!("put the new one into {}", api.token_file().display()))
    );
    let (published, next) =
        (count(&summary, "published"), summary["next_since"].as_str().unwrap().to_owned());
    assert!((200..1000).contains(&published) && next > since && summary["complete"] == false, "{summary}");
    let told = format!(
        "go on with: clearfeed-relay backfill --config {} --source main --since {next} --until",
        config.display()
    );
    assert!(stderr.contains(&told), "{stderr}");

    api.give("another-token-of-the-tests");
    let rest = backfill(&config, &next, &["--until", &created(1000).to_string()]);
    assert_eq!(rest.code, Some(0), "{}", rest.stderr);
    assert!(count(&rest.summary, "published") <= 1000 - published + 1, "no more than the last instant again");
    assert_eq!(newest(&deployment.reader().all(&topic)).len(), 1000);
}

#[test]
fn a_signal_ends_it_with_the_command_to_go_on() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("signal", &kafka);
    let health = Health { rate: 1.try_into().ok(), fault_percent: 0 };
    let api = Api::with(1000, health, deployment.secret_file().parent().unwrap());
    let config = api.of(deployment.relay(), &deployment.topic("snapshots")).write();
    let running = command()
        .args(["backfill", "--config", config.to_str().unwrap(), "--since", &created(0).to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a page was asked for", SOON, || (api.asked() >= 2).then_some(()));
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let ended = running.wait_with_output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert_eq!(ended.status.code(), Some(1), "{stdout}{stderr}");
    let go_on = stderr.lines().find_map(|line| line.strip_prefix("go on with: clearfeed-relay ")).unwrap();
    let arguments: Vec<&str> = go_on.split(' ').chain(["--json"]).collect();
    let (code, stdout, stderr) = run_to_end(&arguments);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(newest(&deployment.reader().all(&deployment.topic("snapshots"))).len(), 1000);
}

#[test]
fn it_ends_as_documented() {
    let deployment = Deployment::at("backfill-ends", "127.0.0.1:9");
    let folder = deployment.secret_file().parent().unwrap().to_owned();
    let api = Api::with(10, Health::default(), &folder);
    let since = created(0).to_string();
    let without = deployment.relay().write();
    let found = backfill(&without, &since, &[]);
    assert!(
        found.code == Some(78) && found.stderr.contains("sources.NAME.api.token_file"),
        "{}",
        found.stderr
    );
    let config = api.of(deployment.relay(), "snapshots").write();
    for (since, more) in [
        ("yesterday", &[][..]),
        (&since, &["--source", "other"]),
        (&since, &["--until", "2020-01-01T00:00:00Z"]),
    ] {
        let found = backfill(&config, since, more);
        assert!(found.code == Some(2) && !found.stderr.is_empty(), "{more:?}: {}", found.stderr);
    }
    let found = backfill(&config, &since, &[]);
    assert!(found.code == Some(69) && found.stderr.contains("127.0.0.1:9"), "Kafka: {}", found.stderr);

    std::fs::remove_file(api.token_file()).unwrap();
    let found = backfill(&config, &since, &["--dry-run"]);
    assert!(found.code == Some(78) && found.stderr.contains("token"), "{}", found.stderr);
    api.give(TOKEN);
    drop(api);
    let found = backfill(&config, &since, &["--dry-run"]);
    assert!(found.code == Some(69) && found.stderr.contains("no connection"), "ClearFeed: {}", found.stderr);
}

/// Subjects of `check` that are wrong, with what was told, and its exit code.
fn check(config: &Path, more: &[&str]) -> (Option<i32>, BTreeMap<String, String>, BTreeSet<String>) {
    let arguments = [&["check", "--config", config.to_str().unwrap(), "--json"], more].concat();
    let (code, stdout, stderr) = run_to_end(&arguments);
    assert!(!stdout.contains(TOKEN) && !stderr.contains(TOKEN), "{stdout}{stderr}");
    let checks: Vec<Value> = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let of = |outcome: &'static str| checks.iter().filter(move |check| check["outcome"] == outcome);
    let wrong = of("wrong").map(|check| (text(check, "subject"), text(check, "detail"))).collect();
    (code, wrong, of("ok").map(|check| text(check, "subject")).collect())
}

#[test]
fn check_tells_whether_the_api_takes_the_token() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("check-api", &kafka);
    let api = Api::with(10, Health::default(), deployment.secret_file().parent().unwrap());
    let private = |file: &Path| {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    };
    private(api.token_file());
    let config = api.of(deployment.relay(), &deployment.topic("snapshots")).write();
    let (_, _, right) = check(&config, &[]);
    assert!(right.contains("source main, API") && right.contains("source main, API token"), "{right:?}");

    let topic = deployment.topic("snapshots");
    kafka.create_topic(&topic, 1, &[("cleanup.policy", "delete")]);
    api.regenerate("another");
    let (code, wrong, _) = check(&config, &[]);
    let told = &wrong[&format!("topic {topic}")];
    assert!(told.contains("--add-config cleanup.policy=compact"), "{told}");
    let told = &wrong["source main, API"];
    assert!(
        code == Some(1) && told.contains("401") && told.contains(&api.token_file().display().to_string()),
        "{told}"
    );

    std::fs::remove_file(api.token_file()).unwrap();
    let (code, wrong, _) = check(&config, &["--offline"]);
    assert!(code == Some(1) && wrong["source main, API token"].contains("cannot be read"), "{wrong:?}");
    api.give("two tokens");
    let (_, wrong, _) = check(&config, &["--offline"]);
    assert!(wrong["source main, API token"].contains("white space inside"), "{wrong:?}");
    api.give(TOKEN);
    drop(api);
    let (code, wrong, _) = check(&config, &[]);
    assert!(code == Some(69) && wrong["source main, API"].contains("no connection"), "{wrong:?}");
}

#[test]
fn the_simulator_tells_over_its_api_what_its_events_are_about() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("simulated-api", &kafka);
    let token = deployment.secret_file().with_file_name("token");
    std::fs::write(&token, TOKEN).unwrap();
    let relay = deployment.relay().up();
    let stderr = token.with_file_name("simulate.err");
    let url = relay.target().url().to_owned();
    let api = ["--api-rate", "1", "--api-faults", "50", "--serve-api", "127.0.0.1:0", "--api-token-file"];
    let arguments = [&["--events", "30", "--requests", "10"][..], &api].concat();
    let mut simulate = command()
        .args([
            "simulate",
            "--url",
            &url,
            "--signed-url",
            crate::support::deployment::PUBLIC_URL,
            "--secret-file",
        ])
        .arg(deployment.secret_file())
        .args(arguments)
        .arg(&token)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let base_url = wait_for("all events were sent", SOON, || {
        let told = std::fs::read_to_string(&stderr).unwrap();
        Some(told.split_once("the API goes on at ")?.1.split(' ').next()?.to_owned())
    });
    let address = base_url.strip_prefix("http://").unwrap().parse().unwrap();
    // Of the second half some break off.
    let ask = |_| Some(http::get(address, "/v1/rest/requests").ok()?.status);
    let statuses: BTreeSet<u16> = (0..10).filter_map(ask).collect();
    let wanted = BTreeSet::from([401, 429, 500, 503]);
    assert_eq!(statuses, wanted, "without a token, beyond the rate, by a fault");
    let topic = deployment.topic("snapshots");
    let plan = deployment.replica("asks").set("sources.main.api.base_url", &format!("{base_url:?}"));
    let plan = plan.set("sources.main.api.token_file", &format!("{:?}", token.display().to_string()));
    let config = plan.set("sources.main.api.snapshot_topic", &format!("{topic:?}")).write();
    let done = backfill(&config, "2020-01-01T00:00:00Z", &[]);
    assert_eq!((done.code, count(&done.summary, "published")), (Some(0), 10), "{}", done.stderr);
    deployment.wait_until_forwarded(SOON);
    let of =
        |records: Vec<Record>| records.iter().map(|record| record.key().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(of(deployment.reader().all(&topic)), of(deployment.published()), "the same requests");

    assert!(Command::new("kill").args(["-INT", &simulate.id().to_string()]).status().unwrap().success());
    let status = wait_for("it ends", SOON, || simulate.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
