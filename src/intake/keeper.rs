//! Where a proven delivery is kept: in the inbox, or, where there is a spool and Kafka does not acknowledge, on this node's
//! disk until it does.
//!
//! Deliveries of one request keep their order. From the first one that Kafka did not take on, all go to the disk; they go to
//! Kafka again when nothing is left on the disk, and no delivery is on its way there. That moment is made by a lock: who is
//! on the way to the disk holds it shared, who changes the way holds it alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, RwLock};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::append::{Inbox, InboxError};
use super::chains::append_in_order;
use crate::config::Config;
use crate::domain::inbox_record::InboxRecord;
use crate::spool::{Condition, Limits, Place, Spool, SpoolError};
use crate::telemetry::health::Health;
use crate::telemetry::labels::Concern;
use crate::telemetry::metrics::Metrics;

/// Kafka has to have acknowledged for so long before deliveries go there again: a broker that comes and goes would
/// otherwise cost some of them their patience each time.
const STEADY: Duration = Duration::from_secs(10);
/// Between two looks into the spool while it is drained as fast as it fills.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Before Kafka is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long deliveries may be held up by the change back to Kafka.
const CHANGE_PATIENCE: Duration = Duration::from_secs(2);
/// Records that are under way from the spool to Kafka together.
const TOGETHER: Limits = Limits { records: 256, bytes: 8 << 20 };

/// Keeps deliveries.
pub struct Keeper {
    inbox: Arc<Inbox>,
    spool: Option<Spooling>,
    answer_timeout: Duration,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

struct Spooling {
    spool: Spool,
    way: RwLock<Way>,
    /// The way leads to the spool now.
    turned: Notify,
    /// The oldest signed timestamp that is an event still.
    limit: Duration,
}

impl Spooling {
    fn has_failed(&self) -> bool {
        self.spool.condition() == Condition::Failed
    }
}

/// Where deliveries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
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

/// How a pass through the spool ended.
enum Pass {
    /// All that was there is in the inbox.
    Through,
    /// Kafka does not take some or all of it.
    Blocked,
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
        let spooling = |spool| Spooling { spool, way: RwLock::new(Way::Spool), turned: Notify::new(), limit };
        let spool = spool.map(spooling);
        metrics.spool.in_use.set(i64::from(spool.is_some()));
        let keeper = Self { inbox, spool, answer_timeout: config.intake.answer_timeout, metrics, health };
        keeper.tell();
        keeper
    }

    /// Keeps a delivery in the inbox or the spool. Once called it is not cancelled by dropping the future.
    pub(super) async fn keep(&self, record: InboxRecord) -> Result<Kept, KeepError> {
        let Some(spooling) = self.spool.as_ref().filter(|spooling| !spooling.has_failed()) else {
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
    fn tell(&self) {
        let condition = self.spool.as_ref().map(|spooling| spooling.spool.condition());
        self.health.intake().set_backed(condition == Some(Condition::Keeping));
    }

    /// Drains the spool whenever something is in it, and finds Kafka again whenever it was lost, until it is told to end.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.inbox.stay_connected() => {}
            () = self.drain() => {}
        }
    }

    /// Never ends.
    async fn drain(&self) {
        let Some(spooling) = &self.spool else { return std::future::pending().await };
        let (mut failed, mut moved): (Option<Instant>, _) = (None, BTreeSet::new());
        loop {
            let pass = self.pass(spooling, &mut moved).await;
            self.tell();
            match pass {
                Ok(Pass::Through) if failed.is_none_or(|failed| failed.elapsed() > STEADY) => {
                    if self.turn_back(spooling, &mut moved).await {
                        rest(spooling, &mut moved).await;
                        failed = Some(Instant::now());
                    }
                }
                Ok(Pass::Through) => sleep(LOOK_PAUSE).await,
                Ok(Pass::Blocked) => {
                    failed = Some(Instant::now());
                    sleep(RETRY_PAUSE).await;
                }
                // The spool has logged it. What is in it waits for the next start.
                Err(_) => return self.metrics.spool.in_use.set(0),
            }
        }
    }

    /// Takes what came last while no delivery can come, and lets deliveries go to Kafka again. Says whether it did.
    async fn turn_back(&self, spooling: &Spooling, moved: &mut BTreeSet<Place>) -> bool {
        let mut way = spooling.way.write().await;
        let last = timeout(CHANGE_PATIENCE, self.pass(spooling, moved)).await;
        if !matches!(last, Ok(Ok(Pass::Through))) {
            return false;
        }
        *way = Way::Kafka;
        self.metrics.spool.in_use.set(0);
        tracing::info!("the spool is empty: deliveries go to Kafka");
        true
    }

    /// Moves what is in the spool now to the inbox, oldest first. What a partition does not take stays, and with it
    /// all that comes after it in that partition. `moved` is what the inbox has and the spool could not forget yet.
    async fn pass(&self, spooling: &Spooling, moved: &mut BTreeSet<Place>) -> Result<Pass, SpoolError> {
        let (mut after, mut blocked) = (Place::default(), BTreeSet::new());
        forget(spooling, moved).await?;
        // With the last partition gone nothing is left to be tried; the rest of the spool need not be read for that.
        while blocked.len() < self.inbox.partitions() {
            let mut records = match spooling.spool.read(after, TOGETHER).await {
                Err(SpoolError::Full(_)) => return Ok(Pass::Blocked),
                read => read?,
            };
            let Some(last) = records.last() else {
                return Ok(if blocked.is_empty() { Pass::Through } else { Pass::Blocked });
            };
            after = last.place;
            records.retain(|spooled| {
                let partition = self.inbox.partition(&spooled.record.key);
                !moved.contains(&spooled.place) && !blocked.contains(&partition)
            });
            let appended = append_in_order(&self.inbox, records, spooling.limit, self.answer_timeout).await;
            self.metrics.spool.drained.inc_by(appended.places.len() as u64);
            blocked.extend(appended.stuck.into_keys());
            moved.extend(appended.places);
            forget(spooling, moved).await?;
        }
        Ok(Pass::Blocked)
    }
}

/// Removes from the spool what the inbox has. On a full disk nothing can be removed; then it stays in `moved`.
async fn forget(spooling: &Spooling, moved: &mut BTreeSet<Place>) -> Result<(), SpoolError> {
    if moved.is_empty() {
        return Ok(());
    }
    match spooling.spool.forget(moved.iter().copied().collect()).await {
        Err(SpoolError::Full(_)) => {}
        forgotten => {
            forgotten?;
            moved.clear();
        }
    }
    Ok(())
}

/// Waits until deliveries go to the spool again, and removes meanwhile what could not be removed before.
async fn rest(spooling: &Spooling, moved: &mut BTreeSet<Place>) {
    while !moved.is_empty() {
        tokio::select! {
            () = spooling.turned.notified() => return,
            () = sleep(RETRY_PAUSE) => {}
        }
        // The spool has logged why it could not; the next pass ends by it.
        if forget(spooling, moved).await.is_err() {
            break;
        }
    }
    spooling.turned.notified().await;
}
