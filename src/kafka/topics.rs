//! The topics that the promise rests on: created where they are missing, and held against what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataBroker};

use super::monitor::Monitor;
use super::topic_rules::{Rule, Wanted};
use super::{ClientError, REQUEST_TIMEOUT, properties};
use crate::config::Config;
use crate::domain::route::TopicName;

/// How often a created topic is looked for.
const VISIBLE_POLL: Duration = Duration::from_millis(20);

/// Why topics are not (yet) as the promise wants them. Each text says what was found, what is wanted, and the
/// command that repairs it.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// Kafka is away, or does not let us look.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Topics are missing or wrong.
    #[error("{}", .0.join("; "))]
    NotAsWanted(Vec<String>),
}

/// Whether the inbox survives the loss of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// At least two replicas have each record before it is acknowledged.
    Durable,
    /// One broker's disk is all there is; the text says what was found.
    NotDurable(String),
}

/// Looks at topics and creates them.
pub struct Topics {
    admin: AdminClient<Monitor>,
    bootstrap_servers: String,
    may_create: bool,
    replication_factor: i32,
}

impl Topics {
    /// Makes the client; nothing is sent yet.
    pub fn new(config: &Config, monitor: Monitor) -> Result<Self, ClientError> {
        let client = properties::base(&config.kafka)?;
        Ok(Self {
            admin: AdminClient::from_config_and_context(&client, monitor)?,
            bootstrap_servers: config.kafka.bootstrap_servers.clone(),
            may_create: config.kafka.create_topics,
            replication_factor: config.kafka.replication_factor,
        })
    }

    /// Creates what is missing, where that is allowed, and holds what is there against what is wanted.
    pub async fn ensure(&self, wanted: &[Wanted]) -> Result<(), TopicsError> {
        let missing: Vec<_> = {
            let existing = self.existing(wanted.iter().map(|topic| topic.name.as_str()))?;
            wanted.iter().filter(|topic| !existing.contains_key(topic.name.as_str())).collect()
        };
        if !missing.is_empty() {
            let copies = self.copies().await;
            if !self.may_create {
                let commands = missing.iter().map(|topic| self.command_for(topic, copies)).collect();
                return Err(TopicsError::NotAsWanted(commands));
            }
            for topic in missing {
                self.create(topic, copies).await?;
            }
            self.wait_until_visible(wanted).await?;
        }
        self.compare(wanted).await
    }

    /// Brokers learn of new topics one after the other.
    async fn wait_until_visible(&self, wanted: &[Wanted]) -> Result<(), KafkaError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while self.existing(wanted.iter().map(|topic| topic.name.as_str()))?.len() < wanted.len()
            && Instant::now() < deadline
        {
            tokio::time::sleep(VISIBLE_POLL).await;
        }
        Ok(())
    }

    /// Names of all topics that there are.
    pub fn names(&self) -> Result<BTreeSet<String>, KafkaError> {
        Ok(self.metadata()?.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Creates one topic. It may exist by now.
    pub async fn create_one(&self, topic: &Wanted) -> Result<(), TopicsError> {
        let copies = self.copies().await;
        self.create(topic, copies).await
    }

    /// The client, to ask for what it may do.
    pub fn client(&self) -> &Client<Monitor> {
        self.admin.inner()
    }

    /// Whether missing topics are created.
    pub fn may_create(&self) -> bool {
        self.may_create
    }

    /// Brokers, and all topics at once: asking for one by name could create it, where brokers create topics by themselves.
    fn metadata(&self) -> Result<Metadata, KafkaError> {
        self.admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)
    }

    /// Partitions and replicas of those of the topics that exist.
    fn existing<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeMap<&'a str, (usize, usize)>, KafkaError> {
        let metadata = self.metadata()?;
        let by_name: BTreeMap<_, _> = metadata.topics().iter().map(|topic| (topic.name(), topic)).collect();
        Ok(names
            .filter_map(|name| {
                let topic = by_name.get(name)?;
                let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
                Some((name, (topic.partitions().len(), replicas.unwrap_or(0))))
            })
            .collect())
    }

    /// Replicas of a topic that the relay creates, where that is known.
    async fn copies(&self) -> Option<usize> {
        if let Ok(copies) = usize::try_from(self.replication_factor) {
            return Some(copies);
        }
        let broker = *self.brokers().ok()?.first()?;
        let config = self.describe_broker(broker).await.ok()?;
        config.get("default.replication.factor")?.value.as_ref()?.parse().ok()
    }

    /// Ids of the brokers that the cluster has now.
    pub(super) fn brokers(&self) -> Result<Vec<i32>, KafkaError> {
        Ok(self.metadata()?.brokers().iter().map(MetadataBroker::id).collect())
    }

    /// Names of all settings that a broker's software knows; none where this client may not see them.
    pub(super) async fn settings_of_broker(&self, id: i32) -> Result<Vec<String>, KafkaError> {
        let config = self.describe_broker(id).await?;
        Ok(config.entries.into_iter().map(|entry| entry.name).collect())
    }

    async fn describe_broker(&self, id: i32) -> Result<ConfigResource, KafkaError> {
        let answers = self.admin.describe_configs([&ResourceSpecifier::Broker(id)], &options()).await?;
        answers.into_iter().next().ok_or(KafkaError::Canceled)?.map_err(KafkaError::AdminOp)
    }

    async fn create(&self, topic: &Wanted, copies: Option<usize>) -> Result<(), TopicsError> {
        let settings = settings(topic, copies);
        let replication = TopicReplication::Fixed(self.replication_factor);
        let new = settings
            .iter()
            .fold(NewTopic::new(topic.name.as_str(), topic.partitions, replication), |new, (key, value)| {
                new.set(key, value)
            });
        for result in self.admin.create_topics([&new], &options()).await? {
            match result {
                Ok(_) => tracing::info!(topic = %topic.name, partitions = topic.partitions, "topic created"),
                // Another replica was quicker.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let problem = format!("topic {name} cannot be created: {code}");
                    return Err(TopicsError::NotAsWanted(vec![problem]));
                }
            }
        }
        Ok(())
    }

    async fn compare(&self, wanted: &[Wanted]) -> Result<(), TopicsError> {
        let mut problems = Vec::new();
        for topic in wanted {
            problems.extend(self.faults(topic).await?);
        }
        if problems.is_empty() { Ok(()) } else { Err(TopicsError::NotAsWanted(problems)) }
    }

    /// What a topic has, and should not.
    pub async fn faults(&self, topic: &Wanted) -> Result<Vec<String>, TopicsError> {
        let existing = self.existing([topic.name()].into_iter())?;
        let Some((partitions, _)) = existing.get(topic.name()) else {
            return Ok(vec![format!("topic {}: created, and not to be seen yet", topic.name)]);
        };
        let mut faults = Vec::new();
        if topic.partitions_matter && *partitions < topic.partitions.unsigned_abs() as usize {
            faults.push(format!(
                "topic {}: found {partitions} partitions, wanted at least inbox.partitions = {}",
                topic.name, topic.partitions
            ));
        }
        let config = self.describe(topic.name()).await?;
        for rule in &topic.rules {
            let found = config.get(rule.key).and_then(|entry| entry.value.clone()).unwrap_or_default();
            if !rule.holds(&found) {
                faults.push(self.repair(&topic.name, rule, &found));
            }
        }
        Ok(faults)
    }

    /// Whether a broker may be lost without losing what stands in this topic: in the inbox, what was answered 200.
    pub async fn durability(&self, topic: &str) -> Result<Durability, TopicsError> {
        let existing = self.existing([topic].into_iter())?;
        let (_, replicas) = existing.get(topic).copied().unwrap_or_default();
        let config = self.describe(topic).await?;
        let in_sync = config.get("min.insync.replicas").and_then(|entry| entry.value.clone());
        let in_sync = in_sync.and_then(|value| value.parse::<usize>().ok()).unwrap_or(1);
        if replicas >= 2 && in_sync >= 2 {
            return Ok(Durability::Durable);
        }
        Ok(Durability::NotDurable(format!(
            "topic {topic}: found {replicas} replicas and min.insync.replicas={in_sync}, wanted at least 3 and 2"
        )))
    }

    async fn describe(&self, topic: &str) -> Result<ConfigResource, TopicsError> {
        let specifier = ResourceSpecifier::Topic(topic);
        let answers = self.admin.describe_configs([&specifier], &options()).await?;
        match answers.into_iter().next() {
            // Every topic has settings; the crate drops the error that stands in their place.
            Some(Ok(config)) if config.entries.is_empty() => {
                Err(KafkaError::AdminOp(RDKafkaErrorCode::TopicAuthorizationFailed).into())
            }
            Some(Ok(config)) => Ok(config),
            Some(Err(code)) => Err(KafkaError::AdminOp(code).into()),
            None => Err(KafkaError::Canceled.into()),
        }
    }

    /// What to do about a topic that is missing and not ours to create.
    pub async fn missing(&self, topic: &Wanted) -> String {
        let copies = self.copies().await;
        self.command_for(topic, copies)
    }

    fn command_for(&self, topic: &Wanted, copies: Option<usize>) -> String {
        format!(
            "topic {} is missing and kafka.create_topics is false; create it with: kafka-topics --bootstrap-server {} {}",
            topic.name,
            self.bootstrap_servers,
            creation(topic, self.replication_factor, copies)
        )
    }

    fn repair(&self, topic: &TopicName, rule: &Rule, found: &str) -> String {
        format!(
            "topic {topic}: found {}={found:?}, wanted {}; repair it with: kafka-configs --bootstrap-server {} \
             --alter --entity-type topics --entity-name {topic} --add-config {0}={}",
            rule.key,
            rule.wanted(),
            self.bootstrap_servers,
            rule.created_with()
        )
    }
}

/// What `kafka-topics` is told to create a topic. Without a number of replicas it takes the broker's default, as we do.
fn creation(topic: &Wanted, replication_factor: i32, copies: Option<usize>) -> String {
    let replicas = if replication_factor > 0 {
        format!(" --replication-factor {replication_factor}")
    } else {
        String::new()
    };
    let configs = settings(topic, copies).into_iter().map(|(key, value)| format!(" --config {key}={value}"));
    let (name, partitions) = (&topic.name, topic.partitions);
    let configs: String = configs.collect();
    format!("--create --topic {name} --partitions {partitions}{replicas}{configs}")
}

/// What a topic is created with. Without the number of replicas the broker's own minimum in sync holds.
fn settings(topic: &Wanted, copies: Option<usize>) -> Vec<(&'static str, String)> {
    let rules = topic.rules.iter().map(|rule| (rule.key, rule.created_with()));
    let in_sync = copies.map(|copies| ("min.insync.replicas", copies.saturating_sub(1).max(1).to_string()));
    let elections = ("unclean.leader.election.enable", "false".to_owned());
    rules.chain(in_sync).chain([elections]).collect()
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_a_missing_topic_makes_what_we_would_make() {
        let topic = Wanted {
            name: TopicName::new("t").unwrap(),
            partitions: 12,
            partitions_matter: false,
            rules: Vec::new(),
        };
        let settings = "--config min.insync.replicas=2 --config unclean.leader.election.enable=false";
        let set = format!("--create --topic t --partitions 12 --replication-factor 3 {settings}");
        assert_eq!(creation(&topic, 3, Some(3)), set);
        let broker_default = format!("--create --topic t --partitions 12 {settings}");
        assert_eq!(creation(&topic, -1, Some(3)), broker_default);
    }
}
