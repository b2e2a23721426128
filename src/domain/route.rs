//! Which topic an event goes to: the source's table of routes first, then its template.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::event::Event;

/// A legal Kafka topic name: 1 to 249 of `[A-Za-z0-9._-]`, and neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(String);

/// Kafka's own limit (org.apache.kafka.common.internals.Topic).
const MAX_TOPIC_NAME: usize = 249;
const PLACEHOLDER: &str = "{type}";

impl TopicName {
    /// What a topic name must look like, for error messages.
    pub const WANTED: &'static str = "a topic name: 1 to 249 of A-Z a-z 0-9 . _ -, not . or ..";

    /// Takes a legal name.
    pub fn new(name: &str) -> Option<Self> {
        let legal = (1..=MAX_TOPIC_NAME).contains(&name.len())
            && name != "."
            && name != ".."
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        legal.then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `clearfeed.{type}`: a literal prefix, at most one placeholder, a literal rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// No placeholder: every event of the source.
    Fixed(TopicName),
    /// The event's type between two literals.
    ByType {
        /// Before the type; never empty, so that a type alone cannot name any topic of the cluster.
        prefix: String,
        /// After the type.
        suffix: String,
    },
}

impl Template {
    /// Reads a template. The error says what is wanted.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some((prefix, suffix)) = text.split_once(PLACEHOLDER) else {
            return match TopicName::new(text) {
                Some(topic) => Ok(Self::Fixed(topic)),
                None if text.contains(['{', '}']) => Err("a topic template whose only placeholder is {type}"),
                None => Err(TopicName::WANTED),
            };
        };
        if prefix.is_empty() {
            return Err("a topic template with a literal prefix, such as clearfeed.{type}");
        }
        // 64 is the longest type that is routed by a template.
        if TopicName::new(&format!("{prefix}{}{suffix}", "t".repeat(MAX_TYPE))).is_none() {
            return Err("a topic template that gives legal topic names: A-Z a-z 0-9 . _ - and one {type}");
        }
        Ok(Self::ByType { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(topic) => topic.fmt(f),
            Self::ByType { prefix, suffix } => write!(f, "{prefix}{PLACEHOLDER}{suffix}"),
        }
    }
}

/// The longest type that may stand in a topic's name.
const MAX_TYPE: usize = 64;

/// Whether a type may stand in a topic's name: `[a-z0-9_-]{1,64}`.
fn is_plain_type(name: &str) -> bool {
    (1..=MAX_TYPE).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// One source's table and template.
#[derive(Debug, Clone)]
pub struct Routes {
    /// `type.sub_type` (or `type` alone) to topic.
    table: BTreeMap<String, TopicName>,
    template: Template,
}

/// Where an event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Named in the configuration: it must exist, or be made, before anything goes on.
    Configured(TopicName),
    /// Made from the event's type: where it neither exists nor may be created the event is a dead letter.
    FromType(TopicName),
    /// The type cannot name a topic.
    None {
        /// What is wrong with it.
        detail: String,
    },
}

impl Template {
    /// Whether it gives this name for some type.
    pub fn may_name(&self, name: &str) -> bool {
        match self {
            Self::Fixed(topic) => topic.as_str() == name,
            Self::ByType { prefix, suffix } => name
                .strip_prefix(prefix.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()))
                .is_some_and(is_plain_type),
        }
    }
}

impl Routes {
    /// Takes the source's template and its table.
    pub fn new(template: Template, table: BTreeMap<String, TopicName>) -> Self {
        Self { table, template }
    }

    /// The topic for this event. `reserved` are the relay's own topics, which no event's type may reach.
    pub fn destination(&self, event: &Event<'_>, reserved: &BTreeSet<TopicName>) -> Destination {
        let full = event.sub_type.as_deref().map(|sub_type| format!("{}.{sub_type}", event.kind));
        let named =
            full.and_then(|full| self.table.get(&full)).or_else(|| self.table.get(event.kind.as_ref()));
        if let Some(topic) = named {
            return Destination::Configured(topic.clone());
        }
        match &self.template {
            Template::Fixed(topic) => Destination::Configured(topic.clone()),
            Template::ByType { prefix, suffix } => {
                if !is_plain_type(&event.kind) {
                    let detail =
                        "the event's type is not of [a-z0-9_-]{1,64} and no route names it".to_owned();
                    return Destination::None { detail };
                }
                match TopicName::new(&format!("{prefix}{}{suffix}", event.kind)) {
                    Some(topic) if !reserved.contains(&topic) => Destination::FromType(topic),
                    _ => Destination::None {
                        detail: format!("the type {} leads to one of the relay's own topics", event.kind),
                    },
                }
            }
        }
    }

    /// Topics that the configuration names in full, and those of the types that ClearFeed documents.
    pub fn known_topics(&self) -> BTreeSet<TopicName> {
        let by_template = match &self.template {
            Template::Fixed(topic) => Some(topic.clone()),
            Template::ByType { prefix, suffix } => TopicName::new(&format!("{prefix}request{suffix}")),
        };
        self.table.values().cloned().chain(by_template).collect()
    }

    /// Whether some event goes to the topic of this name.
    pub fn may_name(&self, topic: &str) -> bool {
        self.template.may_name(topic) || self.table.values().any(|named| named.as_str() == topic)
    }

    /// The template, for `/status` and error messages.
    pub fn template(&self) -> &Template {
        &self.template
    }
}
