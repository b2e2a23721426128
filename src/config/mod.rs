//! The configuration, read twice: as written (a tree of values), then as meant (the types below).
//!
//! Every value here has passed its parser and every rule between keys holds, so nobody after this floor
//! checks a setting again. `keys` is the table of all keys, `values` how their values are read, `rules` what
//! must hold between them.

mod api_url;
mod document;
mod environment;
mod keys;
mod meaning;
mod problem;
mod properties;
mod reading;
mod rules;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::domain::route::{Routes, TopicName};
use crate::domain::signature::SignedUrl;

pub use api_url::ApiUrl;
pub use keys::markdown_table;
pub use meaning::{from_toml, load};
pub use problem::{Problem, Problems};
pub use properties::is_secret;

/// Between an id's last legal use and its being forgotten: what clocks, queues and drains may add.
const WINDOW_MARGIN: Duration = Duration::from_secs(30 * 60);

/// Of `intake.shutdown_timeout` kept for the forward half, which ends last: to finish or abort its transaction and to
/// leave the group.
pub const FORWARD_DRAIN: Duration = Duration::from_secs(2);

/// Which halves of the relay a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Intake and forward in one process.
    All,
    /// Only the listener.
    Intake,
    /// Only the consumer group.
    Forward,
}

impl Role {
    /// Whether this process listens for deliveries.
    pub fn has_intake(self) -> bool {
        self != Role::Forward
    }

    /// Whether this process forwards partitions of the inbox.
    pub fn has_forward(self) -> bool {
        self != Role::Intake
    }

    /// The word used in the configuration, in `/status` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Intake => "intake",
            Role::Forward => "forward",
        }
    }
}

/// All settings of a process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which halves run.
    pub role: Role,
    /// The listener's limits and times.
    pub intake: Intake,
    /// The side port.
    pub admin: Admin,
    /// By name; at least one.
    pub sources: BTreeMap<String, Source>,
    /// How to reach Kafka and what to create there.
    pub kafka: Kafka,
    /// The topic between the halves.
    pub inbox: Inbox,
    /// The topic that says what was decided.
    pub ledger: Ledger,
    /// The consumer group.
    pub forward: Forward,
    /// The window of event ids.
    pub dedup: Dedup,
    /// Absent: no spool.
    pub spool: Option<Spool>,
    /// Logs.
    pub telemetry: Telemetry,
    /// Every key, as it may be shown: for the status page.
    pub settings: Vec<Setting>,
    /// SHA-256 of the settings as meant, without secrets' contents: replicas that differ show it in
    /// `/status`.
    pub hash: String,
}

impl Config {
    /// The sources whose REST API is asked.
    pub fn apis(&self) -> impl Iterator<Item = (&str, &Api)> {
        self.sources.iter().filter_map(|(name, source)| Some((name.as_str(), source.api.as_ref()?)))
    }

    /// Something other than the file and the environment said what a key is.
    pub fn overrule(&mut self, key: &str, value: String, whence: &str) {
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key == key) {
            (setting.value, setting.whence) = (value, whence.to_owned());
        }
    }
}

/// A key with its value as written, or its default.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// What may be a secret is `…`.
    pub value: String,
    /// A file, a variable, or `the default`.
    pub whence: String,
}

/// `[intake]`
#[derive(Debug, Clone)]
pub struct Intake {
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Bytes of one body; beyond: 413.
    pub max_body_bytes: usize,
    /// Bytes of all bodies being read or waiting for Kafka; beyond: 503.
    pub max_buffered_bytes: usize,
    /// Open connections; at the limit the one longest without a request makes room.
    pub max_connections: usize,
    /// Deliveries being read or waiting for Kafka; beyond: 503.
    pub max_in_flight: usize,
    /// From the first byte of a head (or the connection's start) to its last.
    pub header_timeout: Duration,
    /// From the head's last byte to the body's last.
    pub body_timeout: Duration,
    /// From the body's last byte to the answer; then 503.
    pub answer_timeout: Duration,
    /// How long the listener goes on accepting after it stopped being ready.
    pub lame_duck: Duration,
    /// The whole drain.
    pub shutdown_timeout: Duration,
    /// Whose `X-Forwarded-For` the log believes.
    pub trusted_proxies: Vec<IpNet>,
    /// Absent: plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// `[intake.tls]`
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// Address of metrics, health and status.
    pub listen: SocketAddr,
}

/// `[sources.NAME]`
#[derive(Debug, Clone)]
pub struct Source {
    /// As saved in Developer Settings.
    pub public_url: SignedUrl,
    /// The current secret's file first; later ones may be missing.
    pub signing_secret_files: Vec<PathBuf>,
    /// Oldest signed timestamp of a first delivery (retry count 0).
    pub max_age: Duration,
    /// Oldest signed timestamp of a redelivery (retry count 1 to 3).
    pub max_redelivery_age: Duration,
    /// How far in the future a signed timestamp may be.
    pub max_clock_skew: Duration,
    /// Whether an unsigned ping gets its pong.
    pub accept_unsigned_ping: bool,
    /// The `topic` template and the `routes` table.
    pub routes: Routes,
    /// Absent: the REST API is not asked.
    pub api: Option<Api>,
}

/// `[sources.NAME.api]`
#[derive(Debug, Clone)]
pub struct Api {
    /// Where the REST API answers.
    pub base_url: ApiUrl,
    /// The Personal Access Token's file: read each time that the token is used.
    pub token_file: PathBuf,
    /// Where requests go as the API tells them.
    pub snapshot_topic: TopicName,
    /// How often the forward half asks what changed; none: never.
    pub reconcile_every: Option<Duration>,
    /// How late an event may come before it counts as missed.
    pub grace: Duration,
}

/// `[kafka]`
#[derive(Clone)]
pub struct Kafka {
    /// `host:port,…`
    pub bootstrap_servers: String,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// Partitions of event topics and dead letters that the relay creates.
    pub partitions: i32,
    /// Replicas of topics that the relay creates; -1 is the broker's default.
    pub replication_factor: i32,
    /// Passed to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
    /// The same, each value read from a file when a client is made.
    pub property_files: BTreeMap<String, PathBuf>,
}

/// `[inbox]`
#[derive(Debug, Clone)]
pub struct Inbox {
    /// The inbox topic.
    pub topic: TopicName,
    /// Fixed for good: intake computes an event's partition modulo this number.
    pub partitions: i32,
    /// The longest outage of the forward half that is survived.
    pub retention: Duration,
}

/// `[ledger]`
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The ledger topic.
    pub topic: TopicName,
}

/// `[forward]`
#[derive(Debug, Clone)]
pub struct Forward {
    /// The consumer group over the inbox.
    pub group: String,
    /// With `{hostname}` filled in.
    pub transactional_id: String,
    /// Where goes what cannot be understood.
    pub dead_letter_topic: TopicName,
    /// Where partitions go on that are held because the ledger is gone.
    pub start_at: Option<StartAt>,
}

/// `forward.start_at`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The inbox's first record.
    Beginning,
    /// After the inbox's last record.
    End,
    /// The first record appended at or after this instant.
    Time(jiff::Timestamp),
}

/// `[dedup]`
#[derive(Debug, Clone)]
pub struct Dedup {
    /// How long an id is remembered, at least.
    pub window: Duration,
    /// Ids that one replica remembers; beyond, the oldest go.
    pub max_ids: usize,
}

/// `[spool]`
#[derive(Debug, Clone)]
pub struct Spool {
    /// Of this relay alone.
    pub directory: PathBuf,
    /// Bytes that its file grows to; beyond: 503.
    pub max_size_bytes: u64,
}

impl Config {
    /// How old a signed timestamp may be when its delivery leaves the spool: an event that is older may have been published
    /// from another delivery and be forgotten by the time that this one is forwarded.
    pub fn spooled_limit(&self) -> Duration {
        let skew = self.sources.values().map(|source| source.max_clock_skew).max().unwrap_or_default();
        self.dedup.window.saturating_sub(skew + WINDOW_MARGIN)
    }
}

/// `[telemetry]`
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// A tracing filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// `telemetry.log_format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}
