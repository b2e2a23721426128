//! docs/asyncapi.yaml, taken as tools of its readers take it: which messages of a channel a record is.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};

use ::config::{FileFormat, Format, Value as YamlValue, ValueKind};
use jsonschema::{Draft, Retrieve, Uri, Validator};
use serde_json::{Map, Value, json};

use super::Record;

/// As if docs/ were a place of its own: references are relative to it.
const BASE: &str = "docs:/";

/// A file of docs/, JSON or YAML.
pub fn document(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).unwrap();
    if name.ends_with(".json") {
        return serde_json::from_str(&text).unwrap();
    }
    let tree = FileFormat::Yaml.parse(None, &text).unwrap();
    from_yaml(YamlValue::new(None, tree))
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn from_yaml(value: YamlValue) -> Value {
    match value.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(value) => value.into(),
        ValueKind::I64(value) => value.into(),
        ValueKind::U64(value) => value.into(),
        ValueKind::Float(value) => value.into(),
        ValueKind::String(value) => value.into(),
        ValueKind::Array(items) => items.into_iter().map(from_yaml).collect(),
        ValueKind::Table(members) => {
            members.into_iter().map(|(name, value)| (name, from_yaml(value))).collect::<Map<_, _>>().into()
        }
        other => panic!("no number of ours is so large: {other}"),
    }
}

/// References lead to files of docs/ and nowhere else.
struct Docs;

impl Retrieve for Docs {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        Ok(document(uri.path().as_str().trim_start_matches('/')))
    }
}

/// The schema that a reference leads to, such as `asyncapi.yaml#/components/schemas/eventHeaders`.
#[track_caller]
pub fn schema(reference: &str) -> Validator {
    let options = jsonschema::options()
        .with_draft(Draft::Draft7)
        .with_base_uri(BASE)
        .with_retriever(Docs)
        .should_validate_formats(true);
    options.build(&json!({ "$ref": reference })).unwrap_or_else(|error| panic!("{reference}: {error}"))
}

/// What does not fit, and where.
pub fn faults(schema: &Validator, value: &Value) -> Vec<String> {
    let fault = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    schema.iter_errors(value).map(fault).collect()
}

/// A message of the description.
pub struct Message {
    /// What it is called under `components.messages`.
    pub name: String,
    /// As it stands there.
    pub told: Value,
    key: Validator,
    headers: Validator,
    payload: Validator,
}

/// What AsyncAPI sees of a record.
pub struct Seen {
    pub key: Value,
    pub headers: Value,
    pub payload: Value,
}

impl Message {
    fn new(name: &str, told: &Value) -> Self {
        let part = |part: &str| schema(&format!("asyncapi.yaml#/components/messages/{name}/{part}"));
        Self {
            name: name.to_owned(),
            told: told.clone(),
            key: part("bindings/kafka/key"),
            headers: part("headers"),
            payload: part("payload"),
        }
    }

    /// What keeps a record from being one of these.
    pub fn faults(&self, seen: &Seen) -> Vec<String> {
        let parts = [
            ("key", &self.key, &seen.key),
            ("headers", &self.headers, &seen.headers),
            ("payload", &self.payload, &seen.payload),
        ];
        let faults = |(part, schema, value)| {
            faults(schema, value).into_iter().map(move |fault| format!("{part}{fault}"))
        };
        parts.into_iter().flat_map(faults).collect()
    }
}

/// All messages.
pub fn messages() -> Vec<Message> {
    let document = document("asyncapi.yaml");
    let messages = document["components"]["messages"].as_object().unwrap();
    messages.iter().map(|(name, told)| Message::new(name, told)).collect()
}

/// The messages of a channel.
#[track_caller]
pub fn messages_of(channel: &str) -> Vec<Message> {
    let document = document("asyncapi.yaml");
    let referred = document["channels"][channel]["messages"].as_object().expect("a channel's messages");
    let mut messages = messages();
    messages.retain(|message| {
        referred.values().any(|target| target["$ref"] == format!("#/components/messages/{}", message.name))
    });
    assert_eq!(messages.len(), referred.len(), "{channel}");
    messages
}

impl Seen {
    /// A record whose value is JSON.
    pub fn json(record: &Record) -> Self {
        Self::new(record, serde_json::from_slice(&record.value).unwrap())
    }

    /// A record whose value may be anything.
    pub fn bytes(record: &Record) -> Self {
        Self::new(record, String::from_utf8_lossy(&record.value).into())
    }

    fn new(record: &Record, payload: Value) -> Self {
        let header = |name: &String| (name.clone(), Value::from(record.header(name)));
        let headers = record.headers.keys().map(header).collect::<Map<_, _>>();
        Self { key: record.key().into(), headers: headers.into(), payload }
    }
}

/// Each record is one of its channel's messages and only one, as AsyncAPI has it; and so many are of each.
#[track_caller]
pub fn assert_messages(channel: &str, records: &[Record], wanted: &[(&str, usize)]) {
    let messages = messages_of(channel);
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        let seen = if channel == "deadLetters" { Seen::bytes(record) } else { Seen::json(record) };
        let judged = messages.iter().map(|message| (message.name.as_str(), message.faults(&seen)));
        let (fits, rest): (Vec<_>, Vec<_>) = judged.partition(|(_, faults)| faults.is_empty());
        let [(name, _)] = fits[..] else { panic!("{record:?} is {} messages: {rest:#?}", fits.len()) };
        *found.entry(name).or_default() += 1;
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), wanted);
}

/// The description tells of the headers that there are, and of no others.
#[track_caller]
pub fn assert_headers<'r>(schema: &str, records: impl Iterator<Item = &'r Record>) {
    let told = &document("asyncapi.yaml")["components"]["schemas"][schema]["properties"];
    let told: BTreeSet<_> = told.as_object().unwrap().keys().cloned().collect();
    let found: BTreeSet<_> = records.flat_map(|record| record.headers.keys().cloned()).collect();
    assert_eq!(found, told);
}
