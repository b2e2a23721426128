//! Kafka: reachable, topics as the promise needs them, what this client may do there, clocks.

use std::time::{Duration, Instant};

use clearfeed_relay::config::{Config, Role};
use clearfeed_relay::kafka::monitor::Monitor;
use clearfeed_relay::kafka::permissions::{self, Allowed, Operation};
use clearfeed_relay::kafka::topic_rules;
use clearfeed_relay::kafka::topics::{Durability, Topics, TopicsError};
use clearfeed_relay::kafka::version::{self, Verdict};
use clearfeed_relay::kafka::{REQUEST_TIMEOUT, properties};
use clearfeed_relay::telemetry::health::Health;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};

use super::{Check, records};
use crate::commands::clients;

const VERSION: &str = "kafka version";

/// Longer than any of Kafka's elections.
const TRANSACTIONS_TIMEOUT: Duration = Duration::from_secs(15);

/// What a client has to say of its failure waits in its queue by then.
const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// Adds what was found; false where Kafka cannot be reached.
pub(super) async fn check(config: &Config, checks: &mut Vec<Check>) -> anyhow::Result<bool> {
    let (monitor, health) = clients::monitor(config)?;
    let topics = Topics::new(config, monitor.clone())?;
    let servers = &config.kafka.bootstrap_servers;
    match brokers(config, monitor, &health)? {
        Ok(brokers) => checks.push(Check::ok("kafka", format!("{servers}: {brokers} brokers"))),
        Err(reasons) => {
            let wanted = "wanted kafka.bootstrap_servers and kafka.properties that reach it";
            checks.push(Check::wrong("kafka", format!("{servers}: {reasons}; {wanted}")));
            let mut rest = vec!["topics", "durability", "permissions"];
            if config.role.has_forward() {
                rest.push(VERSION);
                rest.extend(records::SUBJECTS);
            }
            checks.extend(rest.into_iter().map(|subject| Check::skipped(subject, "Kafka was not reached")));
            return Ok(false);
        }
    }
    if config.role.has_forward() {
        checks.push(version(&topics).await?);
    }
    let names = topics.names()?;
    let wanted = topic_rules::wanted(config);
    let (existing, missing): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|topic| names.contains(topic.name()));
    for topic in &missing {
        checks.push(if topics.may_create() {
            Check::ok(format!("topic {}", topic.name()), "missing: serve creates it (wants Create)")
        } else {
            Check::wrong(format!("topic {}", topic.name()), topics.missing(topic).await)
        });
    }
    for topic in &existing {
        let check = format!("topic {}", topic.name());
        checks.push(match topics.faults(topic).await {
            Ok(faults) if faults.is_empty() => Check::ok(check, "as the promise needs it"),
            Ok(faults) => Check::wrong(check, faults.join("; ")),
            // What is missing is told where the permissions are.
            Err(TopicsError::Kafka(KafkaError::AdminOp(code))) if is_refusal(code) => {
                Check::skipped(check, format!("cannot be looked at: {code}"))
            }
            Err(TopicsError::Kafka(error)) => Check::wrong(check, format!("cannot be looked at: {error}")),
            Err(error) => Check::wrong(check, error.to_string()),
        });
    }
    if names.contains(config.inbox.topic.as_str()) {
        checks.push(durability(&topics, &existing).await);
    }
    let existing: Vec<&str> = existing.iter().map(topic_rules::Wanted::name).collect();
    permissions_of(config, &topics, &existing, checks)?;
    if config.role.has_forward() {
        checks.push(transactions(config)?);
        let own = [&config.ledger.topic, &config.inbox.topic];
        if own.iter().all(|topic| names.contains(topic.as_str())) {
            checks.extend(records::check(config)?);
        } else {
            checks.extend(records::SUBJECTS.map(|subject| Check::skipped(subject, "a topic is missing")));
        }
    }
    Ok(true)
}

/// Whether a broker's version can break the promise.
async fn version(topics: &Topics) -> Result<Check, KafkaError> {
    Ok(match version::look(topics).await? {
        Verdict::Sound(found) => Check::ok(VERSION, found),
        Verdict::Faulty(found) => Check::wrong(VERSION, found),
        Verdict::Unknown(reason) => Check::skipped(VERSION, reason),
    })
}

/// How many brokers there are, or why nobody can be asked. A request only tells that nobody answered it; a client that is
/// polled tells why.
fn brokers(config: &Config, monitor: Monitor, health: &Health) -> anyhow::Result<Result<usize, String>> {
    let client = properties::base(&config.kafka)?;
    let consumer: BaseConsumer<Monitor> = BaseConsumer::from_config_and_context(&client, monitor)?;
    let error = match consumer.fetch_metadata(None, REQUEST_TIMEOUT) {
        Ok(metadata) => return Ok(Ok(metadata.brokers().len())),
        Err(error) => error,
    };
    let deadline = Instant::now() + TOLD_WITHIN;
    while Instant::now() < deadline {
        drop(consumer.poll(TOLD_WITHIN));
    }
    let told: Vec<_> = health.kafka().errors.into_values().map(|error| error.detail).collect();
    Ok(Err(if told.is_empty() { error.to_string() } else { told.join("; ") }))
}

/// Whether a broker can be lost, and nothing with it: what waits in the inbox, what the ledger remembers, what was published.
async fn durability(topics: &Topics, existing: &[topic_rules::Wanted]) -> Check {
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for topic in existing {
        match topics.durability(topic.name()).await {
            Ok(Durability::Durable) => {}
            Ok(Durability::NotDurable(found)) => wrong.push(found),
            Err(error) => unknown.push(format!("topic {}: {error}", topic.name())),
        }
    }
    match (wrong.is_empty(), unknown.is_empty()) {
        (false, _) => Check::wrong("durability", wrong.join("; ")),
        (true, false) => Check::skipped("durability", unknown.join("; ")),
        (true, true) => Check::ok("durability", "a broker can be lost"),
    }
}

fn permissions_of(
    config: &Config,
    topics: &Topics,
    existing: &[&str],
    checks: &mut Vec<Check>,
) -> anyhow::Result<()> {
    use Operation::{Describe, DescribeConfigs, Read, Write};
    let allowed = permissions::of_topics(topics.client(), existing)?;
    for name in existing {
        let is_ledger = *name == config.ledger.topic.as_str();
        let needed: &[Operation] = match (*name == config.inbox.topic.as_str(), config.role) {
            (true, Role::Forward) => &[Read, Describe, DescribeConfigs],
            (is_inbox, role) if is_ledger || (is_inbox && role == Role::All) => {
                &[Read, Write, Describe, DescribeConfigs]
            }
            _ => &[Write, Describe, DescribeConfigs],
        };
        let allowed = allowed.get(*name).cloned().unwrap_or(Err(RDKafkaErrorCode::UnknownTopic));
        checks.push(permission(config, &format!("--topic {name}"), needed, &allowed));
    }
    if config.role.has_forward() {
        let group = &config.forward.group;
        let allowed = permissions::of_group(topics.client(), group)?;
        checks.push(permission(config, &format!("--group {group}"), &[Read, Describe], &allowed));
    }
    Ok(())
}

/// `resource` as `kafka-acls` has it.
fn permission(config: &Config, resource: &str, needed: &[Operation], allowed: &Allowed) -> Check {
    let check = format!("may use {}", resource.trim_start_matches("--"));
    let missing: Vec<_> = match allowed {
        Ok(allowed) => needed.iter().filter(|operation| !allowed.contains(&(**operation as u32))).collect(),
        Err(_) => needed.iter().collect(),
    };
    if let Err(code) = allowed
        && !is_refusal(*code)
    {
        return Check::skipped(check, format!("Kafka does not say: {code}"));
    }
    let words =
        |operations: &[&Operation]| operations.iter().map(|operation| operation.as_str()).collect::<Vec<_>>();
    if missing.is_empty() {
        return Check::ok(check, words(&needed.iter().collect::<Vec<_>>()).join(", "));
    }
    let words = words(&missing);
    Check::wrong(check, format!("{} is missing; {}", words.join(", "), acls(config, &words, resource)))
}

fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

fn acls(config: &Config, operations: &[&str], resource: &str) -> String {
    let user = config.kafka.properties.get("sasl.username").map_or("THE_RELAY", String::as_str);
    let operations: Vec<_> = operations.iter().map(|operation| format!("--operation {operation}")).collect();
    format!(
        "repair it with: kafka-acls --bootstrap-server {} --add --allow-principal User:{user} {} {resource}",
        config.kafka.bootstrap_servers,
        operations.join(" ")
    )
}

/// Opens a producer under an id of its own, which begins as the relay's does: under the relay's, it would fence it.
fn transactions(config: &Config) -> anyhow::Result<Check> {
    let id = format!("{}-check", config.forward.transactional_id);
    let check = format!("may use transactional-id {id}");
    let mut client = properties::transactional_producer(config)?;
    client.set("transactional.id", &id);
    let producer: BaseProducer = client.create()?;
    Ok(match producer.init_transactions(TRANSACTIONS_TIMEOUT) {
        Ok(()) => Check::ok(check, "Write, Describe"),
        Err(error) if error.rdkafka_error_code().is_some_and(is_refusal) => {
            let prefix = config.forward.transactional_id.as_str();
            let resource = format!("--transactional-id {prefix} --resource-pattern-type prefixed");
            Check::wrong(check, format!("{error}; {}", acls(config, &["Write", "Describe"], &resource)))
        }
        Err(error) => Check::wrong(check, error.to_string()),
    })
}
