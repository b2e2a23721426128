//! librdkafka's call that sends offsets into a transaction has a time-out which it does not keep. On its embedded broker,
//! where a coordinator can be taken away at the right moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clearfeed_relay::forward::transaction::{Failure, Transactions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{kafka, monitor};

const GROUP_COORDINATOR: i32 = 2;

#[test]
fn offsets_that_a_coordinator_cannot_take_are_given_up() {
    let cluster = MockCluster::new(3).unwrap();
    cluster.coordinator(MockCoordinator::Transaction("id".to_owned()), 1).unwrap();
    cluster.coordinator(MockCoordinator::Group("group".to_owned()), GROUP_COORDINATOR).unwrap();
    cluster.create_topic("inbox", 1, 3).unwrap();
    let mut client = kafka::client(&cluster.bootstrap_servers());
    let consumer: BaseConsumer = client.clone().set("group.id", "group").create().unwrap();
    let group = Arc::new(consumer.group_metadata().unwrap());
    let mut stand = TopicPartitionList::new();
    stand.add_partition_offset("inbox", 0, Offset::Offset(7)).unwrap();

    let transactions = Transactions::open(client.set("transactional.id", "id"), monitor()).unwrap();
    transactions.begin(&stand, &group).unwrap();
    transactions.commit(&stand, &group).unwrap();
    cluster.broker_down(GROUP_COORDINATOR).unwrap();
    let began = Instant::now();
    let failure = transactions.begin(&stand, &group).unwrap_err();
    assert!(matches!(failure, Failure::Replace(_)), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let call = transactions.call();
    drop(transactions);
    assert!(call.strong_count() > 0, "it was no call that does not come back");
}
