//! The transactional producer, and a transaction's way: begin, send, append to the ledger, commit.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::failure::Failure;
use super::fence::Fence;
use super::lookout::{Lookout, Sent};
use super::reports::{Reports, refusal};
use crate::domain::inbox_record::header;
use crate::domain::ledger_entry::{self, LedgerEntry};
use crate::domain::ledger_writer;
use crate::kafka::monitor::Monitor;
use crate::kafka::properties::TRANSACTION_TIMEOUT;
use crate::kafka::{self, REQUEST_TIMEOUT, bootstrap};

/// How long a commit may be tried again: after this the broker has aborted the transaction, or committed it.
const COMMIT_TIMEOUT: Duration = TRANSACTION_TIMEOUT;
/// How finely the loop waits for acknowledgements: rust-rdkafka's own flush waits in slices of 100 ms, and its `poll`
/// spins through the last millisecond of any time-out.
const ACKNOWLEDGE_NAP: Duration = Duration::from_micros(500);

/// So long a transaction waits after the commit of the last one, whose markers the coordinator is still writing: long enough
/// that it seldom has to ask again, which takes `retry.backoff.ms`. docs/performance.md has what 0 and 5 ms gave.
const SETTLING: Duration = Duration::from_millis(2);
/// How long a refusal may be on its way after its consequence was seen.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// An abort is asked for in slices, between which the reports of purged records are served.
const ABORT_SLICE: Duration = Duration::from_millis(100);
/// `poll` goes on until its time-out: long enough for all reports that are there.
const SERVE_ALL: Duration = Duration::from_millis(5);

/// A record on its way into the transaction.
pub struct TransactionRecord<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// Which partition; the key's own when absent.
    pub partition: Option<i32>,
    /// Its key.
    pub key: &'a str,
    /// Names and values.
    pub headers: &'a [(Cow<'static, str>, Vec<u8>)],
    /// Its value.
    pub value: &'a [u8],
    /// The inbox partition that it came from.
    pub inbox_partition: i32,
}

/// What a transaction says in the ledger of one partition.
pub struct LedgerRecord {
    /// What was decided.
    pub entry: LedgerEntry,
    /// Where it may land.
    pub fence: Fence,
    /// A header that versions before it do not read.
    pub further: Option<(Cow<'static, str>, Vec<u8>)>,
}

/// A producer that has its transactional id to itself.
pub struct Transactions {
    producer: Arc<BaseProducer<Reports>>,
    lookout: Arc<Lookout>,
    last_commit: Cell<Option<Instant>>,
    /// Each call that is under way holds a second one.
    calls: Arc<()>,
}

impl Transactions {
    /// Takes the transactional id: whoever had it is fenced, and its open transaction is settled.
    pub fn open(client: &ClientConfig, monitor: Monitor, lookout: &Arc<Lookout>) -> Result<Self, Failure> {
        let reports = Reports::new(monitor, lookout.topic());
        let producer = BaseProducer::from_config_and_context(client, reports)
            .map_err(|error| Failure::Replace(error.to_string()))?;
        producer.init_transactions(REQUEST_TIMEOUT).map_err(|error| Failure::of(&error))?;
        Ok(Self {
            producer: Arc::new(producer),
            lookout: Arc::clone(lookout),
            last_commit: Cell::default(),
            calls: Arc::default(),
        })
    }

    /// Begins a transaction, with the inbox offsets at which its partitions stand.
    ///
    /// They change nothing, but what a transaction begins with has to wait until the markers of the last one are written.
    /// Asked too early for offsets librdkafka asks again after `retry.backoff.ms`; for partitions, which records begin
    /// with, after 20 ms. Also, a process that lost its partitions without knowing is refused before it has published
    /// anything.
    pub fn begin<'t>(
        &'t self,
        stand: &TopicPartitionList,
        group: &'t Arc<ConsumerGroupMetadata>,
    ) -> Result<Transaction<'t>, Failure> {
        let since = self.last_commit.get().map_or(SETTLING, |last| last.elapsed());
        std::thread::park_timeout(SETTLING.saturating_sub(since));
        self.producer.begin_transaction().map_err(|error| Failure::of(&error))?;
        let times_out = Instant::now() + TRANSACTION_TIMEOUT;
        self.send_offsets(stand, group, times_out)?;
        Ok(Transaction { transactions: self, group, times_out })
    }

    /// By a thread that can be left behind: librdkafka's call takes a time-out and does not keep it. Where the group's
    /// coordinator went away while it was asked, the call may return only when a broker comes or goes, minutes later
    /// (librdkafka's issues 5456 and 5511).
    fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &Arc<ConsumerGroupMetadata>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let (producer, offsets, group) = (Arc::clone(&self.producer), offsets.clone(), Arc::clone(group));
        let (call, (answer, answered)) = (Arc::clone(&self.calls), mpsc::sync_channel(1));
        std::thread::Builder::new()
            .name("offsets".to_owned())
            .spawn(move || {
                let result = retried(deadline, || {
                    producer.send_offsets_to_transaction(&offsets, &group, REQUEST_TIMEOUT)
                });
                drop(call);
                _ = answer.send(result); // perhaps nobody waits any more
            })
            .map_err(|error| Failure::Replace(format!("no thread: {error}")))?;
        let wait = deadline.saturating_duration_since(Instant::now());
        answered.recv_timeout(wait).unwrap_or_else(|_| {
            Err(Failure::Replace("librdkafka does not come back from sending offsets".to_owned()))
        })
    }

    /// Alive beyond this for as long as a call does not come back, and keeps the producer with it.
    pub fn call(&self) -> Weak<()> {
        Arc::downgrade(&self.calls)
    }

    /// Hands a record to the producer, waiting while its queue is full.
    fn send(&self, record: &TransactionRecord<'_>) -> Result<(), Failure> {
        let opaque = usize::try_from(record.inbox_partition).unwrap_or_default();
        let mut message = BaseRecord::with_opaque_to(record.topic, opaque)
            .key(record.key)
            .payload(record.value)
            .headers(kafka::headers(record.headers));
        message.partition = record.partition;
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent))
                    if Instant::now() < deadline =>
                {
                    self.serve_acknowledgements();
                    message = unsent;
                }
                Err((error, _)) => return Err(self.cause(record.inbox_partition, &error)),
            }
        }
    }

    /// Why nothing more is taken. Where a record before this one was refused, librdkafka only says that the
    /// transaction is in the wrong state; the refusal itself may still be on its way to us.
    fn cause(&self, inbox_partition: i32, error: &KafkaError) -> Failure {
        let is_consequence = error.rdkafka_error_code() == Some(RDKafkaErrorCode::State);
        let deadline = Instant::now() + REPORT_TIMEOUT;
        let mut refused = self.take_refused();
        while is_consequence && refusal(&refused).is_none() && Instant::now() < deadline {
            self.serve_acknowledgements();
            refused.extend(self.take_refused());
        }
        if !is_consequence {
            refused.push((inbox_partition, error.clone()));
        }
        refusal(&refused).unwrap_or_else(|| self.why(error.to_string()))
    }

    /// Where no record's refusal says why the transaction failed, as where a topic may not be written at all, librdkafka
    /// says it to whatever is asked of the transaction next. To begin one that is open is refused in any case.
    fn why(&self, otherwise: String) -> Failure {
        match self.producer.begin_transaction() {
            Err(error) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::State) => Failure::of(&error),
            _ => Failure::environment(otherwise),
        }
    }

    fn take_refused(&self) -> Vec<(i32, KafkaError)> {
        self.producer.context().take_refused()
    }

    /// Waits until every record is acknowledged.
    fn acknowledged(&self) -> Result<(), Failure> {
        // Every record is acknowledged or refused within its message time-out. After a refusal some may be so late as that:
        // librdkafka was seen to leave them in its queue. What is purged in consequence may be told before the refusal.
        let mut refused = self.take_refused();
        while self.producer.in_flight_count() > 0 && refusal(&refused).is_none() {
            self.serve_acknowledgements();
            refused.extend(self.take_refused());
        }
        if refused.is_empty() {
            return Ok(());
        }
        Err(refusal(&refused).unwrap_or_else(|| self.why("records were purged".to_owned())))
    }

    fn serve_acknowledgements(&self) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == before {
            std::thread::park_timeout(ACKNOWLEDGE_NAP);
        }
    }

    /// Tells the monitor what the producer has to say of itself, while there are no acknowledgements to wait for; finds Kafka
    /// again, where it was lost.
    pub fn serve(&self, servers: &str) {
        self.producer.poll(Duration::ZERO);
        bootstrap::restore_if_lost(self.producer.client(), self.producer.context().monitor(), servers);
    }

    /// Aborts the open transaction. An error means that the producer has to be replaced.
    pub fn abort(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        let result = retried(deadline, || {
            // Records are purged inside the call, which then waits until we have heard of each of them.
            self.producer.poll(SERVE_ALL);
            self.producer.abort_transaction(ABORT_SLICE)
        });
        self.producer.poll(SERVE_ALL);
        self.take_refused();
        result
    }
}

/// An open transaction.
pub struct Transaction<'t> {
    transactions: &'t Transactions,
    group: &'t Arc<ConsumerGroupMetadata>,
    /// When the broker aborts it.
    times_out: Instant,
}

impl<'t> Transaction<'t> {
    /// Adds a record of a topic that is not the ledger.
    pub fn send(&self, record: &TransactionRecord<'_>) -> Result<(), Failure> {
        self.transactions.send(record)
    }

    /// Appends what was decided to the ledger: one record for each partition, and the last ones of the transaction. A second
    /// one would land where the first has shut the fence.
    pub fn append(self, ledger: BTreeMap<i32, LedgerRecord>) -> Result<Appended<'t>, Failure> {
        let Self { transactions, group, times_out } = self;
        transactions.producer.context().take_landed();
        let mut sent = BTreeMap::new();
        for (partition, LedgerRecord { entry, fence, further }) in ledger {
            let format = (header::FORMAT.into(), ledger_entry::FORMAT.as_bytes().to_vec());
            let by = (ledger_writer::HEADER.into(), transactions.lookout.writer().encode());
            let headers: Vec<_> = [format, by].into_iter().chain(further).collect();
            let value = entry.encode();
            transactions.send(&TransactionRecord {
                topic: transactions.lookout.topic(),
                partition: Some(partition),
                key: "",
                headers: &headers,
                value: &value,
                inbox_partition: partition,
            })?;
            sent.insert(partition, Sent { fence, from: entry.from, value });
        }
        Ok(Appended { transactions, group, times_out, ledger: sent })
    }
}

/// A transaction of which all is sent but the offsets.
pub struct Appended<'t> {
    transactions: &'t Transactions,
    group: &'t Arc<ConsumerGroupMetadata>,
    times_out: Instant,
    ledger: BTreeMap<i32, Sent>,
}

impl Appended<'_> {
    /// Waits until every record is acknowledged, compares where the ledger records landed with where they may land, and
    /// commits it all with the inbox offsets. Returns where the next ledger record of each partition may land.
    pub fn commit(self, offsets: &TopicPartitionList) -> Result<BTreeMap<i32, Fence>, Failure> {
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        self.transactions.acknowledged()?;
        let fences = self.compare()?;
        self.transactions.send_offsets(offsets, self.group, deadline)?;
        retried(deadline, || self.transactions.producer.commit_transaction(REQUEST_TIMEOUT))?;
        self.transactions.last_commit.set(Some(Instant::now()));
        Ok(fences)
    }

    fn compare(&self) -> Result<BTreeMap<i32, Fence>, Failure> {
        let told = self.transactions.producer.context().take_landed();
        let mut looks = self.transactions.lookout.looks(self.times_out);
        let mut fences = BTreeMap::new();
        for (&partition, sent) in &self.ledger {
            let mut landed = told.get(&partition).copied().unwrap_or(-1);
            if !sent.fence.admits(landed) {
                landed = looks.find(partition, sent, landed)?;
            }
            fences.insert(partition, Fence::committed(landed));
        }
        Ok(fences)
    }
}

/// Calls again what may be called again. What then is still without an answer is nobody's guess.
fn retried(deadline: Instant, mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), Failure> {
    loop {
        match call() {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                if Instant::now() >= deadline {
                    return Err(Failure::Replace(format!("no answer in time: {error}")));
                }
            }
            Err(error) => return Err(Failure::of(&error)),
        }
    }
}
