//! What the thread that takes partitions over has answered.

use std::time::Instant;

use super::{COUNT_INTERVAL, Loop};
use crate::forward::partition::Held;
use crate::forward::reconcile;
use crate::forward::takeover::{Answer, Done, Taken};
use crate::telemetry::labels::Eviction;

impl Loop {
    pub(super) fn attend_to_answers(&mut self, now: Instant) {
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Answer::Done(done) if self.slots.awaits(&done.job) => self.finished(*done, now),
                Answer::Done(_) => {}
                Answer::Counted(backlogs) => {
                    self.slots.counted(&backlogs, now);
                    self.next_count = Some(now + COUNT_INTERVAL);
                }
            }
        }
    }

    fn finished(&mut self, Done { job, result, backlog }: Done, now: Instant) {
        match result {
            Ok(taken) => {
                if job.unsettled.is_some() {
                    self.producer.settled();
                }
                self.go_on(job.partition, taken, now);
            }
            Err(held) => {
                self.slots.hold(job.partition, held, now);
                self.slots.waits(job.partition, backlog, now);
            }
        }
    }

    fn go_on(&mut self, partition: i32, taken: Taken, now: Instant) {
        let next = taken.partition.next();
        if let Err(error) = self.inbox.go_on(partition, next) {
            self.slots.hold(partition, Held::by_kafka(error.to_string()), now);
            return;
        }
        if taken.lost > 0 {
            // Counted when the ledger has it.
            tracing::error!(partition, lost = taken.lost, next, "inbox records are gone unread");
        }
        let (ids, took) = (taken.partition.window.len(), taken.took);
        tracing::info!(
            partition,
            next,
            ids,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "partition taken over"
        );
        self.metrics.forward.window_rebuild.observe(took.as_secs_f64());
        self.metrics.forward.window_evictions.of(Eviction::Cap).inc_by(taken.evicted);
        if let Some(desk) = self.desk.as_mut().filter(|_| partition == reconcile::PARTITION) {
            desk.taken_over(taken.watermarks.as_deref());
        }
        self.slots.activate(partition, taken, now);
    }
}
