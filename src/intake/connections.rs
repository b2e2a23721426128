//! The open connections: how many there may be, and which one makes room.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;

/// A connection that is inside a request.
const BUSY: u64 = u64::MAX;

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
    /// When its last request ended, in ms since the listener began; [`BUSY`] inside a request.
    idle_since_ms: AtomicU64,
    origin: Instant,
    /// Ends the connection at once.
    pub(super) evicted: CancellationToken,
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

    /// A place for a new connection. At the limit the one that is longest without a request makes room; `None` where
    /// all are inside requests.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.lock();
        if open.by_id.len() >= self.max {
            let idle = open
                .by_id
                .iter()
                .map(|(id, connection)| (connection.idle_since_ms.load(Ordering::Relaxed), *id));
            let (since, id) = idle.min()?;
            if since == BUSY {
                return None;
            }
            if let Some(connection) = open.by_id.remove(&id) {
                connection.evicted.cancel();
                self.metrics.intake.connections_evicted.inc();
                self.metrics.intake.connections.dec();
            }
        }
        let connection = Arc::new(Connection {
            idle_since_ms: AtomicU64::new(since_ms(self.origin)),
            origin: self.origin,
            evicted: CancellationToken::new(),
        });
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
    /// A request's head has been read.
    pub(super) fn begin_request(&self) {
        self.idle_since_ms.store(BUSY, Ordering::Relaxed);
    }

    /// The request is answered.
    pub(super) fn end_request(&self) {
        self.idle_since_ms.store(since_ms(self.origin), Ordering::Relaxed);
    }

    /// Whether a request is being read or answered.
    pub(super) fn is_busy(&self) -> bool {
        self.idle_since_ms.load(Ordering::Relaxed) == BUSY
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
    u64::try_from(origin.elapsed().as_millis()).unwrap_or(BUSY - 1)
}
