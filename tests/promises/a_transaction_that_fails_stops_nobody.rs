//! What Kafka can answer to a transaction, and librdkafka make of it, ends in a producer that works. On librdkafka's own
//! embedded broker, which answers what it is told to, when it is told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clearfeed_relay::forward::transaction::{Failure, TransactionRecord, Transactions};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::{kafka, monitor};

const GROUP_COORDINATOR: i32 = 2;

/// Brokers, and what a transaction needs of them.
struct World {
    cluster: MockCluster<'static, DefaultProducerContext>,
    client: ClientConfig,
    group: Arc<ConsumerGroupMetadata>,
    offsets: TopicPartitionList,
}

impl World {
    fn new() -> Self {
        let cluster = MockCluster::new(3).unwrap();
        cluster.coordinator(MockCoordinator::Transaction("id".to_owned()), 1).unwrap();
        cluster.coordinator(MockCoordinator::Group("group".to_owned()), GROUP_COORDINATOR).unwrap();
        cluster.create_topic("inbox", 1, 3).unwrap();
        cluster.create_topic("events", 1, 3).unwrap();
        let mut client = kafka::client(&cluster.bootstrap_servers());
        let consumer: BaseConsumer = client.clone().set("group.id", "group").create().unwrap();
        let group = Arc::new(consumer.group_metadata().unwrap());
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("inbox", 0, Offset::Offset(7)).unwrap();
        client.set("transactional.id", "id");
        Self { cluster, client, group, offsets }
    }

    fn open(&self) -> Transactions {
        Transactions::open(&self.client, monitor()).unwrap()
    }

    /// A transaction with one record.
    fn transaction(&self, transactions: &Transactions) -> Result<(), Failure> {
        transactions.begin(&self.offsets, &self.group)?;
        transactions.send(&TransactionRecord {
            topic: "events",
            partition: None,
            key: "1",
            headers: &[],
            value: b"{}",
            inbox_partition: 0,
        })?;
        transactions.commit(&self.offsets, &self.group)
    }
}

/// The call that sends offsets has a time-out, which it does not keep where the coordinator goes away in the middle.
#[test]
fn offsets_that_a_coordinator_cannot_take_are_given_up() {
    let world = World::new();
    let transactions = world.open();
    world.transaction(&transactions).unwrap();
    world.cluster.broker_down(GROUP_COORDINATOR).unwrap();
    let began = Instant::now();
    let failure = world.transaction(&transactions).unwrap_err();
    assert!(matches!(failure, Failure::Replace(_)), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let call = transactions.call();
    drop(transactions);
    assert!(call.strong_count() > 0, "it was no call that does not come back");
}

#[test]
fn answers_that_end_a_transaction_do_not_end_the_process() {
    use RDKafkaApiKey::{AddPartitionsToTxn, EndTxn, Produce, TxnOffsetCommit};
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING,
        RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
    };
    let world = World::new();
    let mut transactions = world.open();
    world.transaction(&transactions).unwrap();
    for (request, answer, may_succeed) in [
        (Produce, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, false),
        (Produce, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, false),
        (Produce, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, false),
        (Produce, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, true),
        (AddPartitionsToTxn, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, false),
        (AddPartitionsToTxn, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING, false),
        (TxnOffsetCommit, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, false),
        (TxnOffsetCommit, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, true),
        (EndTxn, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, false),
        (EndTxn, RD_KAFKA_RESP_ERR_NOT_COORDINATOR, true),
    ] {
        world.cluster.request_errors(request, &[answer]);
        match world.transaction(&transactions) {
            Ok(()) => assert!(may_succeed, "{request:?} was answered {answer:?}, and nobody minded"),
            Err(failure) => {
                assert!(!may_succeed, "{request:?} was answered {answer:?}, which passes: {failure}");
                let can_abort = matches!(failure, Failure::Environment { .. } | Failure::TooLarge);
                if !(can_abort && transactions.abort().is_ok()) {
                    transactions = world.open();
                }
            }
        }
        world.cluster.clear_request_errors(request);
        world
            .transaction(&transactions)
            .unwrap_or_else(|failure| panic!("after {request:?} was answered {answer:?}: {failure}"));
    }
}
