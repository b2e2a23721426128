//! What the README says of names and defaults is what the program has: its tables are the program's own, its example is
//! read by the program, its links lead somewhere.
//!
//! `RENEW=1 cargo test --test readme` writes the tables anew.

#![allow(clippy::disallowed_methods, reason = "RENEW is the test's, not the relay's")]
#![allow(clippy::unwrap_used, reason = "what tests are for")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clearfeed_relay::config;
use clearfeed_relay::kafka::version;
use clearfeed_relay::telemetry::metrics;

/// Two tables of one file may be renewed at the same time.
static README: Mutex<()> = Mutex::new(());

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// Where the text between the markers of this name stands.
fn between(text: &str, name: &str) -> std::ops::Range<usize> {
    let begin =
        text.find(&format!("<!-- {name}: begin")).unwrap_or_else(|| panic!("no marker `{name}: begin`"));
    let begin = begin + text[begin..].find("-->\n").unwrap() + "-->\n".len();
    let end =
        text.find(&format!("<!-- {name}: end -->")).unwrap_or_else(|| panic!("no marker `{name}: end`"));
    begin..end
}

/// The code of the fenced block between the markers of this name.
fn block(name: &str) -> String {
    let text = readme();
    let lines: Vec<&str> = text[between(&text, name)].lines().collect();
    let [first, code @ .., last] = lines.as_slice() else { panic!("nothing between the markers of {name}") };
    assert!(first.starts_with("```") && *last == "```", "no fenced block between the markers of {name}");
    code.join("\n")
}

/// The README has this table between its markers; with RENEW, it does afterwards.
fn has_table(name: &str, wanted: &str) {
    let _guard = README.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut text = readme();
    let range = between(&text, name);
    if text[range.clone()].trim() == wanted.trim() {
        return;
    }
    if std::env::var_os("RENEW").is_some() {
        text.replace_range(range, &format!("\n{}\n\n", wanted.trim()));
        std::fs::write(root().join("README.md"), text).unwrap();
        return;
    }
    let (found, wanted) = (text[range].trim(), wanted.trim());
    let first = wanted.lines().find(|line| !found.lines().any(|other| other == *line));
    let gone = found.lines().find(|line| !wanted.lines().any(|other| other == *line));
    panic!(
        "the README's table `{name}` is not the program's\n  not there yet: {}\n  of old:        {}\n\
         renew it with: RENEW=1 cargo test --test readme",
        first.unwrap_or("-"),
        gone.unwrap_or("-")
    );
}

#[test]
fn the_table_of_keys_is_the_configurations() {
    has_table("configuration", &config::markdown_table());
}

#[test]
fn the_table_of_metrics_is_the_catalogue() {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for metrics::Entry { name, kind, labels, help } in metrics::catalogue() {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{name}` | {} | {} | {help} |", kind.as_str(), labels.join(", ")).unwrap();
    }
    has_table("metrics", &table);
}

#[test]
fn the_example_is_a_configuration() {
    let config = config::from_toml(&block("example")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["main"]);
    assert_eq!(config.kafka.bootstrap_servers, "kafka-1:9092,kafka-2:9092,kafka-3:9092");
}

#[test]
fn examples_of_consumers_read_what_is_committed() {
    for name in ["python", "java"] {
        let code = block(name);
        assert!(code.contains("isolation.level") && code.contains("read_committed"), "{name}\n{code}");
    }
}

#[test]
fn who_names_a_faulty_version_of_kafka_names_them_all() {
    const NAMED_IN: [&str; 8] = [
        "README.md",
        "CHANGELOG.md",
        "deploy/compose/compose.yaml",
        "docs/exactly-once.md",
        "docs/operating.md",
        "docs/runbook.md",
        "src/forward/settlement.rs",
        "tests/kafka/pom.xml",
    ];
    let first = version::FAULTY.split(',').next().unwrap();
    for file in NAMED_IN {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (one, all) = (text.matches(first).count(), text.matches(version::FAULTY).count());
        assert!(all > 0 && one == all, "{file}: {first} {one} times, and {} {all} times", version::FAULTY);
    }
}

/// `(target)` of every `[text](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let (mut links, mut is_code) = (Vec::new(), false);
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        links.extend(targets.filter(|_| !is_code).map(|(target, _)| target.to_owned()));
    }
    links
}

/// As GitHub makes them: `#what-it-does-not-do-yet`.
fn anchors(text: &str) -> Vec<String> {
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        format!("#{}", kept.collect::<String>().to_lowercase().replace(' ', "-"))
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    const PAGES: [&str; 9] = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "deploy/README.md",
        "docs/exactly-once.md",
        "docs/logs.md",
        "docs/operating.md",
        "docs/runbook.md",
    ];
    for file in PAGES {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let anchors = anchors(&text);
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let leads = link.starts_with('#') && anchors.contains(link)
                || !link.starts_with('#') && is_there(root().join(file).parent().unwrap(), link);
            assert!(leads, "{file} links to {link}, which is not there");
        }
    }
}

fn is_there(root: &Path, link: &str) -> bool {
    root.join(link.split('#').next().unwrap_or_default()).exists()
}

#[test]
fn links_are_found_and_missing_ones_noticed() {
    let text = "See [a](tests/readme.rs) and [b](#the-house), not\n```\n[c](d)\n```\n";
    assert_eq!(links(text), ["tests/readme.rs", "#the-house"]);
    assert_eq!(anchors("# What it does not do (yet)\ntext"), ["#what-it-does-not-do-yet"]);
    assert!(is_there(&root(), "tests/readme.rs") && !is_there(&root(), "tests/nowhere.rs"));
}
