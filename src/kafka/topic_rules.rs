//! What the promise wants of each topic: the one table of their settings.

use std::collections::BTreeSet;
use std::time::Duration;

use super::properties;
use crate::config::{Api, Config, Role};
use crate::domain::route::TopicName;

/// Segments roll at least this often, so that retention takes what is old, and not much more.
const MAX_SEGMENT: Duration = Duration::from_secs(6 * 3600);
/// The relay gives the ledger it creates more retention than it needs, so that a longer window needs no other topic at once.
const LEDGER_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// A topic and what it must be like.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub(super) name: TopicName,
    pub(super) partitions: i32,
    /// Fewer partitions than wanted break the promise.
    pub(super) partitions_matter: bool,
    pub(super) rules: Vec<Rule>,
}

impl Wanted {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// One setting of a topic.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) key: &'static str,
    bound: Bound,
    /// Beyond the bound, where a topic is created with more than is wanted of it.
    margin: u128,
}

#[derive(Debug, Clone)]
enum Bound {
    Exactly(&'static str),
    /// The first is what a topic is created with.
    OneOf(&'static [&'static str]),
    AtLeast(u128),
    AtMost(u128),
    /// Or -1, without limit.
    AtLeastOrUnlimited(u128),
}

impl Rule {
    const fn new(key: &'static str, bound: Bound) -> Self {
        Self { key, bound, margin: 0 }
    }

    pub(super) fn created_with(&self) -> String {
        match &self.bound {
            Bound::Exactly(value) => (*value).to_owned(),
            Bound::OneOf(values) => values.first().copied().unwrap_or_default().to_owned(),
            Bound::AtLeast(number) | Bound::AtMost(number) | Bound::AtLeastOrUnlimited(number) => {
                (number + self.margin).to_string()
            }
        }
    }

    pub(super) fn holds(&self, found: &str) -> bool {
        let number = found.parse::<u128>();
        match &self.bound {
            Bound::Exactly(value) => found == *value,
            Bound::OneOf(values) => values.contains(&found),
            Bound::AtLeast(least) => number.is_ok_and(|number| number >= *least),
            Bound::AtMost(most) => number.is_ok_and(|number| number <= *most),
            Bound::AtLeastOrUnlimited(least) => found == "-1" || number.is_ok_and(|number| number >= *least),
        }
    }

    pub(super) fn wanted(&self) -> String {
        match &self.bound {
            Bound::Exactly(value) => (*value).to_owned(),
            Bound::OneOf(values) => values.join(" or "),
            Bound::AtLeast(number) => format!("at least {number}"),
            Bound::AtMost(number) => format!("at most {number}"),
            Bound::AtLeastOrUnlimited(number) => format!("at least {number}, or -1"),
        }
    }
}

/// The topics that a process of this configuration needs, with what the promise wants of them.
pub fn wanted(config: &Config) -> Vec<Wanted> {
    let record_bytes = properties::max_record_bytes(config) as u128;
    let fits = Rule::new("max.message.bytes", Bound::AtLeast(record_bytes));
    let log = |name: &TopicName, retention: Duration, margin: Duration| Wanted {
        name: name.clone(),
        partitions: config.inbox.partitions,
        partitions_matter: true,
        rules: vec![
            Rule::new("cleanup.policy", Bound::Exactly("delete")),
            Rule {
                margin: margin.as_millis(),
                ..Rule::new("retention.ms", Bound::AtLeastOrUnlimited(retention.as_millis()))
            },
            Rule::new("retention.bytes", Bound::Exactly("-1")),
            Rule::new("message.timestamp.type", Bound::Exactly("LogAppendTime")),
            Rule::new("segment.ms", Bound::AtMost(MAX_SEGMENT.as_millis())),
            fits.clone(),
        ],
    };
    let mut wanted = vec![log(&config.inbox.topic, config.inbox.retention, Duration::ZERO)];
    if config.role != Role::Intake {
        let ledger_retention = config.dedup.window + config.inbox.retention;
        wanted.push(log(&config.ledger.topic, ledger_retention, LEDGER_MARGIN));
        let known = config.sources.values().flat_map(|source| source.routes.known_topics());
        let events: BTreeSet<_> = known.chain([config.forward.dead_letter_topic.clone()]).collect();
        wanted.extend(events.into_iter().map(|name| event_topic(config, name)));
        wanted.extend(config.apis().map(|(_, api)| snapshot_topic(config, api)));
    }
    wanted
}

/// A topic that events go to.
pub fn event_topic(config: &Config, name: TopicName) -> Wanted {
    let record_bytes = properties::max_record_bytes(config) as u128;
    let rules = vec![Rule::new("max.message.bytes", Bound::AtLeast(record_bytes))];
    Wanted { name, partitions: config.kafka.partitions, partitions_matter: false, rules }
}

/// A topic of requests as the REST API tells them: the newest of each is kept. Who wants old ones to go has both policies.
pub fn snapshot_topic(config: &Config, api: &Api) -> Wanted {
    let policy = Bound::OneOf(&["compact", "compact,delete", "delete,compact"]);
    let mut wanted = event_topic(config, api.snapshot_topic.clone());
    wanted.rules.insert(0, Rule::new("cleanup.policy", policy));
    wanted
}

/// The relay's own topics, which no event's type may lead to.
pub fn reserved(config: &Config) -> BTreeSet<TopicName> {
    let own = [&config.inbox.topic, &config.ledger.topic, &config.forward.dead_letter_topic];
    own.into_iter().chain(config.apis().map(|(_, api)| &api.snapshot_topic)).cloned().collect()
}
