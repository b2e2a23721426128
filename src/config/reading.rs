//! Takes each key's value out of what is written, and keeps the problems that were met on the way.
//!
//! A value that cannot be read is replaced by the key's default, so that the rest is read and checked all the
//! same; the problem that was noted then keeps the configuration from being used.

use std::collections::{BTreeMap, BTreeSet};

use super::Setting;
use super::document::{KeyPath, Leaves, Step};
use super::environment;
use super::keys::{self, Fallback, Key, Row, Shape};
use super::problem::{Problem, Problems};
use super::properties::is_secret;

/// Parts of the contract that this version does not have yet: saying so is better than to ignore them.
/// Parts of the contract that this version does not have yet: saying so is better than to ignore them.
const NOT_YET: [&str; 1] = ["sources.*.api.reconcile_every"];
/// Where a value comes from that nobody wrote.
const BY_DEFAULT: &str = "the default";
/// More edits than this and another key was meant.
const MAX_EDITS: usize = 2;

/// What is left of a configuration to be read, and what was found in it so far.
pub(super) struct Reading {
    /// The file's name, for messages.
    file: String,
    leaves: Leaves,
    /// Only variables with the prefix.
    environment: BTreeMap<String, String>,
    /// Of all keys that were asked for: the text, if any, and where it came from.
    settings: BTreeMap<KeyPath, (Option<String>, String)>,
    problems: Vec<Problem>,
}

impl Reading {
    pub(super) fn new(file: &str, leaves: Leaves, environment: BTreeMap<String, String>) -> Self {
        Self { file: file.to_owned(), leaves, environment, settings: BTreeMap::new(), problems: Vec::new() }
    }

    /// The names of all sources.
    pub(super) fn sources(&self) -> BTreeSet<String> {
        self.leaves.keys().filter_map(KeyPath::source).map(str::to_owned).collect()
    }

    /// The value of a key of a fixed section. `None` only after a problem was noted.
    pub(super) fn take<T>(&mut self, key: &Key<T>) -> Option<T> {
        self.take_of("", key)
    }

    /// The value of a source's key (and, the name being empty, of any other).
    pub(super) fn take_of<T>(&mut self, source: &str, key: &Key<T>) -> Option<T> {
        let path = KeyPath::of(key.row.path, source);
        // Both are taken, even though one is used: neither is an unknown key.
        let from_file = self.leaves.remove(&path);
        let from_environment = environment::variable(&key.row)
            .and_then(|variable| self.environment.remove(&variable).map(|text| (text, variable)));
        let (text, whence) = match (from_environment, from_file, key.row.fallback) {
            (Some((text, variable)), _, _) => (Some(text), variable),
            (None, Some(text), _) => (text, self.file.clone()),
            (None, None, Fallback::Default(text)) => (Some(text.to_owned()), BY_DEFAULT.to_owned()),
            (None, None, Fallback::Required(_)) => (None, self.file.clone()),
        };
        let value = self.read(key, &path, text, whence);
        value.or_else(|| key.kind.parse(key.row.fallback.text()).ok())
    }

    /// The entries of a list or table, without those that cannot be read.
    pub(super) fn take_entries<T>(&mut self, source: &str, key: &Key<T>) -> Vec<(Step, T)> {
        let path = KeyPath::of(key.row.path, source);
        if self.leaves.get(&path) == Some(&None) {
            self.leaves.remove(&path);
        }
        let is_entry = |entry: &&KeyPath| match entry.0.split_last() {
            Some((Step::Index(_), parent)) => key.row.shape == Shape::List && parent == path.0,
            Some((Step::Name(_), parent)) => key.row.shape == Shape::Table && parent == path.0,
            None => false,
        };
        let entries: Vec<KeyPath> = self.leaves.keys().filter(is_entry).cloned().collect();
        let mut values = Vec::new();
        for entry in entries {
            let (text, file) = (self.leaves.remove(&entry).flatten(), self.file.clone());
            let value = self.read(key, &entry, text, file);
            values.extend(entry.0.last().cloned().zip(value));
        }
        values
    }

    fn read<T>(&mut self, key: &Key<T>, path: &KeyPath, text: Option<String>, whence: String) -> Option<T> {
        self.settings.insert(path.clone(), (text.clone(), whence));
        let value = text.map_or(Err(key.row.wanted), |text| key.kind.parse(&text));
        value.map_err(|wanted| self.object(path, wanted)).ok()
    }

    /// Notes that the value at `path` will not do, whatever else was said about it.
    pub(super) fn object(&mut self, path: &KeyPath, wanted: impl Into<String>) {
        let nothing = || (None, self.file.clone());
        let (text, whence) = self.settings.get(path).cloned().unwrap_or_else(nothing);
        let found = text.map_or_else(
            || "nothing".to_owned(),
            |text| hidden(path, &text).map_or_else(|| format!("{text:?}"), str::to_owned),
        );
        self.problems.push(Problem { key: path.to_string(), found, wanted: wanted.into(), whence });
    }

    /// Whether somebody wrote this key, which was asked for.
    pub(super) fn is_written(&self, path: &KeyPath) -> bool {
        self.settings.get(path).is_some_and(|(_, whence)| whence != BY_DEFAULT)
    }

    /// The keys of all problems so far.
    pub(super) fn objected(&self) -> BTreeSet<String> {
        self.problems.iter().map(|problem| problem.key.clone()).collect()
    }

    /// The paths of the entries that were found in a table of this source, or (the name being empty) of a
    /// fixed section.
    pub(super) fn entries_of(&self, source: &str, table: &Row) -> Vec<KeyPath> {
        let table = KeyPath::of(table.path, source);
        self.settings
            .keys()
            .filter(|entry| **entry != table && entry.0.starts_with(&table.0))
            .cloned()
            .collect()
    }

    /// Every key that was asked for and has a value, with that value as it may be shown.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let setting = |(path, (text, whence)): (&KeyPath, &(Option<String>, String))| {
            let text = text.as_ref().filter(|text| !text.is_empty())?;
            let value = hidden(path, text).unwrap_or(text).to_owned();
            Some(Setting { key: path.to_string(), value, whence: whence.clone() })
        };
        self.settings.iter().filter_map(setting).collect()
    }

    /// All problems, and with them everything written that no key took.
    pub(super) fn finish(mut self) -> Problems {
        for (path, text) in std::mem::take(&mut self.leaves) {
            if let Some(problem) = leftover(&path, text.as_deref(), &self.file)
                && !self.problems.contains(&problem)
            {
                self.problems.push(problem);
            }
        }
        let known: Vec<String> = keys::ALL.iter().filter_map(environment::variable).collect();
        for variable in std::mem::take(&mut self.environment).into_keys() {
            let otherwise = "a variable of a key in a fixed section: sources and tables stand in the file";
            let wanted = perhaps(&variable, &known, otherwise);
            let found = "an unknown variable".to_owned();
            self.problems.push(Problem { key: variable.clone(), found, wanted, whence: variable });
        }
        Problems(self.problems)
    }
}

/// What stands for a value that must not be shown.
fn hidden(path: &KeyPath, text: &str) -> Option<&'static str> {
    if !text.is_empty() && path.last_name().is_some_and(is_secret) {
        Some("…")
    } else {
        // Before the @ of a URL stands a password.
        (text.contains("://") && text.contains('@')).then_some("a URL with an @")
    }
}

/// What is wrong with a leaf that no key took. Its value is never shown: it may be a secret under a mistyped
/// name.
fn leftover(path: &KeyPath, text: Option<&str>, file: &str) -> Option<Problem> {
    let source = path.source().unwrap_or("*");
    let problem = |key: &KeyPath, found: &str, wanted: String| {
        Some(Problem { key: key.to_string(), found: found.to_owned(), wanted, whence: file.to_owned() })
    };
    for section in NOT_YET.map(|pattern| KeyPath::of(pattern, source)) {
        if path.0.starts_with(&section.0) {
            let wanted = "no such key: it is not supported by this version yet".to_owned();
            return problem(&section, "a key", wanted);
        }
    }
    for row in keys::ALL {
        let known = KeyPath::of(row.path, source);
        if path.0.starts_with(&known.0) {
            let (found, wanted) = match row.shape {
                Shape::One => ("a list or a table", row.wanted.to_owned()),
                Shape::List if path == &known => ("a single value", format!("a list, each {}", row.wanted)),
                Shape::Table if path == &known => ("a single value", format!("a table, each {}", row.wanted)),
                Shape::List | Shape::Table => ("something else", format!("only values, each {}", row.wanted)),
            };
            return problem(&known, found, wanted);
        }
        // Nothing written in a section is no problem: all its keys have their defaults.
        if known.0.starts_with(&path.0) || path.0.as_slice() == [Step::Name("sources".to_owned())] {
            return text.and_then(|_| problem(path, "a single value", "a section with keys".to_owned()));
        }
    }
    let known: Vec<String> = keys::ALL.iter().map(|row| KeyPath::of(row.path, source).to_string()).collect();
    let wanted = perhaps(&path.to_string(), &known, "one of the documented keys");
    problem(path, "an unknown key", wanted)
}

fn perhaps(unknown: &str, known: &[String], otherwise: &str) -> String {
    let distance = |name: &&String| strsim::osa_distance(unknown, name);
    match known.iter().min_by_key(distance) {
        Some(near) if distance(&near) <= MAX_EDITS => format!("{near} perhaps"),
        _ => otherwise.to_owned(),
    }
}
