//! librdkafka properties that the configuration may not set, and those whose values are never shown.

use std::collections::BTreeMap;
use std::fmt;

use super::Kafka;

const DURABLE: &str = "a 200 promises the record on all in-sync replicas (acks=all)";
const IDEMPOTENT: &str = "a producer's retries must neither repeat nor reorder records";
const TRANSACTIONS: &str = "it is made from forward.transactional_id; Kafka fences a predecessor by it";
const COMMITTED: &str =
    "the relay chooses it for each reader: the ledger is the truth only when read committed";
const GROUP: &str = "it is forward.group";
const MEMBERSHIP: &str =
    "the relay takes partitions over by the classic protocol, with members that come and go";
const PARTITIONER: &str =
    "a request's events stay in one partition, the one in which other Kafka clients expect them";
const OFFSETS: &str =
    "the ledger says where a partition goes on, and offsets are committed in its transactions";
const CREATION: &str =
    "topics are created by the relay, with the settings that the promise needs, or not at all";
const SERVERS: &str = "use kafka.bootstrap_servers";
const PATIENCE: &str = "it follows from intake.answer_timeout, and in the forward half from the time that a transaction may take";
const SIZE: &str = "it follows from intake.max_body";
const UNSECURED: &str =
    "it makes tokens that nobody signed, for tests alone, and librdkafka quotes it in its log";
const END: &str = "the relay asks for it where it reads the ledger to its end";

/// Properties that the promise rests on, librdkafka's second names for them among them, each with its reason.
pub(super) const REFUSED: [(&str, &str); 23] = [
    ("acks", DURABLE),
    ("request.required.acks", DURABLE),
    ("enable.idempotence", IDEMPOTENT),
    ("transactional.id", TRANSACTIONS),
    ("isolation.level", COMMITTED),
    ("group.id", GROUP),
    ("group.protocol", MEMBERSHIP),
    ("group.instance.id", MEMBERSHIP),
    ("partition.assignment.strategy", MEMBERSHIP),
    ("partitioner", PARTITIONER),
    ("auto.offset.reset", OFFSETS),
    ("enable.auto.commit", OFFSETS),
    ("auto.commit.enable", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("allow.auto.create.topics", CREATION),
    ("bootstrap.servers", SERVERS),
    ("metadata.broker.list", SERVERS),
    ("message.timeout.ms", PATIENCE),
    ("delivery.timeout.ms", PATIENCE),
    ("transaction.timeout.ms", PATIENCE),
    ("message.max.bytes", SIZE),
    ("enable.partition.eof", END),
    ("sasl.oauthbearer.config", UNSECURED),
];

/// Parts of the names of properties that hold secrets, librdkafka's and (`jaas`) those that people copy from
/// Java.
const SECRET: [&str; 9] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "private",
    "key.pem",
    "oauthbearer.config",
    "kinit.cmd",
    "jaas",
];

/// Whether a property's value may be a secret. Rather one too many: a hidden value costs a look into the
/// file.
pub fn is_secret(property: &str) -> bool {
    let property = property.to_lowercase();
    SECRET.iter().any(|part| property.contains(part))
}

/// By hand, so that no log line shows a password.
impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bootstrap_servers,
            create_topics,
            partitions,
            replication_factor,
            properties,
            property_files,
        } = self;
        let show = |(name, value): (&'_ String, &'_ String)| {
            (name.clone(), if is_secret(name) { "…".to_owned() } else { value.clone() })
        };
        f.debug_struct("Kafka")
            .field("bootstrap_servers", bootstrap_servers)
            .field("create_topics", create_topics)
            .field("partitions", partitions)
            .field("replication_factor", replication_factor)
            .field("properties", &properties.iter().map(show).collect::<BTreeMap<_, _>>())
            .field("property_files", property_files)
            .finish()
    }
}
