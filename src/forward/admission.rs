//! Topics that events name by their type: found, created, or refused.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::partition::Admission;
use crate::config::Config;
use crate::domain::route::{Template, TopicName};
use crate::kafka::topic_rules;
use crate::kafka::topics::Topics;

/// A sender of new types must not fill the cluster with topics.
const MAX_TOPICS: usize = 100;
/// A refusal is asked about again after this: somebody may have created the topic.
const REFUSAL_HOLDS: Duration = Duration::from_secs(10);

/// Where Kafka did not answer, it is not asked again for so long: longer than a batch takes, shorter than a held partition
/// waits.
const SILENCE_HOLDS: Duration = Duration::from_millis(200);

/// What is known of topics named by types. The loop's own: not shared.
pub(super) struct TopicAdmission {
    config: Config,
    topics: Topics,
    runtime: Handle,
    exist: RefCell<BTreeSet<TopicName>>,
    refused: RefCell<BTreeMap<TopicName, (Instant, String)>>,
    /// Kafka did not answer, whatever the topic: each record of a batch would wait for it again.
    unavailable: RefCell<Option<(Instant, String)>>,
}

impl TopicAdmission {
    pub(super) fn new(config: Config, topics: Topics, runtime: Handle) -> Self {
        Self {
            config,
            topics,
            runtime,
            exist: RefCell::default(),
            refused: RefCell::default(),
            unavailable: RefCell::default(),
        }
    }

    /// Whether an event may go to this topic; creates it where that is allowed.
    pub(super) fn admit(&self, topic: &TopicName) -> Admission {
        if self.exist.borrow().contains(topic) {
            return Admission::Exists;
        }
        if let Some((since, detail)) = self.refused.borrow().get(topic)
            && since.elapsed() < REFUSAL_HOLDS
        {
            return Admission::Refused(detail.clone());
        }
        if let Some((since, detail)) = &*self.unavailable.borrow()
            && since.elapsed() < SILENCE_HOLDS
        {
            return Admission::Unavailable(detail.clone());
        }
        let admission = self.ask(topic);
        match &admission {
            Admission::Exists => {
                self.exist.borrow_mut().insert(topic.clone());
            }
            Admission::Refused(detail) => {
                self.refused.borrow_mut().insert(topic.clone(), (Instant::now(), detail.clone()));
            }
            Admission::Unavailable(detail) => {
                *self.unavailable.borrow_mut() = Some((Instant::now(), detail.clone()));
            }
        }
        admission
    }

    /// After a failure: a topic may be gone.
    pub(super) fn forget(&self) {
        self.exist.borrow_mut().clear();
    }

    fn ask(&self, topic: &TopicName) -> Admission {
        let names = match self.topics.names() {
            Ok(names) => names,
            Err(error) => return Admission::Unavailable(format!("topics cannot be listed: {error}")),
        };
        if names.contains(topic.as_str()) {
            return Admission::Exists;
        }
        if !self.topics.may_create() {
            let wanted = topic_rules::event_topic(&self.config, topic.clone());
            return Admission::Refused(self.runtime.block_on(self.topics.missing(&wanted)));
        }
        let by_type = |name: &&String| {
            let templates = self.config.sources.values().map(|source| source.routes.template());
            templates.filter(|template| matches!(template, Template::ByType { .. })).any(|t| t.may_name(name))
        };
        if names.iter().filter(by_type).count() >= MAX_TOPICS {
            let detail =
                format!("topic {topic} does not exist, and {MAX_TOPICS} topics named by types do already");
            return Admission::Refused(detail);
        }
        let wanted = topic_rules::event_topic(&self.config, topic.clone());
        match self.runtime.block_on(self.topics.create_one(&wanted)) {
            Ok(()) => Admission::Exists,
            Err(error) => Admission::Unavailable(error.to_string()),
        }
    }
}
