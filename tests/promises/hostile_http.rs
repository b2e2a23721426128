//! HTTP that is malformed, ambiguous or endless is refused by its head: on the first request of a connection as on the
//! second one. Nothing of it reaches Kafka, and others are served all the while. The rows have the numbers of the list of
//! hostile inputs; those without one came later.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::nothing_unauthenticated_leaves_a_trace::assert_nothing_is_stored;
use crate::support::deployment::PATH;
use crate::support::{Deployment, Kafka, Relay, SOON, http, report};

const EVENT: &str = r#"{"id":"hostile","type":"request","request":{"id":1}}"#;
/// The headers that hostile ones stand beside or in place of.
const LENGTH: &str = "content-length: 52\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n";
const HOST: &str = "host: a\r\n";
const PLAIN: &str = "GET /clearfeed/events HTTP/1.1\r\nhost: a\r\n\r\n";

/// What is changed in a request that is good and signed, and the answer.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

#[test]
fn what_is_malformed_or_ambiguous_is_refused_on_any_request_of_a_connection() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("hostile-http", &kafka);
    let relay = deployment.relay().up();
    let good = String::from_utf8(http::post(PATH, &deployment.delivery(EVENT))).unwrap();
    let long = |length: usize| "a".repeat(length);
    let (long_header, long_target) = (format!("x: {}\r\n", long(20 << 10)), format!("/{}", long(66 << 10)));
    let (many, large) = ("x: y\r\n".repeat(100), format!("100001\r\n{}\r\n0\r\n\r\n", long(0x10_0001)));
    let whole = format!("34\r\n{EVENT}\r\n0\r\n\r\n");
    let chunks = |size_line: &str| whole.replacen("34\r\n", size_line, 1);
    let (bare_lf, hex, overflow, negative) =
        (chunks("34\n"), chunks("0x34\r\n"), chunks("f0000000000000034\r\n"), chunks("-34\r\n"));
    let proxied = format!("PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n{good}");
    let after_chunks = format!("{whole}{good}");
    let rows: &[Row<'_>] = &[
        ("1 Content-Length and Transfer-Encoding", &[(LENGTH, &[LENGTH, CHUNKED].concat())], 400),
        ("2 Transfer-Encoding and Content-Length", &[(LENGTH, &[CHUNKED, LENGTH].concat())], 400),
        ("3 two equal Content-Length", &[(LENGTH, &[LENGTH, LENGTH].concat())], 400),
        ("4 two different Content-Length", &[(LENGTH, "content-length: 52\r\ncontent-length: 51\r\n")], 400),
        ("5 Content-Length: 52, 52", &[(LENGTH, "content-length: 52, 52\r\n")], 400),
        ("6 Content-Length: +52", &[(LENGTH, "content-length: +52\r\n")], 400),
        ("7 Content-Length: -1", &[(LENGTH, "content-length: -1\r\n")], 400),
        ("8 Content-Length: 0x34", &[(LENGTH, "content-length: 0x34\r\n")], 400),
        ("9 Content-Length: 2^64", &[(LENGTH, "content-length: 18446744073709551616\r\n")], 400),
        ("10 gzip, chunked", &[(LENGTH, "transfer-encoding: gzip, chunked\r\n"), (EVENT, &whole)], 400),
        (
            "11 chunked, identity",
            &[(LENGTH, "transfer-encoding: chunked, identity\r\n"), (EVENT, &whole)],
            400,
        ),
        ("12 xchunked", &[(LENGTH, "transfer-encoding: xchunked\r\n"), (EVENT, &whole)], 400),
        ("13 chunked on HTTP/1.0", &[(LENGTH, CHUNKED), ("HTTP/1.1", "HTTP/1.0"), (EVENT, &whole)], 400),
        ("14 space before the colon", &[(LENGTH, "content-length : 52\r\n")], 400),
        ("15 folded header", &[(HOST, "host: a\r\nx: a\r\n folded\r\n")], 400),
        ("16 bare CR", &[(HOST, "host: a\r\nx: a\rb\r\n")], 400),
        ("17 NUL", &[(HOST, "host: a\r\nx: a\0b\r\n")], 400),
        ("18 no Host", &[(HOST, "")], 400),
        ("19 two Hosts", &[(HOST, "host: a\r\nhost: a\r\n")], 400),
        ("20 chunk size with bare LF", &[(LENGTH, CHUNKED), (EVENT, &bare_lf)], 400),
        ("21 chunk size 0x34", &[(LENGTH, CHUNKED), (EVENT, &hex)], 400),
        ("22 chunk size over 64 bits", &[(LENGTH, CHUNKED), (EVENT, &overflow)], 400),
        ("23 chunk size -34", &[(LENGTH, CHUNKED), (EVENT, &negative)], 400),
        ("25 HTTP/1.2", &[("HTTP/1.1", "HTTP/1.2")], 400),
        ("26 HTTP/0.9", &[(&good, "GET /clearfeed/events\r\n")], 400),
        ("27 a TLS hello", &[(&good, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}")], 400),
        ("28 a PROXY line", &[(&good, &proxied)], 400),
        ("29 a method of junk", &[("POST", "P(ST")], 400),
        ("a line without CR", &[(HOST, "host: a\n")], 400),
        (
            "a header hidden behind a bare LF",
            &[(HOST, "host: a\r\nx: a\ntransfer-encoding: chunked\r\n")],
            400,
        ),
        ("a target in absolute form", &[("POST /", "POST http://a/")], 400),
        ("30 one header of 20 KiB", &[(HOST, &[HOST, &long_header].concat())], 431),
        ("31 too many headers", &[(HOST, &[HOST, &many].concat())], 431),
        ("32 a target of 66 KiB", &[(PATH, &long_target)], 431),
        ("33 Content-Length: 2^63-1", &[(LENGTH, "content-length: 9223372036854775807\r\n")], 413),
        ("34 Content-Length over the limit", &[(LENGTH, "content-length: 1048577\r\n")], 413),
        ("35 chunks over the limit", &[(LENGTH, CHUNKED), (EVENT, &large)], 413),
        ("39 POST *", &[(PATH, "*")], 404),
        ("40 //a/../w%2f", &[(PATH, "//a/../w%2f")], 404),
        ("41 a query", &[("/events ", "/events?a=b ")], 404),
        ("42 GET with a body", &[("POST", "GET")], 405),
        ("43 post", &[("POST", "post")], 405),
        ("44 CONNECT", &[("POST /clearfeed/events", "CONNECT a:443")], 405),
        ("45 Content-Encoding", &[(HOST, "host: a\r\ncontent-encoding: gzip\r\n")], 415),
        (
            "a request behind chunks",
            &[(LENGTH, CHUNKED), (EVENT, &after_chunks), ("x-cf-signature", "x")],
            401,
        ),
    ];
    for row in rows {
        assert_refused(&relay, &good, row, false);
    }
    assert_nothing_is_stored(&kafka, &deployment);
}

#[test]
fn what_ends_early_is_refused_on_any_request_of_a_connection() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("ends-early", &kafka);
    let relay = deployment.relay().up();
    let good = String::from_utf8(http::post(PATH, &deployment.delivery(EVENT))).unwrap();
    let rows: [Row<'_>; 2] = [
        ("24 body shorter than announced", &[(LENGTH, "content-length: 53\r\n")], 400),
        ("a head that ends early", &[(&good, "POST / HTTP/1.1\r\nhost")], 400),
    ];
    for row in &rows {
        assert_refused(&relay, &good, row, true);
    }
    assert_nothing_is_stored(&kafka, &deployment);
}

/// Sends the request of a row, first and after another one; `ends`: and nothing after it.
fn assert_refused(relay: &Relay, good: &str, (name, changes, wanted): &Row<'_>, ends: bool) {
    let hostile = changes.iter().fold(good.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{name}: nothing to change");
        text.replacen(from, to, 1)
    });
    // Latin-1, so that any byte can be written.
    let hostile: Vec<u8> = hostile.chars().map(|char| char as u8).collect();
    for before in ["", PLAIN] {
        let answer = exchange(relay, before, &hostile, ends);
        assert_eq!(answer, (*wanted, true), "{name}, after {before:?}: status, and whether closed");
    }
    assert_eq!(http::get(relay.intake(), PATH).unwrap().status, 200, "others are served after {name}");
    report(&format!("hostile input {name}: {wanted}"));
}

/// The status, and whether the connection is closed: a further request has no answer.
fn exchange(relay: &Relay, before: &str, hostile: &[u8], ends: bool) -> (u16, bool) {
    let mut stream = http::begin(relay.intake(), before.as_bytes()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    if !before.is_empty() {
        assert_eq!(http::answer(&mut stream).unwrap().status, 200);
    }
    stream.write_all(hostile).unwrap();
    if ends {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let status = http::answer(&mut stream).unwrap().status;
    // It may be reset when it is written to.
    let _ = stream.write_all(PLAIN.as_bytes());
    (status, http::is_closed(&mut stream))
}

/// Rows 36 to 38.
#[test]
fn who_is_slow_is_cut_off() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("slow", &kafka);
    let limits = [("intake.header_timeout", r#""1s""#), ("intake.body_timeout", r#""1s""#)];
    let relay = limits.iter().fold(deployment.relay(), |relay, (key, value)| relay.set(key, value)).up();
    let good = String::from_utf8(http::post(PATH, &deployment.delivery(EVENT))).unwrap();
    let (head, _) = good.split_at(good.find("\r\n\r\n").unwrap() + 4);
    for (name, at_once, wanted) in [
        ("36 a silent connection", "", None),
        ("37 a header byte by byte", &good[..1], Some(408)),
        ("38 a body byte by byte", head, Some(408)),
    ] {
        let began = Instant::now();
        let mut stream = http::begin(relay.intake(), at_once.as_bytes()).unwrap();
        let rest = if at_once.is_empty() { "" } else { &good[at_once.len()..] };
        let status = trickle(&mut stream, rest.as_bytes());
        assert_eq!(status, wanted, "{name}");
        assert!(http::is_closed(&mut stream), "{name}");
        assert!(began.elapsed() >= Duration::from_secs(1), "{name}: each has its time");
        report(&format!(
            "hostile input {name}: {}",
            status.map_or("closed".into(), |status| status.to_string())
        ));
    }
    assert_eq!(http::get(relay.intake(), PATH).unwrap().status, 200);
    assert_nothing_is_stored(&kafka, &deployment);
}

/// Sends a byte now and then until there is an answer.
fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> Option<u16> {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for byte in bytes {
        let mut answer = [0; 12];
        match stream.peek(&mut answer) {
            Ok(_) => break,
            Err(_) => stream.write_all(&[*byte]).unwrap(),
        }
    }
    stream.set_read_timeout(Some(SOON)).unwrap();
    // A silent connection is closed without an answer.
    (!bytes.is_empty()).then(|| http::answer(stream).unwrap().status)
}
