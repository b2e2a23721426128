//! What a stranger sends, or only announces, keeps no delivery of `ClearFeed`'s out; and it is counted, whatever it was.

use std::io::Read;
use std::net::TcpStream;

use crate::support::deployment::PATH;
use crate::support::{Deployment, Kafka, Relay, SOON, Sender, http, wait_for};

/// As many bodies of the longest kind as `intake.max_buffered` has room for, and more.
const ANNOUNCED: usize = 80;

#[test]
fn bodies_that_are_only_announced_take_no_room() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("announced", &kafka);
    let relay = deployment.relay().set("intake.body_timeout", r#""8s""#).up();
    let looks_signed = deployment.delivery("{}");
    let (signature, timestamp) = (looks_signed.signature.unwrap(), looks_signed.timestamp);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\nx-cf-signature: {signature}\r\n\
         x-cf-timestamp: {timestamp}\r\n\r\n"
    );
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
