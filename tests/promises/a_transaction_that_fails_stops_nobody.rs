//! What Kafka can answer to a transaction, and librdkafka make of it, ends in a producer that works. On librdkafka's own
//! embedded broker, which answers what it is told to, when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use clearfeed_relay::config;
use clearfeed_relay::domain::ledger_entry::LedgerEntry;
use clearfeed_relay::forward::failure::Failure;
use clearfeed_relay::forward::fence::Fence;
use clearfeed_relay::forward::lookout::Lookout;
use clearfeed_relay::forward::transaction::{LedgerRecord, TransactionRecord, Transactions};
use clearfeed_relay::kafka::properties::TRANSACTION_TIMEOUT;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::{SOON, kafka, monitor};

const GROUP_COORDINATOR: i32 = 2;

/// Brokers, and what a transaction needs of them.
struct World {
    cluster: MockCluster<'static, DefaultProducerContext>,
    client: ClientConfig,
    consumer: BaseConsumer,
    group: Arc<ConsumerGroupMetadata>,
    lookout: Arc<Lookout>,
    offsets: TopicPartitionList,
}

const LEDGER: &str = "clearfeed.ledger";
const EVENT: &[u8] = b"{}";

/// Nothing was decided.
fn entry() -> LedgerEntry {
    LedgerEntry { inbox_partitions: 1, from: 7, to: 7, last_ms: 0, newest_ms: 0, ids: Vec::new() }
}

impl World {
    fn new() -> Self {
        let cluster = MockCluster::new(3).unwrap();
        cluster.coordinator(MockCoordinator::Transaction("id".to_owned()), 1).unwrap();
        cluster.coordinator(MockCoordinator::Group("group".to_owned()), GROUP_COORDINATOR).unwrap();
        cluster.create_topic("inbox", 1, 3).unwrap();
        cluster.create_topic("events", 1, 3).unwrap();
        cluster.create_topic(LEDGER, 1, 3).unwrap();
        let mut client = kafka::client(&cluster.bootstrap_servers());
        let consumer: BaseConsumer = client.clone().set("group.id", "group").create().unwrap();
        let group = Arc::new(consumer.group_metadata().unwrap());
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("inbox", 0, Offset::Offset(7)).unwrap();
        client.set("transactional.id", "id");
        let text = format!(
            "[kafka]\nbootstrap_servers = {:?}\n\
             [sources.main]\npublic_url = \"https://a.example/e\"\nsigning_secret_files = [\"s\"]",
            cluster.bootstrap_servers()
        );
        let lookout = Arc::new(Lookout::new(&config::from_toml(&text).unwrap(), monitor()).unwrap());
        Self { cluster, client, consumer, group, lookout, offsets }
    }

    fn open(&self) -> Transactions {
        Transactions::open(&self.client, monitor(), &self.lookout).unwrap()
    }

    fn ledger_end(&self) -> i64 {
        self.consumer.fetch_watermarks(LEDGER, 0, SOON).unwrap().1
    }

    /// A transaction with one record, by an owner who knows the whole ledger.
    fn transaction(&self, transactions: &Transactions) -> Result<(), Failure> {
        let end = self.ledger_end();
        let fences = self.transaction_behind(transactions, &[EVENT], Fence::taken_over(end))?;
        assert_eq!(fences[&0], Fence::committed(end));
        Ok(())
    }

    /// The same, by one who expects his ledger record to land there.
    fn transaction_behind(
        &self,
        transactions: &Transactions,
        events: &[&[u8]],
        fence: Fence,
    ) -> Result<BTreeMap<i32, Fence>, Failure> {
        let transaction = transactions.begin(&self.offsets, &self.group)?;
        for value in events {
            transaction.send(&TransactionRecord {
                topic: "events",
                partition: None,
                key: "1",
                headers: &[],
                value,
                inbox_partition: 0,
            })?;
        }
        let record = LedgerRecord { entry: entry(), fence, further: None };
        transaction.append(BTreeMap::from([(0, record)]))?.commit(&self.offsets)
    }
}

/// The call that sends offsets has a time-out, which it does not keep where the coordinator goes away in the middle.
#[test]
fn offsets_that_a_coordinator_cannot_take_are_given_up() {
    let world = World::new();
    let transactions = world.open();
    world.transaction(&transactions).unwrap();
    let fence = Fence::taken_over(world.ledger_end());
    world.cluster.broker_down(GROUP_COORDINATOR).unwrap();
    let began = Instant::now();
    let failure = world.transaction_behind(&transactions, &[EVENT], fence).unwrap_err();
    assert!(matches!(failure, Failure::Replace(_)), "{failure}");
    assert!(began.elapsed() < 2 * TRANSACTION_TIMEOUT, "{:?}", began.elapsed());
    let call = transactions.call();
    drop(transactions);
    assert!(call.strong_count() > 0, "it was no call that does not come back");
}

/// Whoever wrote to the ledger meanwhile decided about records without us, and we without him.
#[test]
fn a_ledger_that_somebody_else_wrote_to_is_contested() {
    let world = World::new();
    let transactions = world.open();
    world.transaction(&transactions).unwrap();
    let fence = Fence::taken_over(world.ledger_end());
    let stranger: BaseProducer = world.client.clone().remove("transactional.id").create().unwrap();
    let value = entry().encode();
    let headers = OwnedHeaders::new().insert(Header { key: "v", value: Some("1") });
    stranger.send(BaseRecord::<(), _>::to(LEDGER).partition(0).payload(&value).headers(headers)).unwrap();
    stranger.flush(SOON).unwrap();
    let failure = world.transaction_behind(&transactions, &[EVENT], fence).unwrap_err();
    let Failure::Contested { partition: 0, by_other_group: true, detail } = &failure else {
        panic!("{failure}")
    };
    let expected = format!("an unknown writer wrote to {LEDGER}-0 at offset {}", fence.next());
    assert!(detail.starts_with(&expected), "{detail}");
    transactions.abort().unwrap();
    world.transaction(&transactions).unwrap();
}

/// Where the answer to a record was lost, librdkafka learns from the next try that the broker has it, and not where.
#[test]
fn a_ledger_record_of_which_kafka_does_not_tell_the_offset_is_looked_for() {
    use RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
    let world = World::new();
    let transactions = world.open();
    world.transaction(&transactions).unwrap();
    let fence = Fence::taken_over(world.ledger_end());
    // As the first try has left it there.
    let (value, by) = (entry().encode(), world.lookout.writer().encode());
    let headers = OwnedHeaders::new().insert(Header { key: "by", value: Some(&by) });
    let hand: BaseProducer = world.client.clone().remove("transactional.id").create().unwrap();
    hand.send(BaseRecord::<(), _>::to(LEDGER).partition(0).payload(&value).headers(headers)).unwrap();
    hand.flush(SOON).unwrap();
    // The only request is the ledger record's.
    world.cluster.request_errors(RDKafkaApiKey::Produce, &[RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER]);
    let fences = world.transaction_behind(&transactions, &[], fence).unwrap();
    assert_eq!(fences[&0], Fence::committed(fence.next()));
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
