//! The spool: deliveries on this node's disk, for as long as Kafka does not acknowledge them.
//!
//! A record is in the spool when it is synced to the disk; it leaves when the inbox has it. Both may happen twice and neither
//! is ever left out: whatever comes before the inbox may repeat. One thread owns the file ([`writer`]), so that deliveries
//! that wait together share one sync; [`store`] is what is asked of `SQLite`, and [`salvage`] of a file that is broken.

mod condition;
mod salvage;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::config;
use crate::domain::inbox_record::InboxRecord;
use crate::telemetry::metrics::Metrics;

pub use condition::Condition;
pub use salvage::Readable;
pub use store::OpenError;

/// What a read brings at most: enough to fill Kafka's batches, and little beside the bodies that deliveries hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes of their bodies; one record is read whatever its size.
    pub bytes: usize,
}

/// Where a record stands in the spool: later ones have greater numbers, and none is given twice.
pub type Place = i64;

/// A record of the spool.
#[derive(Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its place.
    pub place: Place,
    /// As intake made it.
    pub record: InboxRecord,
}

/// Why a record is not in the spool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// No room: `spool.max_size` is reached, or the disk is full.
    #[error("the spool is full: {0}")]
    Full(String),
    /// The disk failed. What it did with the bytes nobody knows, so nothing more is entrusted to it before a restart.
    #[error("the spool is out of order until the relay is started again: {0}")]
    Failed(String),
}

/// A handle to the thread that has the file. When it is dropped the thread ends, after what it was asked to do.
#[derive(Debug)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    health: Arc<condition::Health>,
}

/// What the thread can be asked.
#[derive(Debug)]
enum Command {
    Append(InboxRecord, Reply<()>),
    Read(Place, Limits, Reply<Vec<Spooled>>),
    Forget(Vec<Place>, Reply<()>),
}

type Reply<T> = oneshot::Sender<Result<T, SpoolError>>;

impl Spool {
    /// Opens the spool, and salvages it first where its file is broken. Blocks while it reads the file.
    pub fn open(settings: &config::Spool, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let store = salvage::open(&settings.directory, settings.max_size_bytes)?;
        let health = Arc::new(condition::Health::default());
        let (commands, receiver) = mpsc::channel();
        let writer = writer::Writer::new(store, settings, Arc::clone(&health), metrics);
        std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| OpenError::Unusable(settings.directory.clone(), error.to_string()))?;
        Ok(Self { commands, health })
    }

    /// Whether it would take a delivery now.
    pub fn condition(&self) -> Condition {
        self.health.condition()
    }

    /// Adds a record; done when it is synced. It may be there although this fails, or is not waited for.
    pub async fn append(&self, record: InboxRecord) -> Result<(), SpoolError> {
        self.ask(|reply| Command::Append(record, reply)).await
    }

    /// The oldest records after a place.
    pub async fn read(&self, after: Place, limits: Limits) -> Result<Vec<Spooled>, SpoolError> {
        self.ask(|reply| Command::Read(after, limits, reply)).await
    }

    /// Removes records that the inbox has.
    pub async fn forget(&self, places: Vec<Place>) -> Result<(), SpoolError> {
        self.ask(|reply| Command::Forget(places, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let gone = || {
            self.health.set(Condition::Failed);
            SpoolError::Failed("its thread is gone".to_owned())
        };
        self.commands.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Everything that can be read of a spool's file that no relay has open: one that was set aside, or whose owner is gone.
pub fn readable(file: &Path) -> Result<Readable, OpenError> {
    salvage::readable(file)
}

/// The files of a spool that were broken and set aside, in the order of their names.
pub fn set_aside(directory: &Path) -> Vec<PathBuf> {
    salvage::set_aside(directory)
}
