//! Deliveries of a hostile sender, and strange ones of an honest one: what is forged is refused, what was sent before is a
//! repeat, what cannot be understood is a dead letter, and what only looks strange is an event. The rows have the numbers of
//! the list of hostile inputs.

use std::collections::{BTreeMap, BTreeSet};

use base64ct::{Base64, Encoding};
use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::{Delivery, unix_seconds};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::nothing_unauthenticated_leaves_a_trace::assert_nothing_is_stored;
use crate::support::deployment::{PATH, PUBLIC_URL, SECRET, secret};
use crate::support::{Deployment, Kafka, Relay, SOON, Sender, http, report};

const EVENT: &str = r#"{"id":"hostile","type":"request","request":{"id":1}}"#;
const MINUTES: u64 = 60;

#[test]
fn what_is_forged_is_refused() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("forged", &kafka);
    let relay = deployment.relay().up();
    let (now, good) = (unix_seconds(), deployment.delivery(EVENT));
    let digits = good.signature.clone().unwrap();
    let base64 = Base64::encode_string(&hex::decode(&digits).unwrap());
    let with = |signature: &str| Delivery { signature: Some(signature.to_owned()), ..good.clone() };
    let at = |timestamp: String| signed(SECRET, "POST", PUBLIC_URL, EVENT, &timestamp);
    let flipped = |bit: usize| {
        let mut bytes = hex::decode(&digits).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        with(&hex::encode(bytes))
    };
    let stranger = Secret::new(b"the secret of a stranger").unwrap();
    let pretty = EVENT.replace(':', ": ").replace(',', ", ");
    let forgeries = [
        ("47 an empty signature", with("")),
        ("48 63 hex digits", with(&digits[..63])),
        ("49 65 hex digits", with(&format!("{digits}0"))),
        ("50 sha256= before it", with(&format!("sha256={digits}"))),
        ("51 base64", with(&base64)),
        ("53 cut to 16 bytes", with(&digits[..32])),
        ("57 an empty key", signed("", "POST", PUBLIC_URL, EVENT, &now.to_string())),
        ("another's secret", Delivery::signed(&stranger, PUBLIC_URL, EVENT, now)),
        ("59 over re-serialised JSON", deployment.delivery(pretty).with_body(EVENT)),
        (
            "60 over http://",
            signed(SECRET, "POST", &PUBLIC_URL.replace("https", "http"), EVENT, &now.to_string()),
        ),
        ("61 over a lower-case verb", signed(SECRET, "post", PUBLIC_URL, EVENT, &now.to_string())),
        ("63 a sign before the timestamp", at(format!("+{now}"))),
        ("64 milliseconds", at(format!("{now}000"))),
        ("65 a leading zero", at(format!("0{now}"))),
        ("66 six minutes ahead", deployment.delivery_at(EVENT, now + 6 * MINUTES)),
        ("67 older than allowed", deployment.delivery_at(EVENT, now - 6 * MINUTES)),
        ("68 digits moved from the body to the timestamp", {
            let whole = deployment.delivery(format!("{EVENT}1")).with_body(EVENT);
            Delivery { timestamp: format!("1{}", whole.timestamp), ..whole }
        }),
    ];
    let mut rows: Vec<(&str, Vec<u8>)> =
        forgeries.iter().map(|(name, forgery)| (*name, raw(forgery))).collect();
    rows.extend((0..256).map(|bit| ("52 a single bit flipped", raw(&flipped(bit)))));
    let good = String::from_utf8(raw(&good)).unwrap();
    let (signature, timestamp) =
        (format!("x-cf-signature: {digits}\r\n"), format!("x-cf-timestamp: {now}\r\n"));
    let chunks = format!("{:x}\r\n{EVENT}\r\n0\r\n{signature}\r\n", EVENT.len());
    let length = format!("content-length: {}\r\n", EVENT.len());
    let (twice, trailing) = (signature.repeat(2), good.replace(&signature, "").replace(EVENT, &chunks));
    rows.extend([
        ("46 no signature", good.replace(&signature, "").into_bytes()),
        ("54 two signature headers", good.replace(&signature, &twice).into_bytes()),
        ("55 the byte 0xFF", good.replace(&digits, "\u{ff}").chars().map(|char| char as u8).collect()),
        ("56 only in a trailer", trailing.replace(&length, "transfer-encoding: chunked\r\n").into_bytes()),
        ("62 no timestamp", good.replace(&timestamp, "").into_bytes()),
    ]);
    for (name, bytes) in &rows {
        let answer = ask(&relay, bytes);
        assert_eq!(answer, (401, r#"{"error":"not authenticated"}"#.into()), "{name}");
    }
    report_each(rows.iter().map(|(name, _)| *name), 401);
    assert_nothing_is_stored(&kafka, &deployment);
    assert_eq!(ask(&relay, good.as_bytes()).0, 200, "what all of them were made from is good");
    let by_hand = signed(SECRET, "POST", PUBLIC_URL, EVENT, &now.to_string());
    assert_eq!(ask(&relay, &raw(&by_hand)).0, 200, "what is signed by hand is signed right");
}

#[test]
fn what_was_sent_before_is_a_repeat() {
    const AT_ONCE: usize = 20;
    let kafka = Kafka::shared();
    let deployment = Deployment::new("replayed", &kafka);
    let relays = [deployment.replica("a").up(), deployment.replica("b").start()];
    relays.iter().for_each(Relay::wait_ready);
    let second = deployment.delivery(EVENT).redelivered(2);
    let answers = |relay: &Relay, deliveries: &[Delivery]| {
        let mut sender = Sender::new(vec![relay.target()]);
        assert!(deliveries.iter().all(|delivery| sender.send(delivery) == 200));
    };
    answers(&relays[0], &[second.clone(), second.clone()]);
    report("hostile input 69 a replay: 200, one record");
    answers(&relays[0], &[second.redelivered(0)]);
    report("hostile input 70 a replay with another retry count: 200, one record");
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| answers(&relays[0], &vec![second.clone(); 1000 / AT_ONCE]));
        }
    });
    report("hostile input 71 a thousand replays at once: 200, one record");
    answers(&relays[1], &[second]);
    report("hostile input 72 a replay to another replica: 200, one record");
    deployment.wait_until_forwarded(SOON);
    assert_eq!(deployment.published().len(), 1);
    assert_eq!(deployment.reader().all(&deployment.dead_letters()).len(), 0);
}

#[test]
fn what_cannot_be_understood_is_a_dead_letter() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("not-understood", &kafka);
    let relay = deployment.relay().up();
    let deep = format!(r#"{{"id":"a","type":"request","event":{}{}}}"#, "[".repeat(129), "]".repeat(129));
    let long = format!(r#"{{"id":"{}","type":"request","request":{{"id":1}}}}"#, "x".repeat(257));
    let rows: Vec<(&str, &[u8], &str)> = vec![
        (
            "73 a byte-order mark",
            b"\xef\xbb\xbf{\"id\":\"a\",\"type\":\"request\",\"request\":{\"id\":1}}",
            "malformed",
        ),
        (
            "74 invalid UTF-8",
            b"{\"id\":\"a\",\"type\":\"request\",\"request\":{\"id\":1},\"text\":\"\xff\"}",
            "malformed",
        ),
        ("75 an array", br#"["a","request",{"id":1}]"#, "malformed"),
        ("76 id twice", br#"{"id":"a","id":"a","type":"request","request":{"id":1}}"#, "malformed"),
        (
            "77 id twice, once escaped",
            br#"{"id":"a","\u0069d":"b","type":"request","request":{"id":1}}"#,
            "malformed",
        ),
        ("78 two documents", br#"{"id":"a","type":"request","request":{"id":1}}{}"#, "malformed"),
        ("79 nested 130 deep", deep.as_bytes(), "malformed"),
        ("80 no id beside a request", br#"{"type":"request","request":{"id":1}}"#, "malformed"),
        ("80 a number for an id", br#"{"id":1,"type":"request","request":{"id":1}}"#, "malformed"),
        ("80 null for an id", br#"{"id":null,"type":"request","request":{"id":1}}"#, "malformed"),
        ("80 an empty id", br#"{"id":"","type":"request","request":{"id":1}}"#, "malformed"),
        ("80 an id of 257 bytes", long.as_bytes(), "malformed"),
        (
            "80 an id with a control character",
            br#"{"id":"a\u0007","type":"request","request":{"id":1}}"#,
            "malformed",
        ),
        (
            "81 an id seen before, another body",
            br#"{"id":"hostile","type":"request","request":{"id":1} }"#,
            "conflict",
        ),
    ];
    let mut sender = Sender::new(vec![relay.target()]);
    assert_eq!(sender.send(&deployment.delivery(EVENT)), 200);
    for (name, body, _) in &rows {
        assert_eq!(sender.send(&deployment.delivery(body.to_vec())), 200, "{name}");
    }
    deployment.wait_until_forwarded(SOON);
    assert_eq!(deployment.published().len(), 1);
    let letters = deployment.reader().all(&deployment.dead_letters());
    let found: BTreeMap<_, _> =
        letters.iter().map(|letter| (&letter.value[..], letter.header("reason"))).collect();
    assert_eq!(letters.len(), found.len(), "each once");
    assert_eq!(found, rows.iter().map(|(_, body, reason)| (*body, *reason)).collect());
    report_each(rows.iter().map(|(name, ..)| *name), "200, a dead letter");
}

#[test]
fn what_only_looks_strange_is_published() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("strange", &kafka);
    let relay = deployment.relay().up();
    let event = |id: &str| format!(r#"{{"id":"{id}","type":"request","request":{{"id":1}}}}"#);
    let late = deployment.delivery_at(event("82"), unix_seconds() - 10 * MINUTES).redelivered(2);
    let unknown = deployment.delivery(event("83").replace("\"request\",", "\"nobody_knew\","));
    let upper = deployment.delivery(event("85"));
    let upper = Delivery { signature: upper.signature.as_ref().map(|digits| digits.to_uppercase()), ..upper };
    let nonsense = String::from_utf8(raw(&deployment.delivery(event("84")))).unwrap();
    let rows = [
        ("82 ten minutes old with retry count 2", raw(&late)),
        ("83 a type nobody knew", raw(&unknown)),
        (
            "84 a retry header of nonsense",
            nonsense.replace("retry-count: 0", "retry-count: -1e9").into_bytes(),
        ),
        ("85 an upper-case signature", raw(&upper)),
    ];
    for (name, bytes) in &rows {
        assert_eq!(ask(&relay, bytes).0, 200, "{name}");
    }
    deployment.wait_until_forwarded(SOON);
    let ids = |topic: &str| -> BTreeSet<String> {
        deployment.reader().all(topic).iter().map(|record| record.header("ce_id").to_owned()).collect()
    };
    assert_eq!(ids(&deployment.events()), ["82", "84", "85"].map(str::to_owned).into());
    assert_eq!(ids(&deployment.topic("nobody_knew")), ["83".to_owned()].into());
    report_each(rows.iter().map(|(name, _)| *name), "200, published");
}

/// A delivery of whose signature every part can be chosen; the simulator's are right in all of them.
fn signed(key: &str, verb: &str, url: &str, body: &str, timestamp: &str) -> Delivery {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    [verb, url, body, timestamp].iter().for_each(|part| mac.update(part.as_bytes()));
    let signature = Some(hex::encode(mac.finalize().into_bytes()));
    let body = body.to_owned().into();
    Delivery {
        body,
        timestamp: timestamp.to_owned(),
        signature,
        ..Delivery::signed(&secret(), PUBLIC_URL, "", 0)
    }
}

/// As it is sent.
fn raw(delivery: &Delivery) -> Vec<u8> {
    http::post(PATH, delivery)
}

fn ask(relay: &Relay, bytes: &[u8]) -> (u16, String) {
    let mut stream = http::begin(relay.intake(), bytes).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let answer = http::answer(&mut stream).unwrap();
    (answer.status, answer.body)
}

fn report_each<'a>(names: impl Iterator<Item = &'a str>, answer: impl std::fmt::Display) {
    for name in names.collect::<BTreeSet<_>>() {
        report(&format!("hostile input {name}: {answer}"));
    }
}
