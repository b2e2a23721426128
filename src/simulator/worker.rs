//! One of the workers: takes its share of the events through to their final answers.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::client::Client;
use super::delivery::{Delivery, LAST_RETRY, unix_seconds};
use super::events::Events;
use super::journal::{Cause, Exchange, Journal};
use super::plan::Plan;
use super::summary::Outcome;
use crate::domain::signature::Secret;

/// Before retry 1, 2 and 3. ClearFeed's pauses are not documented. These grow, so that a short fault is over
/// by the second try and a longer one is not hammered, and are short, so that a test of a dead relay ends
/// within two seconds an event.
const RETRY_PAUSES: [Duration; LAST_RETRY as usize] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];

/// What all workers of a run share.
pub(super) struct Run {
    pub(super) settings: Settings,
    pub(super) secret: Secret,
    pub(super) plan: Plan,
    pub(super) shapes: Events,
    pub(super) started: Instant,
    pub(super) journal: Mutex<Journal>,
    pub(super) occurred: Box<dyn Fn(u64) + Send + Sync>,
    pub(super) finished: Box<dyn Fn() + Send + Sync>,
    pub(super) stop: CancellationToken,
}

impl Run {
    /// Never held across an await. A worker that panicked ends the run; the others may count until then.
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; false where the run was stopped first.
    async fn wait_until(&self, at: Instant) -> bool {
        // The timer is asked only for what lies ahead: at full speed nothing does.
        if at > Instant::now() {
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.stop.cancelled() => {}
            }
        }
        !self.stop.is_cancelled()
    }

    fn retry_pauses(&self) -> &'static [Duration] {
        if self.settings.retries_on_failure { &RETRY_PAUSES } else { &[] }
    }
}

pub(super) struct Worker {
    run: Arc<Run>,
    index: u64,
    client: Client,
}

impl Worker {
    pub(super) fn new(run: Arc<Run>, index: u64) -> Self {
        let first_turn = usize::try_from(index).unwrap_or_default();
        let client = Client::new(run.settings.targets.clone()).beginning_at(first_turn);
        Self { run, index, client }
    }

    /// Sends its events. The error is the ids' file's.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let run = Arc::clone(&self.run);
        for number in run.plan.events_of(self.index) {
            let due = run.plan.due(number).map(|due| run.started + due);
            if !run.wait_until(due.unwrap_or(run.started)).await {
                break;
            }
            if let Some(due) = due {
                run.journal().was_behind(due.elapsed());
            }
            self.deliver(&run, number).await?;
            (run.finished)();
        }
        Ok(())
    }

    /// One event, its retries and its redelivery.
    async fn deliver(&mut self, run: &Run, number: u64) -> io::Result<()> {
        (run.occurred)(number);
        let event = run.shapes.event(number);
        let first =
            Delivery::signed(&run.secret, &run.settings.signed_url, event.body.clone(), unix_seconds());
        let mut delivery = first;
        let mut exchange = self.send(run, &delivery, Cause::Event).await;
        let mut pauses = run.retry_pauses().iter();
        while !exchange.outcome.is_accepted() {
            let Some(&pause) = pauses.next() else { return Ok(()) };
            if !run.wait_until(Instant::now() + pause).await {
                return Ok(());
            }
            delivery.retry_count += 1;
            exchange = self.send(run, &delivery, Cause::Failure).await;
        }
        run.journal().accepted(&event, &exchange)?;
        if let Some(retry_count) = run.plan.redelivery(number)
            && !run.stop.is_cancelled()
        {
            let higher = retry_count.max(delivery.retry_count + 1).min(LAST_RETRY);
            self.send(run, &delivery.redelivered(higher), Cause::Redelivery).await;
        }
        Ok(())
    }

    async fn send(&mut self, run: &Run, delivery: &Delivery, cause: Cause) -> Exchange {
        let (sent_at, clock) = (SystemTime::now(), Instant::now());
        let outcome = Outcome::of(&self.client.send(delivery).await);
        let exchange = Exchange { outcome, sent_at, took: clock.elapsed() };
        run.journal().delivered(cause, &exchange);
        exchange
    }
}
