//! Why a transaction failed, sorted by what helps: another place for the record, patience, or another producer.

use std::collections::BTreeSet;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why a transaction did not (visibly) take place.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A record (or the batch that it went in) is larger than a topic takes.
    #[error("a record is too large for its topic")]
    TooLarge,
    /// Another producer has taken our transactional id, or the broker timed the transaction out.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The producer is of no use any more, or cannot tell what became of the transaction.
    #[error("the producer has to be replaced: {0}")]
    Replace(String),
    /// Somebody else wrote to the ledger of this partition since we took it over; the transaction can be aborted.
    #[error("partition {partition} is contested: {detail}")]
    Contested {
        /// Partition of the inbox.
        partition: i32,
        /// Whether another group did, as far as the record says. It is not waited for otherwise: the next takeover tells more.
        by_other_group: bool,
        /// What was found in its ledger, and where.
        detail: String,
    },
    /// Kafka refuses or is away; the transaction can be aborted.
    #[error("{detail}")]
    Environment {
        /// What was refused.
        detail: String,
        /// Inbox partitions whose records were refused; empty where it was not a record.
        partitions: BTreeSet<i32>,
    },
}

impl Failure {
    pub(super) fn of(error: &KafkaError) -> Self {
        let detail = error.to_string();
        let (is_fatal, requires_abort) = match error {
            KafkaError::Transaction(error) => (error.is_fatal(), error.txn_requires_abort()),
            _ => (false, true),
        };
        match error.rdkafka_error_code().map(Cause::of) {
            Some(Cause::Record) => Self::TooLarge,
            Some(Cause::Rival) => Self::Fenced(detail),
            Some(Cause::Producer) => Self::Replace(detail),
            // Whatever the code says: this producer goes no further.
            Some(Cause::Environment) | None if is_fatal || !requires_abort => Self::Replace(detail),
            Some(Cause::Environment) | None => Self::environment(detail),
        }
    }

    /// The partitions that it failed for, where these are not all of the batch.
    pub(super) fn partitions(&self) -> Option<BTreeSet<i32>> {
        match self {
            Self::Environment { partitions, .. } => Some(partitions.clone()).filter(|some| !some.is_empty()),
            Self::Contested { partition, .. } => Some(BTreeSet::from([*partition])),
            Self::TooLarge | Self::Fenced(_) | Self::Replace(_) => None,
        }
    }

    pub(super) fn environment(detail: String) -> Self {
        Self::Environment { detail, partitions: BTreeSet::new() }
    }
}

/// What an error code is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The record itself: no other producer, and no patience, gets it through.
    Record,
    /// Kafka or the way to it: passes by itself or with the abort, or is for a person to mend.
    Environment,
    /// The producer's own state, as the broker has it or has it no more: another one works.
    Producer,
    /// The same, and somebody else may have our transactional id.
    Rival,
}

impl Cause {
    /// A code that is not sorted is taken for the environment: patience costs least, and after a minute of the same failure
    /// the producer is replaced all the same.
    pub(super) fn of(code: RDKafkaErrorCode) -> Self {
        let sorted = SORTED.iter().find(|(_, codes)| codes.contains(&code));
        sorted.map_or(Self::Environment, |(cause, _)| *cause)
    }
}

/// Every code that librdkafka's transaction manager and its handling of produce answers name (2.12.1); a test holds the
/// list against their source.
const SORTED: [(Cause, &[RDKafkaErrorCode]); 4] = {
    use RDKafkaErrorCode::{
        BadMessage, BrokerDestroy, BrokerTransportFailure, ClusterAuthorizationFailed,
        ConcurrentTransactions, Conflict, CoordinatorLoadInProgress, CoordinatorNotAvailable,
        DuplicateSequenceNumber, Fenced, FencedInstanceId, GaplessGuarantee, GroupAuthorizationFailed,
        IllegalGeneration, Inconsistent, InvalidArgument, InvalidProducerEpoch, InvalidProducerIdMapping,
        InvalidTransactionTimeout, InvalidTransactionalState, KafkaStorageError, MessageSizeTooLarge,
        MessageTimedOut, NoError, NoOffset, NotConfigured, NotCoordinator, NotEnoughReplicas,
        NotEnoughReplicasAfterAppend, OperationNotAttempted, OperationTimedOut, OutOfOrderSequenceNumber,
        Outdated, PreviousInProgress, ProducerFenced, RequestTimedOut, Retry, State, TimedOutQueue,
        TopicAuthorizationFailed, TransactionCoordinatorFenced, TransactionalIdAuthorizationFailed,
        UnknownBroker, UnknownMemberId, UnknownProducerId, UnknownTopicOrPartition, UnsupportedFeature,
        UnsupportedForMessageFormat,
    };
    [
        (Cause::Record, &[MessageSizeTooLarge]),
        (
            Cause::Environment,
            &[
                BadMessage,
                BrokerTransportFailure,
                ClusterAuthorizationFailed,
                ConcurrentTransactions,
                CoordinatorLoadInProgress,
                CoordinatorNotAvailable,
                DuplicateSequenceNumber,
                GroupAuthorizationFailed,
                // The group moved on: its members, the partitions, or both are others now.
                IllegalGeneration,
                FencedInstanceId,
                UnknownMemberId,
                InvalidArgument,
                InvalidTransactionTimeout,
                KafkaStorageError,
                MessageTimedOut,
                NoError,
                NoOffset,
                NotConfigured,
                NotCoordinator,
                NotEnoughReplicas,
                NotEnoughReplicasAfterAppend,
                // The numbers of records do not follow each other, as behind a record that was refused: with the abort librdkafka
                // asks for another epoch.
                GaplessGuarantee,
                OutOfOrderSequenceNumber,
                UnknownProducerId,
                // Another partition of the same request was refused, which says why.
                OperationNotAttempted,
                OperationTimedOut,
                RequestTimedOut,
                Retry,
                // The consequence of an error before it.
                State,
                TimedOutQueue,
                TopicAuthorizationFailed,
                TransactionalIdAuthorizationFailed,
                UnknownBroker,
                UnknownTopicOrPartition,
                UnsupportedFeature,
                UnsupportedForMessageFormat,
            ],
        ),
        (
            Cause::Producer,
            &[
                BrokerDestroy,
                // The broker has forgotten the transactional id: after transactional.id.expiration.ms without a transaction. In
                // a transaction that begins with offsets, as ours do, librdkafka aborts with success and goes on with the
                // forgotten id (findings/librdkafka-keeps-a-forgotten-id-when-offsets-come-first.sh).
                InvalidProducerIdMapping,
                InvalidTransactionalState,
                // What librdkafka has and what was asked of it do not go together.
                Conflict,
                Inconsistent,
                Outdated,
                PreviousInProgress,
            ],
        ),
        (Cause::Rival, &[Fenced, InvalidProducerEpoch, ProducerFenced, TransactionCoordinatorFenced]),
    ]
};

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// The folder of librdkafka's source, as it is built in.
    fn librdkafka() -> PathBuf {
        // Crates of other platforms need not be here.
        let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked", "--offline", &platform])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let sys = packages.iter().find(|package| package["name"] == "rdkafka-sys").unwrap();
        PathBuf::from(sys["manifest_path"].as_str().unwrap()).with_file_name("librdkafka").join("src")
    }

    const PREFIX: &str = "RD_KAFKA_RESP_ERR_";

    /// Names of error codes in C, as they come.
    fn names(source: &str) -> impl Iterator<Item = &str> {
        source.split(PREFIX).skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
    }

    /// The text of a function, up to the brace in its first column.
    fn function<'a>(source: &'a str, head: &str) -> &'a str {
        let begin = source.find(head).unwrap_or_else(|| panic!("no function {head}"));
        let end = source[begin..].find("\n}").unwrap();
        &source[begin..begin + end]
    }

    #[test]
    fn every_code_that_a_transaction_can_fail_with_is_sorted_once() {
        let folder = librdkafka();
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        let header = read("rdkafka.h");
        let number = |name: &str| -> i32 {
            let definition = format!("{PREFIX}{name} = ");
            let found = header.find(&definition).unwrap_or_else(|| panic!("{name} is not in rdkafka.h"));
            let rest = &header[found + definition.len()..];
            rest[..rest.find([',', '\n', ' ']).unwrap()].parse().unwrap()
        };
        let requests = read("rdkafka_request.c");
        let produce = [
            function(&requests, "static int rd_kafka_handle_Produce_error("),
            function(&requests, "rd_kafka_handle_idempotent_Produce_error("),
        ];
        let sources = [read("rdkafka_txnmgr.c"), read("rdkafka_idempotence.c"), produce.concat()];
        let sorted: Vec<i32> =
            SORTED.iter().flat_map(|(_, codes)| codes.iter()).map(|code| *code as i32).collect();
        let named: BTreeSet<&str> = sources.iter().flat_map(|source| names(source)).collect();
        assert!(named.len() > 40, "the source is read wrongly: {named:?}");
        for name in named {
            let times = sorted.iter().filter(|code| **code == number(name)).count();
            assert_eq!(times, 1, "{name} is sorted {times} times");
        }
    }

    #[test]
    fn a_forgotten_transactional_id_wants_another_producer() {
        assert_eq!(Cause::of(RDKafkaErrorCode::InvalidProducerIdMapping), Cause::Producer);
        assert_eq!(Cause::of(RDKafkaErrorCode::TopicAuthorizationFailed), Cause::Environment);
        assert_eq!(Cause::of(RDKafkaErrorCode::PolicyViolation), Cause::Environment, "not in the list");
    }
}
