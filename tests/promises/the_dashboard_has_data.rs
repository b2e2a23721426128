//! The dashboard and the rules, asked of a real Prometheus that scrapes real relays: in daily work, while somebody signs with a
//! wrong secret, and without Kafka. No question is refused, and each has an answer where one is due.

use std::time::Instant;

use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::Target;
use clearfeed_relay::simulator::rest::Health;
use serde_json::Value;

use crate::support::dashboard::{Dashboard, Query, selectors};
use crate::support::deployment::secret;
use crate::support::prometheus::Prometheus;
use crate::support::relay::Plan;
use crate::support::rest::Api;
use crate::support::simulator::{Settings, load, rate};
use crate::support::{AFTER_TIMEOUTS, Deployment, Kafka, LOOK_EVERY, Relay, Simulation, pause};

const OTHER_URL: &str = "https://hooks.example.com/clearfeed/other-events";
const OTHER_SECRET: &str = "the-secret-of-another-workspace";

/// Nothing is wrong.
const ALERTS: &str = "Alerts A";
/// These relays do not speak TLS.
const CERTIFICATE: &str = "Certificate: time left A";
/// Nothing is synced before Kafka is away.
const SYNC: [&str; 2] = ["Time to sync A", "Time to sync B"];
/// Only the owner of inbox partition 0 reads ClearFeed's API.
const LAST_READ: &str = "Last read A";

/// What Grafana puts in for its macro, at a scrape every second.
const RATE_INTERVAL: &str = "10s";

/// What is chosen in the menus.
type Chosen<'c> = [(&'c str, &'c str); 4];
const ALL: Chosen<'static> = [("namespace", ".*"), ("job", ".*"), ("instance", ".*"), ("source", ".*")];

#[test]
fn every_question_is_answered_in_daily_work_under_attack_and_without_kafka() {
    let kafka = Kafka::own(1);
    let deployment = Deployment::new("dashboard", &kafka);
    let api = Api::with(10, Health::default(), deployment.secret_file().parent().unwrap());
    let spool = deployment.secret_file().with_file_name("spool");
    let one = replica(&deployment, &api, "one").set("spool.directory", &format!("{spool:?}"));
    let relays = [one, replica(&deployment, &api, "two")].map(Plan::start);
    relays.iter().for_each(Relay::wait_ready);
    let prometheus = Prometheus::watching([("blue", &relays[0]), ("green", &relays[1])]);
    let page = Page { dashboard: Dashboard::read(), prometheus };
    let daily = [daily_work(&relays, "", secret()), daily_work(&relays, "other", other_secret())];

    page.has_data(&ALL, &[&[ALERTS, CERTIFICATE], &SYNC[..]].concat());
    page.has_marks_and_menus();
    page.knows_every_series();
    let one = relays[0].admin().to_string();
    page.has_data(
        &[("namespace", "(blue|red)"), ("job", "relay"), ("instance", &one), ("source", "other")],
        &[&[ALERTS, CERTIFICATE, LAST_READ], &SYNC[..]].concat(),
    );

    let attack = Simulation::start_signed(load(targets(&relays, ""), 50_000, 50), other_secret());
    page.shows("Not authenticated A", |values| values.iter().any(|rate| *rate > 0.0));
    page.shows(ALERTS, |states| !states.is_empty());
    page.alerts_of(&["ClearfeedRelayAuthFailuresHigh"]);
    attack.stop();

    kafka.kill(None);
    page.shows("Brokers connected A", |brokers| brokers.iter().all(|up| *up == 0.0));
    // Of the two the one that has a spool.
    page.shows("Where deliveries go A", |ways| ways.contains(&1.0) && ways.contains(&0.0));
    page.shows("Waiting in the spool A", |records| records.iter().any(|records| *records > 0.0));
    SYNC.iter().for_each(|sync| page.shows(sync, |seconds| seconds.iter().all(|seconds| *seconds > 0.0)));
    page.shows("Errors A", |rates| rates.iter().any(|rate| *rate > 0.0));
    page.shows("Error budget: how fast it burns A", |burns| burns.iter().any(|burn| *burn > 1.0));
    page.alerts_of(&["ClearfeedRelayDeliveriesFail", "ClearfeedRelayKafkaUnreachable"]);
    let queries = page.dashboard.queries();
    let passing = queries.iter().filter(|query| !lasts_without_kafka(query)).map(|query| &*query.name);
    page.has_data(&ALL, &passing.collect::<Vec<_>>());
    daily.into_iter().for_each(|load| drop(load.stop()));
}

/// Quantiles are of what took place just now, and partitions belong to nobody for as long as their group does not meet.
fn lasts_without_kafka(query: &Query) -> bool {
    !query.expression.contains("histogram_quantile")
        && !["Lag in records A", CERTIFICATE].contains(&&*query.name)
}

fn replica(deployment: &Deployment, api: &Api, name: &str) -> Plan {
    let secret_file = deployment.secret_file().with_file_name("other-secret");
    std::fs::write(&secret_file, OTHER_SECRET).unwrap();
    // Of both sources, for each of them can be chosen.
    let plan = ["main", "other"].into_iter().fold(deployment.replica(name), |plan, source| {
        let key = |key: &str| format!("sources.{source}.api.{key}");
        plan.set(&key("reconcile_every"), r#""1s""#)
            .set(&key("base_url"), &format!("{:?}", api.base_url()))
            .set(&key("token_file"), &format!("{:?}", api.token_file().display().to_string()))
            .set(&key("snapshot_topic"), &format!("{:?}", deployment.topic(&format!("snapshots-{source}"))))
    });
    plan.set("intake.answer_timeout", r#""2s""#) // so that an outage is soon seen
        .set("sources.other.public_url", &format!("{OTHER_URL:?}"))
        .set("sources.other.signing_secret_files", &format!("[{secret_file:?}]"))
        .set("sources.canary.public_url", r#""https://hooks.example.com/clearfeed/canary""#)
        .set("sources.canary.signing_secret_files", &format!("[{secret_file:?}]"))
        .set("sources.canary.topic", &format!("{:?}", deployment.topic("canary")))
        .set("sources.other.topic", &format!("{:?}", deployment.topic("other.{type}")))
}

fn other_secret() -> Secret {
    Secret::new(OTHER_SECRET.as_bytes()).unwrap()
}

/// Of one source at both replicas: of `main`, or of the other one.
fn targets(relays: &[Relay; 2], source: &str) -> Vec<Target> {
    let path = if source.is_empty() { "events" } else { "other-events" };
    let target =
        |relay: &Relay| Target::parse(&format!("http://{}/clearfeed/{path}", relay.intake())).unwrap();
    relays.iter().map(target).collect()
}

/// Goes on until it is stopped.
fn daily_work(relays: &[Relay; 2], source: &str, secret: Secret) -> Simulation {
    let settings = load(targets(relays, source), 10_000, 50);
    let signed_url = if source.is_empty() { settings.signed_url.clone() } else { OTHER_URL.to_owned() };
    Simulation::start_signed(
        Settings { signed_url, rate: rate(20), redeliver_percent: 20, ..settings },
        secret,
    )
}

/// The dashboard as somebody sees it.
struct Page {
    dashboard: Dashboard,
    prometheus: Prometheus,
}

impl Page {
    /// Waits until every query has an answer, but for these.
    #[track_caller]
    fn has_data(&self, chosen: &Chosen<'_>, empty: &[&str]) {
        let queries = self.dashboard.queries();
        wait_until_none("no data", || {
            let is_due = |query: &&Query| !empty.contains(&&*query.name);
            let is_empty = |query: &Query| self.answer(query, chosen).is_empty();
            // All are asked, also those that need not answer.
            let silent: Vec<_> = queries.iter().filter(|query| is_empty(query)).collect();
            silent.into_iter().filter(is_due).map(|query| query.name.clone()).collect()
        });
    }

    /// Waits until a query has such an answer.
    #[track_caller]
    fn shows(&self, name: &str, is_right: impl Fn(&[f64]) -> bool) {
        let query = self.dashboard.queries().into_iter().find(|query| query.name == name).unwrap();
        wait_until_none("not as expected", || {
            let values = self.answer(&query, &ALL);
            if is_right(&values) { Vec::new() } else { vec![format!("{name}: {values:?}")] }
        });
    }

    /// Waits until these alerts are on their way, or there; and every rule could be evaluated.
    #[track_caller]
    fn alerts_of(&self, names: &[&str]) {
        wait_until_none("alerts are quiet", || {
            let rules = self.prometheus.rules();
            let sick: Vec<_> = rules.iter().filter(|rule| rule["health"] == "err").collect();
            assert!(sick.is_empty(), "{sick:#?}");
            let is_loud = |name: &&&str| {
                rules.iter().any(|rule| rule["name"] == ***name && rule["state"] != "inactive")
            };
            names.iter().filter(|name| !is_loud(name)).map(|&name| name.to_owned()).collect()
        });
    }

    #[track_caller]
    fn has_marks_and_menus(&self) {
        let annotations = self.dashboard.annotations();
        assert!(!annotations.is_empty());
        wait_until_none("no marks", || {
            // A mark is there at the moment when something began, which may be a minute ago.
            let marks = |query: &Query| self.prometheus.curve(&filled(&query.expression, &ALL), 60);
            let is_empty = |query: &&Query| marks(query).is_empty();
            annotations.iter().filter(is_empty).map(|query| query.name.clone()).collect()
        });
        for (menu, wanted) in [("namespace", 2), ("job", 1), ("instance", 2), ("source", 3)] {
            let (_, series, label) =
                self.dashboard.menus().into_iter().find(|(name, ..)| name == menu).unwrap();
            let values = self.prometheus.label_values(&filled(&series, &ALL), &label);
            assert_eq!(values.len(), wanted, "{menu}: {values:?}");
        }
    }

    /// Each name with its labels is there, in the dashboard and in the rules: a label value that is never counted is a mistake.
    #[track_caller]
    fn knows_every_series(&self) {
        let of_rules =
            self.prometheus.rules().into_iter().map(|rule: Value| rule["query"].as_str().unwrap().to_owned());
        let of_panels = self.dashboard.queries().into_iter().map(|query| query.expression);
        let asked: Vec<_> = of_rules.chain(of_panels).map(|expression| filled(&expression, &ALL)).collect();
        wait_until_none("there are no such series", || {
            let selectors = asked.iter().flat_map(|expression| selectors(expression));
            let unknown = selectors.filter(|one| !one.starts_with("ALERTS") && !self.prometheus.knows(one));
            unknown.map(str::to_owned).collect()
        });
    }

    #[track_caller]
    fn answer(&self, query: &Query, chosen: &Chosen<'_>) -> Vec<f64> {
        let expression = filled(&query.expression, chosen);
        if query.is_instant {
            self.prometheus.now(&expression)
        } else {
            self.prometheus.curve(&expression, 5)
        }
    }
}

/// With all that Grafana puts in before it asks.
fn filled(expression: &str, chosen: &Chosen<'_>) -> String {
    let expression = expression.replace("$__rate_interval", RATE_INTERVAL);
    let filled =
        chosen.iter().fold(expression, |text, (name, value)| text.replace(&format!("${name}"), value));
    assert!(!filled.contains('$'), "not known to the test: {filled}");
    filled
}

/// Waits until nothing is found any more. Fails with what was found last.
#[track_caller]
fn wait_until_none(what: &str, mut look: impl FnMut() -> Vec<String>) {
    let started = Instant::now();
    loop {
        let found = look();
        if found.is_empty() {
            return;
        }
        assert!(started.elapsed() < AFTER_TIMEOUTS, "{what}, after {AFTER_TIMEOUTS:?}: {found:#?}");
        pause(LOOK_EVERY);
    }
}
