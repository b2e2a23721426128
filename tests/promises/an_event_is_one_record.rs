//! An event that was answered 200 is one record in its topic: byte for byte, keyed by its request, described by
//! `CloudEvents` headers, in the partition where Kafka's Java client would put it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use clearfeed_relay::domain::partitioner::partition_for_key;
use sha2::{Digest, Sha256};

use crate::support::deployment::{PARTITIONS, PATH};
use crate::support::http;
use crate::support::simulator::{Settings, load};
use crate::support::{Deployment, Judge, Kafka, SOON, Sender, Simulation};

const CREATED: &[u8] = include_bytes!("../payloads/request_created.json");
const UPDATED: &[u8] = include_bytes!("../payloads/request_updated.json");

#[test]
fn the_documented_payloads_are_published_with_bytes_key_and_headers() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("one-record", &kafka);
    let relay = deployment.relay().up();
    let mut sender = Sender::new(vec![relay.target()]);
    let at = clearfeed_relay::simulator::unix_seconds();
    let answer = sender.ask(&deployment.delivery_at(CREATED, at));
    assert_eq!(answer, (200, "{\"status\":\"accepted\"}".to_owned()));
    assert_eq!(sender.send(&deployment.delivery_at(UPDATED, at)), 200);
    deployment.wait_until_forwarded(SOON);

    let records = deployment.published();
    let inbox = deployment.reader().all(&deployment.inbox());
    assert_eq!((records.len(), inbox.len()), (2, 2));
    for (body, request, id, kind) in [
        (CREATED, "352", "f86719a97f3c9e4b4d03c47b5a95b01d", "ai.clearfeed.request.created"),
        (UPDATED, "512", "a98b5e73e7f4c21d52e067a8e51c31af", "ai.clearfeed.request.updated"),
    ] {
        let record = records.iter().find(|record| record.key() == request).unwrap();
        let kept = inbox.iter().find(|record| record.key() == request).unwrap();
        assert_eq!(record.value, body);
        let time = jiff::Timestamp::from_second(at.cast_signed()).unwrap().to_string();
        let place = format!("{}:{}", kept.partition, kept.offset);
        let wanted = [
            ("ce_cfinbox", place.as_str()),
            ("ce_cfretrycount", "0"),
            ("ce_id", id),
            ("ce_source", "/clearfeed/main"),
            ("ce_specversion", "1.0"),
            ("ce_subject", request),
            ("ce_time", &time),
            ("ce_type", kind),
            ("content-type", "application/json"),
        ];
        let found: Vec<_> = record.headers.keys().map(|name| (name.as_str(), record.header(name))).collect();
        assert_eq!(found, wanted);
        assert_eq!(kept.header("body-sha256"), hex::encode(Sha256::digest(body)));
    }
    let wanted = javas_partitions(&[("352", PARTITIONS), ("512", PARTITIONS)]);
    for (request, wanted) in ["352", "512"].into_iter().zip(wanted) {
        for place in records.iter().chain(&inbox).filter(|record| record.key() == request) {
            assert_eq!(place.partition, wanted, "{} of {request}", place.topic);
        }
    }
}

#[test]
fn a_trace_context_goes_with_the_event() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("trace", &kafka);
    let relay = deployment.relay().up();
    let delivery = deployment.delivery(CREATED);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("content-type", "application/json"),
        ("x-cf-signature", delivery.signature.as_deref().unwrap()),
        ("x-cf-timestamp", &delivery.timestamp),
        ("x-cf-retry-count", "0"),
        ("traceparent", trace),
    ];
    let answer = http::request(relay.intake(), "POST", PATH, &headers, CREATED).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    deployment.wait_until_forwarded(SOON);
    let records = deployment.published();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].header("traceparent"), records[0].header("ce_traceparent")), (trace, trace));
}

#[test]
fn a_load_with_redeliveries_is_out_once_in_order_and_unchanged() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("load", &kafka);
    let relay = deployment.relay().up();
    let settings = Settings { redeliver_percent: 30, ..load(vec![relay.target()], 1000, 50) };
    let simulated = Simulation::run(settings);
    assert_eq!(simulated.summary.accepted_events, 1000, "{}", simulated.summary);
    deployment.wait_until_forwarded(SOON);
    let records = deployment.published();
    Judge::of(&simulated, &records).assert_flawless();
    assert_eq!(records.len(), 1000);
}

#[test]
fn a_key_has_the_partition_that_kafkas_java_client_gives_it() {
    let mut keys: Vec<(String, i32)> = (0..300u64)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (n % 64)).to_string())
        .zip([1, 2, 3, 7, 12, 100].into_iter().cycle())
        .collect();
    // Event ids of every length modulo four, and letters beyond ASCII, whose bytes have the sign bit.
    keys.extend((1..=32).map(|length| ("f86719a97f3c9e4b4d03c47b5a95b01d"[..length].to_owned(), 12)));
    keys.extend(["ä", "日本", "Zürich", "🎉", "ÿþ"].map(|key| (key.to_owned(), 12)));
    let borrowed: Vec<_> = keys.iter().map(|(key, partitions)| (key.as_str(), *partitions)).collect();
    let wanted = javas_partitions(&borrowed);
    for ((key, partitions), wanted) in borrowed.into_iter().zip(wanted) {
        assert_eq!(partition_for_key(key.as_bytes(), partitions), wanted, "{key} of {partitions}");
    }
}

/// Asks Kafka's own Java client.
fn javas_partitions(keys: &[(&str, i32)]) -> Vec<i32> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut java = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-cp", "target/kafka/libs/*", "tests/kafka/Partitions.java"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = keys.iter().map(|(key, partitions)| format!("{key}\t{partitions}\n")).collect();
    java.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = java.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let answers: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(answers.len(), keys.len());
    answers
}
