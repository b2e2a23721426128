//! The spool's file: one table of `SQLite`, in the order in which deliveries came.
//!
//! `SQLite` is asked for the rollback journal, not for its write-ahead log: all that was committed then stands in the file
//! itself, so that a broken page costs the records of that page, where a broken log costs all that follows. Each record is
//! checked against digests when it is read: of its headers, which hold that of the body.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};
use sha2::{Digest, Sha256};

use super::{Limits, Place, Spooled};
use crate::domain::inbox_record::{InboxRecord, header};

/// The name of the file in `spool.directory`.
pub(super) const FILE: &str = "spool.sqlite";
/// Of the table's columns. A file of another version is left alone.
pub(super) const VERSION: i64 = 1;
/// Of a delivery that is large, but not the largest.
const ROOM_BYTES: i64 = 64 << 10;
/// How long another process may be about to end before it is said that it has the spool.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two relays would drain the same records, and each believe that the other's were lost.
    #[error("{0:?}: another process has this spool open; wanted a directory of its own for each relay")]
    Locked(PathBuf),
    /// Its directory or file cannot be used.
    #[error("{0:?}: {1}; wanted a directory that the relay can write to, with room for spool.max_size")]
    Unusable(PathBuf, String),
    /// Written by a later version of the relay.
    #[error("{0:?}: found a spool of format {1}, this version reads {VERSION}")]
    NewerFormat(PathBuf, i64),
    /// The file is broken.
    #[error("{0:?}: {1}")]
    Broken(PathBuf, String),
    /// What was only to be read.
    #[error("{0:?}: {1}; wanted the file of a spool")]
    Unreadable(PathBuf, String),
}

/// An open spool.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    /// Counted once, and kept up: `SQLite` would read the whole table each time.
    records: u64,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// Records that wait.
    pub(super) records: u64,
    /// Bytes of the pages that they take.
    pub(super) bytes: u64,
    /// When the oldest came, in milliseconds since 1970.
    pub(super) oldest: Option<i64>,
    /// Records that do not fit their digests.
    pub(super) damaged: u64,
}

impl Store {
    /// Opens or makes a spool, and checks it.
    pub(super) fn open(file: &Path, max_size_bytes: u64) -> Result<Self, OpenError> {
        let store = Self::open_to_read(file, OpenFlags::default());
        let mut store = store.map_err(|error| explained(file, &error))?;
        let opened = store.prepare(max_size_bytes);
        opened.map_err(|error| explained(file, &error))?;
        let version = store.version().map_err(|error| explained(file, &error))?;
        if version != VERSION {
            return Err(OpenError::NewerFormat(file.to_owned(), version));
        }
        let found: String = store
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| explained(file, &error))?;
        if found != "ok" {
            return Err(OpenError::Broken(file.to_owned(), found));
        }
        store.records = store.count("deliveries").map_err(|error| explained(file, &error))?;
        Ok(store)
    }

    /// Opens a file as it is, to read what can be read of it.
    pub(super) fn open_to_read(file: &Path, flags: OpenFlags) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(LOCK_PATIENCE)?;
        Ok(Self { connection, records: 0 })
    }

    fn prepare(&self, max_size_bytes: u64) -> rusqlite::Result<()> {
        let connection = &self.connection;
        // Taken here, and kept: there is never a second process, also none that only reads.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.query_row("PRAGMA journal_mode = TRUNCATE", [], |_| Ok(()))?;
        // Synced are the journal, the file, and the journal's end.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // What was drained goes back to the disk.
        connection.pragma_update(None, "auto_vacuum", "FULL")?;
        let pages = max_size_bytes / unsigned(self.pragma("page_size")?).max(1);
        let pages = i64::try_from(pages).unwrap_or(i64::MAX);
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
        if self.pragma("user_version")? == 0 {
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE IF NOT EXISTS deliveries (
                     place INTEGER PRIMARY KEY AUTOINCREMENT,
                     received INTEGER NOT NULL,
                     key TEXT NOT NULL,
                     headers TEXT NOT NULL,
                     body BLOB NOT NULL,
                     digest BLOB NOT NULL
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS damaged AS SELECT * FROM deliveries;
                 PRAGMA user_version = {VERSION};
                 COMMIT"
            ))?;
        }
        Ok(())
    }

    pub(super) fn version(&self) -> rusqlite::Result<i64> {
        self.pragma("user_version")
    }

    fn count(&self, table: &str) -> rusqlite::Result<u64> {
        let count: i64 =
            self.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        Ok(unsigned(count))
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<i64> {
        self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    }

    /// Adds records, in one transaction that is synced when this returns.
    pub(super) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = &'a InboxRecord>,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut added = 0;
        {
            let mut insert = transaction.prepare(
                "INSERT INTO deliveries (received, key, headers, body, digest) VALUES (?, ?, ?, ?, ?)",
            )?;
            for record in records {
                let headers = serde_json::to_string(&record.headers)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let received =
                    record.header(header::RECEIVED).and_then(|text| text.parse::<Timestamp>().ok());
                let received = received.unwrap_or_default().as_millisecond();
                let digest = digest(&record.key, &headers);
                added += insert.execute(params![received, record.key, headers, &record.body[..], digest])?;
            }
        }
        transaction.commit()?;
        self.records += added as u64;
        Ok(())
    }

    /// The oldest records after a place. Those that do not fit their digests are set aside.
    pub(super) fn read(&mut self, after: Place, limits: Limits) -> rusqlite::Result<Vec<Spooled>> {
        let (mut found, mut damaged, mut bytes) = (Vec::new(), Vec::new(), 0);
        {
            let mut select = self.connection.prepare(
                "SELECT place, key, headers, body, digest FROM deliveries WHERE place > ? ORDER BY place",
            )?;
            let mut rows = select.query([after])?;
            while found.len() < limits.records && bytes < limits.bytes {
                let Some(row) = rows.next()? else { break };
                match sound(row)? {
                    Ok(spooled) => {
                        bytes += spooled.record.body.len();
                        found.push(spooled);
                    }
                    Err(place) => damaged.push(place),
                }
            }
        }
        if !damaged.is_empty() {
            match self.set_aside(&damaged) {
                // There is room for them when the sound ones have left.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {}
                set_aside => set_aside?,
            }
        }
        Ok(found)
    }

    /// The first record at a place or after it: each by itself, so that one that cannot be read costs no other.
    pub(super) fn read_one(&self, from: Place) -> rusqlite::Result<Option<Result<Spooled, Place>>> {
        let mut select = self.connection.prepare(
            "SELECT place, key, headers, body, digest FROM deliveries WHERE place >= ? ORDER BY place LIMIT 1",
        )?;
        let mut rows = select.query([from])?;
        match rows.next()? {
            Some(row) => Ok(Some(sound(row)?)),
            None => Ok(None),
        }
    }

    /// The first and the last place, as far as they can be read; broken pages may hide either.
    pub(super) fn places(&self) -> rusqlite::Result<std::ops::RangeInclusive<Place>> {
        let last = "SELECT coalesce((SELECT max(place) FROM deliveries), 0)";
        let given = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'deliveries'), 0)";
        let first = "SELECT coalesce((SELECT min(place) FROM deliveries), 1)";
        let ask = |sql| self.connection.query_row(sql, [], |row| row.get::<_, Place>(0));
        let last = match (ask(given), ask(last)) {
            (Ok(given), Ok(last)) => given.max(last),
            (given, last) => given.or(last)?,
        };
        Ok(ask(first).unwrap_or(1)..=last)
    }

    /// Records that were set aside, as far as they can be counted.
    pub(super) fn damaged(&self) -> u64 {
        self.count("damaged").unwrap_or_default()
    }

    fn set_aside(&mut self, places: &[Place]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for place in places {
            transaction.execute("INSERT INTO damaged SELECT * FROM deliveries WHERE place = ?", [place])?;
            transaction.execute("DELETE FROM deliveries WHERE place = ?", [place])?;
        }
        transaction.commit()?;
        self.records = self.records.saturating_sub(places.len() as u64);
        Ok(())
    }

    /// Removes records.
    pub(super) fn forget(&mut self, places: &[Place]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut removed = 0;
        {
            let mut delete = transaction.prepare("DELETE FROM deliveries WHERE place = ?")?;
            for place in places {
                removed += delete.execute([place])?;
            }
        }
        transaction.commit()?;
        self.records = self.records.saturating_sub(removed as u64);
        Ok(())
    }

    /// Whether a delivery would find room: one is added that nobody ever sees.
    pub(super) fn try_room(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let add = "INSERT INTO deliveries (received, key, headers, body, digest) VALUES (0, '', '', zeroblob(?), x'')";
        transaction.execute(add, [ROOM_BYTES])?;
        transaction.execute("DELETE FROM deliveries WHERE place = ?", [transaction.last_insert_rowid()])?;
        transaction.commit()
    }

    /// How much there is.
    pub(super) fn usage(&self) -> rusqlite::Result<Usage> {
        let pages = self.pragma("page_count")? - self.pragma("freelist_count")?;
        Ok(Usage {
            records: self.records,
            bytes: unsigned(pages * self.pragma("page_size")?),
            oldest: self.oldest()?,
            damaged: self.count("damaged")?,
        })
    }

    fn oldest(&self) -> rusqlite::Result<Option<i64>> {
        let mut select = self.connection.prepare("SELECT received FROM deliveries ORDER BY place LIMIT 1")?;
        let mut rows = select.query([])?;
        rows.next()?.map(|row| row.get(0)).transpose()
    }
}

/// A row as it was written, or the place of one that does not fit its digests.
fn sound(row: &Row<'_>) -> rusqlite::Result<Result<Spooled, Place>> {
    let place: Place = row.get(0)?;
    let text = |column| row.get::<_, String>(column);
    let bytes = |column| row.get::<_, Vec<u8>>(column);
    // Not UTF-8 any more, or of another type.
    let (Ok(key), Ok(headers), Ok(body), Ok(expected)) = (text(1), text(2), bytes(3), bytes(4)) else {
        return Ok(Err(place));
    };
    let read = || {
        (digest(&key, &headers)[..] == expected[..]).then_some(())?;
        let headers = serde_json::from_str(&headers).ok()?;
        let record = InboxRecord { key, headers, body: Bytes::from(body) };
        let digest = hex::encode(Sha256::digest(&record.body));
        (record.header(header::BODY_SHA256)? == digest).then_some(record)
    };
    Ok(read().map(|record| Spooled { place, record }).ok_or(place))
}

fn digest(key: &str, headers: &str) -> [u8; 32] {
    Sha256::new().chain_update(key).chain_update([0]).chain_update(headers).finalize().into()
}

/// `SQLite`'s numbers are signed, and what it counts is not.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Sorted by who would mend it.
pub(super) fn explained(file: &Path, error: &rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked(file.to_owned()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Broken(file.to_owned(), error.to_string())
        }
        _ => OpenError::Unusable(file.to_owned(), error.to_string()),
    }
}
