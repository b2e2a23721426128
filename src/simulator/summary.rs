//! What a run came to, for people and for machines.

use std::collections::BTreeMap;
use std::fmt;

use hyper::StatusCode;
use serde::Serialize;

use super::client::{Fault, Reply};

/// How a delivery ended, as counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An answer with this status.
    Answered(u16),
    /// No target could be connected to: nothing was sent.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The connection failed before the answer was complete.
    Broken,
}

impl Outcome {
    /// How the client's sending ended.
    pub fn of(sent: &Result<Reply, Fault>) -> Self {
        match sent {
            Ok(reply) => Self::Answered(reply.status.as_u16()),
            Err(Fault::Refused(_)) => Self::Refused,
            Err(Fault::TimedOut(_)) => Self::TimedOut,
            Err(Fault::Broken(_) | Fault::Unsendable(_)) => Self::Broken,
        }
    }

    /// Whether the event was accepted: exactly 200, for ClearFeed takes nothing else.
    pub fn is_accepted(self) -> bool {
        self == Self::Answered(StatusCode::OK.as_u16())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => status.fmt(f),
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timeout"),
            Self::Broken => f.write_str("error"),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a run came to. `sent` is the sum of `answers`; the ping stands apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// What the run can be repeated with.
    pub seed: u64,
    /// How the ping ended, if there was one.
    pub ping: Option<Outcome>,
    /// Events that were wanted.
    pub events: u64,
    /// Events answered 200.
    pub accepted_events: u64,
    /// Deliveries, retries and redeliveries among them.
    pub sent: u64,
    /// Deliveries made because the one before was not answered 200.
    pub retried: u64,
    /// Deliveries of events that had been answered 200 before.
    pub redelivered: u64,
    /// How many of these were not answered 200.
    pub refused_redeliveries: u64,
    /// Deliveries by their answer: a status, `refused`, `timeout` or `error`.
    pub answers: BTreeMap<Outcome, u64>,
    /// From sending to the complete answer, of the deliveries answered 200.
    pub latency_ms: LatencyMs,
    /// How far behind its due time an event was sent at worst, in milliseconds; none without a rate. Much of
    /// it means that there were too few connections for the rate, and that latencies look better than they
    /// are.
    pub behind_ms: Option<f64>,
    /// From the first event to the last answer, in seconds.
    pub elapsed_s: f64,
}

/// Latencies in milliseconds, to 0.8 %; none where nothing was answered 200.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyMs {
    /// Half were quicker.
    pub p50: Option<f64>,
    /// 99 of a hundred were quicker.
    pub p99: Option<f64>,
    /// The slowest, exactly.
    pub max: Option<f64>,
}

impl Summary {
    /// Whether everything that was wanted was answered 200: the ping, every event once, and every redelivery. What a
    /// retry made good is no failure.
    pub fn is_all_accepted(&self) -> bool {
        self.ping.is_none_or(Outcome::is_accepted)
            && self.accepted_events == self.events
            && self.refused_redeliveries == 0
    }

    /// Whether not a single connection could be made.
    pub fn is_out_of_reach(&self) -> bool {
        let outcomes = || self.ping.iter().chain(self.answers.keys());
        outcomes().next().is_some() && outcomes().all(|&outcome| outcome == Outcome::Refused)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ping) = &self.ping {
            writeln!(f, "ping      {ping}")?;
        }
        writeln!(f, "events    {} of {} accepted", self.accepted_events, self.events)?;
        writeln!(
            f,
            "sent      {} deliveries, of which {} retried and {} redelivered",
            self.sent, self.retried, self.redelivered
        )?;
        let answers: Vec<_> =
            self.answers.iter().map(|(outcome, count)| format!("{outcome}: {count}")).collect();
        writeln!(f, "answers   {}", if answers.is_empty() { "none".to_owned() } else { answers.join(", ") })?;
        if let LatencyMs { p50: Some(p50), p99: Some(p99), max: Some(max) } = self.latency_ms {
            writeln!(f, "latency   p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")?;
        }
        if let Some(behind_ms) = self.behind_ms {
            writeln!(f, "behind    {behind_ms:.1} ms at worst")?;
        }
        writeln!(f, "elapsed   {:.2} s", self.elapsed_s)?;
        write!(f, "seed      {}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(ping: Option<Outcome>, accepted_events: u64, answers: &[(Outcome, u64)]) -> Summary {
        Summary {
            seed: 5,
            ping,
            events: 2,
            accepted_events,
            sent: answers.iter().map(|(_, count)| count).sum(),
            retried: 0,
            redelivered: 0,
            refused_redeliveries: 0,
            answers: answers.iter().copied().collect(),
            latency_ms: LatencyMs { p50: Some(1.5), p99: Some(2.0), max: None },
            behind_ms: None,
            elapsed_s: 0.25,
        }
    }

    #[test]
    fn machines_get_the_names_of_the_contract() {
        let json =
            serde_json::to_value(summary(None, 2, &[(Outcome::Answered(200), 2), (Outcome::TimedOut, 1)]))
                .unwrap();
        assert_eq!(json["sent"], 3);
        assert_eq!(json["answers"], serde_json::json!({"200": 2, "timeout": 1}));
        assert_eq!(json["accepted_events"], 2);
        assert_eq!(json["latency_ms"], serde_json::json!({"p50": 1.5, "p99": 2.0, "max": null}));
        assert_eq!((&json["elapsed_s"], &json["seed"]), (&0.25.into(), &5.into()));
    }

    #[test]
    fn only_refusals_mean_out_of_reach() {
        let refused = (Outcome::Refused, 2);
        assert!(summary(None, 0, &[refused]).is_out_of_reach());
        assert!(summary(Some(Outcome::Refused), 0, &[]).is_out_of_reach());
        assert!(!summary(None, 0, &[refused, (Outcome::Broken, 1)]).is_out_of_reach());
        assert!(!summary(None, 0, &[]).is_out_of_reach());
    }

    #[test]
    fn a_failed_ping_event_or_redelivery_is_a_failed_run() {
        let accepted = [(Outcome::Answered(200), 2)];
        assert!(summary(Some(Outcome::Answered(200)), 2, &accepted).is_all_accepted());
        assert!(!summary(Some(Outcome::Answered(204)), 2, &accepted).is_all_accepted());
        assert!(!summary(None, 1, &accepted).is_all_accepted());
        let refused = Summary { refused_redeliveries: 1, ..summary(None, 2, &accepted) };
        assert!(!refused.is_all_accepted());
    }
}
