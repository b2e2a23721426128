//! What replicas of one relay have in common: topics, a group, a secret. Each test has its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use clearfeed_relay::domain::inbox_record::header;
use clearfeed_relay::domain::ledger_entry::LedgerEntry;
use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::{Delivery, unix_seconds};
use serde_json::Value;
use tempfile::TempDir;

use super::relay::{self, Plan};
use super::{Kafka, Reader, Record, unique};

/// As if saved in Developer Settings.
pub const PUBLIC_URL: &str = "https://hooks.example.com/clearfeed/events";
/// Its path, which the relay serves.
pub const PATH: &str = "/clearfeed/events";
/// Partitions of the inbox: enough for two replicas to share, and taken over soon.
pub const PARTITIONS: i32 = 3;
pub const SECRET: &str = "a-signing-secret-of-the-tests";

/// The secret that `ClearFeed` signs with.
pub fn secret() -> Secret {
    Secret::new(SECRET.as_bytes()).unwrap()
}

/// Topics and group of one test.
pub struct Deployment {
    servers: String,
    prefix: String,
    folder: TempDir,
}

impl Deployment {
    /// Takes the name of the test, for people who look at the topics, and its cluster.
    pub fn new(name: &str, kafka: &Kafka) -> Self {
        Self::at(name, kafka.servers())
    }

    /// The same on servers that are not the cluster's own: a proxy's.
    pub fn at(name: &str, servers: &str) -> Self {
        let folder = TempDir::with_prefix(name).unwrap();
        std::fs::write(folder.path().join("signing-secret"), SECRET).unwrap();
        Self { servers: servers.to_owned(), prefix: unique(name), folder }
    }

    /// A replica by its name, not started yet.
    pub fn replica(&self, name: &str) -> Plan {
        Plan::new(name, self.folder.path(), self.settings(name))
    }

    /// The only replica.
    pub fn relay(&self) -> Plan {
        self.replica("relay")
    }

    fn settings(&self, replica: &str) -> BTreeMap<String, String> {
        let text = |value: &str| format!("{value:?}");
        [
            ("intake.listen", text("127.0.0.1:0")),
            // Nobody has to learn of a drain before it begins, where that is not what is tested.
            ("intake.lame_duck", text("0s")),
            ("admin.listen", text("127.0.0.1:0")),
            ("sources.main.public_url", text(PUBLIC_URL)),
            (
                "sources.main.signing_secret_files",
                format!("[{}]", text(&self.secret_file().display().to_string())),
            ),
            ("sources.main.topic", text(&self.topic("{type}"))),
            ("kafka.bootstrap_servers", text(&self.servers)),
            ("kafka.partitions", PARTITIONS.to_string()),
            ("inbox.topic", text(&self.inbox())),
            ("inbox.partitions", PARTITIONS.to_string()),
            ("ledger.topic", text(&self.ledger())),
            ("forward.group", text(&self.group())),
            ("forward.transactional_id", text(&self.transactional_id(replica))),
            ("forward.dead_letter_topic", text(&self.dead_letters())),
            ("telemetry.log_format", text("json")),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// The file that the signing secret stands in.
    pub fn secret_file(&self) -> PathBuf {
        self.folder.path().join("signing-secret")
    }

    /// A first delivery of this body, signed now.
    pub fn delivery(&self, body: impl Into<Bytes>) -> Delivery {
        self.delivery_at(body, unix_seconds())
    }

    /// A first delivery of an event that occurred then (seconds since 1970).
    pub fn delivery_at(&self, body: impl Into<Bytes>, timestamp: u64) -> Delivery {
        Delivery::signed(&secret(), PUBLIC_URL, body, timestamp)
    }

    /// A topic of this test alone.
    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Where events of type `request` go: all of the simulator's.
    pub fn events(&self) -> String {
        self.topic("request")
    }

    pub fn inbox(&self) -> String {
        self.topic("inbox")
    }

    pub fn ledger(&self) -> String {
        self.topic("ledger")
    }

    pub fn dead_letters(&self) -> String {
        self.topic("dead-letter")
    }

    /// Of the replica of this name.
    pub fn transactional_id(&self, replica: &str) -> String {
        format!("{}-{replica}", self.prefix)
    }

    /// The consumer group over the inbox.
    pub fn group(&self) -> String {
        self.prefix.clone()
    }

    /// Where the readers find Kafka.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// The commands of `deploy/kafka/acls` that give the user `relay` what a role needs here.
    pub fn acls(&self, role: &str) -> Vec<String> {
        let options = [
            ("user", "relay".to_owned()),
            ("role", role.to_owned()),
            ("inbox", self.inbox()),
            ("ledger", self.ledger()),
            ("dead-letter", self.dead_letters()),
            ("events", self.events()),
            ("group", self.group()),
            ("transactional-id", self.transactional_id("")),
        ];
        let arguments = options.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kafka/acls");
        let output = Command::new(script).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// What all replicas logged in all their runs, with the replica and the run, in the order of time.
    pub fn log_lines(&self) -> Vec<(String, Value)> {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut lines = Vec::new();
        for log in files.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let run = log.file_stem().unwrap().to_string_lossy().into_owned();
            lines.extend(relay::lines(&log).map(|line| (run.clone(), line)));
        }
        lines.sort_by_key(|(_, line)| line["timestamp"].to_string());
        lines
    }

    /// Reads this test's topics.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.servers)
    }

    /// What stands in the event topic, as a consumer with `read_committed` sees it.
    pub fn published(&self) -> Vec<Record> {
        self.reader().all(&self.events())
    }

    /// Waits until every record of the inbox was decided about: the ledger, which only committed transactions write,
    /// ends where the inbox ends. What stands in the topics then is all that will ever come of the inbox.
    #[track_caller]
    pub fn wait_until_forwarded(&self, deadline: Duration) {
        let reader = self.reader();
        let mut missing = reader.ends(&self.inbox());
        missing.retain(|_, end| *end > 0);
        reader.until("the ledger ends where the inbox ends", &self.ledger(), deadline, |records| {
            let decided = |partition: i32| {
                let last = records.iter().rev().find(|record| record.partition == partition)?;
                let format = last.headers.get(header::FORMAT).map(Vec::as_slice);
                Some(LedgerEntry::decode(format, &last.value).unwrap().to)
            };
            missing.iter().all(|(partition, end)| decided(*partition) >= Some(*end))
        });
    }
}
