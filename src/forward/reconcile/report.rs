//! What is told of it, in metrics, the log and `/status`: by the thread that asks; `/status` is read by the loop.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::candidates::Missed;
use crate::domain::watermark::Watermark;
use crate::telemetry::labels::MissedKind;
use crate::telemetry::metrics::ReconcileMetrics;
use crate::telemetry::status::{MissedRequest, ReconcileState, ReconcileStatus};

/// How many of the requests without an event `/status` lists.
const LISTED: usize = 20;

/// Of all sources.
pub(super) struct Report(Mutex<Vec<ReconcileStatus>>);

impl Report {
    pub(super) fn new(sources: &[&str]) -> Self {
        let status = |source: &&str| ReconcileStatus {
            source: (*source).to_owned(),
            state: ReconcileState::Elsewhere,
            last_success: None,
            newest_change: None,
            missed_created: 0,
            missed_updated: 0,
            missed: Vec::new(),
        };
        Self(Mutex::new(sources.iter().map(status).collect()))
    }

    pub(super) fn status(&self) -> Vec<ReconcileStatus> {
        self.lock().clone()
    }

    /// The ledger has it: what nothing came of is counted once, whoever goes on. Only a process that ends between the two
    /// takes it along.
    pub(super) fn found(&self, source: &str, metrics: &ReconcileMetrics, missed: &Missed, mark: &Watermark) {
        let counters = &metrics.missed;
        counters.of(MissedKind::Created).inc_by(missed.created.len() as u64);
        counters.of(MissedKind::Updated).inc_by(missed.updated);
        counters.of(MissedKind::Unknown).inc_by(missed.unknown);
        let now = Timestamp::now();
        metrics.last_success.set(now.as_second());
        if let Some((request, created)) = missed.created.first() {
            tracing::error!(
                source,
                missed = missed.created.len(),
                request,
                %created,
                "requests were created, and no event of them came"
            );
        }
        if missed.unknown > 0 {
            tracing::warn!(
                source,
                requests = missed.unknown,
                "whether events of requests came cannot be told: they are older than what the inbox keeps"
            );
        }
        self.update(source, |status| {
            status.last_success = Some(now);
            status.newest_change = Some(mark.updated());
            status.missed_created += missed.created.len() as u64;
            status.missed_updated += missed.updated;
            let newest = missed.created.iter().rev();
            let listed =
                newest.map(|(request, created)| MissedRequest { request: *request, created: *created });
            status.missed.splice(..0, listed);
            status.missed.truncate(LISTED);
        });
    }

    /// Tells how a round ended, where that is news.
    pub(super) fn ended(&self, source: &str, failed: Option<String>) {
        let state = match &failed {
            None => ReconcileState::Active,
            Some(detail) => ReconcileState::Failing { detail: detail.clone() },
        };
        let before = self.update(source, |status| status.state = state.clone());
        if before.as_ref() == Some(&state) {
            return;
        }
        match (failed, before) {
            (Some(detail), _) => tracing::warn!(source, detail, "ClearFeed's API is asked in vain"),
            (None, Some(ReconcileState::Failing { .. })) => {
                tracing::info!(source, "ClearFeed's API answers again");
            }
            (None, _) => {}
        }
    }

    /// Changes what is told of one source; says what it was before.
    fn update(&self, source: &str, change: impl FnOnce(&mut ReconcileStatus)) -> Option<ReconcileState> {
        let mut all = self.lock();
        let status = all.iter_mut().find(|status| status.source == source)?;
        let before = status.state.clone();
        change(status);
        Some(before)
    }

    /// Another replica asks, or none.
    pub(super) fn elsewhere(&self) {
        for status in self.lock().iter_mut() {
            status.state = ReconcileState::Elsewhere;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ReconcileStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
