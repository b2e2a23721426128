//! Where a proven delivery is kept: in the inbox, or, where there is a spool and Kafka does not acknowledge, on this node's
//! disk until it does.
//!
//! Deliveries of one request keep their order. From the first one that Kafka did not take on, all go to the disk; they go to
//! Kafka again when nothing is left on the disk, and no delivery is on its way there. That moment is made by a lock: who is
//! on the way to the disk holds it shared, who changes the way holds it alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, RwLock};
use tokio::time::{Instant, timeout_at};

use super::append::{Inbox, InboxError};
use crate::config::Config;
use crate::domain::inbox_record::InboxRecord;
use crate::spool::{Condition, Spool, SpoolError};
use crate::telemetry::health::Health;
use crate::telemetry::labels::Concern;
use crate::telemetry::metrics::Metrics;

/// Keeps deliveries.
pub struct Keeper {
    pub(super) inbox: Arc<Inbox>,
    pub(super) spool: Option<Spooling>,
    pub(super) answer_timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
    health: Arc<Health>,
}

pub(super) struct Spooling {
    pub(super) spool: Spool,
    pub(super) way: RwLock<Way>,
    /// The way leads to the spool now.
    pub(super) turned: Notify,
    /// The oldest signed timestamp that is an event still.
    pub(super) limit: Duration,
    /// It was told that the disk does not answer.
    is_stalled: AtomicBool,
}

impl Spooling {
    /// Whether it is of any use: of a disk that failed or does not answer nobody can wait for what Kafka may take.
    fn works(&self) -> bool {
        !matches!(self.spool.condition(), Condition::Failed | Condition::Stalled)
    }
}

/// Where deliveries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Kafka,
    Spool,
}

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Inbox,
    Spool,
}

/// Why a delivery is nowhere; it may be there all the same, and then the redelivery is a repeat.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("not ready yet")]
    Starting,
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the spool's disk did not answer in time")]
    SpoolTimedOut,
}

impl Keeper {
    /// With a spool deliveries go there until Kafka has taken what it holds.
    pub fn new(
        config: &Config,
        inbox: Arc<Inbox>,
        spool: Option<Spool>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Self {
        let limit = config.spooled_limit();
        let spooling = |spool| Spooling {
            spool,
            way: RwLock::new(Way::Spool),
            turned: Notify::new(),
            limit,
            is_stalled: AtomicBool::new(false),
        };
        let spool = spool.map(spooling);
        metrics.spool.in_use.set(i64::from(spool.is_some()));
        let keeper = Self { inbox, spool, answer_timeout: config.intake.answer_timeout, metrics, health };
        keeper.tell();
        keeper
    }

    /// Keeps a delivery in the inbox or the spool. Once called it is not cancelled by dropping the future.
    pub(super) async fn keep(&self, record: InboxRecord) -> Result<Kept, KeepError> {
        let Some(spooling) = self.spool.as_ref().filter(|spooling| spooling.works()) else {
            self.tell();
            // Before the topics have been looked at nobody knows whether the inbox would keep it.
            if self.health.intake().has(Concern::Starting) {
                return Err(KeepError::Starting);
            }
            return Ok(self.inbox.append(record, self.answer_timeout).await.map(|()| Kept::Inbox)?);
        };
        let deadline = Instant::now() + self.answer_timeout;
        let way = timeout_at(deadline, spooling.way.read()).await;
        let way = way.map(|way| *way).map_err(|_| KeepError::SpoolTimedOut)?;
        if way == Way::Kafka {
            // Half of the time: the disk may need the other.
            match self.inbox.append(record.clone(), self.answer_timeout / 2).await {
                Ok(()) => return Ok(Kept::Inbox),
                Err(error) => self.turn(spooling, &error).await,
            }
        }
        let spooled = async {
            let way = spooling.way.read().await;
            if *way == Way::Kafka {
                // Kafka came back meanwhile.
                drop(way);
                let left = deadline.saturating_duration_since(Instant::now());
                return Ok(self.inbox.append(record, left).await.map(|()| Kept::Inbox)?);
            }
            Ok(spooling.spool.append(record).await.map(|()| Kept::Spool)?)
        };
        let kept = timeout_at(deadline, spooled).await.unwrap_or(Err(KeepError::SpoolTimedOut));
        self.tell();
        kept
    }

    /// From now on deliveries go to the spool.
    async fn turn(&self, spooling: &Spooling, error: &InboxError) {
        let mut way = spooling.way.write().await;
        if *way == Way::Kafka {
            *way = Way::Spool;
            tracing::warn!(%error, "Kafka does not acknowledge: deliveries go to the spool");
            self.metrics.spool.in_use.set(1);
            self.metrics.spool.switches.inc();
            spooling.turned.notify_one();
        }
    }

    /// Says whether a delivery would be kept without Kafka.
    pub(super) fn tell(&self) {
        let Some(spooling) = &self.spool else { return self.health.intake().set_backed(false) };
        let condition = spooling.spool.condition();
        self.health.intake().set_backed(condition == Condition::Keeping);
        let is_stalled = condition == Condition::Stalled;
        if spooling.is_stalled.swap(is_stalled, Ordering::Relaxed) == is_stalled {
            return;
        }
        if is_stalled {
            // Its thread says how it is when the disk has answered.
            self.metrics.spool.failed.set(1);
            tracing::error!("the spool's disk does not answer: deliveries go to Kafka alone");
        } else {
            tracing::warn!("the spool's disk answers again");
        }
    }
}
