//! Reading as a whole; what is refused, one by one, stands in `refusals`.

mod refusals;

use std::collections::BTreeSet;
use std::time::Duration;

use ::config::FileFormat;

use super::*;

const MINIMAL: &str = r#"
[sources.main]
public_url = "https://hooks.example.com/clearfeed/events"
signing_secret_files = ["/run/secrets/signing"]
"#;

/// The contract's example with every key that this version has, each different from its default where it can
/// be.
const COMPLETE: &str = include_str!("complete.toml");
const COMPLETE_YAML: &str = include_str!("complete.yaml");

fn with_environment(text: &str, format: FileFormat, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    meaning::read(
        text,
        format,
        "relay.toml",
        [("HOSTNAME".into(), "pod-0".into())].into_iter().chain(variables),
        None,
        nothing_further,
    )
}

fn nothing_further(_: &Config, _: &str) -> Vec<Problem> {
    Vec::new()
}

/// The problems, one a line, of `MINIMAL` with this after it.
fn problems(more: &str) -> String {
    from_toml(&format!("{MINIMAL}{more}")).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = from_toml(MINIMAL).unwrap();
    assert_eq!(config.role, Role::All);
    assert_eq!(config.intake.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.intake.max_body_bytes, 1 << 20);
    assert_eq!(config.intake.max_buffered_bytes, 64 << 20);
    assert_eq!(config.intake.answer_timeout, Duration::from_secs(8));
    assert_eq!(config.sources["main"].max_redelivery_age, Duration::from_secs(24 * 3600));
    assert_eq!(config.sources["main"].routes.template().to_string(), "clearfeed.{type}");
    assert!(config.sources["main"].api.is_none());
    assert_eq!(config.kafka.replication_factor, -1);
    assert_eq!(config.forward.transactional_id, "clearfeed-relay-localhost");
    assert_eq!(config.forward.start_at, None);
    assert_eq!(config.dedup.max_ids, 10_000_000);
    assert_eq!(config.telemetry.log_format, LogFormat::Auto);
}

#[test]
fn toml_and_yaml_mean_the_same_for_every_key() {
    let toml = with_environment(COMPLETE, FileFormat::Toml, &[]).unwrap();
    let yaml = with_environment(COMPLETE_YAML, FileFormat::Yaml, &[]).unwrap();
    assert_eq!(format!("{toml:?}"), format!("{yaml:?}"));

    assert_eq!(toml.role, Role::Intake);
    assert_eq!(toml.intake.max_buffered_bytes, 32 << 20);
    assert_eq!(toml.sources["main"].signing_secret_files.len(), 2);
    assert_eq!(toml.sources["main"].signing_secret_files[0], PathBuf::from("/run/secrets/signing-secret"));
    let topics: Vec<String> =
        toml.sources["main"].routes.known_topics().iter().map(ToString::to_string).collect();
    assert_eq!(topics, ["cf.request.events", "support.request-updates"]);
    let [("main", api)] = toml.apis().collect::<Vec<_>>()[..] else { panic!("one API") };
    assert_eq!(api.base_url.to_string(), "https://clearfeed.example.com/api");
    assert_eq!(api.token_file, PathBuf::from("/run/secrets/clearfeed/token"));
    assert_eq!(api.snapshot_topic.as_str(), "cf.snapshots");
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!((api.reconcile_every, api.grace), (Some(minutes(1)), minutes(15)));
    assert_eq!(toml.kafka.properties["security.protocol"], "SASL_SSL");
    assert_eq!(toml.kafka.properties["socket.keepalive.enable"], "true");
    assert_eq!(toml.kafka.properties["linger.ms"], "5");
    assert_eq!(toml.kafka.property_files["sasl.password"], PathBuf::from("/run/secrets/kafka/password"));
    assert_eq!(toml.forward.transactional_id, "cf-pod-0-1");
    assert_eq!(toml.forward.start_at, Some(StartAt::Time("2026-01-31T12:00:00Z".parse().unwrap())));
    assert_eq!(toml.spool.unwrap().max_size_bytes, 2 << 30);
    assert_eq!(toml.telemetry.log, "warn,clearfeed_relay=debug");
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = r#"
        rol = "all"
        [intake]
        max_body = "1XB"
        body_timeout = "5"
        listen = "localhost:8080"
        lame_duck = "1m"
        [sources.main]
        public_url = "http://hooks.example.com/x"
        max_redelivery_age = "3days"
        topic = "{type}"
        [kafka.properties]
        acks = "1"
        [telemetry]
        log_format = "xml"
    "#;
    let problems = from_toml(text).unwrap_err();
    let keys: BTreeSet<&str> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    let wanted = [
        "dedup.window",
        "intake.body_timeout",
        "intake.listen",
        "intake.max_body",
        "intake.shutdown_timeout",
        "kafka.properties.acks",
        "rol",
        "sources.main.public_url",
        "sources.main.signing_secret_files",
        "sources.main.topic",
        "telemetry.log_format",
    ];
    assert_eq!(keys, BTreeSet::from(wanted), "{problems}");
    assert_eq!(problems.0.len(), wanted.len(), "each once: {problems}");
    let first = r#"intake.max_body: found "1XB", wanted a size such as 64KiB or 1MiB, from 1KiB to 16MiB (from relay.toml)"#;
    assert!(problems.to_string().lines().any(|line| line == first), "{problems}");
}

#[test]
fn the_environment_stands_above_the_file_and_the_command_line_above_both() {
    let file = format!("role = \"forward\"\n[intake]\nmax_body = \"2MiB\"\n{MINIMAL}");
    let variables = [("CLEARFEED_RELAY__INTAKE__MAX_BODY", "3MiB"), ("CLEARFEED_RELAY__ROLE", "intake")];
    let config = with_environment(&file, FileFormat::Toml, &variables).unwrap();
    assert_eq!((config.intake.max_body_bytes, config.role), (3 << 20, Role::Intake));
    assert_eq!(from_toml(&file).unwrap().intake.max_body_bytes, 2 << 20);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.yml");
    std::fs::write(&path, "role: forward\nsources: {main: {public_url: https://h.example/x}}\nintake:\n")
        .unwrap();
    assert_eq!(load(&path, std::iter::empty(), None, nothing_further).unwrap().role, Role::Forward);
    let problem = load(&path, std::iter::empty(), Some(Role::All), nothing_further).unwrap_err().to_string();
    assert!(
        problem.starts_with("sources.main.signing_secret_files: found nothing, wanted a list"),
        "{problem}"
    );
}

#[test]
fn the_environment_is_read_as_strictly_as_the_file() {
    let variables = [
        ("CLEARFEED_RELAY__INTAKE__MAX_BODY", "1XB"),
        ("CLEARFEED_RELAY__INTAKE__MAX_BODI", "1MiB"),
        ("CLEARFEED_RELAY__SOURCES__MAIN__TOPIC", "x"),
        ("CLEARFEED_RELAY_PORT", "tcp://10.0.0.1:80"),
    ];
    let problems = with_environment(MINIMAL, FileFormat::Toml, &variables).unwrap_err().to_string();
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(
        lines,
        [
            "intake.max_body: found \"1XB\", wanted a size such as 64KiB or 1MiB, from 1KiB to 16MiB (from CLEARFEED_RELAY__INTAKE__MAX_BODY)",
            "CLEARFEED_RELAY__INTAKE__MAX_BODI: found an unknown variable, wanted CLEARFEED_RELAY__INTAKE__MAX_BODY perhaps",
            "CLEARFEED_RELAY__SOURCES__MAIN__TOPIC: found an unknown variable, wanted a variable of a key in a fixed section: sources and tables stand in the file",
        ]
    );
}

#[test]
fn files_that_cannot_be_read_are_problems_too() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, wanted) in [
        ("relay.json", Some("{}"), "found another kind of file, wanted a name that ends in .toml"),
        ("absent.toml", None, "found No such file or directory"),
        ("broken.toml", Some("role = \"all\"\nrole = \"all\"\n"), "line 2"),
        ("broken.yaml", Some("role: [\n"), "line"),
        ("list.yaml", Some("- role\n"), "wanted valid YAML"),
        ("empty.yaml", Some(""), "sources: found nothing, wanted at least one [sources.NAME]"),
    ] {
        let path = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let problems = load(&path, std::iter::empty(), None, nothing_further).unwrap_err();
        assert!(problems.0.len() == 1 && problems.to_string().contains(wanted), "{problems}");
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let properties = "[kafka.properties]\n\"sasl.username\" = \"relay\"\n\"sasl.password\" = \"hunter2\"\n\
        \"ssl.key.pem\" = \"hunter2\"\n\"sasl.oauthbearer.client.secret\" = \"hunter2\"\n\"sasl.jaas.config\" = \"hunter2\"\n";
    let config = from_toml(&format!("{MINIMAL}{properties}")).unwrap();
    let shown = format!("{config:?}");
    assert!(
        shown.contains("relay") && shown.contains("sasl.password") && !shown.contains("hunter2"),
        "{shown}"
    );
    assert_eq!(config.kafka.properties["sasl.password"], "hunter2");
    let other = properties.replace("hunter2", "hunter3");
    assert_eq!(config.hash, from_toml(&format!("{MINIMAL}{other}")).unwrap().hash);

    let mistyped = problems(
        "[kafka]\nsasl_password = \"hunter2\"\nproperties = { \"sasl.password\" = { x = \"hunter2\" } }",
    );
    assert!(mistyped.lines().count() == 2 && !mistyped.contains("hunter2"), "{mistyped}");
}

#[test]
fn the_hash_tells_settings_apart_and_replicas_not() {
    let of = |host: &str, text: &str, role| {
        let environment = [("HOSTNAME".to_owned(), host.to_owned())];
        meaning::read(text, FileFormat::Toml, "relay.toml", environment.into_iter(), role, nothing_further)
            .unwrap()
    };
    let config = of("a", MINIMAL, None);
    assert_eq!(config.hash.len(), 16);
    assert_eq!(config.hash, of("b", MINIMAL, None).hash);
    assert_eq!(config.hash, of("b", MINIMAL, Some(Role::Forward)).hash);
    let own = "[admin]\nlisten = \"127.0.0.1:1\"\n[forward]\ntransactional_id = \"second\"";
    assert_eq!(config.hash, of("b", &format!("{MINIMAL}{own}"), None).hash);
    assert_eq!(config.hash, of("a", &format!("{MINIMAL}[dedup]\nwindow = \"1500m\""), None).hash, "as meant");
    assert_ne!(config.hash, of("a", &format!("{MINIMAL}[dedup]\nwindow = \"26h\""), None).hash);
}

#[test]
fn every_key_is_listed_once_with_a_default_or_example_that_can_be_read() {
    let table = markdown_table();
    let paths: BTreeSet<&str> = keys::ALL.iter().map(|row| row.path).collect();
    assert_eq!(paths.len(), keys::ALL.len());
    for path in paths {
        let cell = format!("| `{}` |", path.replace('*', "NAME"));
        assert_eq!(table.matches(&cell).count(), 1, "{cell}");
    }
    assert!(table.lines().all(|line| line.matches('|').count() == 5), "{table}");
    assert!(table.contains("| `intake.max_body` | `1MiB` | a size"), "{table}");
    assert!(keys::PUBLIC_URL.kind.parse(keys::PUBLIC_URL.row.fallback.text()).is_ok());
    // `COMPLETE` sets every key, so what is in the table and not here was forgotten.
    let set = document::parse(COMPLETE, FileFormat::Toml, "").unwrap();
    for row in keys::ALL {
        let path = document::KeyPath::of(row.path, "main");
        assert!(set.keys().any(|leaf| leaf.0.starts_with(&path.0)), "{path}");
    }
}
