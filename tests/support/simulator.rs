//! The library's simulator: whole loads, and single deliveries.

use std::collections::HashSet;
use std::io::Write;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::rest::Requests;
use clearfeed_relay::simulator::{self, Client, Delivery, Events, Observer, SimulatorError, Summary, Target};

pub use clearfeed_relay::simulator::Settings;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::deployment::{PUBLIC_URL, secret};
use super::{block_on, runtime};

/// An event that was answered 200.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub id: String,
    /// In decimal.
    pub request: String,
    /// Of the body, in hex.
    pub sha256: String,
    /// When it was first sent, in ns since 1970.
    pub sent_ns: u64,
    /// When it was answered 200.
    pub answered_ns: u64,
}

/// A load that is being sent.
pub struct Simulation {
    running: JoinHandle<Result<Summary, SimulatorError>>,
    ids: Ids,
    stop: CancellationToken,
    /// The highest number of an event that occurred, and one.
    begun: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
    shapes: Events,
}

/// What a load came to.
pub struct Simulated {
    pub summary: Summary,
    pub accepted: Vec<Accepted>,
    /// Ids of all events that occurred, accepted or not, and of some that would have been next.
    pub sent: HashSet<String>,
}

/// Ids of accepted events, as the simulator writes them.
#[derive(Clone, Default)]
struct Ids(Arc<Mutex<Vec<u8>>>);

impl Write for Ids {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The settings of a load, for `Settings { …, ..load(…) }`: `events` events of `requests` requests, as fast as they are answered.
pub fn load(targets: Vec<Target>, events: u64, requests: u64) -> Settings {
    Settings {
        events,
        requests: NonZeroU64::new(requests).unwrap(),
        connections: NonZeroU64::new(16).unwrap(),
        ..Settings::new(targets, PUBLIC_URL)
    }
}

/// Events a second.
pub fn rate(per_second: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(per_second)
}

impl Simulation {
    /// Begins to send.
    pub fn start(settings: Settings) -> Self {
        Self::start_signed(settings, secret())
    }

    /// The same with another secret.
    pub fn start_signed(settings: Settings, secret: Secret) -> Self {
        Self::begin(settings, secret, |_| ())
    }

    /// Begins to send events that the API knows of from when they occur, whatever becomes of them.
    pub fn start_known_to(requests: Arc<Requests>, settings: Settings) -> Self {
        let occurred = move |number| requests.occurred(number, Timestamp::now());
        Self::begin(settings, secret(), occurred)
    }

    fn begin(settings: Settings, secret: Secret, occurred: impl Fn(u64) + Send + Sync + 'static) -> Self {
        let (ids, stop) = (Ids::default(), CancellationToken::new());
        let (begun, finished) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (highest, count) = (Arc::clone(&begun), Arc::clone(&finished));
        let shapes = Events::new(settings.seed, settings.requests);
        let observer = Observer {
            occurred: Box::new(move |number| {
                highest.fetch_max(number + 1, Ordering::SeqCst);
                occurred(number);
            }),
            finished: Box::new(move || _ = count.fetch_add(1, Ordering::SeqCst)),
            ids: Some(Box::new(ids.clone())),
            stop: stop.clone(),
        };
        let running = runtime().spawn(simulator::run(settings, secret, observer));
        Self { running, ids, stop, begun, finished, shapes }
    }

    /// Sends it all.
    #[track_caller]
    pub fn run(settings: Settings) -> Simulated {
        Self::start(settings).finish()
    }

    /// Waits for the last answer.
    #[track_caller]
    pub fn finish(self) -> Simulated {
        let summary = block_on(self.running).unwrap().unwrap();
        let lines = String::from_utf8(self.ids.0.lock().unwrap().clone()).unwrap();
        let accepted = lines.lines().map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            let mut next = || fields.next().unwrap();
            let (id, request, sha256) = (next(), next(), next());
            Accepted {
                id,
                request,
                sha256,
                sent_ns: next().parse().unwrap(),
                answered_ns: next().parse().unwrap(),
            }
        });
        let begun = self.begun.load(Ordering::SeqCst);
        let sent = (0..begun).map(|number| self.shapes.event(number).id);
        Simulated { summary, accepted: accepted.collect(), sent: sent.collect() }
    }

    /// Sends nothing more, and waits for the answers that are due.
    #[track_caller]
    pub fn stop(self) -> Simulated {
        self.stop.cancel();
        self.finish()
    }

    /// Events that came to their end so far, accepted or not.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::SeqCst)
    }
}

impl Simulated {
    /// This load, and a later one.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.accepted.extend(later.accepted);
        self.sent.extend(later.sent);
        self
    }
}

/// Sends single deliveries, one after the other.
pub struct Sender {
    client: Client,
}

impl Sender {
    pub fn new(targets: Vec<Target>) -> Self {
        Self { client: Client::new(targets) }
    }

    /// The status that the delivery was answered with.
    #[track_caller]
    pub fn send(&mut self, delivery: &Delivery) -> u16 {
        self.ask(delivery).0
    }

    /// Status and body of the answer.
    #[track_caller]
    pub fn ask(&mut self, delivery: &Delivery) -> (u16, String) {
        let reply = block_on(self.client.send(delivery)).unwrap();
        (reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).unwrap())
    }
}
