//! What is refused, and in which words.

use super::{MINIMAL, from_toml, problems};

#[track_caller]
fn assert_problem(more: &str, wanted: &str) {
    let found = problems(more);
    assert!(
        found.lines().any(|line| line.starts_with(wanted)),
        "{found}\nhas no line that starts with\n{wanted}"
    );
}

#[test]
fn values_that_are_none_are_refused() {
    for more in [
        "[admin]\nlisten = \":9090\"",
        "[intake]\nmax_body = \"17MiB\"",
        "[intake]\nmax_connections = 0",
        "[intake]\nheader_timeout = \"0s\"",
        "[dedup]\nmax_ids = -1",
        "[dedup]\nwindow = \"600000000000years\"",
        "[kafka]\nreplication_factor = 0",
        "[kafka]\nbootstrap_servers = \"a:9092,,b\"",
        "[kafka]\ncreate_topics = \"yes\"",
        "[inbox]\npartitions = 0",
        "[inbox]\nretention = \"59m\"",
        "[inbox]\ntopic = \"a topic\"",
        "[forward]\ntransactional_id = \"x-{pod}\"",
        "[forward]\nstart_at = \"yesterday\"",
        "[telemetry]\nlog = \"info,=\"",
        "[sources.main.routes]\nrequest = \"not legal\"",
        "[sources.main.api]\ntoken_file = \"x\"\nreconcile_every = \"10ms\"",
    ] {
        let problems = problems(more);
        assert_eq!(problems.lines().count(), 1, "{more}: {problems}");
        assert!(problems.contains(": found \""), "{problems}");
    }
}

#[test]
fn what_no_key_takes_is_reported() {
    for (more, wanted) in [
        (
            "public_ulr = 1",
            "sources.main.public_ulr: found an unknown key, wanted sources.main.public_url perhaps",
        ),
        (
            "[intak]\nlame_duck = \"1s\"",
            "intak.lame_duck: found an unknown key, wanted intake.lame_duck perhaps",
        ),
        ("[other]\nkey = \"hunter2\"", "other.key: found an unknown key, wanted one of the documented keys"),
        ("[intake]\nmax_body = [\"1MiB\"]", "intake.max_body: found a list or a table, wanted a size"),
        ("topic = { a = 1 }", "sources.main.topic: found a list or a table, wanted a topic name"),
        ("routes = \"x\"", "sources.main.routes: found a single value, wanted a table"),
        ("[kafka.properties]\na.b = 1", "kafka.properties: found something else, wanted only values"),
        ("[kafka]\nproperties = [\"a\"]", "kafka.properties: found something else, wanted only values"),
        ("[sources]\nother = 1", "sources.other: found a single value, wanted a section"),
        (
            "[spool]\nmax_size = \"1GiB\"",
            "spool.directory: found \"\", wanted a directory beside spool.max_size",
        ),
        (
            "[spool]\ndirectory = \"x\"\nmax_size = \"1MiB\"",
            "spool.max_size: found \"1MiB\", wanted a size such as 1GiB",
        ),
        ("[intake.tls]\nkey_file = \"x\"", "intake.tls.certificate_file: found \"\", wanted a file beside"),
        ("[intake.tls]\ncertificate_file = \"x\"", "intake.tls.key_file: found \"\", wanted a file beside"),
        (
            "[sources.main.api]\nbase_url = \"https://x\"",
            "sources.main.api.token_file: found \"\", wanted a file with a Personal Access Token beside sources.main.api.base",
        ),
        (
            "[sources.main.api]\nbase_url = \"http://x\"\ntoken_file = \"x\"",
            "sources.main.api.base_url: found \"http://x\", wanted a URL that starts with https://",
        ),
    ] {
        assert_problem(more, wanted);
    }
    assert!(!problems("[other]\nkey = \"hunter2\"").contains("hunter2"));
    let with_user = problems("[sources.b]\npublic_url = \"https://me:hunter2@host/path\"");
    assert!(with_user.contains("without a user") && !with_user.contains("hunter2"), "{with_user}");
    assert!(
        from_toml(&format!("{MINIMAL}[intake]\n[kafka.properties]\n")).is_ok(),
        "empty sections are legal"
    );
}

#[test]
fn rules_between_keys_are_checked() {
    let second = |url: &str| format!("[sources.b]\npublic_url = \"{url}\"\nsigning_secret_files = [\"/s\"]");
    for (more, wanted) in [
        (
            "[dedup]\nwindow = \"24h30m\"",
            "dedup.window: found \"24h30m\", wanted at least 1day 35m: sources.main.",
        ),
        (
            "max_age = \"25h\"",
            "sources.main.max_redelivery_age: found \"24h\", wanted at least sources.main.max_age",
        ),
        (&second("https://other/clearfeed/events?x"), "sources.main.public_url: found \"https://hooks"),
        (
            "[inbox]\ntopic = \"x\"\n[ledger]\ntopic = \"x\"",
            "ledger.topic: found \"x\", wanted another topic than inbox",
        ),
        (
            "topic = \"clearfeed.inbox\"",
            "inbox.topic: found \"clearfeed.inbox\", wanted a topic to which no template",
        ),
        (
            "[ledger]\ntopic = \"clearfeed.request\"",
            "ledger.topic: found \"clearfeed.request\", wanted a topic to",
        ),
        (
            "[sources.main.routes]\nx = \"clearfeed.dead-letter\"",
            "forward.dead_letter_topic: found \"clearfeed.d",
        ),
        (
            "[sources.main.api]\ntoken_file = \"x\"\nsnapshot_topic = \"clearfeed.ledger\"",
            "sources.main.api.snapshot_topic: found \"clearfeed.ledger\", wanted another topic than ledger.topic",
        ),
        (
            "[sources.main.api]\ntoken_file = \"x\"\nsnapshot_topic = \"clearfeed.request\"",
            "sources.main.api.snapshot_topic: found \"clearfeed.request\", wanted a topic to which no template",
        ),
        (
            "[sources.main.api]\ntoken_file = \"x\"\n[sources.b]\npublic_url = \"https://b/\"\nsigning_secret_files = [\"/s\"]\n[sources.b.api]\ntoken_file = \"y\"",
            "sources.main.api.snapshot_topic: found \"clearfeed.request-snapshots\", wanted another topic than sources.b",
        ),
        (
            "[sources.main.api]\ntoken_file = \"x\"\nreconcile_every = \"71h50m\"",
            "sources.main.api.reconcile_every: found \"71h50m\", wanted less than 2days 23h 50m: inbox.retention less sources.main.api.grace",
        ),
        (
            "[intake]\nlame_duck = \"25s\"",
            "intake.shutdown_timeout: found \"25s\", wanted more than intake.lame_duck",
        ),
        ("[intake]\nanswer_timeout = \"16s\"", "intake.shutdown_timeout: found \"25s\", wanted at least 28s"),
        (
            "[intake]\nmax_buffered = \"512KiB\"",
            "intake.max_buffered: found \"512KiB\", wanted at least intake.max",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            "admin.listen: found \"127.0.0.1:8080\", wanted another port",
        ),
        (
            "[sources.main.routes]\n\"a.b.c\" = \"x\"",
            "sources.main.routes.\"a.b.c\": found \"x\", wanted a route named",
        ),
        (
            "[sources.\"Ä.b\"]\npublic_url = \"https://x/\"",
            "sources.\"Ä.b\": found nothing, wanted a name of 1 to 64",
        ),
    ] {
        assert_problem(more, wanted);
    }
    let unreadable = problems("max_redelivery_age = \"long\"\n[dedup]\nwindow = \"1s\"");
    assert!(!unreadable.contains("dedup.window"), "not judged without max_redelivery_age: {unreadable}");
}

#[test]
fn properties_that_the_promise_rests_on_are_refused_in_both_tables() {
    for name in [
        "acks",
        "enable.idempotence",
        "transactional.id",
        "isolation.level",
        "group.id",
        "group.protocol",
        "group.instance.id",
        "partition.assignment.strategy",
        "partitioner",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "allow.auto.create.topics",
        "bootstrap.servers",
    ] {
        let shown = if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() };
        for table in ["properties", "property_files"] {
            let wanted = format!("kafka.{table}.{shown}: found \"x\", wanted nothing: ");
            assert_problem(&format!("[kafka.{table}]\n\"{name}\" = \"x\""), &wanted);
        }
    }
    let twice = "[kafka.properties]\n\"ssl.ca.location\" = \"a\"\n[kafka.property_files]\n\"ssl.ca.location\" = \"b\"";
    assert_problem(
        twice,
        "kafka.property_files.\"ssl.ca.location\": found \"b\", wanted the property in kafka.pro",
    );
}
