//! Real brokers: the one that all tests share, and private clusters to be broken.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};

use super::{AFTER_TIMEOUTS, Proxy, SOON, block_on, unique, wait_for};

/// A cluster.
pub struct Kafka {
    servers: String,
    /// Ours to break, and to stop in the end.
    own: Option<String>,
    /// Where it is not the tests' own.
    version: Option<&'static str>,
}

impl Kafka {
    /// The broker of this run of the tests: `script/test` names it; for a plain `cargo test` one is started, and left
    /// running for the next.
    pub fn shared() -> Self {
        static SERVERS: LazyLock<String> = LazyLock::new(|| {
            #[expect(clippy::disallowed_methods, reason = "not the relay's environment but the tests'")]
            let given = std::env::var("CLEARFEED_RELAY_TEST_KAFKA");
            given.unwrap_or_else(|_| script(None, &["start", "1", "--name", "cargo-test"]))
        });
        Self { servers: SERVERS.clone(), own: None, version: None }
    }

    /// A cluster of this test alone, of 1 or 3 brokers, stopped in the end.
    pub fn own(brokers: usize) -> Self {
        Self::started(&["start", &brokers.to_string()]).0
    }

    /// A cluster of this test alone, with settings such as `transactional.id.expiration.ms=10000`.
    pub fn with(brokers: usize, settings: &[&str]) -> Self {
        let brokers = brokers.to_string();
        Self::started(&["start", &brokers].into_iter().chain(set(settings)).collect::<Vec<_>>()).0
    }

    /// A broker of this test alone, of another version; `script/kafka` fetches it.
    pub fn of_version(version: &'static str) -> Self {
        Self::started_as(Some(version), &["start", "1"]).0
    }

    /// A broker that is measured: its JVM optimises what runs often, which no test lives to see.
    pub fn optimised() -> Self {
        Self::started(&["start", "--optimised"]).0
    }

    /// A cluster of this test alone that sends its clients to the proxies before it, but for those that begin at
    /// [`Kafka::servers`]. Each broker has its share of the proxies, the first broker the first ones.
    pub fn behind(brokers: usize, proxies: &[Proxy], settings: &[&str]) -> Self {
        let ports: Vec<_> = proxies.iter().map(|proxy| proxy.address().port().to_string()).collect();
        let (brokers, ports) = (brokers.to_string(), ports.join(","));
        let arguments = ["start", &brokers, "--advertise", &ports].into_iter().chain(set(settings));
        let (kafka, told) = Self::started(&arguments.collect::<Vec<_>>());
        for (proxy, address) in proxies.iter().zip(told.split(',')) {
            proxy.forward_to(address.parse().unwrap());
        }
        kafka
    }

    /// A broker of this test alone that forbids what no rule allows, the address where it wants TLS and the password of
    /// the user `relay`, and the file that its certificate is trusted by.
    pub fn secure() -> (Self, String, String) {
        let (kafka, told) = Self::started(&["start", "--secure"]);
        let (address, authority) = told.split_once(' ').unwrap();
        (kafka, address.to_owned(), authority.to_owned())
    }

    /// A cluster that was started by hand, ours to stop from now on.
    pub fn of_name(name: &str) -> Self {
        let servers = script(None, &["bootstrap", "--name", name]);
        Self { servers, own: Some(name.to_owned()), version: None }
    }

    /// A cluster, and what else `script/kafka` told.
    fn started(arguments: &[&str]) -> (Self, String) {
        Self::started_as(None, arguments)
    }

    fn started_as(version: Option<&'static str>, arguments: &[&str]) -> (Self, String) {
        let name = unique("own");
        let records = std::env::temp_dir(); // which `script/test` has in memory
        let told =
            script(version, &[arguments, &["--name", &name, "--data", records.to_str().unwrap()]].concat());
        let (servers, rest) = told.split_once('\n').unwrap_or((&told, ""));
        (Self { servers: servers.to_owned(), own: Some(name), version }, rest.to_owned())
    }

    /// The bootstrap servers.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// As `script/kafka` has it.
    pub fn name(&self) -> &str {
        self.own.as_ref().expect("a cluster of this test alone")
    }

    /// The process of its first broker, as `script/kafka` notes it.
    pub fn process(&self) -> u32 {
        let name = self.name();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/kafka/{name}/broker-1/pid"));
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    /// SIGKILL to broker 1, 2 or 3, or (`None`) to all.
    pub fn kill(&self, broker: Option<usize>) {
        self.break_it("kill", broker);
    }

    /// SIGSTOP.
    pub fn pause(&self, broker: Option<usize>) {
        self.break_it("pause", broker);
    }

    /// SIGCONT.
    pub fn resume(&self, broker: Option<usize>) {
        self.break_it("resume", broker);
    }

    /// Starts what was killed, or ends it first where it runs, with its old disk and ports; waits until it answers.
    pub fn restart(&self, broker: Option<usize>) {
        self.break_it("restart", broker);
    }

    /// The same, with a clock that is so far ahead.
    pub fn restart_ahead(&self, broker: usize, seconds: u64) {
        self.change("restart", &["--broker", &broker.to_string(), "--clock", &seconds.to_string()]);
    }

    /// Makes each partition's first replica its leader again, wherever leaders went while brokers were away.
    pub fn elect(&self) {
        self.break_it("elect", None);
    }

    fn break_it(&self, command: &str, broker: Option<usize>) {
        let broker = broker.map(|broker| broker.to_string());
        self.change(command, &broker.iter().flat_map(|broker| ["--broker", broker]).collect::<Vec<_>>());
    }

    fn change(&self, command: &str, arguments: &[&str]) {
        script(self.version, &[&[command, "--name", self.name()], arguments].concat());
    }

    /// A client's settings.
    pub fn client(&self) -> ClientConfig {
        client(&self.servers)
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Creates a topic, with settings such as `("max.message.bytes", "20480")`.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let answers = block_on(self.admin().create_topics([&new], &options())).unwrap();
        assert!(answers.iter().all(Result::is_ok), "{topic}: {answers:?}");
    }

    /// Deletes a topic, with all that stands in it; waits until it is gone.
    pub fn delete_topic(&self, topic: &str) {
        let answers = block_on(self.admin().delete_topics(&[topic], &options())).unwrap();
        assert!(answers.iter().all(Result::is_ok), "{topic}: {answers:?}");
        wait_for("the topic is gone", SOON, || {
            (!self.topics().iter().any(|name| name == topic)).then_some(())
        });
    }

    /// Replaces the settings that a topic has of its own.
    pub fn alter_topic(&self, topic: &str, settings: &[(&str, &str)]) {
        let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let alter = settings.iter().fold(alter, |alter, (key, value)| alter.set(key, value));
        let answers = block_on(self.admin().alter_configs([&alter], &options())).unwrap();
        assert!(answers.iter().all(Result::is_ok), "{topic}: {answers:?}");
    }

    /// Deletes a group that has no members, with its offsets.
    pub fn delete_group(&self, group: &str) {
        let answers = block_on(self.admin().delete_groups(&[group], &options())).unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    /// Commits offsets of a group that has no members, as tools that reset offsets do.
    pub fn reset_offsets(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        }
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    /// Changes what is allowed, each time with the arguments of `kafka-acls` but for the server.
    pub fn acls(&self, each: &[impl AsRef<str>]) {
        let arguments =
            each.iter().flat_map(|arguments| ["--"].into_iter().chain(arguments.as_ref().split(' ')));
        self.change("acls", &arguments.collect::<Vec<_>>());
    }

    /// Takes the right to write to a topic from everybody: where a topic has a rule, what no rule allows is forbidden.
    pub fn forbid_writing(&self, topic: &str) {
        self.acls(&[format!("--add {}", all_may_read(topic))]);
    }

    /// Gives it back.
    pub fn permit_writing(&self, topic: &str) {
        self.acls(&[format!("--remove --force {}", all_may_read(topic))]);
    }

    /// Deletes the records before these offsets, as retention does.
    pub fn delete_records(&self, topic: &str, before: &BTreeMap<i32, i64>) {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in before {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        }
        let answer = block_on(self.admin().delete_records(&list, &options())).unwrap();
        assert!(answer.elements().iter().all(|partition| partition.error().is_ok()), "{answer:?}");
    }

    /// Waits until every replica of every partition is in sync.
    pub fn wait_until_whole(&self) {
        wait_for("all replicas of all partitions are in sync", AFTER_TIMEOUTS, || {
            let admin = self.admin();
            let metadata = admin.inner().fetch_metadata(None, SOON).ok()?;
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            partitions.all(|partition| partition.isr().len() == partition.replicas().len()).then_some(())
        });
    }

    /// The broker that answers for a group (`__consumer_offsets`) or a transactional id (`__transaction_state`): the
    /// leader of the partition that Java's hash of the key gives.
    pub fn coordinator(&self, topic: &str, key: &str) -> usize {
        let hash = key.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        wait_for("the coordinator is known", SOON, || {
            let admin = self.admin();
            let metadata = admin.inner().fetch_metadata(None, SOON).ok()?;
            let topic = metadata.topics().iter().find(|found| found.name() == topic)?;
            let number = hash.checked_abs().unwrap_or(0) % i32::try_from(topic.partitions().len()).unwrap();
            let partition = topic.partitions().iter().find(|found| found.id() == number)?;
            usize::try_from(partition.leader()).ok()
        })
    }

    /// How many brokers the cluster tells of.
    pub fn brokers(&self) -> usize {
        self.admin().inner().fetch_metadata(None, SOON).map_or(0, |metadata| metadata.brokers().len())
    }

    /// Names of all topics.
    pub fn topics(&self) -> Vec<String> {
        let admin = self.admin();
        let metadata = admin.inner().fetch_metadata(None, SOON).unwrap();
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    /// A transaction on a topic that has begun and does not end.
    pub fn open_transaction(&self, topic: &str) -> BaseProducer {
        let mut client = self.client();
        client.set("transactional.id", topic).set("transaction.timeout.ms", "300000");
        let producer: BaseProducer = client.create().unwrap();
        producer.init_transactions(SOON).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<(), _>::to(topic).partition(0).payload("not committed")).unwrap();
        producer.flush(SOON).unwrap();
        producer
    }

    /// Appends a record by hand, as a stranger with access to Kafka would.
    pub fn append(&self, topic: &str, partition: i32, headers: &[(&str, &str)], value: &[u8]) {
        let mut client = self.client();
        client.set("message.timeout.ms", "30000").set("message.max.bytes", "4000000");
        let producer: BaseProducer = client.create().unwrap();
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, &(key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(value).headers(headers);
        producer.send(record).unwrap();
        producer.flush(SOON).unwrap();
    }
}

/// As `script/kafka` takes settings.
fn set<'s>(settings: &'s [&str]) -> impl Iterator<Item = &'s str> {
    settings.iter().flat_map(|setting| ["--set", setting])
}

fn all_may_read(topic: &str) -> String {
    format!("--allow-principal User:* --operation Read --operation DescribeConfigs --topic {topic}")
}

/// Where a broker that was started meanwhile is not to be waited for long.
pub fn client(servers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("reconnect.backoff.max.ms", "500");
    client
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(Timeout::from(SOON)))
        .operation_timeout(Some(Timeout::from(SOON)))
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let Some(name) = &self.own else { return };
        // Not `script`, which panics: a panic while another one unwinds would hide it.
        let stopped = command(self.version, &["stop", "--name", name]).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("script/kafka stop --name {name} failed");
        }
    }
}

/// Runs `script/kafka`; returns what it printed.
fn script(version: Option<&str>, arguments: &[&str]) -> String {
    let output = command(version, arguments).stderr(Stdio::piped()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "script/kafka {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn command(version: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("script/kafka"));
    command.args(arguments).stdin(Stdio::null());
    command.envs(version.map(|version| ("CLEARFEED_RELAY_KAFKA_VERSION", version)));
    command
}
