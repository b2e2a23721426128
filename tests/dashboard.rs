//! What the dashboard has to be: it shows every metric of the catalogue and none that is not there, explains every panel, and
//! works for any number of replicas, jobs and namespaces. That it has data is a test of its own, on a real Prometheus
//! (`promises/the_dashboard_has_data.rs`), and that Grafana knows its keys another (`script/dashboard`).
//!
//! `RENEW=1 cargo test --test dashboard` writes its file anew, as tidy as it is to be: after an export from Grafana, for one.

#![allow(clippy::disallowed_methods, reason = "RENEW is the test's, not the relay's")]
#![allow(clippy::unwrap_used, clippy::pedantic, reason = "what tests are for")]
#![allow(missing_docs, unreachable_pub, reason = "support is shared with the tests of promises")]

#[path = "support/dashboard.rs"]
mod dashboard;

use std::collections::BTreeSet;
use std::fs::read_to_string;

use clearfeed_relay::config::Role;
use clearfeed_relay::telemetry::metrics::{self, Metrics, ProcessLabels};
use dashboard::{DASHBOARD, Dashboard, RULES, family, path, selectors, text};
use serde_json::{Value, json};

/// Labels that come with the scrape, the buckets and the alerts.
const OF_PROMETHEUS: [&str; 5] = ["namespace", "job", "instance", "le", "alertname"];
/// In columns: what Grafana divides the width of a page into.
const WIDTH: u64 = 24;

/// Expressions of the rules' file, with the rest of it: names of metrics stand nowhere else in it.
fn rules() -> String {
    read_to_string(path(RULES)).unwrap()
}

/// Fails with all that was found, each in a line.
#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}\n  {}", found.join("\n  "));
}

#[test]
fn its_file_is_tidy() {
    let found = read_to_string(path(DASHBOARD)).unwrap();
    // Two spaces, keys in the order of the alphabet.
    let tidy = format!("{}\n", serde_json::to_string_pretty(&Dashboard::read().0).unwrap());
    if found != tidy && std::env::var_os("RENEW").is_some() {
        return std::fs::write(path(DASHBOARD), tidy).unwrap();
    }
    assert!(found == tidy, "not tidy: RENEW=1 cargo test --test dashboard");
}

#[test]
fn every_metric_is_in_the_dashboard_or_a_rule_and_every_name_in_them_is_there() {
    let (dashboard, rules) = (Dashboard::read(), rules());
    let queries = dashboard.queries();
    let asked = queries.iter().flat_map(|query| selectors(&query.expression)).chain(selectors(&rules));
    let asked: BTreeSet<_> = asked.map(family).filter(|name| name.starts_with(metrics::PREFIX)).collect();
    let catalogue = metrics::catalogue();
    let known: BTreeSet<_> = catalogue.iter().map(|entry| &*entry.name).collect();
    let list = |left: &BTreeSet<&str>, right| left.difference(right).map(|&name| name.to_owned()).collect();
    none("asked for, and not in the catalogue", list(&asked, &known));
    none("in the catalogue, and neither in the dashboard nor in a rule", list(&known, &asked));
    let recorded = |name: &&str| rules.contains(&format!("record: {name}\n"));
    let of_rules = queries.iter().flat_map(|query| selectors(&query.expression)).map(family);
    let unknown = of_rules.filter(|name| name.contains(':')).filter(|name| !recorded(name));
    none("not recorded by a rule", unknown.map(str::to_owned).collect());
}

#[test]
fn what_is_summed_up_by_a_label_has_it() {
    let catalogue = metrics::catalogue();
    let mut faults = Vec::new();
    for query in Dashboard::read().queries() {
        let families: Vec<_> = selectors(&query.expression).into_iter().map(family).collect();
        let asked = catalogue.iter().filter(|entry| families.contains(&&*entry.name));
        let own: Vec<_> = asked.flat_map(|entry| entry.labels.clone()).chain(OF_PROMETHEUS).collect();
        let lists = query.expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
        for label in lists.flat_map(|list| list.split(", ")).filter(|label| !own.contains(label)) {
            faults.push(format!("{}: no label {label}", query.name));
        }
    }
    none("", faults);
}

#[test]
fn every_panel_says_what_it_shows() {
    let dashboard = Dashboard::read();
    let titles: Vec<_> = dashboard.panels().map(|panel| text(&panel["title"])).collect();
    assert_eq!(titles.len(), titles.iter().collect::<BTreeSet<_>>().len(), "titles are unique");
    let runbook = read_to_string(path("docs/runbook.md")).unwrap();
    let sections: Vec<_> = runbook.lines().filter_map(|line| line.split_once("# ")).collect();
    let leads = |anchor: &str| sections.iter().any(|(_, heading)| heading.to_lowercase() == anchor);
    let metrics = Metrics::new([("main", 1)], &ProcessLabels::of_role(Role::All)).unwrap();
    metrics.reconcile("main").unwrap();
    let series = metrics.render();
    let mut faults = Vec::new();
    for panel in dashboard.panels() {
        let (title, description) = (text(&panel["title"]), text(&panel["description"]));
        let mut links = description.split("](docs/runbook.md#").skip(1).peekable();
        if links.peek().is_none() {
            faults.push(format!("{title}: no link to the runbook"));
        }
        for anchor in links.filter_map(|rest| rest.split(')').next()).filter(|anchor| !leads(anchor)) {
            faults.push(format!("{title}: the runbook has no section {anchor}"));
        }
        // *Like this* another panel is meant, *like_this* a label's value.
        for word in description.split('*').skip(1).step_by(2) {
            if !titles.contains(&word) && !series.contains(&format!("=\"{word}\"")) {
                faults.push(format!("{title}: {word} is neither a panel nor a label's value"));
            }
        }
        let defaults = &panel["fieldConfig"]["defaults"];
        if !defaults["unit"].is_string() || !defaults["thresholds"].is_object() {
            faults.push(format!("{title}: no unit, or no thresholds"));
        }
        let is_curve = panel["type"] == "timeseries";
        if is_curve && panel["options"]["legend"]["showLegend"] != true {
            faults.push(format!("{title}: no legend"));
        }
        for target in panel["targets"].as_array().unwrap().iter().filter(|_| is_curve) {
            if text(&target["legendFormat"]).is_empty() {
                faults.push(format!("{title}: no legend of {}", target["refId"]));
            }
        }
    }
    none("", faults);
}

#[test]
fn it_works_for_any_replicas_jobs_and_namespaces() {
    let dashboard = Dashboard::read();
    let mut faults = Vec::new();
    for query in dashboard.queries().iter().chain(&dashboard.annotations()) {
        for selector in selectors(&query.expression) {
            let of_all =
                ["namespace=~\"$namespace", "job=~\"$job"].iter().all(|label| selector.contains(label));
            // What was summed up over the replicas has no instance any more.
            let is_summed = selector.contains(':') || selector.starts_with("ALERTS");
            if !of_all || !(is_summed || selector.contains("instance=~\"$instance\"")) {
                faults.push(format!("{}: not of the chosen replicas: {selector}", query.name));
            }
        }
    }
    none("", faults);
    let menus: Vec<_> = dashboard.menus().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(menus, ["namespace", "job", "instance", "source"]);
    assert_eq!(other_sources(&dashboard.0), Vec::<&Value>::new(), "not of the chosen data source");
}

/// Data sources that are neither the chosen one nor Grafana itself.
fn other_sources(value: &Value) -> Vec<&Value> {
    let chosen = json!({"type": "prometheus", "uid": "${datasource}"});
    match value {
        Value::Object(object) => {
            let own = object.get("datasource").filter(|&own| *own != chosen && own["type"] != "grafana");
            own.into_iter().chain(object.values().flat_map(other_sources)).collect()
        }
        Value::Array(values) => values.iter().flat_map(other_sources).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn rates_follow_the_resolution_of_the_picture() {
    // 30 days are the window of the objectives, whatever is looked at.
    const WINDOWS: [&str; 2] = ["$__rate_interval", "30d"];
    let mut faults = Vec::new();
    for query in Dashboard::read().queries() {
        for window in query.expression.split('[').skip(1).filter_map(|rest| rest.split(']').next()) {
            if !WINDOWS.contains(&window) || (window == "30d" && !query.is_instant) {
                faults.push(format!("{}: [{window}]", query.name));
            }
        }
    }
    none("", faults);
}

#[test]
fn panels_stand_side_by_side_and_not_on_each_other() {
    let dashboard = Dashboard::read();
    let mut taken = BTreeSet::new();
    for panel in dashboard.elements("/panels") {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= WIDTH, "{} is too wide", panel["title"]);
        let mut cells = (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line)));
        assert!(cells.all(|cell| taken.insert(cell)), "{} covers another", panel["title"]);
    }
    let lines = taken.iter().map(|(_, line)| line + 1).max().unwrap_or_default();
    assert_eq!(taken.len() as u64, lines * WIDTH, "no holes");
    let ids: BTreeSet<_> = dashboard.elements("/panels").map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), dashboard.elements("/panels").count(), "numbers of panels are unique");
}

#[test]
fn names_are_found_in_what_is_asked() {
    let asked =
        r#"max by (process) (clearfeed_relay_ready{a="1"} * up) / rate(clearfeed_relay_x_bucket[5m])"#;
    let found: Vec<_> = selectors(asked).into_iter().collect();
    assert_eq!(found, [r#"clearfeed_relay_ready{a="1"}"#, "clearfeed_relay_x_bucket"]);
    assert_eq!(family(found[1]), "clearfeed_relay_x");
}
