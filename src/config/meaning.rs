//! The second reading: what is written becomes what is meant.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ::config::FileFormat;
use sha2::{Digest, Sha256};

use super::document::{self, KeyPath, Step};
use super::keys;
use super::problem::{Problem, Problems};
use super::reading::Reading;
use super::values::HOSTNAME_PLACEHOLDER;
use super::{
    Admin, Api, Config, Dedup, Forward, Inbox, Intake, Kafka, Ledger, Role, Setting, Source, Spool,
    Telemetry, TlsFiles, environment, rules,
};
use crate::domain::route::Routes;

/// Hex digits of the configuration's hash: enough to tell the few configurations of one deployment apart.
const HASH_DIGITS: usize = 16;

/// Reads the file, and over it the environment; `role_override` is the command line's and stands above both.
/// `further` looks at what lies beyond this floor, such as the files that are named, and is given the file's name for
/// its messages. It is asked even where there are problems already, with defaults for what could not be read.
pub fn load(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
    role_override: Option<Role>,
    further: impl FnOnce(&Config, &str) -> Vec<Problem>,
) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let problem = |found: String, wanted: &str| {
        Problems(vec![Problem { key: name.clone(), found, wanted: wanted.to_owned(), whence: name.clone() }])
    };
    let format = document::format_of(path).ok_or_else(|| {
        problem("another kind of file".to_owned(), "a name that ends in .toml, .yaml or .yml")
    })?;
    let text =
        std::fs::read_to_string(path).map_err(|error| problem(error.to_string(), "a readable file"))?;
    read(&text, format, &name, environment, role_override, further)
}

/// Reads TOML from memory, without an environment, on a machine called `localhost`.
pub fn from_toml(text: &str) -> Result<Config, Problems> {
    let environment = [("HOSTNAME".to_owned(), "localhost".to_owned())];
    read(text, FileFormat::Toml, "relay.toml", environment.into_iter(), None, |_, _| Vec::new())
}

pub(super) fn read(
    text: &str,
    format: FileFormat,
    file: &str,
    environment: impl Iterator<Item = (String, String)>,
    role_override: Option<Role>,
    further: impl FnOnce(&Config, &str) -> Vec<Problem>,
) -> Result<Config, Problems> {
    let leaves = document::parse(text, format, file).map_err(|problem| Problems(vec![problem]))?;
    let (environment, hostname) = environment::split(environment);
    let mut reading = Reading::new(file, leaves, environment);
    let config = config(&mut reading, role_override);
    if let Some(config) = &config {
        rules::check(config, &mut reading);
    }
    let transactional_id = config.as_ref().map(|config| config.forward.transactional_id.as_str());
    let needs_hostname = transactional_id.is_some_and(|id| id.contains(HOSTNAME_PLACEHOLDER));
    if needs_hostname && hostname.is_none() {
        let path = KeyPath::of(keys::TRANSACTIONAL_ID.row.path, "");
        reading.object(&path, "an id without {hostname}: this machine's name is not known");
    }
    let settings = reading.settings();
    let mut problems = reading.finish();
    if let Some(config) = &config {
        problems.0.extend(further(config, file));
    }
    match config {
        Some(config) if problems.0.is_empty() => {
            let mut config = finished(config, settings, hostname.as_deref().unwrap_or_default());
            if let Some(role) = role_override {
                config.overrule("role", role.as_str().to_owned(), "the command line");
            }
            Ok(config)
        }
        _ => Err(problems),
    }
}

/// Fills in what follows from the rest, and the hostname.
fn finished(mut config: Config, settings: Vec<Setting>, hostname: &str) -> Config {
    // Before the settings are there: where a value came from makes no difference.
    config.hash = hash(&config);
    config.settings = settings;
    config.forward.transactional_id = config.forward.transactional_id.replace(HOSTNAME_PLACEHOLDER, hostname);
    config
}

/// `Debug` names every setting and shows no secret. What may, or has to, differ between replicas of one relay is left
/// out: role, addresses, transactional id.
fn hash(config: &Config) -> String {
    let anywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let mut shared = Config { role: Role::All, ..config.clone() };
    (shared.intake.listen, shared.admin.listen) = (anywhere, anywhere);
    shared.forward.transactional_id.clear();
    let mut digest = hex::encode(Sha256::digest(format!("{shared:?}")));
    digest.truncate(HASH_DIGITS);
    digest
}

/// Every function below gives `None` only where a problem was noted.
fn config(reading: &mut Reading, role_override: Option<Role>) -> Option<Config> {
    let role = reading.take(&keys::ROLE)?;
    Some(Config {
        role: role_override.unwrap_or(role),
        intake: intake(reading)?,
        admin: Admin { listen: reading.take(&keys::ADMIN_LISTEN)? },
        sources: sources(reading)?,
        kafka: kafka(reading)?,
        inbox: Inbox {
            topic: reading.take(&keys::INBOX_TOPIC)?,
            partitions: reading.take(&keys::INBOX_PARTITIONS)?,
            retention: reading.take(&keys::INBOX_RETENTION)?,
        },
        ledger: Ledger { topic: reading.take(&keys::LEDGER_TOPIC)? },
        forward: Forward {
            group: reading.take(&keys::FORWARD_GROUP)?,
            transactional_id: reading.take(&keys::TRANSACTIONAL_ID)?,
            dead_letter_topic: reading.take(&keys::DEAD_LETTER_TOPIC)?,
            start_at: reading.take(&keys::START_AT)?,
        },
        dedup: Dedup { window: reading.take(&keys::WINDOW)?, max_ids: reading.take(&keys::MAX_IDS)? },
        spool: {
            let (directory, max_size) =
                (reading.take(&keys::SPOOL_DIRECTORY)?, reading.take(&keys::SPOOL_MAX_SIZE)?);
            spool(reading, directory, max_size)
        },
        telemetry: Telemetry { log: reading.take(&keys::LOG)?, log_format: reading.take(&keys::LOG_FORMAT)? },
        settings: Vec::new(),
        hash: String::new(),
    })
}

fn intake(reading: &mut Reading) -> Option<Intake> {
    Some(Intake {
        listen: reading.take(&keys::INTAKE_LISTEN)?,
        max_body_bytes: reading.take(&keys::MAX_BODY)?,
        max_buffered_bytes: reading.take(&keys::MAX_BUFFERED)?,
        max_connections: reading.take(&keys::MAX_CONNECTIONS)?,
        max_in_flight: reading.take(&keys::MAX_IN_FLIGHT)?,
        header_timeout: reading.take(&keys::HEADER_TIMEOUT)?,
        body_timeout: reading.take(&keys::BODY_TIMEOUT)?,
        answer_timeout: reading.take(&keys::ANSWER_TIMEOUT)?,
        lame_duck: reading.take(&keys::LAME_DUCK)?,
        shutdown_timeout: reading.take(&keys::SHUTDOWN_TIMEOUT)?,
        trusted_proxies: reading
            .take_entries("", &keys::TRUSTED_PROXIES)
            .into_iter()
            .map(|(_, network)| network)
            .collect(),
        tls: {
            let (certificate, key) = (reading.take(&keys::TLS_CERTIFICATE)?, reading.take(&keys::TLS_KEY)?);
            tls(reading, certificate, key)
        },
    })
}

/// Both files or none.
fn tls(reading: &mut Reading, certificate: Option<PathBuf>, key: Option<PathBuf>) -> Option<TlsFiles> {
    for (is_missing, missing, other) in [
        (certificate.is_none() && key.is_some(), &keys::TLS_CERTIFICATE, &keys::TLS_KEY),
        (certificate.is_some() && key.is_none(), &keys::TLS_KEY, &keys::TLS_CERTIFICATE),
    ] {
        if is_missing {
            reading.object(&KeyPath::of(missing.row.path, ""), format!("a file beside {}", other.row.path));
        }
    }
    certificate.zip(key).map(|(certificate, key)| TlsFiles { certificate, key })
}

/// A size alone is a spool that somebody believes to have.
fn spool(reading: &mut Reading, directory: Option<PathBuf>, max_size_bytes: u64) -> Option<Spool> {
    if directory.is_none() && reading.is_written(&KeyPath::of(keys::SPOOL_MAX_SIZE.row.path, "")) {
        let wanted = format!("a directory beside {}", keys::SPOOL_MAX_SIZE.row.path);
        reading.object(&KeyPath::of(keys::SPOOL_DIRECTORY.row.path, ""), wanted);
    }
    directory.map(|directory| Spool { directory, max_size_bytes })
}

fn sources(reading: &mut Reading) -> Option<BTreeMap<String, Source>> {
    let names = reading.sources();
    names.into_iter().map(|name| source(reading, &name).map(|source| (name, source))).collect()
}

fn source(reading: &mut Reading, name: &str) -> Option<Source> {
    let files = reading.take_entries(name, &keys::SIGNING_SECRET_FILES);
    let routes = named(reading.take_entries(name, &keys::ROUTES));
    Some(Source {
        public_url: reading.take_of(name, &keys::PUBLIC_URL)?,
        signing_secret_files: files.into_iter().map(|(_, file)| file).collect(),
        max_age: reading.take_of(name, &keys::MAX_AGE)?,
        max_redelivery_age: reading.take_of(name, &keys::MAX_REDELIVERY_AGE)?,
        max_clock_skew: reading.take_of(name, &keys::MAX_CLOCK_SKEW)?,
        accept_unsigned_ping: reading.take_of(name, &keys::ACCEPT_UNSIGNED_PING)?,
        routes: Routes::new(reading.take_of(name, &keys::EVENT_TOPIC)?, routes),
        api: {
            let token_file = reading.take_of(name, &keys::API_TOKEN_FILE)?;
            let base_url = reading.take_of(name, &keys::API_BASE_URL)?;
            let snapshot_topic = reading.take_of(name, &keys::SNAPSHOT_TOPIC)?;
            let reconcile_every = reading.take_of(name, &keys::RECONCILE_EVERY)?;
            let grace = reading.take_of(name, &keys::GRACE)?;
            api_needs_token(reading, name, token_file.is_some());
            token_file.map(|token_file| Api { base_url, token_file, snapshot_topic, reconcile_every, grace })
        },
    })
}

/// Without a token nothing else of the section means anything.
fn api_needs_token(reading: &mut Reading, source: &str, has_token: bool) {
    let other =
        [keys::API_BASE_URL.row, keys::SNAPSHOT_TOPIC.row, keys::RECONCILE_EVERY.row, keys::GRACE.row];
    let written =
        other.map(|row| KeyPath::of(row.path, source)).into_iter().find(|key| reading.is_written(key));
    if let (Some(key), false) = (written, has_token) {
        let token = KeyPath::of(keys::API_TOKEN_FILE.row.path, source);
        reading.object(&token, format!("a file with a Personal Access Token beside {key}"));
    }
}

fn kafka(reading: &mut Reading) -> Option<Kafka> {
    Some(Kafka {
        bootstrap_servers: reading.take(&keys::BOOTSTRAP_SERVERS)?,
        create_topics: reading.take(&keys::CREATE_TOPICS)?,
        partitions: reading.take(&keys::EVENT_PARTITIONS)?,
        replication_factor: reading.take(&keys::REPLICATION_FACTOR)?,
        properties: named(reading.take_entries("", &keys::PROPERTIES)),
        property_files: named(reading.take_entries("", &keys::PROPERTY_FILES)),
    })
}

/// A table's entries by name.
fn named<T>(entries: Vec<(Step, T)>) -> BTreeMap<String, T> {
    let name = |(step, value)| match step {
        Step::Name(name) => Some((name, value)),
        Step::Index(_) => None,
    };
    entries.into_iter().filter_map(name).collect()
}
