//! What stands in the ledger and in the inbox already: whether it fits this configuration and this machine's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clearfeed_relay::config::Config;
use clearfeed_relay::domain::inbox_record::header;
use clearfeed_relay::domain::ledger_entry::LedgerEntry;
use clearfeed_relay::domain::ledger_writer::{self, Writer};
use clearfeed_relay::kafka::{REQUEST_TIMEOUT, properties};
use jiff::{SignedDuration, Timestamp};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, OwnedMessage};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::Check;

/// The newest record stands among so many last offsets: the others are the markers of transactions.
const TAIL: i64 = 100;
/// The window of ids forgives an hour; where clocks are this far apart, somebody has to look at them.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(10);

/// The newest record of each partition.
type Newest = BTreeMap<i32, OwnedMessage>;

/// The ledger first, then the inbox.
pub(super) fn check(config: &Config) -> anyhow::Result<[Check; 3]> {
    let reader: BaseConsumer = properties::ledger_reader(config)?.create()?;
    let told = |subject: &str, check: Result<Check, KafkaError>| {
        check.unwrap_or_else(|error| Check::skipped(subject, format!("cannot be read: {error}")))
    };
    let ledger = newest(&reader, config.ledger.topic.as_str());
    let inbox = newest(&reader, config.inbox.topic.as_str());
    Ok([
        told(PARTITIONS, ledger.clone().map(|newest| partitions(config, of_all(&newest)))),
        told(GROUP, ledger.and_then(|newest| group(config, &reader, &newest))),
        told(CLOCKS, inbox.map(|newest| clocks(of_all(&newest)))),
    ])
}

const PARTITIONS: &str = "inbox partitions";
const GROUP: &str = "consumer group";
const CLOCKS: &str = "clocks";
/// What is looked at here.
pub(super) const SUBJECTS: [&str; 3] = [PARTITIONS, GROUP, CLOCKS];

fn of_all(newest: &Newest) -> Option<&OwnedMessage> {
    newest.values().max_by_key(|record| appended_ms(record))
}

/// Two groups would take the inbox from each other.
fn group(config: &Config, reader: &BaseConsumer, newest: &Newest) -> Result<Check, KafkaError> {
    let ours = &config.forward.group;
    let writer = |record| Some(Writer::decode(header_of(record, ledger_writer::HEADER)?)?.group);
    let others: BTreeSet<String> = newest.values().filter_map(writer).filter(|group| group != ours).collect();
    for other in &others {
        let list = reader.fetch_group_list(Some(other), REQUEST_TIMEOUT)?;
        let members: usize = list.groups().iter().map(|group| group.members().len()).sum();
        if members > 0 {
            let detail = format!(
                "found {other:?} with {members} members forwarding this inbox, wanted {ours:?} alone; repair it by stopping \
                 one of the two, or, if they are to share the work, with: forward.group = {other:?}"
            );
            return Ok(Check::wrong(GROUP, detail));
        }
    }
    let before = others.iter().map(|other| format!("; {other:?}, which forwarded before, shows no members"));
    Ok(Check::ok(GROUP, format!("{ours:?}{}", before.collect::<String>())))
}

/// With another number than the ledger was written for, keys stand in other partitions than their ids are remembered in.
fn partitions(config: &Config, newest: Option<&OwnedMessage>) -> Check {
    let configured = config.inbox.partitions;
    let Some(record) = newest else {
        return Check::ok(PARTITIONS, format!("{configured}; the ledger is empty"));
    };
    let format = header_of(record, header::FORMAT);
    match LedgerEntry::decode(format, record.payload().unwrap_or_default()) {
        Err(error) => Check::wrong(PARTITIONS, error.to_string()),
        Ok(entry) if i32::try_from(entry.inbox_partitions) == Ok(configured) => {
            Check::ok(PARTITIONS, format!("{configured}, as in the ledger"))
        }
        Ok(LedgerEntry { inbox_partitions, .. }) => Check::wrong(
            PARTITIONS,
            format!(
                "found inbox.partitions = {configured}, but the ledger was written with {inbox_partitions}; repair it with: inbox.partitions = {inbox_partitions}"
            ),
        ),
    }
}

/// Intake's clock, in what it said of the newest delivery, against the broker's, in when it was appended; and ours, which
/// cannot be before that.
fn clocks(newest: Option<&OwnedMessage>) -> Check {
    let Some(record) = newest else { return Check::ok(CLOCKS, "the inbox is empty") };
    let appended = Timestamp::from_millisecond(appended_ms(record)).unwrap_or_default();
    let ahead = appended.duration_since(Timestamp::now());
    if ahead > MAX_SKEW {
        return Check::wrong(
            CLOCKS,
            format!(
                "Kafka's are ahead of this machine's by {ahead:#} at least; repair it with NTP on either"
            ),
        );
    }
    if [header::REDRIVEN, header::SPOOLED].iter().any(|name| header_of(record, name).is_some()) {
        return Check::skipped(CLOCKS, "the inbox's newest record was put back, or had waited in a spool");
    }
    let received =
        header_of(record, header::RECEIVED).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    let Some(received) = received else {
        return Check::skipped(CLOCKS, "the inbox's newest record is not of the relay's intake");
    };
    let skew = appended.duration_since(received);
    let told = format!("at {appended} Kafka's were {skew:#} ahead of the intake's");
    if skew.abs() > MAX_SKEW {
        Check::wrong(CLOCKS, format!("{told}; repair it with NTP on either"))
    } else {
        Check::ok(CLOCKS, told)
    }
}

/// 0 where the broker does not say: older than all others.
fn appended_ms(record: &OwnedMessage) -> i64 {
    record.timestamp().to_millis().unwrap_or_default()
}

fn header_of<'a>(record: &'a OwnedMessage, name: &str) -> Option<&'a [u8]> {
    record.headers()?.iter().find(|found| found.key == name)?.value
}

/// The newest record of each partition that has one; without becoming a member of the group.
fn newest(reader: &BaseConsumer, topic: &str) -> Result<Newest, KafkaError> {
    let metadata = reader.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let (mut assignment, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        let (start, end) = reader.fetch_watermarks(topic, partition.id(), REQUEST_TIMEOUT)?;
        if start < end {
            let offset = Offset::Offset(start.max(end - TAIL));
            assignment.add_partition_offset(topic, partition.id(), offset)?;
            ends.insert(partition.id(), end);
        }
    }
    reader.assign(&assignment)?;
    let mut newest = BTreeMap::new();
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    while !ends.is_empty() {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let partition = record.partition();
                // Where records come all the time, the end may never be told.
                if ends.get(&partition).is_some_and(|end| record.offset() + 1 >= *end) {
                    ends.remove(&partition);
                }
                newest.insert(partition, record.detach());
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
            Some(Err(error))
                if Instant::now() > deadline
                    || error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) =>
            {
                return Err(error);
            }
            None if Instant::now() > deadline => return Err(KafkaError::NoMessageReceived),
            Some(Err(_)) | None => {}
        }
    }
    Ok(newest)
}
