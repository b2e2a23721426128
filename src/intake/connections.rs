//! The open connections: how many there may be, and which one makes room.
//!
//! A stranger can open as many as there may be, and begin a request on each. So whoever has proven nothing for longest makes
//! room. A delivery of ClearFeed's has arrived, and is proven, long before its connection is the oldest; from then on it
//! keeps its place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::task::AbortHandle;

use super::answer::Answer;
use crate::telemetry::metrics::Metrics;

/// Set in the rank of a connection that is inside a request.
const BUSY: u64 = 1;
/// Inside a request that is proven to be ClearFeed's.
const PROVEN: u64 = u64::MAX;
/// A request that has just begun comes after the connections without one: within this time an honest body is there.
const GRACE_MS: u64 = 1000;

/// All connections of the listener.
pub(super) struct Connections {
    max: usize,
    origin: Instant,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    by_id: HashMap<u64, Arc<Connection>>,
}

/// What others may know and do about a connection.
pub(super) struct Connection {
    /// The lowest makes room first. Twice the ms, since the listener began, at which it was opened or its last request ended;
    /// inside a request when that began and [`GRACE_MS`], and [`BUSY`]; or [`PROVEN`].
    rank: AtomicU64,
    origin: Instant,
    /// Whom it goes to.
    pub(super) peer: IpAddr,
    /// What its sender did wrong before there was a request.
    refused: OnceLock<Answer>,
    /// Serves it; aborted where another needs the place.
    task: OnceLock<AbortHandle>,
}

/// A place among the open connections, until it is dropped.
pub(super) struct Place {
    id: u64,
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Connections {
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self { max, origin: Instant::now(), metrics, open: Mutex::default() }
    }

    /// A place for a new connection. At the limit the one that has proven nothing for longest makes room; `None` where all are
    /// inside requests that are proven.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut open = self.lock();
        if open.by_id.len() >= self.max {
            let ranks =
                open.by_id.iter().map(|(id, connection)| (connection.rank.load(Ordering::Relaxed), *id));
            let (_, id) = ranks.min().filter(|(rank, _)| *rank != PROVEN)?;
            if let Some(connection) = open.by_id.remove(&id) {
                // There is one: `enter` is called by one task, which spawns before it calls again.
                if let Some(task) = connection.task.get() {
                    task.abort();
                }
                self.metrics.intake.connections_evicted.inc();
                self.metrics.intake.connections.dec();
            }
        }
        let connection = Arc::new(Connection::new(self.origin, peer));
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, Arc::clone(&connection));
        self.metrics.intake.connections.inc();
        Some(Place { id, connections: Arc::clone(self), connection })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// A connection that was opened now; times count from `origin`.
    pub(super) fn new(origin: Instant, peer: IpAddr) -> Self {
        let rank = AtomicU64::new(2 * since_ms(origin));
        Self { rank, origin, peer, refused: OnceLock::new(), task: OnceLock::new() }
    }

    /// Is told once, as soon as there is one, what task serves it.
    pub(super) fn served_by(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// A request's head has been read.
    pub(super) fn begin_request(&self) {
        self.rank.store(2 * (since_ms(self.origin) + GRACE_MS) + BUSY, Ordering::Relaxed);
    }

    /// The request is ClearFeed's.
    pub(super) fn prove_request(&self) {
        self.rank.store(PROVEN, Ordering::Relaxed);
    }

    /// The request is answered.
    pub(super) fn end_request(&self) {
        self.rank.store(2 * since_ms(self.origin), Ordering::Relaxed);
    }

    /// Whether a request is being read or answered.
    pub(super) fn is_busy(&self) -> bool {
        self.rank.load(Ordering::Relaxed) & BUSY == BUSY
    }

    /// What comes next is no request, and is answered so.
    pub(super) fn refuse(&self, answer: Answer) {
        // Nothing is read after the first refusal.
        let _ = self.refused.set(answer);
    }

    /// The answer to what was no request.
    pub(super) fn refused(&self) -> Option<Answer> {
        self.refused.get().copied()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // An evicted connection has left already.
        if self.connections.lock().by_id.remove(&self.id).is_some() {
            self.connections.metrics.intake.connections.dec();
        }
    }
}

fn since_ms(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_millis()).unwrap_or_default()
}
