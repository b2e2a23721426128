//! The partitions that the group has given to this process, and how far each of them is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::active::{Active, Lost};
use super::backlog::Backlog;
use super::fence::Fence;
use super::partition::Held;
use super::progress::Progress;
use super::takeover::{Job, Order, Taken};
use crate::kafka::streak::{Blame, LAST_RESORT, Streak};
use crate::telemetry::labels::Label;
use crate::telemetry::status::{PartitionState, PartitionStatus};

/// A held partition is tried again after this, doubling.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The longest pause between two tries: so late a repair is noticed.
const LAST_RETRY: Duration = Duration::from_secs(15);

/// All owned partitions by number.
#[derive(Default)]
pub(super) struct Slots {
    by_number: BTreeMap<i32, Slot>,
    /// When a transaction was last committed.
    last_commit: Option<Instant>,
    /// What waits in partitions that nobody has, as far as this process, which has none, was told.
    unowned: BTreeMap<i32, i64>,
}

struct Slot {
    state: State,
    /// Why it is not forwarded, until it is again.
    held: Option<Held>,
    /// Tries since it was last forwarded.
    tries: u32,
    since: Timestamp,
    /// The inbox offset that is forwarded next, as far as we know.
    next: Option<i64>,
    /// When nothing waited in the inbox.
    caught_up: Instant,
    /// Of one that is not forwarded, as it was last counted: nothing is consumed from it.
    backlog: Option<Backlog>,
    /// Transactions that failed for it.
    failures: Streak,
}

enum State {
    /// To be taken over, not before this.
    Waiting(Instant),
    /// The job has a weak twin of this: so its answer is known from those to older jobs, and nobody works on a job whose
    /// partition went away.
    TakingOver(Arc<Progress>),
    Active(Box<Active>),
}

impl Slots {
    /// The group gave us a partition.
    pub(super) fn assigned(&mut self, partition: i32, now: Instant) {
        let slot = Slot {
            state: State::Waiting(now),
            held: None,
            tries: 0,
            since: Timestamp::now(),
            next: None,
            caught_up: now,
            backlog: None,
            failures: Streak::default(),
        };
        self.unowned.clear();
        self.by_number.insert(partition, slot);
    }

    /// The group took a partition: its memory goes.
    pub(super) fn revoked(&mut self, partition: i32) {
        self.by_number.remove(&partition);
    }

    /// Sends off the takeovers that are due. Fails where nobody takes them any more.
    pub(super) fn take_over(
        &mut self,
        now: Instant,
        unsettled: Option<u32>,
        orders: &Sender<Order>,
    ) -> Result<(), SendError<Order>> {
        for (&partition, slot) in &mut self.by_number {
            if matches!(slot.state, State::Waiting(not_before) if not_before <= now) {
                let progress = Arc::default();
                let is_fresh = slot.next.is_none() && slot.backlog.is_none();
                let job = Job { partition, progress: Arc::downgrade(&progress), unsettled, is_fresh };
                orders.send(Order::TakeOver(job))?;
                slot.state = State::TakingOver(progress);
            }
        }
        Ok(())
    }

    /// Whether the answer to this job is still wanted.
    pub(super) fn awaits(&self, job: &Job) -> bool {
        let state = self.by_number.get(&job.partition).map(|slot| &slot.state);
        matches!(state, Some(State::TakingOver(progress)) if job.progress.as_ptr() == Arc::as_ptr(progress))
    }

    /// A partition was taken over, and the consumer goes on at its next offset.
    pub(super) fn activate(&mut self, number: i32, taken: Taken, now: Instant) {
        let Some(slot) = self.by_number.get_mut(&number) else { return };
        let next = taken.partition.next();
        slot.next = Some(next);
        slot.backlog = None;
        slot.begins();
        slot.state = State::Active(Box::new(Active::new(number, taken, now)));
    }

    /// A partition has to wait: for a person, or for Kafka.
    pub(super) fn hold(&mut self, number: i32, held: Held, now: Instant) {
        let Some(slot) = self.by_number.get_mut(&number) else { return };
        let held = match slot.failures.tried("producer") {
            Some(tried) => Held { detail: format!("{}; {tried}", held.detail), ..held },
            None => held,
        };
        let longest = LAST_RETRY.min(FIRST_RETRY * 2u32.saturating_pow(slot.tries.min(16)));
        // Two that hindered each other would meet again.
        let pause = longest.mul_f64(f64::midpoint(fastrand::f64(), 1.0));
        slot.tries += 1;
        // The detail may name an offset that moves: it is held for as long as the reason stays.
        if slot.held.as_ref().map(|held| held.reason) != Some(held.reason) {
            slot.since = Timestamp::now();
            let Held { reason, detail } = &held;
            tracing::warn!(partition = number, reason = reason.as_str(), detail, "partition is held");
        }
        slot.held = Some(held);
        slot.state = State::Waiting(now + pause);
    }

    /// A transaction failed for these; says whether the producer is to be replaced.
    pub(super) fn failed(&mut self, numbers: &BTreeSet<i32>, blame: Blame, now: Instant) -> bool {
        let slots = self.by_number.iter_mut().filter(|(number, _)| numbers.contains(number));
        slots.fold(false, |is_due, (_, slot)| slot.failures.failed(blame, now) || is_due)
    }

    /// Since when transactions fail for a partition and what was tried, once something was.
    pub(super) fn tried(&self, number: i32) -> Option<String> {
        self.by_number.get(&number)?.failures.tried("producer")
    }

    /// Whether all was tried for a partition but a new process, and no other one is forwarded either.
    pub(super) fn are_hopeless(&self, now: Instant) -> bool {
        let is_moving = self.last_commit.is_some_and(|last| now.duration_since(last) < LAST_RESORT);
        !is_moving && self.by_number.values().any(|slot| slot.failures.is_hopeless(now))
    }

    /// Partitions of which nobody tells what waits: those that are not forwarded. All of nobody's where there are none.
    pub(super) fn uncounted(&self) -> Option<Vec<i32>> {
        let waiting = self.by_number.iter().filter(|(_, slot)| !matches!(slot.state, State::Active(_)));
        let waiting: Vec<_> = waiting.map(|(&number, _)| number).collect();
        (self.by_number.is_empty() || !waiting.is_empty()).then_some(waiting)
    }

    /// What waits was counted.
    pub(super) fn counted(&mut self, backlogs: &[(i32, Backlog)], now: Instant) {
        if self.by_number.is_empty() {
            self.unowned = backlogs.iter().map(|(number, backlog)| (*number, backlog.records)).collect();
        }
        for (number, backlog) in backlogs {
            let slot = self.by_number.get_mut(number);
            // What a takeover found out of one that is held is more exact.
            if let Some(slot) =
                slot.filter(|slot| slot.held.is_none() && !matches!(slot.state, State::Active(_)))
            {
                slot.backlog = Some(*backlog);
                if backlog.records == 0 {
                    slot.caught_up = now;
                }
            }
        }
    }

    /// What waits in partitions that nobody has.
    pub(super) fn unowned(&self) -> &BTreeMap<i32, i64> {
        &self.unowned
    }

    /// What is known of a partition that was just held.
    pub(super) fn waits(&mut self, number: i32, backlog: Option<Backlog>, now: Instant) {
        let Some((slot, backlog)) = self.by_number.get_mut(&number).zip(backlog) else { return };
        slot.backlog = Some(backlog);
        if let Some(oldest_ms) = backlog.oldest_ms {
            slot.waited(oldest_ms, now);
        }
    }

    /// What was decided and not committed is forgotten: these are taken over again, also those that just are.
    pub(super) fn retake(&mut self, numbers: &BTreeSet<i32>, now: Instant) {
        for (number, slot) in &mut self.by_number {
            if !matches!(slot.state, State::Waiting(_)) && numbers.contains(number) {
                slot.begins();
                slot.state = State::Waiting(now);
            }
        }
    }

    /// All that the group has given to us.
    pub(super) fn numbers(&self) -> impl Iterator<Item = i32> {
        self.by_number.keys().copied()
    }

    /// All that are forwarded.
    pub(super) fn active(&mut self) -> impl Iterator<Item = (i32, &mut Active)> {
        self.by_number.iter_mut().filter_map(|(&number, slot)| match &mut slot.state {
            State::Active(active) => Some((number, active.as_mut())),
            _ => None,
        })
    }

    /// A partition that is forwarded.
    pub(super) fn get(&mut self, number: i32) -> Option<&mut Active> {
        match &mut self.by_number.get_mut(&number)?.state {
            State::Active(active) => Some(active.as_mut()),
            _ => None,
        }
    }

    /// Whether a partition is forwarded, and not only tried again after it was held.
    pub(super) fn is_sound(&self, number: i32) -> bool {
        let slot = self.by_number.get(&number);
        slot.is_some_and(|slot| slot.held.is_none() && matches!(slot.state, State::Active(_)))
    }

    /// Forgets ids that are older than the window, and then the oldest of all where they are more than `max_ids`; says how
    /// many for each reason.
    pub(super) fn evict(&mut self, now_ms: i64, max_ids: usize) -> (u64, u64) {
        let (mut aged, mut ids) = (0, 0);
        for (_, active) in self.active() {
            aged += active.partition.window.evict(now_ms);
            ids += active.partition.window.len();
        }
        let surplus = ids.saturating_sub(max_ids);
        for _ in 0..surplus {
            let age = |active: &Active| active.partition.window.oldest_ms().unwrap_or(i64::MAX);
            if let Some((_, active)) = self.active().min_by_key(|(_, active)| age(active)) {
                active.partition.window.evict_oldest();
            }
        }
        (aged as u64, surplus as u64)
    }

    /// Their transaction took place, and the next ledger record of each may land there. A hold is over where a record was
    /// decided about: one of a silent partition says nothing of what it is held for. Returns what the ledger now knows to
    /// be lost.
    pub(super) fn committed(
        &mut self,
        fences: &BTreeMap<i32, Fence>,
        decided: impl Fn(i32) -> bool,
        now: Instant,
    ) -> Vec<Lost> {
        let mut lost = Vec::new();
        self.last_commit = Some(now);
        for (&number, &fence) in fences {
            let Some(slot) = self.by_number.get_mut(&number) else { continue };
            slot.failures.ends();
            if decided(number) {
                slot.release(number);
            }
            if let State::Active(active) = &mut slot.state {
                slot.next = Some(active.partition.next());
                lost.extend(active.committed(fence, now));
            }
        }
        lost
    }

    /// What `/status` shows. `ends` are the inbox partitions' ends.
    pub(super) fn status(&mut self, now: Instant, ends: impl Fn(i32) -> Option<i64>) -> Vec<PartitionStatus> {
        let status = |(&partition, slot): (&i32, &mut Slot)| {
            let lag = match slot.backlog {
                Some(backlog) => Some(backlog.records),
                None => slot.next.zip(ends(partition)).map(|(next, end)| (end - next).max(0)),
            };
            // Of a partition that waits to be taken over nobody knows how much waits in it.
            let is_active = matches!(slot.state, State::Active(_));
            if lag.map_or(is_active, |lag| lag == 0) {
                slot.caught_up = now;
            }
            // A hold is over when something was forwarded, or when there is nothing left to forward.
            if lag == Some(0) && is_active {
                slot.release(partition);
            }
            let state = match (&slot.held, &slot.state) {
                (Some(Held { reason, detail }), _) => {
                    PartitionState::Held { reason: *reason, detail: detail.clone() }
                }
                (None, State::Active(_)) => PartitionState::Active,
                (None, _) => PartitionState::TakingOver,
            };
            let (window_ids, ledger) = match &slot.state {
                State::Active(active) => (active.partition.window.len(), None),
                State::TakingOver(progress) => (0, Some(progress.told())),
                State::Waiting(_) => (0, None),
            };
            PartitionStatus {
                partition,
                state,
                since: slot.since,
                next_offset: slot.next,
                lag,
                window_ids,
                ledger,
            }
        };
        self.by_number.iter_mut().map(status).collect()
    }

    /// A record was consumed. Where it is the first that is not forwarded yet, it has waited since it was appended, not only
    /// since the partition came to us.
    pub(super) fn consumed(&mut self, partition: i32, offset: i64, appended_ms: i64, now: Instant) {
        let Some(slot) = self.by_number.get_mut(&partition).filter(|slot| slot.next == Some(offset)) else {
            return;
        };
        slot.waited(appended_ms, now);
    }

    /// How long the oldest inbox record that is not forwarded yet may have waited.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        self.by_number.values().map(|slot| now.duration_since(slot.caught_up)).max().unwrap_or_default()
    }
}

impl Slot {
    /// Its state changes; a hold goes on until something was forwarded.
    fn begins(&mut self) {
        if self.held.is_none() {
            self.since = Timestamp::now();
        }
    }

    /// The oldest record that is not forwarded was appended then.
    fn waited(&mut self, appended_ms: i64, now: Instant) {
        let waited_ms = Timestamp::now().as_millisecond().saturating_sub(appended_ms);
        // A broker whose clock is ahead, and a machine that started later than the record was written.
        let waited = Duration::from_millis(u64::try_from(waited_ms).unwrap_or(0));
        self.caught_up = now.checked_sub(waited).unwrap_or(self.caught_up);
    }

    fn release(&mut self, number: i32) {
        self.tries = 0;
        if self.held.take().is_some() {
            self.since = Timestamp::now();
            tracing::info!(partition = number, next = self.next, "partition is forwarded again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::window::Window;
    use crate::forward::partition::Partition;
    use crate::telemetry::labels::HeldReason;

    const MINUTE: Duration = Duration::from_secs(60);

    fn held(reason: HeldReason, detail: &str) -> Held {
        Held { reason, detail: detail.to_owned() }
    }

    fn status(slots: &mut Slots, now: Instant) -> PartitionStatus {
        slots.status(now, |_| None).remove(0)
    }

    #[test]
    fn a_partition_is_held_since_its_reason_began_whatever_the_detail_says() {
        let now = Instant::now();
        let mut slots = Slots::default();
        slots.assigned(0, now);
        slots.hold(0, held(HeldReason::InboxRecreated, "the inbox ends at 7"), now);
        slots.by_number.get_mut(&0).unwrap().since = Timestamp::UNIX_EPOCH;
        slots.hold(0, held(HeldReason::InboxRecreated, "the inbox ends at 8"), now);
        slots.by_number.get_mut(&0).unwrap().state = State::TakingOver(Arc::default());
        slots.retake(&BTreeSet::from([0]), now);
        let found = status(&mut slots, now);
        assert_eq!(found.since, Timestamp::UNIX_EPOCH);
        assert!(matches!(found.state, PartitionState::Held { detail, .. } if detail.ends_with('8')));
        slots.hold(0, held(HeldReason::Kafka, "a quota"), now);
        assert!(status(&mut slots, now).since > Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn what_waits_in_a_held_partition_has_waited_since_it_was_appended() {
        let now = Instant::now();
        let mut slots = Slots::default();
        slots.assigned(0, now);
        slots.hold(0, held(HeldReason::LedgerOpen, "x"), now);
        let oldest_ms = Some(Timestamp::now().as_millisecond() - 60_000);
        slots.waits(0, Some(Backlog { records: 5, oldest_ms }), now);
        assert_eq!(status(&mut slots, now).lag, Some(5));
        assert!(slots.lag(now) >= MINUTE, "{:?}", slots.lag(now));
        // Kafka did not say: what was known stays.
        slots.waits(0, None, now);
        assert!(slots.lag(now) >= MINUTE, "{:?}", slots.lag(now));
        slots.waits(0, Some(Backlog { records: 0, oldest_ms: None }), now);
        assert_eq!(status(&mut slots, now).lag, Some(0));
        assert_eq!(slots.lag(now), Duration::ZERO, "nothing waits");
    }

    fn taken() -> Taken {
        Taken {
            partition: Partition::new(Window::new(MINUTE), 7, 0),
            fence: Fence::taken_over(3),
            lost: 0,
            evicted: 0,
            ledger_age: Duration::ZERO,
            watermarks: None,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn only_a_record_that_was_decided_about_ends_a_hold() {
        let now = Instant::now();
        let mut slots = Slots::default();
        slots.assigned(0, now);
        slots.hold(0, held(HeldReason::Kafka, "no room for the record at offset 7"), now);
        slots.activate(0, taken(), now);
        let fences = BTreeMap::from([(0, Fence::committed(3))]);
        // The hourly ledger record of a partition without decisions.
        slots.committed(&fences, |_| false, now);
        let ends = |_| Some(9);
        assert!(matches!(slots.status(now, ends)[0].state, PartitionState::Held { .. }));
        slots.committed(&fences, |_| true, now);
        assert_eq!(slots.status(now, ends)[0].state, PartitionState::Active);
    }

    #[test]
    fn what_waits_is_counted_where_nothing_is_forwarded() {
        let now = Instant::now();
        let mut slots = Slots::default();
        assert_eq!(slots.uncounted(), Some(vec![]), "nobody may have them");
        let five = Backlog { records: 5, oldest_ms: None };
        slots.counted(&[(0, five), (1, five)], now);
        assert_eq!(slots.unowned(), &BTreeMap::from([(0, 5), (1, 5)]));

        slots.assigned(0, now);
        assert!(slots.unowned().is_empty(), "the group works");
        assert_eq!(slots.uncounted(), Some(vec![0]));
        assert_eq!(status(&mut slots, now).lag, None);
        slots.counted(&[(0, five)], now);
        assert_eq!(status(&mut slots, now).lag, Some(5));
        // A takeover that ended held knows better.
        slots.hold(0, held(HeldReason::OtherGroup, "x"), now);
        slots.waits(0, Some(Backlog { records: 2, oldest_ms: None }), now);
        slots.counted(&[(0, five)], now);
        assert_eq!(status(&mut slots, now).lag, Some(2));

        slots.activate(0, taken(), now);
        assert_eq!(slots.uncounted(), None, "the consumer tells");
    }

    #[test]
    fn a_partition_that_fails_for_a_minute_says_so_and_wants_another_producer() {
        let (now, number) = (Instant::now(), BTreeSet::from([0]));
        let mut slots = Slots::default();
        slots.assigned(0, now);
        assert!(!slots.failed(&number, Blame::Environment, now));
        assert!(!slots.failed(&number, Blame::Environment, now + MINUTE / 2));
        assert!(slots.failed(&number, Blame::Environment, now + MINUTE));
        slots.hold(0, held(HeldReason::Kafka, "a quota"), now);
        let PartitionState::Held { detail, .. } = status(&mut slots, now).state else { panic!("not held") };
        assert!(
            detail.starts_with("a quota; has failed since ") && detail.ends_with("producer replaced once"),
            "{detail}"
        );
        slots.activate(0, taken(), now);
        slots.committed(&BTreeMap::from([(0, Fence::committed(3))]), |_| true, now);
        assert_eq!(slots.tried(0), None);
    }
}
