//! What `/status` says, as JSON: for people and tools. Times are RFC 3339, sizes bytes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::labels::{Concern, Ending, HeldReason};
use crate::config::Setting;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Status {
    /// When this was asked.
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// The relay's version.
    pub version: &'static str,
    /// `all`, `intake` or `forward`.
    pub role: &'static str,
    /// Replicas whose hashes differ run with different settings.
    pub config_hash: String,
    /// When this process started.
    #[serde(serialize_with = "rfc3339")]
    pub started: Timestamp,
    /// What `/readyz` says.
    pub ready: bool,
    /// What `/livez` says.
    pub alive: bool,
    /// Whether what is answered 200 survives the loss of a broker.
    pub durable: Durable,
    /// What makes it `no` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_reason: Option<String>,
    /// Whether the files that are read again could be used.
    pub reload: ReloadStatus,
    /// By name.
    pub sources: Vec<SourceStatus>,
    /// The brokers and topics.
    pub kafka: KafkaStatus,
    /// Absent where this process has no intake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intake: Option<IntakeStatus>,
    /// Absent where this process does not forward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<ForwardHalf>,
    /// The last warnings and errors of the log, the newest first.
    pub logged: Vec<Logged>,
    /// Every key with its value; no secrets.
    pub configuration: Vec<Setting>,
}

/// A warning or an error that was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// When, the last time.
    #[serde(serialize_with = "rfc3339")]
    pub logged: Timestamp,
    /// `WARN` or `ERROR`.
    pub level: &'static str,
    /// What happened.
    pub message: String,
    /// The fields beside the message, the last time.
    pub fields: String,
    /// How often, since it was first logged.
    pub times: u64,
}

/// Deliveries of the last hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LastHour {
    /// Where the first of the minutes below begins; the last one is not over yet.
    #[serde(serialize_with = "rfc3339")]
    pub from: Timestamp,
    /// By minute: answered 200.
    pub accepted: Vec<u64>,
    /// By minute: refused, for what the sender did.
    pub refused: Vec<u64>,
    /// By minute: not kept, for what we or Kafka could not do.
    pub failed: Vec<u64>,
}

impl LastHour {
    /// In which nothing came.
    pub(super) fn beginning(from: Timestamp, minutes: usize) -> Self {
        let none = vec![0; minutes];
        Self { from, accepted: none.clone(), refused: none.clone(), failed: none }
    }
}

/// Deliveries that were not kept, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotKept {
    /// Empty where none could be told, as under an unknown path.
    pub source: String,
    /// The word of the metrics `deliveries_total` and `auth_failures_total`.
    pub reason: Ending,
    /// Of the last hour.
    pub last_hour: u64,
    /// Since this process started.
    pub since_start: u64,
}

/// What came of reading files again.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReloadStatus {
    /// When they were last looked at; null: not since the start.
    #[serde(serialize_with = "rfc3339_or_null")]
    pub last: Option<Timestamp>,
    /// Files of which what was read before stays in force, and why.
    pub problems: Vec<String>,
}

/// The intake half.
#[derive(Debug, Serialize)]
pub struct IntakeStatus {
    /// Why it is not ready; empty: it is.
    pub reasons: Vec<Reason>,
    /// The spool; null: there is none.
    pub spool: Option<SpoolStatus>,
    /// What came in.
    pub last_hour: LastHour,
    /// What was not kept, and why; reasons that did not occur are left out.
    pub not_kept: Vec<NotKept>,
}

/// Deliveries on this node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpoolStatus {
    /// Deliveries go there: Kafka does not acknowledge, or did not until a moment ago.
    pub in_use: bool,
    /// It takes nothing before a restart, or cannot be opened.
    pub failed: bool,
    /// Deliveries that the inbox does not have yet.
    pub records: i64,
    /// Bytes of its file that are taken.
    pub bytes: i64,
    /// `spool.max_size`.
    pub limit_bytes: i64,
    /// Seconds that the oldest of them has waited.
    pub oldest_seconds: f64,
    /// Broken files, and records that do not fit their digests, that are set aside.
    pub damaged: i64,
}

/// The forward half.
#[derive(Debug, Serialize)]
pub struct ForwardHalf {
    /// Why it does not forward; empty: it does, or waits for partitions.
    pub reasons: Vec<Reason>,
    /// Its last report.
    #[serde(flatten)]
    pub status: ForwardStatus,
}

/// Something that keeps a half from being ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// One fixed word.
    pub reason: Concern,
    /// What was found, for people.
    pub detail: String,
}

/// A source as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceIdentity {
    /// Its name in the configuration.
    pub name: String,
    /// As saved in Developer Settings.
    pub public_url: String,
    /// The topic template.
    pub topic: String,
}

/// A source, and what came from it.
#[derive(Debug, Serialize)]
pub struct SourceStatus {
    /// As configured.
    #[serde(flatten)]
    pub identity: SourceIdentity,
    /// When a delivery was last accepted; null: not since the start.
    #[serde(serialize_with = "rfc3339_or_null")]
    pub last_accepted: Option<Timestamp>,
}

/// Whether an answered delivery survives the loss of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durable {
    /// At least two replicas in sync.
    Yes,
    /// Fewer.
    No,
    /// Kafka has not told yet.
    #[default]
    Unknown,
}

/// What is known of Kafka.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KafkaStatus {
    /// Brokers that this process is connected to.
    pub brokers_up: usize,
    /// Brokers that the cluster told of.
    pub brokers_known: usize,
    /// Stands at the top of `/status`.
    #[serde(skip)]
    pub durable: Durable,
    /// Stands there too.
    #[serde(skip)]
    pub durable_reason: Option<String>,
    /// Topics that are missing or have settings under which the promise does not hold, and brokers whose version can break
    /// it; what to do.
    pub problems: Vec<String>,
    /// What its clients last said of each kind of error, under the metric's word for it.
    pub errors: BTreeMap<&'static str, KafkaError>,
}

/// An error of librdkafka's, which may be over.
#[derive(Debug, Clone, Serialize)]
pub struct KafkaError {
    /// When it was logged.
    #[serde(serialize_with = "rfc3339")]
    pub logged: Timestamp,
    /// In librdkafka's words.
    pub detail: String,
}

/// What the forward thread reports.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ForwardStatus {
    /// With the host's name filled in.
    pub transactional_id: String,
    /// Whether the producer was fenced and waits to begin again.
    pub fenced: bool,
    /// Partitions of the inbox assigned to this process.
    pub owned: Vec<PartitionStatus>,
    /// Inbox records that wait in partitions which no member of the group has, by partition; looked at while this process has
    /// none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unowned: BTreeMap<i32, i64>,
    /// Seconds that the oldest inbox record not forwarded yet has waited.
    pub lag_seconds: f64,
    /// Event ids in all windows.
    pub window_ids: usize,
    /// Memory of all windows.
    pub window_bytes: usize,
    /// By source, where ClearFeed's REST API is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reconcile: Vec<ReconcileStatus>,
}

/// What came of asking ClearFeed's REST API, since this process started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReconcileStatus {
    /// Whose.
    pub source: String,
    /// What is done now.
    #[serde(flatten)]
    pub state: ReconcileState,
    /// When all that had changed was last read; null: not since the start.
    #[serde(serialize_with = "rfc3339_or_null")]
    pub last_success: Option<Timestamp>,
    /// The newest change so far; null: not known yet.
    #[serde(serialize_with = "rfc3339_or_null")]
    pub newest_change: Option<Timestamp>,
    /// Requests that were created and of which no event came.
    pub missed_created: u64,
    /// Requests that were changed, likewise: a hint, for not every change sends an event.
    pub missed_updated: u64,
    /// The last of those that were created, the newest first.
    pub missed: Vec<MissedRequest>,
}

/// A request that was created and of which no event came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissedRequest {
    /// Its id.
    pub request: u64,
    /// When ClearFeed says that it was.
    #[serde(serialize_with = "rfc3339")]
    pub created: Timestamp,
}

/// What is done about ClearFeed's REST API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReconcileState {
    /// The owner of inbox partition 0 asks, which is another replica, or none.
    Elsewhere,
    /// This one asks, and all is well.
    Active,
    /// This one asks in vain.
    Failing {
        /// Why, and what helps.
        detail: String,
    },
}

/// One partition of the inbox.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// What is done with it.
    #[serde(flatten)]
    pub state: PartitionState,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub since: Timestamp,
    /// The inbox offset that is forwarded next; null: not known yet.
    pub next_offset: Option<i64>,
    /// Inbox records from there to the end; null: not known yet.
    pub lag: Option<i64>,
    /// Event ids in its window.
    pub window_ids: usize,
    /// Only while it is taken over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerProgress>,
}

/// How much of a partition's ledger has been read. Offsets: records, and the markers of transactions between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LedgerProgress {
    /// Offsets read.
    pub read: u64,
    /// Offsets there are; 0: not known yet.
    pub of: u64,
}

/// What is done with a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PartitionState {
    /// Its ledger is being read.
    TakingOver,
    /// It is forwarded.
    Active,
    /// It waits for a person, or for its environment.
    Held {
        /// One fixed word.
        reason: HeldReason,
        /// What was found, and the command that helps.
        detail: String,
    },
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[allow(clippy::ref_option)] // serde hands over a reference to the field
fn rfc3339_or_null<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}
