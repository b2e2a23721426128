//! Plays ClearFeed against any URL: a ping, signed events, redeliveries, retries.
//!
//! ```text
//! plan ─▶ worker ─▶ events ─▶ delivery ─▶ client ─▶ the relay
//!           │                                │
//!           └──────────── journal ◀──────────┘  answers, latencies, the ids of accepted events
//! ```
//!
//! What will be sent follows from the settings alone (`plan`, `events`): the same seed and number of
//! requests give the same bodies. Each request belongs to one worker, and each worker has one delivery on its
//! way at a time, so the events of a request go out one after the other's final answer.
//!
//! The other side of ClearFeed, its REST API, is [`rest`]: it tells the requests that the events are about.
//!
//! [`run`] sends a whole load. A single crafted delivery (a replay, a forgery) is a [`Delivery`] sent by a
//! [`Client`].

mod client;
mod delivery;
mod events;
mod histogram;
mod journal;
mod plan;
pub mod rest;
mod summary;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod worker;

use std::io::{self, Write};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex};

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::signature::Secret;
use journal::Journal;
use plan::Plan;
use worker::{Run, Worker};

pub use client::{Client, Fault, Reply};
pub use delivery::{Delivery, unix_seconds};
pub use events::{Events, ShapedEvent, random_seed};
pub use summary::{LatencyMs, Outcome, Summary};
pub use target::Target;

/// Events of a run, unless told otherwise: done in a second, and enough for a latency's p99.
pub const DEFAULT_EVENTS: u64 = 1000;
/// Requests of a run, unless told otherwise: ten events each with [`DEFAULT_EVENTS`].
pub const DEFAULT_REQUESTS: NonZeroU64 = NonZeroU64::MIN.saturating_add(99);
/// Connections of a run, unless told otherwise: what the relay's numbers were measured with.
pub const DEFAULT_CONNECTIONS: NonZeroU64 = NonZeroU64::MIN.saturating_add(63);

/// What to send, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to; each delivery goes to one of them in turn. At least one.
    pub targets: Vec<Target>,
    /// What signatures are made over: the URL saved in ClearFeed's Developer Settings.
    pub signed_url: String,
    /// Send a signed test ping first, and no event unless it is answered 200.
    pub ping: bool,
    /// Number of events.
    pub events: u64,
    /// Number of requests that the events are spread over.
    pub requests: NonZeroU64,
    /// Events a second, by the clock and not by the answers; none: as fast as the answers come.
    pub rate: Option<NonZeroU32>,
    /// Connections, which is also the number of deliveries on their way at once. More than requests are of no
    /// use.
    pub connections: NonZeroU64,
    /// How many of a hundred accepted events are delivered again.
    pub redeliver_percent: u8,
    /// Try an event that was not answered 200 again, up to retry 3.
    pub retries_on_failure: bool,
    /// What ids and texts are drawn from.
    pub seed: u64,
}

impl Settings {
    /// The defaults, with a random seed.
    pub fn new(targets: Vec<Target>, signed_url: impl Into<String>) -> Self {
        Self {
            targets,
            signed_url: signed_url.into(),
            ping: false,
            events: DEFAULT_EVENTS,
            requests: DEFAULT_REQUESTS,
            rate: None,
            connections: DEFAULT_CONNECTIONS,
            redeliver_percent: 0,
            retries_on_failure: false,
            seed: random_seed(),
        }
    }
}

/// What a run tells its caller while it lasts, and how the caller ends it early.
pub struct Observer {
    /// Called once for each event, by its number, when it occurs: before it is delivered, or not.
    pub occurred: Box<dyn Fn(u64) + Send + Sync>,
    /// Called once for each event that came to its end, accepted or not.
    pub finished: Box<dyn Fn() + Send + Sync>,
    /// Gets one line for each event answered 200, tab-separated: event id, request id, SHA-256 of the body in
    /// hex, when the delivery that was answered 200 was sent and when it was answered (nanoseconds since
    /// 1970).
    pub ids: Option<Box<dyn Write + Send>>,
    /// Cancelled: nothing more is sent, answers that are due are waited for, and the run returns what was
    /// done.
    pub stop: CancellationToken,
}

impl Default for Observer {
    fn default() -> Self {
        let stop = CancellationToken::new();
        Self { occurred: Box::new(|_| ()), finished: Box::new(|| ()), ids: None, stop }
    }
}

/// Why a run ended without a summary. What the other side answers is never an error: it stands in the
/// summary.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// `Settings::targets` is empty.
    #[error("no URL to send to, wanted at least one")]
    NoTarget,
    /// The ids of accepted events could not be written.
    #[error("the ids of accepted events could not be written: {0}")]
    Ids(#[from] io::Error),
    /// A worker panicked: a mistake in the simulator.
    #[error("a worker of the simulator failed: {0}")]
    Worker(#[from] JoinError),
}

/// Sends everything and waits for the last answer.
pub async fn run(settings: Settings, secret: Secret, observer: Observer) -> Result<Summary, SimulatorError> {
    if settings.targets.is_empty() {
        return Err(SimulatorError::NoTarget);
    }
    let ping = if settings.ping { Some(ping(&settings, &secret).await) } else { None };
    // ClearFeed does not save an endpoint whose ping failed, and so sends it nothing.
    let events = if ping.is_none_or(Outcome::is_accepted) { settings.events } else { 0 };
    let plan = Plan::new(&settings, events);
    let workers = plan.workers();
    let started = Instant::now();
    let run = Arc::new(Run {
        shapes: Events::new(settings.seed, settings.requests),
        plan,
        secret,
        started,
        journal: Mutex::new(Journal::new(observer.ids)),
        occurred: observer.occurred,
        finished: observer.finished,
        stop: observer.stop,
        settings,
    });
    let mut tasks = JoinSet::new();
    for index in 0..workers {
        tasks.spawn(Worker::new(Arc::clone(&run), index).run());
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let mut journal = run.journal();
    journal.flush()?;
    Ok(journal.summary(&run.settings, ping, started.elapsed()))
}

async fn ping(settings: &Settings, secret: &Secret) -> Outcome {
    let ping = Delivery::ping(secret, &settings.signed_url, unix_seconds());
    Outcome::of(&Client::new(settings.targets.clone()).send(&ping).await)
}
