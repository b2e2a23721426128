//! The way out of the spool: what is in it goes to the inbox, oldest first, and when nothing is left deliveries go to Kafka
//! again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::chains::append_in_order;
use super::keeper::{Keeper, Spooling, Way};
use crate::spool::{Limits, Place, SpoolError};

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

/// How a pass through the spool ended.
enum Pass {
    /// All that was there is in the inbox.
    Through,
    /// Kafka does not take some or all of it.
    Blocked,
}

impl Keeper {
    /// Drains the spool whenever something is in it, and finds Kafka again whenever it was lost, until it is told to end.
    pub async fn run(&self, shutdown: CancellationToken) {
        let drain = async {
            match &self.spool {
                Some(spooling) => Drain::new(self, spooling).run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.inbox.stay_connected() => {}
            () = drain => {}
        }
    }
}

/// What empties the spool.
struct Drain<'a> {
    keeper: &'a Keeper,
    spooling: &'a Spooling,
    /// What the inbox has and the spool could not forget yet.
    moved: BTreeSet<Place>,
    /// Why what is in the spool has to wait, as it was told last.
    waits: Option<String>,
}

impl<'a> Drain<'a> {
    fn new(keeper: &'a Keeper, spooling: &'a Spooling) -> Self {
        Self { keeper, spooling, moved: BTreeSet::new(), waits: None }
    }

    /// Never ends; when the spool has failed there is nothing more to do.
    async fn run(mut self) {
        let mut failed: Option<Instant> = None;
        loop {
            let pass = self.pass().await;
            self.keeper.tell();
            match pass {
                Ok(Pass::Through) if failed.is_none_or(|failed| failed.elapsed() > STEADY) => {
                    if self.turn_back().await {
                        self.rest().await;
                        failed = Some(Instant::now());
                    }
                }
                Ok(Pass::Through) => sleep(LOOK_PAUSE).await,
                Ok(Pass::Blocked) => {
                    failed = Some(Instant::now());
                    sleep(RETRY_PAUSE).await;
                }
                // The spool has logged it. What is in it waits for the next start.
                Err(_) => {
                    self.keeper.metrics.spool.in_use.set(0);
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Takes what came last while no delivery can come, and lets deliveries go to Kafka again. Says whether it did.
    async fn turn_back(&mut self) -> bool {
        let mut way = self.spooling.way.write().await;
        let last = timeout(CHANGE_PATIENCE, self.pass()).await;
        if !matches!(last, Ok(Ok(Pass::Through))) {
            return false;
        }
        *way = Way::Kafka;
        self.keeper.metrics.spool.in_use.set(0);
        tracing::info!("the spool is empty: deliveries go to Kafka");
        true
    }

    /// Moves what is in the spool now to the inbox, oldest first. What a partition does not take stays, and with it
    /// all that comes after it in that partition.
    async fn pass(&mut self) -> Result<Pass, SpoolError> {
        let Self { keeper, spooling, .. } = *self;
        let (mut after, mut blocked) = (Place::default(), BTreeSet::new());
        self.forget().await?;
        // With the last partition gone nothing is left to be tried; the rest of the spool need not be read for that.
        while blocked.len() < keeper.inbox.partitions() {
            let mut records = match spooling.spool.read(after, TOGETHER).await {
                Err(SpoolError::Full(_)) => return Ok(Pass::Blocked),
                read => read?,
            };
            let Some(last) = records.last() else {
                if blocked.is_empty() {
                    self.waits = None;
                    return Ok(Pass::Through);
                }
                return Ok(Pass::Blocked);
            };
            after = last.place;
            records.retain(|spooled| {
                let partition = keeper.inbox.partition(&spooled.record.key);
                !self.moved.contains(&spooled.place) && !blocked.contains(&partition)
            });
            let appended =
                append_in_order(&keeper.inbox, records, spooling.limit, keeper.answer_timeout).await;
            keeper.metrics.spool.drained.inc_by(appended.places.len() as u64);
            if let Some((partition, error)) = appended.stuck.first_key_value() {
                self.tell(*partition, error.to_string());
            }
            blocked.extend(appended.stuck.into_keys());
            self.moved.extend(appended.places);
            self.forget().await?;
        }
        Ok(Pass::Blocked)
    }

    /// Says why what is in the spool has to wait, where that is news.
    fn tell(&mut self, partition: i32, error: String) {
        if self.waits.as_ref() != Some(&error) {
            tracing::warn!(partition, error, "what is in the spool has to wait: the inbox does not take it");
            self.waits = Some(error);
        }
    }

    /// Removes from the spool what the inbox has. On a full disk nothing can be removed; then it stays in `moved`.
    async fn forget(&mut self) -> Result<(), SpoolError> {
        if self.moved.is_empty() {
            return Ok(());
        }
        match self.spooling.spool.forget(self.moved.iter().copied().collect()).await {
            Err(SpoolError::Full(_)) => {}
            forgotten => {
                forgotten?;
                self.moved.clear();
            }
        }
        Ok(())
    }

    /// Waits until deliveries go to the spool again, and removes meanwhile what could not be removed before.
    async fn rest(&mut self) {
        while !self.moved.is_empty() {
            tokio::select! {
                () = self.spooling.turned.notified() => return,
                () = sleep(RETRY_PAUSE) => {}
            }
            // The spool has logged why it could not; the next pass ends by it.
            if self.forget().await.is_err() {
                break;
            }
        }
        self.spooling.turned.notified().await;
    }
}
