//! What `/status` shows of it: written by the thread that asks, read by the loop.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::telemetry::status::{ReconcileState, ReconcileStatus};

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

    /// Changes what is told of one source; says what it was before.
    pub(super) fn update(
        &self,
        source: &str,
        change: impl FnOnce(&mut ReconcileStatus),
    ) -> Option<ReconcileState> {
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
