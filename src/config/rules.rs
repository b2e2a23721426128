//! Rules between keys, each with its reason. A rule is judged only where the values it needs could be read.

use std::collections::{BTreeMap, BTreeSet};

use humantime::format_duration;

use super::document::KeyPath;
use super::keys::{self, Key};
use super::properties::REFUSED;
use super::reading::Reading;
use super::{Api, Config, FORWARD_DRAIN, Intake, Source, WINDOW_MARGIN};

/// Longer names make unreadable metrics, headers and paths.
const MAX_SOURCE_NAME: usize = 64;

struct Rules<'a> {
    reading: &'a mut Reading,
    /// Keys whose values could not be read.
    unreadable: BTreeSet<String>,
}

/// Notes every rule that the configuration breaks.
pub(super) fn check(config: &Config, reading: &mut Reading) {
    let unreadable = reading.objected();
    let mut rules = Rules { reading, unreadable };
    rules.intake(&config.intake);
    rules.listeners(config);
    rules.own_topics(config);
    rules.properties();
    rules.sources(config);
    rules.public_paths(&config.sources);
}

fn path<T>(key: &Key<T>) -> KeyPath {
    KeyPath::of(key.row.path, "")
}

impl Rules<'_> {
    /// Objects to the first of the keys unless the rule holds.
    fn require(&mut self, holds: bool, keys: &[&KeyPath], wanted: impl Into<String>) {
        let readable = keys.iter().all(|key| !self.unreadable.contains(&key.to_string()));
        if let ([first, ..], false, true) = (keys, holds, readable) {
            self.reading.object(first, wanted);
        }
    }

    fn intake(&mut self, intake: &Intake) {
        // Otherwise a legal body could never be taken.
        let wanted = "at least intake.max_body";
        let holds = intake.max_body_bytes <= intake.max_buffered_bytes;
        self.require(holds, &[&path(&keys::MAX_BUFFERED), &path(&keys::MAX_BODY)], wanted);

        let (shutdown, lame_duck) = (path(&keys::SHUTDOWN_TIMEOUT), path(&keys::LAME_DUCK));
        // Otherwise nothing is left for the drain itself: the requests in flight, the producer and the
        // transaction.
        let holds = intake.lame_duck < intake.shutdown_timeout;
        let wanted = format!("more than intake.lame_duck = {}", format_duration(intake.lame_duck));
        self.require(holds, &[&shutdown, &lame_duck], wanted);

        // A delivery accepted at the lame duck's last moment may still take this long; cut off, it has no
        // answer, and ClearFeed spends one of its four tries.
        let least = intake.lame_duck + intake.body_timeout + intake.answer_timeout + FORWARD_DRAIN;
        let keys = [&shutdown, &lame_duck, &path(&keys::BODY_TIMEOUT), &path(&keys::ANSWER_TIMEOUT)];
        let wanted =
            format!("at least {}: lame_duck + body_timeout + answer_timeout + 2s", format_duration(least));
        let judged = intake.lame_duck < intake.shutdown_timeout;
        self.require(!judged || least <= intake.shutdown_timeout, &keys, wanted);
    }

    /// Only one socket can listen on a port; an unspecified address is all of them.
    fn listeners(&mut self, config: &Config) {
        let (intake, admin) = (config.intake.listen, config.admin.listen);
        let overlap =
            intake.ip() == admin.ip() || intake.ip().is_unspecified() || admin.ip().is_unspecified();
        let clash =
            config.role.has_intake() && intake.port() == admin.port() && intake.port() != 0 && overlap;
        let wanted = "another port than intake.listen: metrics and status are not for the public";
        self.require(!clash, &[&path(&keys::ADMIN_LISTEN), &path(&keys::INTAKE_LISTEN)], wanted);
    }

    /// One topic with two meanings would feed the relay its own output, and let an event's sender write the
    /// ledger.
    fn own_topics(&mut self, config: &Config) {
        let mut own = vec![
            (path(&keys::INBOX_TOPIC), &config.inbox.topic),
            (path(&keys::LEDGER_TOPIC), &config.ledger.topic),
            (path(&keys::DEAD_LETTER_TOPIC), &config.forward.dead_letter_topic),
        ];
        // Two sources may have a request of the same id: one would be the other's newest snapshot.
        own.extend(
            config
                .apis()
                .map(|(name, api)| (KeyPath::of(keys::SNAPSHOT_TOPIC.row.path, name), &api.snapshot_topic)),
        );
        for (index, (key, topic)) in own.iter().enumerate() {
            for (other_key, other) in &own[..index] {
                self.require(topic != other, &[key, other_key], format!("another topic than {other_key}"));
            }
            for (name, source) in &config.sources {
                let template = KeyPath::of(keys::EVENT_TOPIC.row.path, name);
                let wanted = format!("a topic to which no template and no route of source {name} leads");
                self.require(!source.routes.known_topics().contains(topic), &[key, &template], wanted);
            }
        }
    }

    fn properties(&mut self) {
        let properties = self.reading.entries_of("", &keys::PROPERTIES.row);
        let files = self.reading.entries_of("", &keys::PROPERTY_FILES.row);
        for key in properties.iter().chain(&files) {
            let refused = REFUSED.iter().find(|(name, _)| key.last_name() == Some(name));
            if let Some((_, reason)) = refused {
                self.require(false, &[key], format!("nothing: {reason}"));
            }
        }
        // Which one counts would be a matter of luck.
        for key in &files {
            let twice = properties.iter().any(|other| other.last_name() == key.last_name());
            self.require(
                !twice,
                &[key],
                "the property in kafka.properties or in kafka.property_files, not in both",
            );
        }
    }

    fn sources(&mut self, config: &Config) {
        if config.sources.is_empty() {
            let wanted = "at least one [sources.NAME] with public_url and signing_secret_files";
            self.require(false, &[&KeyPath::of("sources", "")], wanted);
        }
        for (name, source) in &config.sources {
            // The name stands in metrics, in `ce_source` and in variables of dashboards.
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
            let legal = (1..=MAX_SOURCE_NAME).contains(&name.len()) && name.bytes().all(plain);
            let wanted = format!("a name of 1 to {MAX_SOURCE_NAME} characters of a-z 0-9 _ -");
            self.require(legal, &[&KeyPath::of("sources.*", name)], wanted);
            // The forward half trusts the inbox; only who meets deliveries needs the secrets.
            let files = KeyPath::of(keys::SIGNING_SECRET_FILES.row.path, name);
            let holds = !config.role.has_intake() || !source.signing_secret_files.is_empty();
            self.require(
                holds,
                &[&files],
                "a list with at least one file: without a secret nothing is authentic",
            );
            self.ages(config, name, source);
            if let Some(api) = &source.api {
                self.reconcile(config, name, api);
            }
            self.routes(name);
        }
    }

    fn ages(&mut self, config: &Config, name: &str, source: &Source) {
        let first = KeyPath::of(keys::MAX_AGE.row.path, name);
        let redelivery = KeyPath::of(keys::MAX_REDELIVERY_AGE.row.path, name);
        let skew = KeyPath::of(keys::MAX_CLOCK_SKEW.row.path, name);
        // A redelivery is never younger than the delivery that it repeats.
        let holds = source.max_age <= source.max_redelivery_age;
        self.require(holds, &[&redelivery, &first], format!("at least {first}"));
        // The retry count is not signed, so whoever has seen a delivery may replay it for as long as a
        // redelivery is taken: until then its id must be remembered.
        let least = source.max_redelivery_age + source.max_clock_skew + WINDOW_MARGIN;
        let wanted = format!("at least {}: {redelivery} + max_clock_skew + 30m", format_duration(least));
        self.require(config.dedup.window >= least, &[&path(&keys::WINDOW), &redelivery, &skew], wanted);
    }

    /// What never came is found in the inbox alone: what has left it by then is not found.
    fn reconcile(&mut self, config: &Config, name: &str, api: &Api) {
        let Some(every) = api.reconcile_every else { return };
        let [key, grace] =
            [&keys::RECONCILE_EVERY.row, &keys::GRACE.row].map(|row| KeyPath::of(row.path, name));
        let most = config.inbox.retention.saturating_sub(api.grace);
        let wanted = format!("less than {}: inbox.retention less {grace}", format_duration(most));
        self.require(every < most, &[&key, &grace, &path(&keys::INBOX_RETENTION)], wanted);
    }

    /// A route that can match nothing is a slip, and its events would quietly go elsewhere.
    fn routes(&mut self, source: &str) {
        for route in self.reading.entries_of(source, &keys::ROUTES.row) {
            let parts: Vec<&str> = route.last_name().unwrap_or_default().split('.').collect();
            let legal = parts.len() <= 2
                && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic()));
            self.require(legal, &[&route], "a route named after a type, or type.sub_type");
        }
    }

    /// The path of a request is all that tells which source's secrets it is to be judged by.
    fn public_paths(&mut self, sources: &BTreeMap<String, Source>) {
        let mut seen: BTreeMap<&str, KeyPath> = BTreeMap::new();
        for (name, source) in sources {
            let key = KeyPath::of(keys::PUBLIC_URL.row.path, name);
            if self.unreadable.contains(&key.to_string()) {
                continue;
            }
            let path = source.public_url.path();
            if let Some(other) = seen.get(path) {
                self.require(false, &[&key], format!("another path than that of {other}"));
            } else {
                seen.insert(path, key);
            }
        }
    }
}
