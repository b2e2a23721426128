//! Every value that a metric's label can take, as types: a call site cannot misspell one, and none comes from a sender.
//!
//! The same words stand in `/status`, in logs and in the records of dead letters, so all of them serialise as
//! they are spelled here.

use rdkafka::types::RDKafkaErrorCode;

use crate::domain::delivery::Refusal;
use crate::domain::event_record::DeadLetterReason;
use crate::domain::signature::UrlForm;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of `index`.
    const ALL: &'static [Self];
    /// The value as it stands in the metric.
    fn as_str(self) -> &'static str;
    /// The value's place in `ALL`.
    fn index(self) -> usize;
}

/// The domain has these words already, for logs and records.
macro_rules! domain_labels {
    ($($set:ty as $name:literal;)+) => {$(
        impl Label for $set {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &<$set>::ALL;

            fn as_str(self) -> &'static str {
                <$set>::as_str(self)
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

domain_labels! {
    UrlForm as "form";
    Refusal as "reason";
    DeadLetterReason as "reason";
}

/// Spells each set once, so that its words, their order and their number cannot come apart.
macro_rules! labels {
    ($($(#[$doc:meta])* $set:ident as $name:literal { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $set { $($(#[$value_doc])* $value,)+ }

        impl Label for $set {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl serde::Serialize for $set {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )+};
}

labels! {
    /// The two halves of the relay.
    Half as "half" {
        /// Authenticates, appends to the inbox, answers.
        Intake = "intake",
        /// Reads the inbox, drops repeats, publishes.
        Forward = "forward",
    }

    /// How a delivery ended. Only `Unavailable` is our failure: the others are fine, or the sender's doing.
    Outcome as "outcome" {
        /// 200: in the inbox.
        Accepted = "accepted",
        /// 200: on this node's disk, for Kafka does not acknowledge.
        Spooled = "spooled",
        /// 200: a ping, nothing stored.
        Pong = "pong",
        /// 400: the HTTP is malformed or ambiguous.
        BadRequest = "bad_request",
        /// 401: not proven to be ClearFeed's.
        Unauthenticated = "unauthenticated",
        /// 404: no source has this path.
        NotFound = "not_found",
        /// 405: neither `POST`, `GET` nor `HEAD`.
        Method = "method",
        /// 408: head or body came too slowly.
        TooSlow = "too_slow",
        /// 413: the body is over `max_body`.
        TooLarge = "too_large",
        /// 415: the body is encoded.
        Encoded = "encoded",
        /// 431: the head is too large.
        HeadTooLarge = "head_too_large",
        /// 503: it cannot be stored now. Also what was authentic and had no answer before its sender lost patience.
        Unavailable = "unavailable",
        /// No answer: the sender closed the connection before it was known to be ClearFeed's.
        Abandoned = "abandoned",
    }

    /// ClearFeed's count of its retries.
    Retry as "retry" {
        /// The second attempt.
        First = "1",
        /// The third attempt.
        Second = "2",
        /// The fourth and last attempt.
        Third = "3",
    }

    /// What kind of trouble librdkafka reports, sorted by who would mend it.
    KafkaFault as "error" {
        /// A connection failed or broke.
        Transport = "transport",
        /// No broker can be reached.
        AllBrokersDown = "all_brokers_down",
        /// The brokers did not answer in time.
        TimedOut = "timed_out",
        /// The credentials or the TLS handshake were refused.
        Authentication = "authentication",
        /// An ACL is missing.
        Authorization = "authorization",
        /// Fewer replicas in sync than `min.insync.replicas`.
        NotEnoughReplicas = "not_enough_replicas",
        /// A record is over the topic's `max.message.bytes`.
        TooLarge = "too_large",
        /// Another producer has our transactional id, or our transaction timed out.
        Fenced = "fenced",
        /// Anything else; the log has its name.
        Other = "other",
    }

    /// What became of an inbox record.
    RecordOutcome as "outcome" {
        /// Stands in its event topic.
        Published = "published",
        /// Its id was in the window: dropped.
        Repeat = "repeat",
        /// Stands in the dead-letter topic.
        DeadLetter = "dead_letter",
    }

    /// How a forward transaction ended.
    TransactionEnd as "outcome" {
        /// It took place.
        Committed = "committed",
        /// It did not.
        Aborted = "aborted",
        /// The commit got no answer: the ledger will tell.
        Unknown = "unknown",
    }

    /// How a request to ClearFeed's REST API ended.
    ApiOutcome as "outcome" {
        /// A page.
        Ok = "ok",
        /// 401: the token was regenerated or deleted.
        TokenRefused = "token_refused",
        /// There is no token in its file: nothing was sent.
        NoToken = "no_token",
        /// 429: asked too often.
        RateLimited = "rate_limited",
        /// No connection, no answer in time, or a 5xx.
        Unavailable = "unavailable",
        /// Another status, or an answer that is no page.
        Unexpected = "unexpected",
    }

    /// What became of a request that the API told.
    SnapshotOutcome as "outcome" {
        /// In the snapshot topic.
        Published = "published",
        /// There already.
        Unchanged = "unchanged",
        /// Not taken by the topic for its size.
        TooLarge = "too_large",
        /// No request with an id.
        Unreadable = "unreadable",
    }

    /// What no event came of.
    MissedKind as "kind" {
        /// A request was created: an event is due.
        Created = "created",
        /// A request was changed: not every change is an event.
        Updated = "updated",
        /// What came has left the inbox, or may have: nobody can tell any more.
        Unknown = "unknown",
    }

    /// Why an id left the window.
    Eviction as "reason" {
        /// Older than `dedup.window`.
        Age = "age",
        /// Over `dedup.max_ids`: younger than the window promises.
        Cap = "cap",
    }

    /// Why a partition of the inbox is not forwarded.
    HeldReason as "reason" {
        /// A transaction on the ledger's partition does not end.
        LedgerOpen = "ledger_open",
        /// A transaction on a topic that events go to does not end.
        TopicOpen = "topic_open",
        /// The ledger says nothing where it should: waits for `forward.start_at`.
        LedgerGone = "ledger_gone",
        /// The ledger holds records that the relay did not write.
        LedgerForeign = "ledger_foreign",
        /// Another consumer group forwards the partition.
        OtherGroup = "other_group",
        /// The inbox is not the one that the ledger speaks of.
        InboxRecreated = "inbox_recreated",
        /// A record has a format newer than this version knows.
        NewerFormat = "newer_format",
        /// `inbox.partitions` is not what the ledger was written with.
        PartitionsChanged = "partitions_changed",
        /// Kafka refuses: permission, quota, replicas, or out of reach.
        Kafka = "kafka",
    }

    /// What keeps a half from being ready.
    Concern as "concern" {
        /// It has not got through its start yet.
        Starting = "starting",
        /// The process is shutting down.
        Draining = "draining",
        /// No broker answers.
        KafkaUnreachable = "kafka_unreachable",
        /// A topic is missing, or has settings under which the promise does not hold.
        Topics = "topics",
        /// Another process uses our transactional id.
        Fenced = "fenced",
    }
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As `deliveries_total` has it.
    Answered(Outcome),
    /// Where it is known why a delivery was not proven: as `auth_failures_total` has it.
    NotAuthenticated(Refusal),
}

impl Ending {
    /// The metric's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered(outcome) => outcome.as_str(),
            Self::NotAuthenticated(reason) => reason.as_str(),
        }
    }
}

impl serde::Serialize for Ending {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Outcome {
    /// Whether the sender may take it for done.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Accepted | Self::Spooled | Self::Pong)
    }
}

impl Retry {
    /// Only 1, 2 and 3 are redeliveries; anything else is a first delivery.
    pub fn from_count(count: u8) -> Option<Self> {
        match count {
            1 => Some(Self::First),
            2 => Some(Self::Second),
            3 => Some(Self::Third),
            _ => None,
        }
    }
}

impl From<RDKafkaErrorCode> for KafkaFault {
    fn from(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::BrokerTransportFailure | Code::NetworkException | Code::Resolve => Self::Transport,
            Code::AllBrokersDown => Self::AllBrokersDown,
            Code::OperationTimedOut | Code::MessageTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
                Self::TimedOut
            }
            Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => Self::Authentication,
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => Self::Authorization,
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend | Code::ISRInsufficient => {
                Self::NotEnoughReplicas
            }
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => Self::TooLarge,
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId => {
                Self::Fenced
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order<L: Label + PartialEq + std::fmt::Debug>() {
        for (index, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), index, "{value:?}");
            assert!(
                value.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
        }
    }

    #[test]
    fn values_stand_in_the_order_of_their_index() {
        in_order::<UrlForm>();
        in_order::<Refusal>();
        in_order::<DeadLetterReason>();
        in_order::<Outcome>();
        in_order::<HeldReason>();
        in_order::<Concern>();
    }

    #[test]
    fn only_one_to_three_are_redeliveries() {
        let counted: Vec<_> = (0..=u8::MAX).filter_map(Retry::from_count).map(Label::as_str).collect();
        assert_eq!(counted, ["1", "2", "3"]);
    }

    #[test]
    fn faults_are_sorted_by_who_mends_them() {
        for (code, fault) in [
            (RDKafkaErrorCode::AllBrokersDown, KafkaFault::AllBrokersDown),
            (RDKafkaErrorCode::BrokerTransportFailure, KafkaFault::Transport),
            (RDKafkaErrorCode::MessageTimedOut, KafkaFault::TimedOut),
            (RDKafkaErrorCode::TopicAuthorizationFailed, KafkaFault::Authorization),
            (RDKafkaErrorCode::ProducerFenced, KafkaFault::Fenced),
            (RDKafkaErrorCode::UnknownTopic, KafkaFault::Other),
        ] {
            assert_eq!(KafkaFault::from(code), fault, "{code:?}");
        }
    }
}
