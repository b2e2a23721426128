//! Taking partitions over: a thread of its own reads the ledger while the loop forwards the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::fence::Fence;
use super::memory::Memory;
use super::partition::{Held, Partition};
use super::progress::Progress;
use super::resume::{self, Committed, Decision, Evidence};
use super::settlement::{self, Settlement};
use super::witness::{LastRecord, Membership, Witness, behind};
use crate::config::Config;
use crate::domain::ledger_writer::Writer;
use crate::kafka::ClientError;
use crate::kafka::monitor::Monitor;
use crate::telemetry::labels::{HeldReason, Label};

/// A partition on whose ledger a transaction stays open for longer is held.
const STABLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Questions without any answer for so long are asked by new clients.
const UNANSWERED: Duration = Duration::from_secs(5);
/// A group of which Kafka told nothing for longer has no members, or may not be asked for: no broker restarts for so long.
const SILENCE: Duration = Duration::from_secs(3);
/// How often an open transaction is looked at.
const STABLE_POLL: Duration = Duration::from_millis(20);

/// What the thread is asked for.
pub enum Order {
    /// To take a partition over.
    TakeOver(Job),
    /// To count what waits in partitions that this process does not forward: in these, or (none given) in those that no
    /// member of the group has.
    Count(Vec<i32>),
}

/// What became of an order.
pub enum Answer {
    /// A job has ended.
    Done(Box<Done>),
    /// What waits, at most, by partition.
    Counted(Vec<(i32, Backlog)>),
}

/// A partition to be taken over, as long as somebody waits for its progress.
#[derive(Debug, Clone)]
pub struct Job {
    /// Partition of the inbox.
    pub partition: i32,
    /// Whom the progress is told; it also tells this takeover from earlier and later ones.
    pub progress: Weak<Progress>,
    /// Our producer was opened, by its count of openings, and nobody has seen yet that nothing of its predecessor's hangs.
    pub unsettled: Option<u32>,
    /// How much waits in it, and for how long, is not known yet.
    pub is_fresh: bool,
}

/// What became of a job.
pub struct Done {
    /// The job.
    pub job: Job,
    /// The partition, ready to go on, or why it must wait.
    pub result: Result<Taken, Held>,
    /// What waits in one that must wait, where that is known.
    pub backlog: Option<Backlog>,
}

/// A partition with its memory rebuilt.
pub struct Taken {
    /// Ready to go on.
    pub partition: Partition,
    /// Where its next ledger record may land.
    pub fence: Fence,
    /// Inbox records that retention took before they were read.
    pub lost: i64,
    /// Ids that were read and had to be forgotten again, because they are more than one replica may hold.
    pub evicted: u64,
    /// How long ago the last ledger record was written.
    pub ledger_age: Duration,
    /// What the ledger last said in the header of the watermarks.
    pub watermarks: Option<Vec<u8>>,
    /// How long the takeover took.
    pub took: Duration,
}

/// A job that is being worked on.
struct Attempt {
    job: Job,
    started: Instant,
    /// Why it is tried in vain, and since when.
    waits: Option<(HeldReason, Instant)>,
}

impl Attempt {
    fn new(job: Job) -> Self {
        Self { job, started: Instant::now(), waits: None }
    }
}

/// How long an attempt is made again before the partition is held.
fn patience(reason: HeldReason) -> Duration {
    match reason {
        HeldReason::LedgerOpen => STABLE_TIMEOUT,
        HeldReason::TopicOpen => settlement::PATIENCE,
        HeldReason::Kafka => UNANSWERED,
        // Only a person can change it.
        _ => Duration::ZERO,
    }
}

/// Takes partitions over.
pub struct Takeover {
    config: Config,
    monitor: Monitor,
    witness: Witness,
    /// Of which opening of our producer, and what it waits for.
    settlement: Option<(u32, Settlement)>,
    /// Partitions that another group was found to forward, with the first time that Kafka did not tell of its members. Whether
    /// it still does is asked before their ledger is read again.
    rivalled: BTreeMap<i32, Option<Instant>>,
    shutdown: CancellationToken,
}

impl Takeover {
    /// Makes the clients; nothing is sent yet.
    pub fn new(config: Config, monitor: &Monitor, shutdown: CancellationToken) -> Result<Self, ClientError> {
        let witness = Witness::new(&config, monitor, &shutdown)?;
        Ok(Self {
            config,
            monitor: monitor.clone(),
            witness,
            settlement: None,
            rivalled: BTreeMap::new(),
            shutdown,
        })
    }

    /// Works until the loop hangs up. One partition is read at a time; those that have to wait for a transaction to end
    /// take turns, so that none waits for another's.
    pub fn run(mut self, orders: &Receiver<Order>, answers: &Sender<Answer>) {
        let mut attempts = VecDeque::new();
        while !self.shutdown.is_cancelled() {
            let order = if attempts.is_empty() {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(STABLE_POLL)
            };
            let first = match order {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut to_count = None;
            for order in first.into_iter().chain(orders.try_iter()) {
                match order {
                    Order::TakeOver(job) => attempts.push_back(Attempt::new(job)),
                    Order::Count(partitions) => to_count = Some(partitions),
                }
            }
            // Each gets one turn.
            for _ in 0..attempts.len() {
                let Some(attempt) = attempts.pop_front() else { break };
                if attempt.job.progress.strong_count() == 0 {
                    continue; // not ours any more
                }
                match self.turn(attempt) {
                    Ok(finished) => {
                        if answers.send(Answer::Done(Box::new(finished))).is_err() {
                            return;
                        }
                    }
                    Err(waits) => attempts.push_back(waits),
                }
            }
            // Last, because whoever is taken over is counted with it.
            if let Some(partitions) = to_count
                && answers.send(Answer::Counted(self.count(partitions))).is_err()
            {
                return;
            }
        }
    }

    /// Nothing where Kafka does not tell: it is asked again soon.
    fn count(&self, mut partitions: Vec<i32>) -> Vec<(i32, Backlog)> {
        if partitions.is_empty() {
            match self.witness.unowned() {
                Ok(unowned) => partitions = unowned,
                Err(held) => tracing::debug!(detail = held.detail, "whose partitions are is not known"),
            }
        }
        self.witness.count(&partitions).unwrap_or_else(|error| {
            tracing::debug!(error, "what waits is not known");
            Vec::new()
        })
    }

    /// One attempt: done with, or to be made again.
    fn turn(&mut self, mut attempt: Attempt) -> Result<Done, Attempt> {
        let result = self.take_over(&attempt);
        let mut backlog = None;
        if let Err(held) = &result {
            if attempt.waits.is_none() {
                let Held { reason, detail } = held;
                tracing::debug!(
                    partition = attempt.job.partition,
                    reason = reason.as_str(),
                    detail,
                    "takeover waits"
                );
            }
            let same = attempt.waits.filter(|(reason, _)| *reason == held.reason);
            let (_, since) = *attempt.waits.insert(same.unwrap_or((held.reason, Instant::now())));
            if since.elapsed() < patience(held.reason) {
                return Err(attempt);
            }
            if held.reason == HeldReason::Kafka {
                self.replace_witness();
            }
            backlog = match held.reason {
                HeldReason::OtherGroup => self.backlog_of_rival(attempt.job.partition),
                // A Kafka that does not answer would be waited for once more, by every partition.
                HeldReason::Kafka if !attempt.job.is_fresh => None,
                reason => self.witness.backlog(attempt.job.partition, reason),
            };
        }
        Ok(Done { job: attempt.job, result, backlog })
    }

    fn replace_witness(&mut self) {
        match Witness::new(&self.config, &self.monitor, &self.shutdown) {
            Ok(witness) => self.witness = witness,
            Err(error) => tracing::warn!(%error, "the clients that take partitions over cannot be replaced"),
        }
    }

    fn take_over(&mut self, attempt: &Attempt) -> Result<Taken, Held> {
        let partition = attempt.job.partition;
        if let Some(opening) = attempt.job.unsettled {
            let begun = self.settlement.take().filter(|(of, _)| *of == opening);
            let (_, settlement) = match begun {
                Some(begun) => self.settlement.insert(begun),
                None => self.settlement.insert((opening, self.witness.begin_settlement()?)),
            };
            self.witness.check_settled(settlement)?;
        }
        let progress = attempt.job.progress.upgrade().unwrap_or_default();
        if self.rivalled.contains_key(&partition) {
            self.give_way(partition, self.last_writer(partition)?)?;
        }
        let looked = self.witness.look(partition, &progress);
        let writer = match &looked {
            Ok((_, memory)) => memory.writer.clone(),
            // Perhaps it is open because somebody writes all the time.
            Err(held) if held.reason == HeldReason::LedgerOpen && attempt.waits.is_none() => {
                self.last_writer(partition)?
            }
            Err(_) => None,
        };
        let gone = self.give_way(partition, writer)?;
        let (evidence, memory) = looked?;
        self.rivalled.remove(&partition);
        if let Some(group) = gone {
            tracing::info!(
                partition,
                group,
                "the group that forwarded this partition shows no members: taking it over"
            );
        }
        go_on(attempt, &evidence, memory)
    }

    fn last_writer(&self, partition: i32) -> Result<Option<Writer>, Held> {
        Ok(self.witness.last_record(partition)?.and_then(|last| last.writer))
    }

    /// Another group that wrote to the ledger last, and has members, forwards the partition: it goes on, and we wait. So
    /// exactly one side goes on, and one that was renamed takes over what its old name had. Returns the other group where it
    /// is gone.
    fn give_way(&mut self, partition: i32, writer: Option<Writer>) -> Result<Option<String>, Held> {
        let ours = &self.config.forward.group;
        let Some(Writer { group, transactional_id }) = writer.filter(|writer| writer.group != *ours) else {
            return Ok(None);
        };
        let silent_since = self.rivalled.entry(partition).or_default();
        match self.witness.membership(&group)? {
            Membership::None => return Ok(Some(group)),
            // What it writes to the ledger is found before each commit all the same.
            Membership::Unknown if silent_since.is_some_and(|since| since.elapsed() > SILENCE) => {
                return Ok(Some(group));
            }
            Membership::Unknown => drop(silent_since.get_or_insert_with(Instant::now)),
            Membership::Some => *silent_since = None,
        }
        let detail = format!(
            "the group {group:?} forwards this partition (its replica {transactional_id:?} wrote to the ledger last), this one \
             is in the group {ours:?}: stop one of the two"
        );
        Err(Held { reason: HeldReason::OtherGroup, detail })
    }

    /// What the other group has not forwarded either.
    fn backlog_of_rival(&self, partition: i32) -> Option<Backlog> {
        let last: LastRecord = self.witness.last_record(partition).ok()??;
        self.witness.backlog_behind(partition, &last)
    }
}

/// The partition as it goes on, if it can.
fn go_on(attempt: &Attempt, evidence: &Evidence, memory: Memory) -> Result<Taken, Held> {
    let partition = attempt.job.partition;
    match resume::decide(evidence) {
        Decision::LookAgain => Err(behind()),
        Decision::Hold(reason, detail) => Err(Held { reason, detail }),
        Decision::GoOn { at, lost } => {
            if let Committed::Foreign(offset) = evidence.committed {
                tracing::warn!(
                    partition,
                    offset,
                    going_on_at = at,
                    "the group's offset was set by another hand; the ledger says where to go on"
                );
            }
            let last_ms = memory.tail.filter(|tail| tail.to == at).map_or(0, |tail| tail.last_ms);
            let now_ms = jiff::Timestamp::now().as_millisecond();
            let ledger_age = u64::try_from(now_ms - memory.written_ms).unwrap_or(0);
            Ok(Taken {
                evicted: memory.evicted,
                watermarks: memory.watermarks,
                partition: Partition::new(memory.window, at, last_ms),
                fence: Fence::taken_over(memory.end),
                lost,
                ledger_age: Duration::from_millis(ledger_age),
                took: attempt.started.elapsed(),
            })
        }
    }
}
