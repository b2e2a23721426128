//! The ground's part of an event's path, whose instructions callgrind counts: script/instructions.
//!
//! The sources are the product's own, built without the rest of it. Each step is a function that is not inlined, so that
//! callgrind finds it by its name; `intake` and `forward` are the path, with all that is freed on it, and the steps in it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a program for developers")]

#[allow(
    dead_code,
    unreachable_pub,
    clippy::pedantic,
    reason = "the product uses the rest, and is linted itself"
)]
#[path = "../../src/domain/mod.rs"]
mod domain;

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use domain::delivery::{AgeLimits, AuthenticDelivery, Claim, HeaderValue, RawDelivery};
use domain::event::{self, Event, Reading};
use domain::event_record::Outgoing;
use domain::inbox_record::{InboxRecord, Position, StoredDelivery, Unsigned};
use domain::route::{Destination, Routes, Template};
use domain::signature::{Keyring, Secret, SignedMessage, SignedUrl, UrlForm};
use domain::window::{Decided, Fate, Sighting, Verdict, Window};

/// As ClearFeed documents it.
const BODY: &str = include_str!("../../tests/payloads/request_updated.json");
const ID: &str = "a98b5e73e7f4c21d52e067a8e51c31af";
const DAY: Duration = Duration::from_secs(86_400);

/// What all events have in common.
struct Scene {
    url: SignedUrl,
    keyring: Keyring,
    limits: AgeLimits,
    now: Timestamp,
    routes: Routes,
    reserved: BTreeSet<domain::route::TopicName>,
}

fn main() {
    let events: usize =
        std::env::args().nth(1).and_then(|count| count.parse().ok()).expect("how many events");
    let secret = || Secret::new(&[7; 32]).unwrap();
    let now = Timestamp::from_second(1_793_901_600).unwrap();
    let scene = Scene {
        url: SignedUrl::parse("https://hooks.example.com/clearfeed/events").unwrap(),
        keyring: Keyring::new(vec![Some(secret())]),
        limits: AgeLimits { max_age: DAY, max_redelivery_age: DAY, max_clock_skew: DAY },
        now,
        routes: Routes::new(Template::parse("clearfeed.{type}.events").unwrap(), BTreeMap::new()),
        reserved: BTreeSet::new(),
    };
    let timestamp = now.as_second().to_string();
    let mut window = Window::new(DAY);
    for number in 0..events {
        let body = Bytes::from(BODY.replace(ID, &format!("{number:032x}")));
        assert!(body.len() == BODY.len() && body != BODY, "the payload has another id");
        let message = SignedMessage {
            verb: "POST",
            url: scene.url.form(UrlForm::Whole),
            body: &body,
            timestamp: timestamp.as_bytes(),
        };
        let signature = hex::encode(secret().sign(&message));
        black_box(read_event(&body));
        let record = intake(&scene, &body, (&signature, &timestamp));
        let position = Position { partition: 0, offset: i64::try_from(number).unwrap() };
        black_box(forward(&scene, &mut window, &record, position));
    }
}

/// What intake does with a delivery, between the request and the producer.
#[inline(never)]
fn intake(scene: &Scene, body: &Bytes, signed: (&str, &str)) -> InboxRecord {
    let delivery = authenticate(scene, body, signed);
    inbox_record(scene, &delivery)
}

#[inline(never)]
fn authenticate(scene: &Scene, body: &Bytes, (signature, timestamp): (&str, &str)) -> AuthenticDelivery {
    let [signature, timestamp, retry] =
        [signature, timestamp, "0"].map(|text| HeaderValue::One(text.as_bytes()));
    let claim = Claim::read(signature, timestamp, retry).unwrap();
    let raw = RawDelivery { verb: "POST", claim, body: body.clone() };
    raw.authenticate(&scene.url, &scene.keyring, &scene.limits, scene.now).unwrap()
}

#[inline(never)]
fn inbox_record(scene: &Scene, delivery: &AuthenticDelivery) -> InboxRecord {
    let unsigned = Unsigned { content_type: Some("application/json".to_owned()), traceparent: None };
    InboxRecord::new("main", delivery, scene.now, unsigned).unwrap()
}

/// Once by intake, within its record; forward reads headers.
#[inline(never)]
fn read_event(body: &[u8]) -> Reading<'_> {
    event::read(body)
}

/// What forward does with an inbox record, between the consumer and the producer; and what it frees, the inbox record not.
#[inline(never)]
fn forward(scene: &Scene, window: &mut Window, record: &InboxRecord, position: Position) -> usize {
    let headers: Vec<_> =
        record.headers.iter().map(|(name, value)| (name.as_ref(), Some(value.as_bytes()))).collect();
    let delivery = read_record(&headers, &record.body);
    let event = delivery.reading.as_ref().unwrap();
    let Destination::FromType(topic) = scene.routes.destination(event, &scene.reserved) else {
        panic!("the type names the topic");
    };
    assert_eq!(observe(window, &delivery, position), Verdict::First);
    let record = event_record(&delivery, event, position);
    topic.as_str().len() + record.headers.len()
}

#[inline(never)]
fn read_record<'a>(headers: &[(&'a str, Option<&'a [u8]>)], body: &'a [u8]) -> StoredDelivery<'a> {
    StoredDelivery::read(headers.iter().copied(), body).unwrap()
}

#[inline(never)]
fn observe(window: &mut Window, delivery: &StoredDelivery<'_>, position: Position) -> Verdict {
    let sighting = Sighting {
        fingerprint: delivery.fingerprint(),
        body: (&delivery.digest).into(),
        offset: position.offset,
        appended_ms: delivery.received.as_millisecond(),
    };
    window.observe(Decided { sighting, fate: Fate::Published }, None)
}

#[inline(never)]
fn event_record(delivery: &StoredDelivery<'_>, event: &Event<'_>, position: Position) -> Outgoing {
    Outgoing::event(delivery, event, position)
}
