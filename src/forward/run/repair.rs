//! What the loop does about a failure: whatever it was, what took place is read from the ledger; and what fails again and
//! again is replaced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Loop;
use crate::forward::batch::Batch;
use crate::forward::failure::Failure;
use crate::forward::inbox::{InboxReader, Outcome};
use crate::forward::partition::Held;
use crate::forward::slots::Slots;
use crate::kafka::streak::Blame;
use crate::telemetry::labels::{Concern, HeldReason, TransactionEnd};

impl Loop {
    /// Settles the transaction of a batch, and takes its partitions over again.
    pub(super) fn failed(&mut self, failure: &Failure, batch: &Batch<'_>, started: Instant) {
        let now = Instant::now();
        tracing::warn!(%failure, records = batch.len(), "transaction failed");
        let end = if matches!(failure, Failure::Replace(_)) {
            TransactionEnd::Unknown
        } else {
            TransactionEnd::Aborted
        };
        self.metrics.forward.transaction_duration.of(end).observe((now - started).as_secs_f64());
        self.admission.forget();
        // Those of the batch, and those that only had a ledger record due.
        let mut concerned = batch.partitions();
        concerned.extend(self.slots.active().filter(|(_, active)| active.is_silent(now)).map(|(p, _)| p));
        let failing = failure.partitions().unwrap_or_else(|| concerned.clone());
        concerned.extend(&failing);
        self.settle(failure, concerned, &failing, now);
        if matches!(failure, Failure::TooLarge) {
            self.search.too_large(batch, now);
        }
    }

    /// Settles the transaction that failed. Its partitions are taken over again, or all of them where the producer has to be
    /// opened anew. Those that it failed for are held: for another try, or, where another producer helps, once that was
    /// tried.
    pub(super) fn settle(
        &mut self,
        failure: &Failure,
        concerned: BTreeSet<i32>,
        failing: &BTreeSet<i32>,
        now: Instant,
    ) {
        self.producer.settle(failure);
        let blame = match failure {
            Failure::Replace(_) => Blame::Client,
            _ => Blame::Environment,
        };
        // What somebody else wrote another producer would find as well.
        let is_ours = !matches!(failure, Failure::Contested { .. });
        if is_ours && self.slots.failed(failing, blame, now) {
            self.producer.replace();
        }
        let concerned = match self.producer.transactions() {
            Some(_) => concerned,
            // Nothing can be forwarded for a while, so nothing is to be fetched either.
            None => self.slots.numbers().collect(),
        };
        self.retake(&concerned, now);
        for &partition in failing {
            let held = match failure {
                Failure::Environment { detail, .. } => Held::by_kafka(detail),
                Failure::Contested { by_other_group: true, detail, .. } => {
                    Held { reason: HeldReason::OtherGroup, detail: detail.clone() }
                }
                Failure::Replace(detail) | Failure::Fenced(detail)
                    if self.slots.tried(partition).is_some() =>
                {
                    Held::by_kafka(detail)
                }
                Failure::Contested { .. } | Failure::Replace(_) | Failure::Fenced(_) | Failure::TooLarge => {
                    continue;
                }
            };
            self.slots.hold(partition, held, now);
        }
    }

    /// Stops these, and has them taken over again.
    pub(super) fn retake(&mut self, partitions: &BTreeSet<i32>, now: Instant) {
        self.inbox.pause(partitions.iter().copied());
        self.slots.retake(partitions, now);
    }

    /// Replaces a consumer that says the same again and again. What it had is given to the next one, and taken over.
    pub(super) fn attend_to_inbox(&mut self, now: Instant) {
        match self.inbox.take_outcome() {
            None => return,
            Some(Outcome::Works) => return self.inbox_failures.ends(),
            Some(Outcome::Fails(blame)) if !self.inbox_failures.failed(blame, now) => return,
            Some(Outcome::Fails(_)) => {}
        }
        match InboxReader::join(&self.config, &self.monitor) {
            Ok(inbox) => {
                tracing::warn!("the inbox consumer fails again and again: it is replaced");
                let old = std::mem::replace(&mut self.inbox, Arc::new(inbox));
                old.leave();
                // Its end asks a broker, which may not answer. Without a thread it is waited for.
                let ending = std::thread::Builder::new().name("leaving".to_owned());
                drop(ending.spawn(move || drop(old)));
                self.slots = Slots::default();
            }
            Err(error) => tracing::warn!(%error, "the inbox consumer cannot be replaced"),
        }
    }

    /// Says that only a new process is left to be tried, where that is so. Not while Kafka is away, which no process can mend.
    pub(super) fn give_up_or_go_on(&self, now: Instant) {
        let is_hopeless = self.inbox_failures.is_hopeless(now) || self.slots.are_hopeless(now);
        let reason = (is_hopeless && !self.health.forward().has(Concern::KafkaUnreachable)).then(|| {
            let tried = self.inbox_failures.tried("inbox consumer");
            tried
                .or_else(|| self.slots.numbers().find_map(|number| self.slots.tried(number)))
                .unwrap_or_default()
        });
        self.health.give_up(reason.map(|tried| format!("the forward half does not move: it {tried}")));
    }
}
