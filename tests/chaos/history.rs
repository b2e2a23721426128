//! How an event went: what the inbox, the ledger, the event topic and the replicas' logs have of it.

use std::fmt::Write;

use clearfeed_relay::domain::inbox_record::header;
use clearfeed_relay::domain::ledger_entry::LedgerEntry;

use crate::support::{Deployment, Reader, Record};

/// Log lines of a replica that tell who had a partition, and when.
const TELLING: [&str; 5] = [
    "partition taken over",
    "partition is held",
    "transaction failed",
    "group rebalanced",
    "the producer is replaced",
];
/// So long before an event was decided about, and after, the replicas' logs are of interest.
const AROUND_MS: i64 = 15_000;

/// Tells the history of an event by its id. A transaction is told by its ledger record: each writes one for a partition.
pub(crate) fn of(deployment: &Deployment, id: &str) -> String {
    let mut story = format!("history of {id}\n");
    let reader = deployment.reader();
    let is_it = |record: &&Record| record.headers.get(header::ID).is_some_and(|found| found == id.as_bytes());
    let deliveries: Vec<Record> = reader.all(&deployment.inbox()).iter().filter(is_it).cloned().collect();
    let ledger = reader.all(&deployment.ledger());
    for Record { partition, offset, appended_ms, .. } in &deliveries {
        let _ = writeln!(story, "  {appended_ms} inbox {partition}:{offset}");
        let covers = |record: &&Record| {
            let format = record.headers.get(header::FORMAT).map(Vec::as_slice);
            let entry = LedgerEntry::decode(format, &record.value).unwrap();
            record.partition == *partition && (entry.from..entry.to).contains(offset)
        };
        for record in ledger.iter().filter(covers) {
            let Record { offset, appended_ms, .. } = record;
            let _ = writeln!(story, "  {appended_ms} ledger {partition}:{offset}: its transaction");
        }
    }
    let everything = Reader::uncommitted(deployment.servers());
    for (reader, what) in [(&reader, "committed"), (&everything, "committed or not")] {
        for record in reader.all(&deployment.events()).iter().filter(|record| record.header("ce_id") == id) {
            let Record { partition, offset, appended_ms, .. } = record;
            let _ = writeln!(story, "  {appended_ms} event topic {partition}:{offset}, {what}");
        }
    }
    let times = || deliveries.iter().map(|record| record.appended_ms);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return story };
    for (replica, line) in deployment.log_lines() {
        let at: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
        let message = line["message"].as_str().unwrap_or_default();
        if (first - AROUND_MS..last + AROUND_MS).contains(&at.as_millisecond()) && TELLING.contains(&message)
        {
            let _ = writeln!(story, "  {} {replica}: {line}", at.as_millisecond());
        }
    }
    story
}
