//! The spool on a real file system: what it keeps, and what it makes of broken files, full disks and second owners.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use super::salvage;
use super::store::{FILE, Store};
use super::*;
use crate::config::Role;
use crate::domain::fingerprint::body_digest;
use crate::domain::inbox_record::header;
use crate::telemetry::metrics::ProcessLabels;

const ALL: Limits = Limits { records: usize::MAX, bytes: usize::MAX };
const SIZE: u64 = 64 << 20;

fn record(number: usize) -> InboxRecord {
    let body = format!("{number}").repeat(300);
    let digest = hex::encode(body_digest(body.as_bytes()));
    let received = format!("2026-11-24T00:00:{:02}Z", number % 60);
    let headers = [(header::RECEIVED, received), (header::BODY_SHA256, digest), ("later", "ü".to_owned())];
    let headers = headers.map(|(name, value)| (name.into(), value)).to_vec();
    InboxRecord { key: number.to_string(), headers, body: body.into() }
}

fn filled(directory: &Path, numbers: std::ops::Range<usize>) -> Store {
    let mut store = salvage::open(directory, SIZE).unwrap();
    for number in numbers {
        store.append([record(number)].iter()).unwrap();
    }
    store
}

fn numbers(store: &mut Store) -> Vec<usize> {
    let read = store.read(0, ALL).unwrap();
    let number = |spooled: &Spooled| {
        let number = spooled.record.key.parse().unwrap();
        assert_eq!(spooled.record, record(number), "what is read is what was written");
        number
    };
    read.iter().map(number).collect()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn records_come_back_whole_in_their_order_until_they_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = filled(directory.path(), 0..5);
    assert_eq!(numbers(&mut store), [0, 1, 2, 3, 4]);
    let places: Vec<_> = store.read(0, ALL).unwrap().iter().map(|spooled| spooled.place).collect();
    let few = store.read(places[0], Limits { records: 2, bytes: usize::MAX }).unwrap();
    assert_eq!(few.iter().map(|spooled| spooled.place).collect::<Vec<_>>(), places[1..3]);
    let least = store.read(0, Limits { records: 2, bytes: 1 }).unwrap();
    assert_eq!(least.len(), 1, "one is read whatever its size");
    store.forget(&[places[0], places[2]]).unwrap();
    drop(store);
    let mut store = filled(directory.path(), 5..6);
    assert_eq!(numbers(&mut store), [1, 3, 4, 5]);
    assert_eq!(store.usage().unwrap().records, 4);
    let all: Vec<_> = store.read(0, ALL).unwrap().iter().map(|spooled| spooled.place).collect();
    store.forget(&all).unwrap();
    store.append([record(6)].iter()).unwrap();
    assert!(store.read(0, ALL).unwrap()[0].place > all[3], "a place is not given twice");
}

#[test]
fn what_was_not_committed_when_the_power_went_is_gone_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = filled(directory.path(), 0..20);
    // More than SQLite keeps in memory: the file has halves of it, and the journal what they replaced.
    let unfinished: Vec<_> = (20..4000).map(record).collect();
    let halfway = std::cell::RefCell::new(None);
    let endless = unfinished.iter().enumerate().inspect(|(index, _)| {
        if *index == 3900 {
            *halfway.borrow_mut() = Some(copy(directory.path()));
        }
    });
    store.append(endless.map(|(_, record)| record)).unwrap();
    let halfway = halfway.into_inner().unwrap();
    let journal = fs::metadata(halfway.path().join("spool.sqlite-journal")).unwrap();
    assert!(journal.len() > 0, "nothing was written yet: this shows nothing");
    let mut store = salvage::open(halfway.path(), SIZE).unwrap();
    assert_eq!(numbers(&mut store), (0..20).collect::<Vec<_>>());
}

/// Wherever a file ends, it opens, and what comes out of it is whole; the rest is kept for somebody who knows more.
#[test]
fn a_file_that_was_cut_gives_what_is_left_of_it() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), 0..60));
    let whole = fs::metadata(directory.path().join(FILE)).unwrap().len();
    let mut kept = Vec::new();
    for length in (0..whole).step_by(509) {
        let cut = copy(directory.path());
        OpenOptions::new().write(true).open(cut.path().join(FILE)).unwrap().set_len(length).unwrap();
        let mut store = salvage::open(cut.path(), SIZE).unwrap();
        let found = numbers(&mut store);
        assert!(found.is_sorted());
        kept.push(found.len());
        store.append([record(99)].iter()).unwrap();
        assert_eq!(numbers(&mut store).last(), Some(&99), "it goes on");
        let is_set_aside = !set_aside(cut.path()).is_empty() || store.usage().unwrap().damaged > 0;
        let told = is_set_aside || found.len() == 60 || length == 0;
        assert!(
            told,
            "cut at {length} of {whole}: {} records are missing, and nobody says so",
            60 - found.len()
        );
    }
    assert!(kept.last().is_some_and(|kept| *kept > 30), "{kept:?}: the last pages alone were lost");
}

#[test]
fn a_broken_sector_costs_the_records_of_its_page() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), 0..60));
    let file = directory.path().join(FILE);
    let length = fs::metadata(&file).unwrap().len();
    let (mut worst, mut broken) = (60, 0);
    for offset in (4096..length).step_by(4096) {
        let copied = copy(directory.path());
        let file = OpenOptions::new().read(true).write(true).open(copied.path().join(FILE)).unwrap();
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, offset).unwrap();
        file.write_all_at(&sector.map(|byte| byte ^ 0x5a), offset).unwrap();
        let mut store = salvage::open(copied.path(), SIZE).unwrap();
        let found = numbers(&mut store).len();
        let told = !set_aside(copied.path()).is_empty() || store.usage().unwrap().damaged > 0;
        assert!(told || found == 60, "{} records are missing, and nobody says so", 60 - found);
        broken += usize::from(found < 60);
        worst = worst.min(found);
    }
    assert!(broken > 5, "{broken}: the sectors were of no use");
    // The page that leads to all others is one of them.
    assert!(worst == 0 || worst > 40, "{worst}");
}

#[test]
fn a_record_that_does_not_fit_its_digest_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), 0..5));
    let connection = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    connection.execute("UPDATE deliveries SET body = 'other' WHERE place = 1", []).unwrap_err();
    connection.execute("UPDATE deliveries SET body = x'00' WHERE place = 1", []).unwrap();
    connection.execute("UPDATE deliveries SET key = 'other' WHERE place = 2", []).unwrap();
    // No UTF-8 any more: what cannot even be read must not end the reading of all others.
    connection.execute("UPDATE deliveries SET key = CAST(x'ff' AS TEXT) WHERE place = 4", []).unwrap();
    drop(connection);
    let mut store = salvage::open(directory.path(), SIZE).unwrap();
    assert_eq!(numbers(&mut store), [2, 4]);
    let usage = store.usage().unwrap();
    assert_eq!((usage.records, usage.damaged), (2, 3));
}

#[test]
fn a_full_spool_gives_its_sound_records_although_there_is_no_room_to_set_others_aside() {
    const SMALL: u64 = 256 << 10;
    let directory = tempfile::tempdir().unwrap();
    let mut store = salvage::open(directory.path(), SMALL).unwrap();
    let taken = (0..1000).take_while(|number| store.append([record(*number)].iter()).is_ok()).count();
    drop(store);
    let connection = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    connection.execute("UPDATE deliveries SET digest = zeroblob(32) WHERE place <= 20", []).unwrap();
    drop(connection);
    let mut store = salvage::open(directory.path(), SMALL).unwrap();
    let sound = store.read(0, ALL).unwrap();
    assert_eq!((sound.len(), store.usage().unwrap().damaged), (taken - 20, 0), "of {taken}");
    store.forget(&sound.iter().map(|spooled| spooled.place).collect::<Vec<_>>()).unwrap();
    assert_eq!(store.read(0, ALL).unwrap(), []);
    let usage = store.usage().unwrap();
    assert_eq!((usage.records, usage.damaged), (0, 20), "and then there is");
}

#[test]
fn places_that_were_never_given_are_not_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), 0..10));
    let file = directory.path().join(FILE);
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch("UPDATE deliveries SET place = 9223372036854775807 WHERE place = 10").unwrap();
    for seq in [3, i64::MAX] {
        connection.execute("UPDATE sqlite_sequence SET seq = ?", [seq]).unwrap();
        assert_eq!(readable(&file).unwrap().count(), 10);
    }
}

#[test]
fn a_salvage_that_was_killed_is_done_again_or_finished() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), 0..10));
    // Killed while it was being filled.
    let again = copy(directory.path());
    fs::write(again.path().join("salvage.sqlite"), "half").unwrap();
    assert_eq!(numbers(&mut salvage::open(again.path(), SIZE).unwrap()).len(), 10);
    assert!(!again.path().join("salvage.sqlite").exists());
    // Killed between the two names.
    fs::rename(directory.path().join(FILE), directory.path().join("salvage.sqlite")).unwrap();
    assert_eq!(numbers(&mut salvage::open(directory.path(), SIZE).unwrap()).len(), 10);
}

#[test]
fn a_second_owner_a_newer_format_and_an_unusable_directory_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 0..1);
    let error = salvage::open(directory.path(), SIZE).unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    drop(store);
    let connection = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let error = salvage::open(directory.path(), SIZE).unwrap_err();
    assert!(error.to_string().ends_with("found a spool of format 2, this version reads 1"), "{error}");
    let file = directory.path().join("file");
    File::create(&file).unwrap();
    let error = salvage::open(&file, SIZE).unwrap_err();
    assert!(matches!(error, OpenError::Unusable(..)), "{error}");
    drop(salvage::open(&directory.path().join("new/folders"), SIZE).unwrap());
}

/// A thread, its handle, and room for a few records.
fn spool(directory: &Path, max_size_bytes: u64) -> (Spool, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new([], &ProcessLabels::of_role(Role::All)).unwrap());
    let settings = config::Spool { directory: directory.to_owned(), max_size_bytes };
    (Spool::open(&settings, Arc::clone(&metrics)).unwrap(), metrics)
}

#[tokio::test]
async fn a_full_spool_says_so_and_takes_more_when_something_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = spool(directory.path(), 256 << 10);
    let mut taken = 0;
    let error = loop {
        match spool.append(record(taken)).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "it never gets full");
    };
    assert!(matches!(error, SpoolError::Full(_)), "{error}");
    assert!(taken > 50, "{taken}");
    assert_eq!(spool.condition(), Condition::Full);
    let read = spool.read(0, ALL).await.unwrap();
    assert_eq!(read.len(), taken, "what was taken is there");
    spool.forget(read.iter().take(40).map(|spooled| spooled.place).collect()).await.unwrap();
    assert_eq!(spool.condition(), Condition::Keeping);
    spool.append(record(taken)).await.unwrap();
}

#[tokio::test]
async fn what_waits_together_is_synced_together() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, metrics) = spool(directory.path(), SIZE);
    let appends = (0..500).map(|number| spool.append(record(number)));
    for appended in futures_util::future::join_all(appends).await {
        appended.unwrap();
    }
    let syncs = metrics.spool.sync_duration.get_sample_count();
    assert!(syncs < 250, "{syncs} syncs for 500 records");
    drop(spool);
    assert_eq!(numbers(&mut salvage::open(directory.path(), SIZE).unwrap()), (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_spool_finds_out_by_itself_that_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, health) = (filled(directory.path(), 0..3), Arc::new(condition::Health::default()));
    health.set(Condition::Full);
    store.try_room().unwrap();
    assert_eq!(numbers(&mut store), [0, 1, 2], "nothing is left of the trial");
    let metrics = Arc::new(Metrics::new([], &ProcessLabels::of_role(Role::All)).unwrap());
    let settings = config::Spool { directory: directory.path().to_owned(), max_size_bytes: SIZE };
    let writer = writer::Writer::new(store, &settings, Arc::clone(&health), metrics);
    let (commands, receiver) = mpsc::channel();
    std::thread::spawn(move || writer.run(&receiver));
    let spool = Spool { commands, health };
    spool.read(0, ALL).await.unwrap();
    spool.read(0, ALL).await.unwrap();
    assert_eq!(spool.condition(), Condition::Keeping);
}

#[tokio::test]
async fn a_spool_whose_thread_is_gone_has_failed() {
    let (commands, _) = mpsc::channel();
    let spool = Spool { commands, health: Arc::default() };
    assert!(matches!(spool.append(record(0)).await, Err(SpoolError::Failed(_))));
    assert_eq!(spool.condition(), Condition::Failed, "deliveries go to Kafka");
}

/// Every file of a directory, byte by byte.
fn contents(directory: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

#[test]
fn what_is_only_read_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), 0..20));
    let mut store = filled(directory.path(), 20..20);
    let file = directory.path().join(FILE);
    let is_locked = |error: OpenError| matches!(error, OpenError::Locked(_));
    assert!(readable(&file).err().is_some_and(is_locked), "a relay has it open");
    // Killed within a transaction.
    let killed = std::cell::RefCell::new(None);
    let unfinished: Vec<_> = (20..4000).map(record).collect();
    let endless = unfinished.iter().enumerate().inspect(|(index, _)| {
        if *index == 3900 {
            *killed.borrow_mut() = Some(copy(directory.path()));
        }
    });
    store.append(endless.map(|(_, record)| record)).unwrap();
    drop(store);
    for (directory, wanted) in [(killed.into_inner().unwrap(), 20), (directory, 4000)] {
        let before = contents(directory.path());
        let mut readable = readable(&directory.path().join(FILE)).unwrap();
        assert_eq!(readable.left(), wanted);
        let found: Vec<_> = readable.by_ref().map(|spooled| spooled.record).collect();
        assert_eq!(found, (0..found.len()).map(record).collect::<Vec<_>>());
        assert_eq!((found.len() as u64, readable.unreadable), (wanted, 0));
        assert!(contents(directory.path()) == before, "it was changed");
    }
}

#[test]
fn what_cannot_be_read_is_counted_and_what_is_no_spool_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path(), 0..60));
    let file = directory.path().join(FILE);
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute("UPDATE deliveries SET body = x'00' WHERE place = 7", []).unwrap();
    drop(connection);
    let length = fs::metadata(&file).unwrap().len();
    OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&[0x5a; 4096], length - 4096).unwrap();
    let mut found = readable(&file).unwrap();
    let records = found.by_ref().count();
    assert!((40..59).contains(&records), "{records}");
    assert!(found.unreadable >= 60 - records as u64, "{} of {records}", found.unreadable);

    let refusal = |file: &Path| readable(file).err().unwrap().to_string();
    assert!(refusal(&directory.path().join("none")).contains("No such file"));
    let other = directory.path().join("other.sqlite");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    assert!(refusal(&other).ends_with("wanted the file of a spool"), "{}", refusal(&other));
    fs::write(&other, "not a database, and long enough to be taken for one".repeat(100)).unwrap();
    assert!(refusal(&other).contains("not a database"), "{}", refusal(&other));
    let newer = directory.path().join("newer.sqlite");
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    assert!(
        refusal(&newer).ends_with("found a spool of format 2, this version reads 1"),
        "{}",
        refusal(&newer)
    );
}
