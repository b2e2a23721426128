//! The thread that has the spool's file: what waits together is synced together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::ErrorCode;

use super::condition::{Condition, Health};
use super::salvage;
use super::store::{Store, Usage};
use super::{Command, Reply, SpoolError};
use crate::config;
use crate::domain::inbox_record::InboxRecord;
use crate::telemetry::metrics::Metrics;

/// Deliveries that share a sync at most: more would only make the first of them wait.
const MAX_GROUP: usize = 1024;
/// How often the age of the oldest record is told.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    store: Store,
    directory: PathBuf,
    /// Broken files beside it, when last looked for: an append need not list the directory.
    set_aside: usize,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Why nothing is entrusted to the file any more.
    failed: Option<SpoolError>,
    /// When it was last tried whether there is room again.
    looked: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        settings: &config::Spool,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let directory = settings.directory.clone();
        let set_aside = salvage::set_aside(&directory).len();
        Self { store, directory, set_aside, health, metrics, failed: None, looked: None }
    }

    /// Works until nobody holds the other end.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        self.tell();
        // What was received while a group was gathered, and does not belong to it.
        let mut next = None;
        loop {
            self.health.busy(None);
            let received = next.take().map_or_else(|| commands.recv_timeout(TICK), Ok);
            self.health.busy(Some(Instant::now()));
            match received {
                Ok(Command::Append(record, reply)) => {
                    let mut group = vec![(record, reply)];
                    while group.len() < MAX_GROUP {
                        match commands.try_recv() {
                            Ok(Command::Append(record, reply)) => group.push((record, reply)),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(group);
                }
                Ok(Command::Read(after, limits, reply)) => {
                    let read = self.store.read(after, limits);
                    let read = read.map_err(|error| self.refused(&error));
                    // Who does not wait any more does not want it.
                    let _ = reply.send(read);
                }
                Ok(Command::Forget(places, reply)) => {
                    let forgotten = self.store.forget(&places).map_err(|error| self.refused(&error));
                    if forgotten.is_ok() && self.failed.is_none() {
                        self.health.set(Condition::Keeping);
                    }
                    let _ = reply.send(forgotten);
                }
                Err(RecvTimeoutError::Timeout) => self.set_aside = salvage::set_aside(&self.directory).len(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if next.is_none() {
                self.look_for_room();
                self.tell();
            }
        }
    }

    fn append(&mut self, group: Vec<(InboxRecord, Reply<()>)>) {
        let result = self.failed.clone().map_or_else(|| self.sync(&group), Err);
        for (_, reply) in group {
            let _ = reply.send(result.clone());
        }
    }

    fn sync(&mut self, group: &[(InboxRecord, Reply<()>)]) -> Result<(), SpoolError> {
        let began = Instant::now();
        let appended = self.store.append(group.iter().map(|(record, _)| record));
        self.metrics.spool.sync_duration.observe(began.elapsed().as_secs_f64());
        match appended {
            Ok(()) => {
                self.health.set(Condition::Keeping);
                Ok(())
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// A full disk is one later, too, and nothing was written that could be in doubt.
    fn refused(&mut self, error: &rusqlite::Error) -> SpoolError {
        if error.sqlite_error_code() != Some(ErrorCode::DiskFull) {
            return self.failed(error);
        }
        if self.failed.is_none() && self.health.said() != Condition::Full {
            self.health.set(Condition::Full);
            tracing::error!(%error, "the spool is full");
        }
        SpoolError::Full(error.to_string())
    }

    /// A relay that is not ready is sent nothing that could find out that there is room again.
    fn look_for_room(&mut self) {
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= TICK);
        if self.health.said() != Condition::Full || !is_due {
            return;
        }
        match self.store.try_room() {
            Ok(()) => self.health.set(Condition::Keeping),
            Err(error) => drop(self.refused(&error)),
        }
        self.looked = Some(Instant::now());
    }

    /// After a sync that failed the kernel may have dropped what it could not write, and a second sync would say that all is
    /// well: only what is read again from the disk, at the next start, is sure.
    fn failed(&mut self, error: &rusqlite::Error) -> SpoolError {
        let failure = SpoolError::Failed(error.to_string());
        if self.failed.is_none() {
            tracing::error!(%error, "the spool is out of order");
            self.failed = Some(failure.clone());
            self.health.set(Condition::Failed);
        }
        failure
    }

    fn tell(&mut self) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let metrics = &self.metrics.spool;
        metrics.failed.set(i64::from(self.failed.is_some()));
        let Ok(Usage { records, bytes, oldest, damaged }) = self.store.usage() else { return };
        metrics.records.set(gauge(records));
        metrics.bytes.set(gauge(bytes));
        let age = oldest.map_or(0, |oldest| Timestamp::now().as_millisecond() - oldest);
        #[expect(clippy::cast_precision_loss, reason = "2^52 milliseconds are 142,000 years")]
        metrics.oldest.set(age.max(0) as f64 / 1e3);
        metrics.damaged.set(gauge(damaged + self.set_aside as u64));
    }
}
