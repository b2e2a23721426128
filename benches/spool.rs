//! What a sync costs: deliveries a second through the spool, and how long each waits, for so many that are appended at once;
//! beside it a plain file that is synced after each record, and after as many records as the spool had in a sync.
//!
//!     cargo bench --bench spool     (a minute and a half; TMPDIR says on which disk)
//!
//! Rounds are interleaved, so that whatever else the machine does meets all of them; medians are told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a program for developers")]
#![allow(clippy::pedantic, reason = "helps the product; such a program is read more than called")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clearfeed_relay::config::{self, Role};
use clearfeed_relay::domain::inbox_record::{InboxRecord, header};
use clearfeed_relay::spool::{Spool, readable};
use clearfeed_relay::telemetry::metrics::{Metrics, ProcessLabels};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const ROUNDS: usize = 5;
/// Of one measurement.
const LENGTH: Duration = Duration::from_millis(1500);
const APPENDERS: [usize; 4] = [1, 16, 64, 256];
const BODY_BYTES: usize = 1500;

/// Of one round.
#[derive(Default)]
struct Measured {
    per_second: Vec<f64>,
    p99_ms: Vec<f64>,
    group: Vec<f64>,
    grouped_per_second: Vec<f64>,
    record_bytes: Vec<f64>,
    opened_s_per_gib: Vec<f64>,
}

fn main() {
    let mut columns: Vec<Measured> = APPENDERS.iter().map(|_| Measured::default()).collect();
    let mut alone = Vec::new();
    for _ in 0..ROUNDS {
        alone.push(plain(1));
        for (appenders, measured) in APPENDERS.iter().zip(&mut columns) {
            let group = spool(*appenders, measured);
            measured.grouped_per_second.push(plain(group.round().max(1.0) as usize));
        }
    }
    println!(
        "| appended at once | deliveries/s | 99 % within, ms | in one sync | plain file, one sync each, 1/s | plain file, as many in a sync, 1/s |"
    );
    println!("|---|---|---|---|---|---|");
    let alone = median(&mut alone);
    for (appenders, measured) in APPENDERS.iter().zip(&mut columns) {
        println!(
            "| {appenders} | {:.0} | {:.1} | {:.1} | {alone:.0} | {:.0} |",
            median(&mut measured.per_second),
            median(&mut measured.p99_ms),
            median(&mut measured.group),
            median(&mut measured.grouped_per_second),
        );
    }
    let largest = columns.last_mut().unwrap();
    let (bytes, opened) = (median(&mut largest.record_bytes), median(&mut largest.opened_s_per_gib));
    println!("\nA body of {BODY_BYTES} bytes takes {bytes:.0} bytes of the disk.");
    println!("To open and check a file that is in the page cache takes {opened:.2} s a GiB.");
}

/// Appends through the spool as the relay does. Returns how many shared a sync.
fn spool(appenders: usize, measured: &mut Measured) -> f64 {
    let folder = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new([], &ProcessLabels::of_role(Role::All)).unwrap());
    let settings = config::Spool { directory: folder.path().to_owned(), max_size_bytes: 8 << 30 };
    let spool = Spool::open(&settings, Arc::clone(&metrics)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let began = Instant::now();
    let append = || async {
        let mut waited = Vec::new();
        while began.elapsed() < LENGTH {
            let asked = Instant::now();
            spool.append(record()).await.unwrap();
            waited.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        waited
    };
    let mut waited: Vec<f64> =
        runtime.block_on(join_all((0..appenders).map(|_| append()))).into_iter().flatten().collect();
    let elapsed = began.elapsed().as_secs_f64();
    waited.sort_by(f64::total_cmp);
    let records = waited.len() as f64;
    let group = records / metrics.spool.sync_duration.get_sample_count() as f64;
    let bytes = folder.path().join("spool.sqlite").metadata().unwrap().len() as f64;
    drop(spool);
    wait_unlocked(folder.path());
    let opening = Instant::now();
    let opened = Spool::open(&settings, metrics).unwrap();
    let opening = opening.elapsed().as_secs_f64();
    drop(opened);
    measured.opened_s_per_gib.push(opening * f64::from(1 << 30) / bytes);
    measured.per_second.push(records / elapsed);
    measured.p99_ms.push(waited[waited.len() * 99 / 100]);
    measured.group.push(group);
    measured.record_bytes.push(bytes / records);
    group
}

/// Its thread ends a moment after its handle.
fn wait_unlocked(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while readable(&directory.join("spool.sqlite")).is_err() {
        assert!(Instant::now() < deadline, "the spool is still open");
        std::thread::yield_now();
    }
}

/// Records a second in a plain file that is synced after so many.
fn plain(group: usize) -> f64 {
    let folder = TempDir::new().unwrap();
    let mut file = File::create(folder.path().join("plain")).unwrap();
    let record = record();
    let headers = serde_json::to_vec(&record.headers).unwrap();
    let bytes = [record.key.as_bytes(), &headers, &record.body].concat().repeat(group);
    let (began, mut records) = (Instant::now(), 0);
    while began.elapsed() < LENGTH {
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        records += group;
    }
    records as f64 / began.elapsed().as_secs_f64()
}

/// As intake makes them.
fn record() -> InboxRecord {
    let body = vec![b'x'; BODY_BYTES];
    let headers = [
        (header::FORMAT, "1".to_owned()),
        (header::SOURCE, "main".to_owned()),
        (header::RECEIVED, "2026-11-24T00:00:00.000000000Z".to_owned()),
        (header::RETRY, "0".to_owned()),
        (header::TIMESTAMP, "1793901532".to_owned()),
        (header::ID, "6f9619ff-8b86-d011-b42d-00cf4fc964ff".to_owned()),
        (header::REQUEST, "1207".to_owned()),
        (header::TYPE, "request".to_owned()),
        (header::SUB_TYPE, "request_updated".to_owned()),
        (header::BODY_SHA256, hex::encode(Sha256::digest(&body))),
        (header::CONTENT_TYPE, "application/json".to_owned()),
    ];
    let headers = headers.map(|(name, value)| (name.into(), value)).to_vec();
    InboxRecord { key: "1207".to_owned(), headers, body: body.into() }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
