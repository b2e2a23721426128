//! What a stranger sends, or only announces, keeps no delivery of `ClearFeed`'s out; and it is counted, whatever it was.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::deployment::PATH;
use crate::support::{Deployment, Kafka, Relay, SOON, Sender, http, wait_for};

/// As many bodies of the longest kind as `intake.max_buffered` has room for, and more.
const ANNOUNCED: usize = 80;

#[test]
fn bodies_that_are_only_announced_take_no_room() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("announced", &kafka);
    let relay = deployment.relay().set("intake.body_timeout", r#""15s""#).up();
    let head = head_of(&deployment, 1 << 20);
    let strangers: Vec<TcpStream> =
        (0..ANNOUNCED).map(|_| http::begin(relay.intake(), head.as_bytes()).unwrap()).collect();
    wait_for("all of them are being read", SOON, || {
        (relay.metric("http_requests_in_flight") == ANNOUNCED as f64).then_some(())
    });
    let event = r#"{"id":"honest","type":"request","request":{"id":1}}"#;
    assert_eq!(Sender::new(vec![relay.target()]).send(&deployment.delivery(event)), 200);
    assert_eq!(relay.metric("http_requests_in_flight"), ANNOUNCED as f64, "they are there still");
    assert_eq!(relay.metric("intake_buffered_bytes"), 0.0);
    drop(strangers);
}

/// Every place is taken by a stranger inside a request that proves nothing: the one that is longest in it makes room.
#[test]
fn connections_of_strangers_make_room() {
    const PLACES: usize = 20;
    /// Longer than the relay gives a request that has begun.
    const NEW: Duration = Duration::from_secs(2);
    let kafka = Kafka::shared();
    let deployment = Deployment::new("places", &kafka);
    let plan = deployment.relay().set("intake.max_connections", &PLACES.to_string());
    let relay = plan.set("intake.body_timeout", r#""15s""#).set("intake.max_in_flight", "1").up();
    let head = head_of(&deployment, 100);
    let began = Instant::now();
    let strangers: Vec<TcpStream> =
        (0..PLACES).map(|_| http::begin(relay.intake(), head.as_bytes()).unwrap()).collect();
    wait_for("all places are taken", SOON, || {
        (relay.metric("http_requests_in_flight") == PLACES as f64).then_some(())
    });
    for honest in 0..5 {
        let event = format!(r#"{{"id":"{honest}","type":"request","request":{{"id":1}}}}"#);
        assert_eq!(Sender::new(vec![relay.target()]).send(&deployment.delivery(event)), 200);
    }
    assert!(relay.metric("http_connections_evicted_total") >= 1.0);
    wait_for("who was evicted is served no more, before its body's time is over", SOON / 3, || {
        (relay.metric("http_requests_in_flight") < PLACES as f64).then_some(())
    });
    let again = http::begin(relay.intake(), head.as_bytes()).unwrap();
    // One of ClearFeed's is open and has sent nothing yet: strangers who began long before it go first.
    wait_for("what began is not new any more", SOON, || (began.elapsed() > NEW).then_some(()));
    let mut waiting = http::begin(relay.intake(), b"").unwrap();
    wait_for("all places are taken again", SOON, || {
        (relay.metric("http_connections") == PLACES as f64).then_some(())
    });
    let evicted = relay.metric("http_connections_evicted_total");
    let more: Vec<TcpStream> =
        (0..3).map(|_| http::begin(relay.intake(), head.as_bytes()).unwrap()).collect();
    wait_for("others were let in", SOON, || {
        (relay.metric("http_connections_evicted_total") == evicted + 3.0).then_some(())
    });
    let event = deployment.delivery(r#"{"id":"late","type":"request","request":{"id":1}}"#);
    waiting.write_all(&http::post(PATH, &event)).unwrap();
    assert_eq!(read_status(waiting), "HTTP/1.1 200");
    assert!(relay.metric("http_connections") <= PLACES as f64);
    drop((strangers, again, more));
}

/// Bodies that never end take all memory that there is for bodies: the one that is longest in arriving gives way, and is told.
#[test]
fn bodies_that_never_end_give_way() {
    const LIMIT: usize = 1 << 20;
    const STRANGERS: usize = 8;
    let kafka = Kafka::shared();
    let deployment = Deployment::new("endless", &kafka);
    let plan = deployment.relay().set("intake.max_buffered", &format!("\"{LIMIT}B\""));
    let relay = plan.set("intake.body_timeout", r#""15s""#).up();
    // Each has a fifth of all room: some give way to others, and then one of those who are left to an honest one.
    const EACH: usize = LIMIT / 5;
    let begun = [head_of(&deployment, LIMIT).as_bytes(), &vec![b'x'; EACH]].concat();
    let strangers: Vec<TcpStream> =
        (0..STRANGERS).map(|_| http::begin(relay.intake(), &begun).unwrap()).collect();
    let told = || relay.metric(r#"deliveries_total{outcome="unavailable",source="main"}"#);
    let (gave_way, used) = wait_for("all that was sent is read, or was told to give way", SOON, || {
        let (told, left) = (told(), relay.metric("http_requests_in_flight"));
        let used = relay.metric("intake_buffered_bytes");
        assert!(used <= LIMIT as f64);
        (told + left == STRANGERS as f64 && used == left * EACH as f64).then_some((told, used))
    });
    assert!(gave_way >= 3.0, "{gave_way} of {STRANGERS} gave way, and five have room");
    let more_than_is_free = "x".repeat(LIMIT - used as usize);
    let large = format!(r#"{{"id":"a","type":"request","text":"{more_than_is_free}","request":{{"id":1}}}}"#);
    assert_eq!(Sender::new(vec![relay.target()]).send(&deployment.delivery(large)), 200);
    assert!(told() > gave_way, "an honest body has room");
    drop(strangers);
    wait_for("all room is free again", SOON, || (relay.metric("intake_buffered_bytes") == 0.0).then_some(()));
}

/// The head of a body that looks signed.
fn head_of(deployment: &Deployment, length: usize) -> String {
    http::head(PATH, &deployment.delivery("{}"), length)
}

/// Whose signature cannot be one is answered before the body is there.
#[test]
fn an_impossible_claim_is_refused_by_its_head() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("claims", &kafka);
    let relay = deployment.relay().up();
    for headers in ["x-cf-signature: 0123\r\nx-cf-timestamp: 1700000000\r\n", "x-cf-signature:\r\n"] {
        let head =
            format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n{headers}\r\nbegun…");
        let answer = read_status(http::begin(relay.intake(), head.as_bytes()).unwrap());
        assert_eq!(answer, "HTTP/1.1 401", "{headers}");
        // Or a load balancer would send a delivery after it.
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n{headers}\r\n");
        let mut stream = http::begin(relay.intake(), head.as_bytes()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut told = [0; 1024];
        let length = stream.read(&mut told).unwrap();
        assert!(String::from_utf8_lossy(&told[..length]).contains("connection: close"), "{headers}");
    }
}

#[test]
fn heads_that_no_endpoint_sees_are_counted() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("heads", &kafka);
    let relay = deployment.relay().set("intake.header_timeout", r#""1s""#).up();
    let large = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(20 * 1024));
    for (head, status, outcome) in [
        (large.as_str(), "HTTP/1.1 431", "head_too_large"),
        ("no HTTP at all\r\n\r\n", "HTTP/1.1 400", "bad_request"),
        ("POST / HTTP/1.1\r\nhost", "HTTP/1.1 408", "too_slow"),
    ] {
        let answer = read_status(http::begin(relay.intake(), head.as_bytes()).unwrap());
        assert_eq!(answer, status, "{outcome}");
        assert_eq!(counted(&relay, outcome), 1.0, "{outcome}");
    }
}

fn counted(relay: &Relay, outcome: &str) -> f64 {
    let series = format!(r#"deliveries_total{{outcome="{outcome}",source=""}}"#);
    wait_for(&series, SOON, || Some(relay.metric(&series)).filter(|count| *count > 0.0))
}

/// The beginning of the answer, up to its status; nothing where the connection is closed without one.
fn read_status(mut stream: TcpStream) -> String {
    let mut status = [0; 12];
    stream.set_read_timeout(Some(SOON)).unwrap();
    match stream.read_exact(&mut status) {
        Ok(()) => String::from_utf8_lossy(&status).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => String::new(),
        Err(error) => panic!("{error}"),
    }
}
