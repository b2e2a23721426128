//! The loop's part in asking ClearFeed's REST API: it writes what the thread that asks has found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::ConsumerGroupMetadata;

use super::Loop;
use crate::forward::failure::Failure;
use crate::forward::reconcile;
use crate::telemetry::labels::TransactionEnd;

impl Loop {
    pub(super) fn attend_to_desk(&mut self, now: Instant) {
        // What a person or Kafka has to mend first is not written around.
        let is_ours = self.slots.is_sound(reconcile::PARTITION);
        if let Some(desk) = &mut self.desk {
            desk.attend(is_ours, now);
        }
    }

    /// Writes what ClearFeed's REST API told. No record of the inbox is at hand here, nor a transaction open.
    pub(super) fn reconcile(&mut self, generation: &Arc<ConsumerGroupMetadata>, now: Instant) {
        let (Some(desk), Some(transactions)) = (&mut self.desk, self.producer.transactions()) else { return };
        // Where the assignment has changed the next round says whose partition 0 is.
        let Some(active) = self.slots.get(reconcile::PARTITION) else { return };
        if self.inbox.group().has_events() {
            return;
        }
        let Some(update) = desk.due(now) else { return };
        let started = Instant::now();
        let written = update.write(transactions, active, &self.config, generation);
        let ended = Instant::now();
        let end = match &written {
            Ok(_) => TransactionEnd::Committed,
            Err(Failure::Replace(_)) => TransactionEnd::Unknown,
            Err(_) => TransactionEnd::Aborted,
        };
        self.metrics.forward.transaction_duration.of(end).observe((ended - started).as_secs_f64());
        match written {
            Ok(fences) => {
                desk.committed(update, ended);
                // What was lost was counted with its own ledger record, or is with this one.
                for lost in self.slots.committed(&fences, |_| false, ended) {
                    self.metrics.forward.records_lost(lost.partition, lost.from, lost.to);
                }
            }
            Err(failure) => {
                tracing::warn!(%failure, "snapshots and watermarks were not written");
                desk.failed(ended);
                // Nothing is held for it: events go on.
                self.settle(&failure, BTreeSet::from([reconcile::PARTITION]), &BTreeSet::new(), ended);
            }
        }
    }
}
