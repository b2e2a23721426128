//! The one table of keys: from it come the reading, the names of environment variables and the README's
//! table.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::values::{self, Kind};
use super::{ApiUrl, LogFormat, Role, StartAt};
use crate::domain::route::{Template, TopicName};
use crate::domain::signature::SignedUrl;

/// A key whose value, or each of whose entries, is a `T`.
pub(super) struct Key<T: 'static> {
    pub(super) row: Row,
    pub(super) kind: Kind<T>,
}

/// What the table says about a key whatever its type.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// With `*` where a source's name stands.
    pub(super) path: &'static str,
    pub(super) shape: Shape,
    pub(super) fallback: Fallback,
    /// For people, after the word "wanted".
    pub(super) wanted: &'static str,
    /// One line.
    pub(super) about: &'static str,
}

/// How many values a key has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    /// With names that the user chooses.
    Table,
}

/// What stands for a key that is not written.
#[derive(Clone, Copy)]
pub(super) enum Fallback {
    /// Empty means nothing.
    Default(&'static str),
    /// It must be written; this is an example of it.
    Required(&'static str),
}

impl Fallback {
    /// A legal value, with which reading goes on after a problem, so that the other problems are found as
    /// well.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Default(text) | Self::Required(text) => text,
        }
    }
}

use Fallback::{Default, Required};
use Shape::{List, One, Table};

macro_rules! keys {
    ($($name:ident: $type:ty = $path:literal, $shape:ident, $fallback:expr, $kind:ident, $about:literal;)*) => {
        $(
            #[doc = $about]
            pub(super) const $name: Key<$type> = Key {
                row: Row {
                    path: $path,
                    shape: $shape,
                    fallback: $fallback,
                    wanted: values::$kind.wanted,
                    about: $about,
                },
                kind: values::$kind,
            };
        )*

        /// All keys, in the order in which they are documented.
        pub(super) const ALL: &[Row] = &[$($name.row),*];
    };
}

keys! {
    ROLE: Role = "role", One, Default("all"), ROLE,
        "Which halves run in this process.";

    INTAKE_LISTEN: SocketAddr = "intake.listen", One, Default("0.0.0.0:8080"), ADDRESS,
        "Address of the public listener; port 0 takes a free one.";
    MAX_BODY: usize = "intake.max_body", One, Default("1MiB"), BODY_SIZE,
        "Longest body of a delivery; beyond: 413.";
    MAX_BUFFERED: usize = "intake.max_buffered", One, Default("64MiB"), BUFFER_SIZE,
        "All bodies being read or waiting for Kafka together; beyond, the one longest in arriving is answered 503.";
    MAX_CONNECTIONS: usize = "intake.max_connections", One, Default("10000"), COUNT,
        "Open connections; at the limit the one that has proven nothing for longest makes room.";
    MAX_IN_FLIGHT: usize = "intake.max_in_flight", One, Default("4096"), COUNT,
        "Authenticated deliveries that wait for Kafka; beyond: 503.";
    HEADER_TIMEOUT: Duration = "intake.header_timeout", One, Default("5s"), DURATION,
        "Until a request's headers are complete; then the connection is closed.";
    BODY_TIMEOUT: Duration = "intake.body_timeout", One, Default("5s"), DURATION,
        "From the headers to the body's last byte; then 408.";
    ANSWER_TIMEOUT: Duration = "intake.answer_timeout", One, Default("8s"), DURATION,
        "From the body's last byte to the answer; then 503.";
    LAME_DUCK: Duration = "intake.lame_duck", One, Default("5s"), DURATION_OR_ZERO,
        "How long the listener goes on accepting after it stopped being ready.";
    SHUTDOWN_TIMEOUT: Duration = "intake.shutdown_timeout", One, Default("25s"), DURATION,
        "The whole drain, `lame_duck` included.";

    TRUSTED_PROXIES: IpNet = "intake.trusted_proxies", List, Default(""), NETWORK,
        "Networks of the proxies before the listener: the log believes their X-Forwarded-For; nothing else depends on it.";
    TLS_CERTIFICATE: Option<PathBuf> = "intake.tls.certificate_file", One, Default(""), FILE_OR_NONE,
        "Certificate chain of the public listener, PEM; absent: plain HTTP, behind something that ends TLS.";
    TLS_KEY: Option<PathBuf> = "intake.tls.key_file", One, Default(""), FILE_OR_NONE,
        "Its key, PEM. Both are read again when they change.";

    ADMIN_LISTEN: SocketAddr = "admin.listen", One, Default("0.0.0.0:9090"), ADDRESS,
        "Address of /metrics, /livez, /readyz, /status and the status page.";

    PUBLIC_URL: SignedUrl = "sources.*.public_url", One,
        Required("https://hooks.example.com/clearfeed/events"), URL,
        "The URL exactly as saved in Developer Settings; its path is served, and no two sources share one.";
    SIGNING_SECRET_FILES: PathBuf = "sources.*.signing_secret_files", List, Default(""), FILE,
        "The current signing secret's file, then previous ones, which may be missing; required where intake runs.";
    MAX_AGE: Duration = "sources.*.max_age", One, Default("5m"), DURATION,
        "Oldest signed timestamp of a first delivery (retry count 0).";
    MAX_REDELIVERY_AGE: Duration = "sources.*.max_redelivery_age", One, Default("24h"), DURATION,
        "Oldest signed timestamp of a redelivery (retry count 1 to 3).";
    MAX_CLOCK_SKEW: Duration = "sources.*.max_clock_skew", One, Default("5m"), DURATION_OR_ZERO,
        "How far in the future a signed timestamp may be.";
    ACCEPT_UNSIGNED_PING: bool = "sources.*.accept_unsigned_ping", One, Default("true"), FLAG,
        "Whether a ping without a signature gets its pong.";
    EVENT_TOPIC: Template = "sources.*.topic", One, Default("clearfeed.{type}"), TEMPLATE,
        "Topic of the events that no route names.";
    ROUTES: TopicName = "sources.*.routes", Table, Default(""), TOPIC,
        "Topics by `type.sub_type` or `type`, such as `\"request.updated\" = \"support.request-updates\"`.";
    API_TOKEN_FILE: Option<PathBuf> = "sources.*.api.token_file", One, Default(""), FILE_OR_NONE,
        "File with a Personal Access Token for ClearFeed's REST API, read each time that it is used; absent: the API is not asked.";
    API_BASE_URL: ApiUrl = "sources.*.api.base_url", One, Default("https://api.clearfeed.app"), API_URL,
        "Where the REST API answers.";
    SNAPSHOT_TOPIC: TopicName = "sources.*.api.snapshot_topic", One, Default("clearfeed.request-snapshots"), TOPIC,
        "Compacted topic of the requests that the API tells; each source has its own.";
    RECONCILE_EVERY: Option<Duration> = "sources.*.api.reconcile_every", One, Default(""), DURATION_OR_NEVER,
        "How often the API is asked for what changed, by the owner of inbox partition 0; absent: never.";
    GRACE: Duration = "sources.*.api.grace", One, Default("10m"), DURATION,
        "How long after a request was created no event of it may have come before it counts as missed.";

    BOOTSTRAP_SERVERS: String = "kafka.bootstrap_servers", One, Default("localhost:9092"), SERVERS,
        "Brokers to begin with.";
    CREATE_TOPICS: bool = "kafka.create_topics", One, Default("true"), FLAG,
        "Whether missing topics are created; if not, they are reported with the command that creates them.";
    EVENT_PARTITIONS: i32 = "kafka.partitions", One, Default("12"), PARTITIONS,
        "Partitions of event topics and dead letters that the relay creates.";
    REPLICATION_FACTOR: i32 = "kafka.replication_factor", One, Default("-1"), REPLICAS,
        "Replicas of topics that the relay creates.";
    PROPERTIES: String = "kafka.properties", Table, Default(""), PROPERTY,
        "Properties of librdkafka, such as `\"security.protocol\" = \"SASL_SSL\"`; not those that the promise rests on.";
    PROPERTY_FILES: PathBuf = "kafka.property_files", Table, Default(""), FILE,
        "The same, each value read from a file, such as `\"sasl.password\" = \"/run/secrets/kafka/password\"`.";

    INBOX_TOPIC: TopicName = "inbox.topic", One, Default("clearfeed.inbox"), TOPIC,
        "The topic between the halves.";
    INBOX_PARTITIONS: i32 = "inbox.partitions", One, Default("12"), PARTITIONS,
        "Its partitions, fixed for good.";
    INBOX_RETENTION: Duration = "inbox.retention", One, Default("72h"), RETENTION,
        "The longest outage of the forward half that is survived.";

    LEDGER_TOPIC: TopicName = "ledger.topic", One, Default("clearfeed.ledger"), TOPIC,
        "The topic that says what was decided about each record of the inbox.";

    FORWARD_GROUP: String = "forward.group", One, Default("clearfeed-relay"), GROUP,
        "Consumer group over the inbox.";
    TRANSACTIONAL_ID: String = "forward.transactional_id", One,
        Default("clearfeed-relay-{hostname}"), TRANSACTIONAL_ID,
        "Transactional id of a replica; no two replicas may share one.";
    DEAD_LETTER_TOPIC: TopicName = "forward.dead_letter_topic", One, Default("clearfeed.dead-letter"), TOPIC,
        "Where goes, whole and with the reason, what cannot be published.";
    START_AT: Option<StartAt> = "forward.start_at", One, Default(""), START_AT,
        "Where partitions go on that are held because the ledger is gone; absent: they stay held.";

    WINDOW: Duration = "dedup.window", One, Default("25h"), DURATION,
        "How long an event's id is remembered, at least.";
    MAX_IDS: usize = "dedup.max_ids", One, Default("10000000"), IDS,
        "Ids that one replica remembers; beyond, the oldest go, counted and alerted on.";

    SPOOL_DIRECTORY: Option<PathBuf> = "spool.directory", One, Default(""), DIRECTORY_OR_NONE,
        "Where deliveries are kept on this node's disk while Kafka does not acknowledge; one relay each. Absent: 503 meanwhile.";
    SPOOL_MAX_SIZE: u64 = "spool.max_size", One, Default("1GiB"), SPOOL_SIZE,
        "Longest that the spool's file grows; beyond: 503.";

    LOG: String = "telemetry.log", One, Default("info"), LOG_FILTER,
        "Which log lines are written.";
    LOG_FORMAT: LogFormat = "telemetry.log_format", One, Default("auto"), LOG_FORMAT,
        "How they look; auto: text on a terminal, else json.";
}

/// The README's table of keys, in Markdown.
pub fn markdown_table() -> String {
    let mut table = String::from("| key | default | value | meaning |\n|---|---|---|---|\n");
    for row in ALL {
        let default = match row.fallback {
            Default("") => "–".to_owned(),
            Default(text) => format!("`{text}`"),
            Required(_) => "required".to_owned(),
        };
        let value = match row.shape {
            One => row.wanted.to_owned(),
            List => format!("a list, each {}", row.wanted),
            Table => format!("a table, each {}", row.wanted),
        };
        let path = row.path.replace('*', "NAME");
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{path}` | {default} | {value} | {} |", row.about);
    }
    table
}
