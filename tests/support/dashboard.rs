//! What is asked of Prometheus: the dashboard's queries, and the names in them and in the rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clearfeed_relay::telemetry::metrics::PREFIX;
use serde_json::Value;

/// From the repository's root.
pub const DASHBOARD: &str = "helm/clearfeed-relay/files/dashboard.json";
/// Alerts and recording rules.
pub const RULES: &str = "helm/clearfeed-relay/files/alerts.yaml";
/// What is of the relay's, or of its process. Names of recording rules begin like those of metrics.
const PREFIXES: [&str; 2] = [PREFIX, "clearfeed_relay:"];
const PROCESS: &str = "process_";
const ALERTS: &str = "ALERTS";

/// A file of the repository.
pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// The dashboard, as Grafana reads it.
pub struct Dashboard(pub Value);

/// What a panel asks.
#[derive(Debug, Clone)]
pub struct Query {
    /// The panel's title and the query's letter: `Deliveries B`.
    pub name: String,
    /// With Grafana's variables and macros in it.
    pub expression: String,
    /// Asked for one moment, and not for a time range.
    pub is_instant: bool,
}

impl Dashboard {
    pub fn read() -> Self {
        Self(serde_json::from_str(&std::fs::read_to_string(path(DASHBOARD)).unwrap()).unwrap())
    }

    /// All but the headings.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        self.elements("/panels").filter(|panel| panel["type"] != "row")
    }

    pub fn elements(&self, pointer: &str) -> impl Iterator<Item = &Value> {
        self.0.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }

    /// What all panels ask.
    pub fn queries(&self) -> Vec<Query> {
        let of = |panel: &Value| {
            let title = text(&panel["title"]).to_owned();
            let query = move |target: &Value| Query {
                name: format!("{title} {}", text(&target["refId"])),
                expression: text(&target["expr"]).to_owned(),
                is_instant: target["instant"] == true,
            };
            panel["targets"].as_array().unwrap().iter().map(query).collect::<Vec<_>>()
        };
        self.panels().flat_map(of).collect()
    }

    /// What the marks on the axis of time are made of: each with its name.
    pub fn annotations(&self) -> Vec<Query> {
        let asking = self.elements("/annotations/list").filter(|annotation| annotation["expr"].is_string());
        let query = |annotation: &Value| Query {
            name: text(&annotation["name"]).to_owned(),
            expression: text(&annotation["expr"]).to_owned(),
            is_instant: false,
        };
        asking.map(query).collect()
    }

    /// What the menus at the top list: each with its name, the series and the label.
    pub fn menus(&self) -> Vec<(String, String, String)> {
        let menu = |variable: &Value| {
            let call = variable["query"]["query"].as_str()?;
            let (series, label) = call.strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(", ")?;
            Some((text(&variable["name"]).to_owned(), series.to_owned(), label.to_owned()))
        };
        self.elements("/templating/list").filter_map(menu).collect()
    }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("wanted a text: {value}"))
}

/// Every name of a metric, a rule or the alerts in some PromQL, with what is chosen of it: `name` or `name{label="value"}`.
pub fn selectors(promql: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = BTreeSet::new();
    let mut rest = promql;
    while let Some(begin) = rest.find(is_part) {
        rest = &rest[begin..];
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        let labels =
            if rest[name.len()..].starts_with('{') { rest.find('}').unwrap() + 1 } else { name.len() };
        if PREFIXES.iter().chain([&PROCESS]).any(|prefix| name.starts_with(prefix)) || name == ALERTS {
            found.insert(&rest[..labels]);
        }
        rest = &rest[labels..];
    }
    found
}

/// The name in a selector, without what Prometheus adds to that of a histogram.
pub fn family(selector: &str) -> &str {
    let name = selector.split('{').next().unwrap_or_default();
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}
