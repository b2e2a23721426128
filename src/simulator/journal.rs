//! What happened so far: counted for the summary, and the ids of accepted events written out.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::Settings;
use super::events::ShapedEvent;
use super::histogram::Histogram;
use super::summary::{LatencyMs, Outcome, Summary};

/// One delivery, its end, and its times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange {
    pub(super) outcome: Outcome,
    pub(super) sent_at: SystemTime,
    pub(super) took: Duration,
}

/// Why a delivery was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The event occurred.
    Event,
    /// The delivery before was not answered 200.
    Failure,
    /// None that a receiver could know: it had answered 200.
    Redelivery,
}

/// Kept by all workers together: its size does not grow with their number, nor with the events.
pub(super) struct Journal {
    accepted_events: u64,
    retried: u64,
    redelivered: u64,
    refused_redeliveries: u64,
    answers: BTreeMap<Outcome, u64>,
    latencies: Histogram,
    behind: Duration,
    ids: Option<BufWriter<Box<dyn Write + Send>>>,
}

impl Journal {
    pub(super) fn new(ids: Option<Box<dyn Write + Send>>) -> Self {
        Self {
            accepted_events: 0,
            retried: 0,
            redelivered: 0,
            refused_redeliveries: 0,
            answers: BTreeMap::new(),
            latencies: Histogram::new(),
            behind: Duration::ZERO,
            ids: ids.map(BufWriter::new),
        }
    }

    /// An event was sent so long after it was due.
    pub(super) fn was_behind(&mut self, behind: Duration) {
        self.behind = self.behind.max(behind);
    }

    /// A delivery came to its end.
    pub(super) fn delivered(&mut self, cause: Cause, exchange: &Exchange) {
        *self.answers.entry(exchange.outcome).or_default() += 1;
        match cause {
            Cause::Event => {}
            Cause::Failure => self.retried += 1,
            Cause::Redelivery => {
                self.redelivered += 1;
                self.refused_redeliveries += u64::from(!exchange.outcome.is_accepted());
            }
        }
        if exchange.outcome.is_accepted() {
            self.latencies.record(exchange.took);
        }
    }

    /// An event got its first 200.
    pub(super) fn accepted(&mut self, event: &ShapedEvent, exchange: &Exchange) -> io::Result<()> {
        self.accepted_events += 1;
        let Some(ids) = &mut self.ids else { return Ok(()) };
        let digest = hex::encode(Sha256::digest(&event.body));
        let (sent, answered) = (nanos(exchange.sent_at), nanos(exchange.sent_at + exchange.took));
        writeln!(ids, "{}\t{}\t{digest}\t{sent}\t{answered}", event.id, event.request)
    }

    /// Lets go of what is still in memory.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.ids.as_mut().map_or(Ok(()), Write::flush)
    }

    pub(super) fn summary(&self, settings: &Settings, ping: Option<Outcome>, elapsed: Duration) -> Summary {
        Summary {
            seed: settings.seed,
            ping,
            events: settings.events,
            accepted_events: self.accepted_events,
            sent: self.answers.values().sum(),
            retried: self.retried,
            redelivered: self.redelivered,
            refused_redeliveries: self.refused_redeliveries,
            answers: self.answers.clone(),
            latency_ms: LatencyMs {
                p50: self.latencies.percentile(50).map(milliseconds),
                p99: self.latencies.percentile(99).map(milliseconds),
                max: self.latencies.max().map(milliseconds),
            },
            behind_ms: settings.rate.map(|_| milliseconds(self.behind)),
            elapsed_s: to_the_microsecond(elapsed, 1.0),
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    to_the_microsecond(duration, 1000.0)
}

/// In units of which so many make a second. The digits beyond a microsecond say nothing.
fn to_the_microsecond(duration: Duration, units_per_second: f64) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / (1e6 / units_per_second)
}

fn nanos(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
