//! What comes in: one load after the other, with silences between them.

use std::num::NonZeroU64;

use clearfeed_relay::simulator::Target;

use crate::support::Simulation;
use crate::support::simulator::{Settings, Simulated, load, rate};

/// Of the short form.
const EVENTS_PER_SECOND: u32 = 400;
/// Of a long run.
const CONNECTIONS: NonZeroU64 = NonZeroU64::new(512).unwrap();
/// Silences of a run: each load has a plan of its own, with the ids of all its events.
const MOST_SILENCES: usize = 5;

/// The loads of a run.
pub(crate) struct Traffic {
    targets: Vec<Target>,
    planned: u64,
    is_short: bool,
    seed: u64,
    /// With how many events came to their end.
    over: Vec<(Simulated, u64)>,
    /// None in a silence.
    running: Option<Simulation>,
}

impl Traffic {
    /// So many events in the end; in the short form as many as come until it ends.
    pub(crate) fn begin(targets: Vec<Target>, planned: u64, is_short: bool, seed: u64) -> Self {
        let running = Simulation::start(settings(targets.clone(), planned, is_short, seed));
        Self { targets, planned, is_short, seed, over: Vec::new(), running: Some(running) }
    }

    /// Events that came to their end, accepted or not.
    pub(crate) fn finished(&self) -> u64 {
        self.over.iter().map(|(_, finished)| finished).sum::<u64>()
            + self.running.as_ref().map_or(0, Simulation::finished)
    }

    /// Nothing more comes while something is done; then another load. Not too often.
    pub(crate) fn silence(&mut self, during: impl FnOnce()) {
        let Some(running) = self.running.take_if(|_| self.over.len() < MOST_SILENCES) else { return };
        let finished = running.finished();
        self.over.push((ended(running), finished));
        during();
        let left = self.planned.saturating_sub(self.finished()).max(1);
        let seed = self.seed.wrapping_add(self.over.len() as u64);
        self.running = Some(Simulation::start(settings(self.targets.clone(), left, self.is_short, seed)));
    }

    /// Sends nothing more, and waits for the answers that are due.
    pub(crate) fn end(self) -> Simulated {
        let loads = self.over.into_iter().map(|(load, _)| load).chain(self.running.map(ended));
        loads.reduce(Simulated::and).unwrap()
    }
}

fn ended(running: Simulation) -> Simulated {
    let simulated = running.stop();
    eprintln!("{}", simulated.summary);
    simulated
}

fn settings(targets: Vec<Target>, events: u64, is_short: bool, seed: u64) -> Settings {
    // A long run has many requests, so that a replica that hangs does not hold up all of them.
    let mut settings = load(targets, events, if is_short { 300 } else { 10_000 });
    settings.seed = seed;
    settings.redeliver_percent = 30;
    settings.retries_on_failure = true;
    if is_short {
        settings.rate = rate(EVENTS_PER_SECOND);
    } else {
        settings.connections = CONNECTIONS;
    }
    settings
}
