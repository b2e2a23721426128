//! The thread that asks: a round for each source whenever it is due, while partition 0 is ours.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;

use super::arrivals::Arrivals;
use super::candidates::{Candidates, Missed, cutoff};
use super::desk::{Order, SnapshotRecord, Update};
use super::report::Report;
use crate::clearfeed::{ApiError, Client, FilterBy, MAX_LIMIT, Page, Query};
use crate::config::Api;
use crate::domain::watermark::{Watermark, Watermarks};
use crate::telemetry::labels::SnapshotOutcome;
use crate::telemetry::metrics::ReconcileMetrics;

/// How long a page is asked for again within a round: the next round is not far.
const PATIENCE: Duration = Duration::from_secs(60);
/// A failed round is made again after this, where the next one is later.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// ClearFeed's clock may be ahead of ours.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);
/// A transaction has so many snapshots at least, and so many bytes at most beyond a page's, where there are more: each has
/// the watermarks with it.
const BATCH: usize = 300;
const BATCH_BYTES: usize = 4 << 20;

/// One source, and how far it is.
pub(super) struct Source {
    name: String,
    topic: String,
    token_file: String,
    every: Duration,
    grace: Duration,
    client: Client,
    metrics: Arc<ReconcileMetrics>,
    next: Instant,
    candidates: Candidates,
    /// What was found, and the watermark that says so: it counts when the ledger has that.
    uncounted: Option<(Missed, Watermark)>,
}

impl Source {
    pub(super) fn new(name: &str, api: &Api, every: Duration, metrics: ReconcileMetrics) -> Self {
        let metrics = Arc::new(metrics);
        let counted = Arc::clone(&metrics);
        Self {
            name: name.to_owned(),
            topic: api.snapshot_topic.as_str().to_owned(),
            token_file: api.token_file.display().to_string(),
            every,
            grace: api.grace,
            client: Client::new(api).counted(move |outcome| counted.requests.of(outcome).inc()),
            metrics,
            next: Instant::now(),
            candidates: Candidates::default(),
            uncounted: None,
        }
    }
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// Partition 0 is ours no more, or what was handed over was not written.
    #[error("not ours any more")]
    Superseded,
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("the inbox cannot be read: {0}")]
    Inbox(#[from] KafkaError),
}

/// The thread.
pub(super) struct Reconciler {
    pub(super) sources: Vec<Source>,
    pub(super) arrivals: Arrivals,
    pub(super) orders: Receiver<Order>,
    pub(super) updates: SyncSender<Update>,
    pub(super) report: Arc<Report>,
    pub(super) runtime: Handle,
    /// How long the inbox keeps what came.
    pub(super) kept: Duration,
    /// Bytes of the longest JSON that a record has room for.
    pub(super) largest: usize,
}

/// Under which order it works.
struct Duty {
    epoch: u64,
    marks: Watermarks,
}

impl Reconciler {
    /// Works until the loop hangs up.
    pub(super) fn run(mut self) {
        let mut duty = None;
        loop {
            let next = self.sources.iter().map(|source| source.next).min().filter(|_| duty.is_some());
            let order = match next {
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(next) => self.orders.recv_timeout(next.saturating_duration_since(Instant::now())),
            };
            match order {
                Ok(order) => duty = self.begun(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(order) = self.orders.try_recv() {
                duty = self.begun(order);
            }
            if let Some(mut current) = duty.take() {
                duty = self.rounds(&mut current).then_some(current);
            }
        }
    }

    fn begun(&mut self, order: Order) -> Option<Duty> {
        let Order::Begin { epoch, marks } = order else { return None };
        for source in &mut self.sources {
            source.next = Instant::now();
            source.candidates = Candidates::default();
            // It was written although nobody could say so.
            if let Some((missed, mark)) = source.uncounted.take()
                && marks.get(&source.name).is_some_and(|written| written.judged() == mark.judged())
            {
                self.report.found(&source.name, &source.metrics, &missed, &mark);
            }
        }
        Some(Duty { epoch, marks })
    }

    /// Makes the rounds that are due; false where the order does not hold any more.
    fn rounds(&mut self, duty: &mut Duty) -> bool {
        for index in 0..self.sources.len() {
            let started = Instant::now();
            if self.sources[index].next > started {
                continue;
            }
            let ended = self.round(index, duty);
            let source = &mut self.sources[index];
            source.next = started + source.every;
            let detail = match ended {
                Ok(()) => None,
                Err(Ended::Superseded) => return false,
                Err(Ended::Api(error @ (ApiError::TokenRefused | ApiError::Token(_)))) => {
                    Some(format!("{error}; put the new one into {}", source.token_file))
                }
                Err(error) => Some(error.to_string()),
            };
            if detail.is_some() {
                source.next = started + source.every.min(TRY_AGAIN);
            }
            self.report.ended(&source.name, detail);
        }
        true
    }

    /// One source: what changed, then which events never came.
    fn round(&mut self, index: usize, duty: &mut Duty) -> Result<(), Ended> {
        let (now, source) = (Timestamp::now(), &self.sources[index]);
        let (name, grace) = (source.name.clone(), source.grace);
        let until = cutoff(now, grace);
        let mut mark = match duty.marks.get(&name) {
            Some(mark) => mark.clone(),
            None => self.beginning(&name, now)?,
        };
        if mark.judged_ahead_of(now, until) {
            tracing::warn!(source = name, "a clock was ahead: what it took for judged is judged again");
        }
        let mut query = Query {
            filter_by: FilterBy::UpdatedAt,
            after: mark.ask_from(grace),
            before: now.saturating_add(AHEAD).unwrap_or(now),
            limit: MAX_LIMIT,
            cursor: None,
        };
        let mut snapshots = Vec::new();
        loop {
            let asked = self.sources[index].client.page(&query, PATIENCE);
            let mut page = self.runtime.block_on(asked)?;
            query.cursor = page.next_cursor.take();
            snapshots.extend(self.changed(index, page, &mut mark));
            let bytes: usize = snapshots.iter().map(|snapshot| snapshot.json.len()).sum();
            if query.cursor.is_none() {
                break;
            }
            if snapshots.len() >= BATCH || bytes >= BATCH_BYTES {
                self.hand_over(index, duty, std::mem::take(&mut snapshots), &mark)?;
            }
        }
        if !snapshots.is_empty() {
            self.hand_over(index, duty, snapshots, &mark)?;
        }
        let missed = self.judge(index, now, until)?;
        mark.judged_until(until, grace);
        self.sources[index].uncounted = Some((missed, mark.clone()));
        // Also where nothing changed: the ledger says the watermark again before its retention takes it.
        self.hand_over(index, duty, Vec::new(), &mark)?;
        let source = &mut self.sources[index];
        if let Some((missed, mark)) = source.uncounted.take() {
            self.report.found(&source.name, &source.metrics, &missed, &mark);
        }
        Ok(())
    }

    /// Nothing is known of this source.
    fn beginning(&self, source: &str, now: Timestamp) -> Result<Watermark, Ended> {
        let from = self.arrivals.oldest()?.unwrap_or(now);
        tracing::info!(
            source,
            %from,
            "no watermark in the ledger: requests are asked for from the inbox's oldest record on"
        );
        Ok(Watermark::beginning(from))
    }

    /// Those requests of a page that were not published as they are now.
    fn changed(&mut self, index: usize, page: Page, mark: &mut Watermark) -> Vec<SnapshotRecord> {
        let source = &mut self.sources[index];
        let outcomes = &source.metrics.snapshots;
        outcomes.of(SnapshotOutcome::Unreadable).inc_by(page.unreadable.len() as u64);
        let mut changed = Vec::new();
        for snapshot in page.requests {
            source.candidates.note(&snapshot, mark);
            if !mark.is_news(&snapshot) {
                outcomes.of(SnapshotOutcome::Unchanged).inc();
                continue;
            }
            mark.published(&snapshot);
            if snapshot.json().len() > self.largest {
                outcomes.of(SnapshotOutcome::TooLarge).inc();
                let request = snapshot.request;
                tracing::warn!(source = source.name, request, "request is too large for the snapshot topic");
                continue;
            }
            changed.push(SnapshotRecord {
                topic: source.topic.clone(),
                record: snapshot.record(&source.name),
                json: snapshot.json().to_owned(),
            });
        }
        mark.trim();
        changed
    }

    /// Waits until it is written.
    fn hand_over(
        &self,
        index: usize,
        duty: &mut Duty,
        snapshots: Vec<SnapshotRecord>,
        mark: &Watermark,
    ) -> Result<(), Ended> {
        let source = &self.sources[index];
        let (marks, published) = (duty.marks.with(&source.name, mark.clone()), snapshots.len() as u64);
        let (done, written) = mpsc::sync_channel(1);
        let update = Update { epoch: duty.epoch, snapshots, marks: marks.clone(), done: Some(done) };
        self.updates.send(update).map_err(|_| Ended::Superseded)?;
        written.recv().map_err(|_| Ended::Superseded)?;
        source.metrics.snapshots.of(SnapshotOutcome::Published).inc_by(published);
        duty.marks = marks;
        Ok(())
    }

    /// Which events were due by `until` and never came.
    fn judge(&mut self, index: usize, now: Timestamp, until: Timestamp) -> Result<Missed, Ended> {
        let source = &mut self.sources[index];
        let mut due = source.candidates.due(until);
        let unknown = due.forget_before(cutoff(now, self.kept));
        let Some(since) = due.since() else { return Ok(Missed { unknown, ..Missed::default() }) };
        if let Err(error) = self.arrivals.catch_up(since) {
            source.candidates.put_back(due);
            return Err(error.into());
        }
        let missed = due.judge(|request, since| self.arrivals.came_since(&source.name, request, since));
        Ok(Missed { unknown, ..missed })
    }
}
