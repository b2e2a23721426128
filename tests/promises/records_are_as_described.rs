//! docs/asyncapi.yaml and its schemas tell downstream teams the truth about what lands in Kafka, and are no gate: what does not
//! fit is published all the same. (Whether they are AsyncAPI at all, `script/asyncapi` asks AsyncAPI's own parser.)

use clearfeed_relay::config;
use clearfeed_relay::domain::event_record::DeadLetterReason;
use clearfeed_relay::domain::inbox_record::header;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::asyncapi::{self, Message, Seen, document, faults, schema};
use crate::support::deployment::PATH;
use crate::support::simulator::{Settings, load};
use crate::support::{Deployment, Kafka, SOON, Sender, Simulation, http};

const CREATED: &[u8] = include_bytes!("../payloads/request_created.json");
const UPDATED: &[u8] = include_bytes!("../payloads/request_updated.json");
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Authentic, an event, and none that ClearFeed describes: a title is a text, and a thread an object.
const MISFIT: &str = r#"{"id":"misfit","type":"request","sub_type":"created",
    "request":{"id":7,"title":["not","a","text"],"request_thread":"nor a thread"}}"#;
/// Of kinds that nobody has described.
const OTHER_SUB_TYPE: &str =
    r#"{"id":"merged","type":"request","sub_type":"merged","request":{"id":18446744073709551615}}"#;
const OTHER_TYPE: &str = r#"{"id":"sent","type":"survey","sub_type":"sent","request":null}"#;
/// No events: the second because of what came before.
const MALFORMED: &str = r#"{"id":"bad","type":"request","sub_type":"created","request":{"id":"seven"}}"#;
const CONFLICT: &str =
    r#"{"id":"merged","type":"request","sub_type":"merged","request":{"id":18446744073709551615},"and":1}"#;

#[test]
fn what_comes_out_of_kafka_is_as_described() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("described", &kafka);
    let relay = deployment.relay().up();
    let settings = Settings { redeliver_percent: 20, ..load(vec![relay.target()], 200, 20) };
    assert_eq!(Simulation::run(settings).summary.accepted_events, 200);
    let mut sender = Sender::new(vec![relay.target()]);
    for body in
        [UPDATED, MISFIT.as_bytes(), OTHER_SUB_TYPE.as_bytes(), OTHER_TYPE.as_bytes(), CONFLICT.as_bytes()]
    {
        assert_eq!(sender.send(&deployment.delivery(body)), 200);
    }
    for body in [CREATED, MALFORMED.as_bytes()] {
        deliver_with_a_trace(&deployment, relay.intake(), body);
    }
    deployment.wait_until_forwarded(SOON);
    put_one_back(&deployment, &kafka);

    let (misfits, requests): (Vec<_>, Vec<_>) =
        deployment.published().into_iter().partition(|record| record.header("ce_id") == "misfit");
    asyncapi::assert_messages(
        "requestEvents",
        &requests,
        &[("requestCreated", 20 + 1), ("requestOther", 1), ("requestUpdated", 180 + 1)],
    );
    let surveys = deployment.reader().all(&deployment.topic("survey"));
    asyncapi::assert_messages("otherEvents", &surveys, &[("eventOther", 1)]);
    asyncapi::assert_headers("eventHeaders", requests.iter().chain(&surveys));

    let [misfit] = &misfits[..] else { panic!("published {} times", misfits.len()) };
    assert_eq!(misfit.value, MISFIT.as_bytes());
    for message in asyncapi::messages_of("requestEvents") {
        assert_ne!(message.faults(&Seen::json(misfit)), [""; 0], "{}", message.name);
    }

    let letters = deployment.reader().all(&deployment.dead_letters());
    asyncapi::assert_messages("deadLetters", &letters, &[("deadLetter", 3)]);
    asyncapi::assert_headers("deadLetterHeaders", letters.iter());
    for letter in &letters {
        let digest = hex::encode(Sha256::digest(&letter.value));
        assert_eq!((letter.key(), letter.header("body-sha256")), (&*digest, &*digest));
    }
}

/// Of a dead letter the copy that stands in the inbox after `redrive`, as if it had waited on a disk before: it has all headers.
#[track_caller]
fn put_one_back(deployment: &Deployment, kafka: &Kafka) {
    let letters = deployment.reader().all(&deployment.dead_letters());
    let letter = letters.iter().find(|letter| letter.value == MALFORMED.as_bytes()).unwrap();
    let own = letter.headers.keys().filter(|name| !["reason", "detail", "inbox"].contains(&name.as_str()));
    let mut headers: Vec<_> = own.map(|name| (name.as_str(), letter.header(name))).collect();
    let told = &document("asyncapi.yaml")["components"]["schemas"]["deadLetterHeaders"]["properties"];
    let example = |name: &str| told[name]["examples"][0].as_str().unwrap();
    headers.push((header::REDRIVEN, letter.header("inbox")));
    headers.extend([header::SPOOLED, header::SPOOLED_TOO_LONG].map(|name| (name, example(name))));
    let (partition, _) = letter.header("inbox").split_once(':').unwrap();
    kafka.append(&deployment.inbox(), partition.parse().unwrap(), &headers, &letter.value);
    deployment.wait_until_forwarded(SOON);
}

#[track_caller]
fn deliver_with_a_trace(deployment: &Deployment, intake: std::net::SocketAddr, body: &'static [u8]) {
    let delivery = deployment.delivery(body);
    let headers = [
        ("content-type", "application/json"),
        ("x-cf-signature", delivery.signature.as_deref().unwrap()),
        ("x-cf-timestamp", &delivery.timestamp),
        ("x-cf-retry-count", "0"),
        ("traceparent", TRACE),
    ];
    assert_eq!(http::request(intake, "POST", PATH, &headers, body).unwrap().status, 200);
}

// ---- The description itself ----------------------------------------------------------------------------------------

#[test]
fn what_is_told_as_described_is_what_the_code_has() {
    let document = document("asyncapi.yaml");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let plain = config::from_toml(
        "[sources.main]\npublic_url = \"https://hooks.example.com/x\"\nsigning_secret_files = [\"secret\"]\n",
    );
    let plain = plain.unwrap();
    let address = |channel: &str| document["channels"][channel]["address"].as_str().unwrap().to_owned();
    assert_eq!(address("deadLetters"), plain.forward.dead_letter_topic.as_str());
    let of_type = address("otherEvents");
    assert_eq!(address("requestEvents"), of_type.replace("{type}", "request"));
    let keys = config::markdown_table();
    assert!(keys.contains(&format!("| `sources.NAME.topic` | `{of_type}` |")), "{keys}");
    for channel in ["requestEvents", "otherEvents", "deadLetters"] {
        let bindings = &document["channels"][channel]["bindings"]["kafka"];
        assert_eq!(bindings["partitions"], plain.kafka.partitions);
        let room = plain.intake.max_body_bytes + 64 * 1024;
        assert_eq!(bindings["topicConfiguration"]["max.message.bytes"], room);
    }
    let reason = &document["components"]["schemas"]["deadLetterHeaders"]["properties"]["reason"];
    let reasons: Vec<_> = DeadLetterReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(reason["examples"], json!(reasons));
    let told = reason["description"].as_str().unwrap();
    for reason in reasons {
        assert!(told.contains(&format!("`{reason}`:")), "{reason} is not explained: {told}");
    }
}

#[test]
fn examples_are_as_described() {
    let names = ["requestCreated", "requestUpdated"];
    let documented = names.into_iter().zip([CREATED, UPDATED]);
    let messages = asyncapi::messages();
    for (name, body) in documented {
        let message = messages.iter().find(|message| message.name == name).unwrap();
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(message.told["examples"][0]["payload"], body, "ClearFeed's own example");
    }
    for message in &messages {
        let examples = message.told["examples"].as_array().expect("a message has an example");
        for example in examples {
            let seen = Seen {
                key: key_of(example),
                headers: example["headers"].clone(),
                payload: example["payload"].clone(),
            };
            assert_eq!(message.faults(&seen), [""; 0], "{}", message.name);
        }
    }
    let mut count = 0;
    every_schema(&mut |reference, _, told| {
        for example in told["examples"].as_array().into_iter().flatten() {
            assert_eq!(faults(&schema(reference), example), [""; 0], "{reference}");
            count += 1;
        }
    });
    assert!(count > 50, "{count} examples of members and headers");
}

/// As the relay would choose it.
fn key_of(example: &Value) -> Value {
    match &example["payload"] {
        Value::String(bytes) => hex::encode(Sha256::digest(bytes)).into(),
        payload => {
            let id = payload.pointer("/request/id").unwrap_or(&payload["id"]);
            id.as_str().map_or_else(|| id.to_string(), str::to_owned).into()
        }
    }
}

/// Else nobody would know what ClearFeed promises and what was only seen.
#[test]
fn every_member_is_described_with_who_says_so() {
    let mut count = 0;
    every_schema(&mut |reference, is_member, told| {
        if is_member && reference.starts_with("schemas/") {
            let description = told["description"].as_str().unwrap_or_default();
            let said_by = description.split_once(": ").map(|(who, _)| who);
            let known = ["ClearFeed", "REST API", "Relay", "Inferred"];
            assert!(said_by.is_some_and(|who| known.contains(&who)), "{reference}: {description:?}");
            count += 1;
        }
    });
    assert!(count > 50, "{count} members");
}

/// Visits all schemas: with a reference that leads there, whether it is of a member, and as it stands there.
fn every_schema(visit: &mut dyn FnMut(&str, bool, &Value)) {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schemas")).unwrap() {
        let file = format!("schemas/{}", entry.unwrap().file_name().into_string().unwrap());
        every_schema_of(&format!("{file}#"), false, &document(&file), visit);
    }
    let document = document("asyncapi.yaml");
    let inline = document["components"]["schemas"].as_object().unwrap();
    for (name, told) in inline {
        every_schema_of(&format!("asyncapi.yaml#/components/schemas/{name}"), false, told, visit);
    }
}

fn every_schema_of(
    reference: &str,
    is_member: bool,
    told: &Value,
    visit: &mut dyn FnMut(&str, bool, &Value),
) {
    visit(reference, is_member, told);
    for part in ["properties", "definitions"] {
        for (name, inner) in told[part].as_object().into_iter().flatten() {
            every_schema_of(&format!("{reference}/{part}/{name}"), part == "properties", inner, visit);
        }
    }
    for (index, inner) in told["allOf"].as_array().into_iter().flatten().enumerate() {
        every_schema_of(&format!("{reference}/allOf/{index}"), false, inner, visit);
    }
}

// ---- The test of the test ------------------------------------------------------------------------------------------

/// What ClearFeed's text does not promise may be null, or not there, or stand beside something new; what is there is of
/// its kind.
#[test]
fn a_planted_misfit_is_noticed_wherever_it_stands_and_nothing_else() {
    let event = ["/id", "/type"];
    let request = ["/id", "/type", "/sub_type", "/request", "/request/id"];
    for message in asyncapi::messages() {
        let (needed, free): (&[&str], &[&str]) = match message.name.as_str() {
            "requestCreated" | "requestUpdated" => (&request, &[]),
            "requestOther" | "eventOther" => (&event, &[]),
            "requestSnapshot" => (&["/id"], &["/channel/id"]),
            _ => continue,
        };
        let example = &message.told["examples"][0];
        for place in places(&example["payload"], "") {
            let of_request_alone = place == "/request/id" && needed == event;
            let is_needed = needed.contains(&place.as_str()) || of_request_alone;
            let faults_with = |value| faults_of_payload(&message, example, &place, value);
            let is_free = free.contains(&place.as_str());
            assert_eq!(faults_with(Some(json!([true]))) > 0, !is_free, "{} {place}", message.name);
            assert_eq!(faults_with(Some(Value::Null)) > 0, is_needed, "{} {place} null", message.name);
            assert_eq!(faults_with(None) > 0, is_needed, "{} {place} absent", message.name);
        }
    }
}

/// Pointers to all members.
fn places(value: &Value, prefix: &str) -> Vec<String> {
    let members = value.as_object().into_iter().flatten();
    let places = members.flat_map(|(name, value)| {
        let place = format!("{prefix}/{name}");
        let inside = places(value, &place);
        [place].into_iter().chain(inside)
    });
    places.collect()
}

/// How many, with this in place of a member (or without it), and something new beside it.
fn faults_of_payload(message: &Message, example: &Value, place: &str, value: Option<Value>) -> usize {
    let mut payload = example["payload"].clone();
    let (object, name) = place.rsplit_once('/').unwrap();
    let object = payload.pointer_mut(object).unwrap().as_object_mut().unwrap();
    object.insert("never heard of".to_owned(), json!({ "in": "the two payloads" }));
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
    message.faults(&Seen { key: key_of(example), headers: example["headers"].clone(), payload }).len()
}

#[test]
fn a_planted_header_and_a_planted_key_are_noticed() {
    for message in asyncapi::messages() {
        let example = &message.told["examples"][0];
        let seen = |key: Value, headers: Value| Seen { key, headers, payload: example["payload"].clone() };
        for key in [json!(7), json!("")] {
            assert_ne!(message.faults(&seen(key, example["headers"].clone())), [""; 0], "{}", message.name);
        }
        for name in example["headers"].as_object().unwrap().keys() {
            let mut headers = example["headers"].clone();
            headers[name] = json!(7);
            let key = key_of(example);
            assert_ne!(message.faults(&seen(key, headers)), [""; 0], "{}: {name} is a number", message.name);
        }
        assert_ne!(message.faults(&seen(key_of(example), json!({}))), [""; 0], "{}", message.name);
    }
}
