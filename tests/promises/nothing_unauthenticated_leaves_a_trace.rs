//! What is not proven to be `ClearFeed`'s is answered 401 with one fixed body, and stored, logged and counted nowhere
//! under a name that its sender chose. A ping is answered and not stored.

use clearfeed_relay::domain::ledger_entry::LedgerEntry;
use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::{Delivery, unix_seconds};

use crate::support::deployment::{PATH, PUBLIC_URL};
use crate::support::{Deployment, Kafka, Relay, SOON, Sender, http, wait_for};

/// Would be found wherever a body is kept.
const MARK: &str = "mark-of-a-stranger";

fn event() -> String {
    format!(r#"{{"id":"{MARK}","type":"{MARK}","request":{{"id":1}}}}"#)
}

#[test]
fn forgeries_are_refused_and_forgotten() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("forgeries", &kafka);
    let relay = deployment.relay().up();
    let mut sender = Sender::new(vec![relay.target()]);
    let now = unix_seconds();
    let good = deployment.delivery(event());
    let stranger = Secret::new(b"the secret of a stranger").unwrap();
    let path_of_another = PUBLIC_URL.replace("/events", "/others");
    let forgeries = [
        ("mismatch", Delivery::signed(&stranger, PUBLIC_URL, event(), now)),
        ("mismatch", Delivery::signed(&crate::support::deployment::secret(), &path_of_another, event(), now)),
        ("mismatch", good.with_body(event().replace(":1", ":2"))),
        ("mismatch", good.with_body("{}")),
        ("mismatch", Delivery { timestamp: (now - 1).to_string(), ..good.clone() }),
        ("too_old", deployment.delivery_at(event(), now - 600)),
        ("too_new", deployment.delivery_at(event(), now + 600)),
        ("malformed_timestamp", Delivery { timestamp: format!("{now}000"), ..good.clone() }),
        ("malformed_signature", Delivery { signature: Some(MARK.to_owned()), ..good.clone() }),
        ("malformed_signature", Delivery { signature: Some(String::new()), ..good.clone() }),
        ("no_signature", good.unsigned()),
        ("no_signature", deployment.delivery(format!(r#"{{"type":"ping","id":"{MARK}"}}"#)).unsigned()),
        ("no_signature", deployment.delivery(vec![b' '; 4096]).unsigned()),
    ];
    for (reason, forgery) in &forgeries {
        let answer = sender.ask(forgery);
        assert_eq!(answer, (401, r#"{"error":"not authenticated"}"#.to_owned()), "{reason}: {forgery:?}");
    }
    for reason in
        ["mismatch", "too_old", "too_new", "malformed_timestamp", "malformed_signature", "no_signature"]
    {
        let count = forgeries.iter().filter(|(wanted, _)| *wanted == reason).count();
        let counted = relay.metric(&format!(r#"auth_failures_total{{reason="{reason}",source="main"}}"#));
        assert_eq!(counted.to_string(), count.to_string(), "{reason}");
    }
    assert_nothing_is_stored(&kafka, &deployment);
    assert_nothing_is_told(&relay);
}

/// The operator is told why, and whom it came from: of a trusted proxy whom it had it from.
#[test]
fn a_refusal_is_told_with_its_reason_its_sender_and_a_hint() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("told", &kafka);
    let relay = deployment.relay().set("intake.trusted_proxies", r#"["127.0.0.0/8", "10.0.0.0/8"]"#).up();
    let told = |forgery: &Delivery, reason: &str| {
        let bytes = String::from_utf8(http::post(PATH, forgery)).unwrap();
        let forwarded = "host: a\r\nx-forwarded-for: 203.0.113.9, 198.51.100.7, 10.0.0.1\r\n";
        let mut stream =
            http::begin(relay.intake(), bytes.replace("host: a\r\n", forwarded).as_bytes()).unwrap();
        assert_eq!(http::answer(&mut stream).unwrap().status, 401);
        wait_for("it is told", SOON, || {
            relay.log().into_iter().find(|line| line["reason"] == reason && line["peer"] == "198.51.100.7")
        })
    };
    let good = deployment.delivery(event());
    let line = told(&good.with_body("{}"), "mismatch");
    assert!(line["hint"].as_str().unwrap().contains("clearfeed-relay verify"), "{line}");
    let line = told(&deployment.delivery_at(event(), unix_seconds() - 900), "too_old");
    assert!((900..930).contains(&line["age_seconds"].as_i64().unwrap()), "{line}");
    assert!(line["hint"].as_str().unwrap().contains("the signature is right"), "{line}");
    let line = told(&good.unsigned(), "malformed_signature");
    assert_eq!(line["hint"].as_str(), None, "{line}");
}

#[test]
fn pings_of_every_form_are_answered_and_not_stored() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("pings", &kafka);
    let relay = deployment.relay().up();
    for method in ["GET", "HEAD"] {
        let answer = http::request(relay.intake(), method, PATH, &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
    }
    let mut sender = Sender::new(vec![relay.target()]);
    let pong = (200, r#"{"status":"pong"}"#.to_owned());
    for body in ["", "{}", " {\n} ", r#"{"type":"ping"}"#, r#"{"type":"test","text":"hello"}"#] {
        let signed = deployment.delivery(body);
        assert_eq!(sender.ask(&signed), pong, "signed {body:?}");
        assert_eq!(sender.ask(&signed.unsigned()), pong, "unsigned {body:?}");
        // A signature that is there and wrong is not overlooked because a ping needs none.
        let wrong = Delivery { signature: Some("0".repeat(64)), ..signed };
        assert_eq!(sender.send(&wrong), 401, "wrongly signed {body:?}");
    }
    assert_eq!(relay.metric(r#"deliveries_total{outcome="pong",source="main"}"#), 12.0);
    assert_eq!(relay.metric(r#"deliveries_total{outcome="accepted",source="main"}"#), 0.0);
    assert_nothing_is_stored(&kafka, &deployment);
}

#[test]
fn an_unsigned_ping_is_refused_where_that_is_wanted() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("no-unsigned-pings", &kafka);
    let relay = deployment.relay().set("sources.main.accept_unsigned_ping", "false").up();
    let mut sender = Sender::new(vec![relay.target()]);
    let ping = deployment.delivery(r#"{"type":"ping"}"#);
    assert_eq!((sender.send(&ping.unsigned()), sender.send(&ping)), (401, 200));
}

/// Not in the inbox, so nowhere: all that is forwarded comes from there. And no topic came to be.
#[track_caller]
pub(crate) fn assert_nothing_is_stored(kafka: &Kafka, deployment: &Deployment) {
    let prefix = deployment.topic("");
    let mut topics: Vec<_> = kafka.topics().into_iter().filter(|topic| topic.starts_with(&prefix)).collect();
    topics.sort();
    // What the relay creates at its start; nothing for a stranger's type.
    let own = [deployment.dead_letters(), deployment.inbox(), deployment.ledger(), deployment.events()];
    assert_eq!(topics, own);
    for topic in topics.iter().filter(|topic| **topic != deployment.ledger()) {
        let ends = deployment.reader().ends(topic);
        assert!(ends.values().all(|end| *end == 0), "{topic}: {ends:?}");
    }
    // An owner of a new partition writes that nothing was decided yet.
    for record in deployment.reader().all(&deployment.ledger()) {
        let entry = LedgerEntry::decode(record.headers.get("v").map(Vec::as_slice), &record.value).unwrap();
        assert!(entry.ids.is_empty() && entry.to == 0, "{entry:?}");
    }
}

#[track_caller]
fn assert_nothing_is_told(relay: &Relay) {
    let found: Vec<_> = relay.log().into_iter().filter(|line| line.to_string().contains(MARK)).collect();
    assert!(found.is_empty(), "{found:#?}");
    for path in ["/metrics", "/status"] {
        let told = http::get(relay.admin(), path).unwrap().body;
        assert!(!told.contains(MARK), "{told}");
    }
}
