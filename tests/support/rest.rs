//! The simulator's REST API, with requests of chosen times and a token that can be regenerated.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clearfeed_relay::simulator::rest::{Health, Requests, Rest};
use jiff::{SignedDuration, Timestamp};

use super::relay::Plan;
use super::{block_on, pause, runtime};

pub const TOKEN: &str = "a-token-of-the-tests";
const SEED: u64 = 7;
/// What a request takes at least: long enough for another one to be on its way meanwhile.
const WORK: Duration = Duration::from_millis(3);

/// ClearFeed's API, and the file in which the relay has the token for it.
pub struct Api {
    pub requests: Arc<Requests>,
    rest: Rest,
    token: Arc<Mutex<String>>,
    most_at_once: Arc<AtomicUsize>,
    file: PathBuf,
}

impl Api {
    /// Listens; knows `requests` requests, of which one was created each second.
    pub fn with(requests: u64, health: Health, folder: &Path) -> Self {
        let api = Self::empty(SEED, requests, health, folder);
        (0..requests).for_each(|number| api.requests.occurred(number, created(number)));
        api
    }

    /// Listens; knows no request yet, and so many at most: those of the events with this seed.
    pub fn empty(seed: u64, requests: u64, health: Health, folder: &Path) -> Self {
        let world = Arc::new(Requests::new(seed, requests.try_into().unwrap()));
        let token = Arc::new(Mutex::new(TOKEN.to_owned()));
        let (current, served) = (Arc::clone(&token), Arc::clone(&world));
        let (most_at_once, busy) = (Arc::default(), AtomicUsize::new(0));
        let most: Arc<AtomicUsize> = Arc::clone(&most_at_once);
        let _guard = runtime().enter();
        let address = ([127, 0, 0, 1], 0).into();
        let current = Box::new(move || {
            most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            pause(WORK);
            busy.fetch_sub(1, Ordering::SeqCst);
            Some(current.lock().unwrap().clone())
        });
        let rest = block_on(Rest::listen(address, served, current, health)).unwrap();
        let api = Self { requests: world, rest, token, most_at_once, file: folder.join("token") };
        api.give(TOKEN);
        api
    }

    /// Another token counts from now on, and nobody has told the relay.
    pub fn regenerate(&self, token: &str) {
        token.clone_into(&mut self.token.lock().unwrap());
    }

    /// Puts a token where the relay looks for it.
    pub fn give(&self, token: &str) {
        std::fs::write(&self.file, format!("{token}\n")).unwrap();
    }

    pub fn token_file(&self) -> &Path {
        &self.file
    }

    pub fn base_url(&self) -> String {
        self.rest.base_url()
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.rest.asked()
    }

    /// How many requests were on their way at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// A replica that asks it.
    pub fn of(&self, plan: Plan, snapshot_topic: &str) -> Plan {
        plan.set("sources.main.api.base_url", &format!("{:?}", self.rest.base_url()))
            .set("sources.main.api.token_file", &format!("{:?}", self.file.display().to_string()))
            .set("sources.main.api.snapshot_topic", &format!("{snapshot_topic:?}"))
    }
}

/// When the request of this number was created.
pub fn created(number: u64) -> Timestamp {
    let first: Timestamp = "2026-11-05T00:00:00Z".parse().unwrap();
    first + SignedDuration::from_secs(number.cast_signed())
}
