#!/usr/bin/env bash
# A transactional producer of librdkafka whose id Kafka has forgotten recovers with an abort if its transactions begin with
# records, and never if they begin with offsets, although each abort succeeds and no error is fatal.
#
# Kafka forgets an id that had no transaction for `transactional.id.expiration.ms` (7 days by default). librdkafka's manual on
# an abortable error: the application aborts the current transaction, and may then begin a new one.
#
# What is done, on Kafka 4.2.2 with an expiry of 4 s, by confluent-kafka (Python) with the librdkafka in its wheel:
#
#   1. A producer commits a transaction.
#   2. Nothing happens until `__transaction_state` has the tombstone of its id.
#   3. The same producer tries a transaction three times, and aborts each that fails: once with a record first and the
#      consumer's offsets behind it, once (another id) with the offsets first.
#   4. Another producer with the same id tries it once.
#
# Guessed beforehand: both alike, the first try fails, the abort takes the id anew, the second try succeeds.
# Seen, with librdkafka 2.12.1 and 2.16.0 alike:
#
#   record first:  INVALID_PRODUCER_ID_MAPPING (abortable), aborted; committed; committed; another producer: committed
#   offsets first: INVALID_PRODUCER_ID_MAPPING (abortable), aborted; the same; the same; another producer: committed
#
# librdkafka asks for a new epoch when AddPartitionsToTxn is refused so, and not when AddOffsetsToTxn is. Whoever sends
# offsets first has to make a new producer.
#
# Exit 0: both behave as above. Exit 1: one of them does not any more. Needs a JDK (17 or later), Maven, which fetches Kafka's
# jars (54 MB), and Python 3 with venv. Takes a minute.
set -euo pipefail

folder=$(mktemp -d)
broker=''
finish() {
    if [[ $broker ]] && kill "$broker" 2>/dev/null; then
        wait "$broker" || :
    fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

cat >"$folder/pom.xml" <<'END'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>finding</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.2.2</version>
    </dependency>
  </dependencies>
</project>
END
mvn -q -B -Dstyle.color=never -f "$folder/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$folder/jars" &>"$folder/mvn.log" || { cat "$folder/mvn.log" >&2 && exit 2; }

# free_port: one that nobody has now
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

port=$(free_port)
controller=$(free_port)
cat >"$folder/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$folder/records
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
transactional.id.expiration.ms=4000
transaction.remove.expired.transaction.cleanup.interval.ms=1000
END
java=(java -Xmx384m -XX:TieredStopAtLevel=1 -cp "$folder/jars/*")
"${java[@]}" kafka.tools.StorageTool format -t "$("${java[@]}" kafka.tools.StorageTool random-uuid 2>/dev/null)" \
    -c "$folder/server.properties" &>"$folder/format.log" || { cat "$folder/format.log" >&2 && exit 2; }
"${java[@]}" kafka.Kafka "$folder/server.properties" &>"$folder/broker.log" &
broker=$!

cat >"$folder/finding.py" <<'END'
import sys
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

servers, first_request = sys.argv[1], sys.argv[2]
transactional_id = f"{first_request}-{confluent_kafka.libversion()[0]}"


def wait_for(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("waited for " + what)


def producer():
    made = Producer({"bootstrap.servers": servers, "transactional.id": transactional_id})
    made.init_transactions(30)
    return made


def send_offsets(made):
    made.send_offsets_to_transaction([TopicPartition("t", 0, 1)], reader.consumer_group_metadata(), 30)


def attempt(made):
    """What a transaction of a record and offsets ends with."""
    made.begin_transaction()
    try:
        if first_request == "offsets":
            send_offsets(made)
        made.produce("t", b"x")
        if first_request == "record":
            made.flush(30)
            send_offsets(made)
        made.commit_transaction(30)
        return "committed"
    except KafkaException as failure:
        error = failure.args[0]
        fatal = "fatal" if error.fatal() else "abortable" if error.txn_requires_abort() else "other"
        made.abort_transaction(30)
        return f"{error.name()} ({fatal}), aborted"


def is_forgotten(reader):
    record = reader.poll(0.1)
    # Not `if record`: a message without a value counts as false.
    return record is not None and record.value() is None and record.key()[4:] == transactional_id.encode()


admin = AdminClient({"bootstrap.servers": servers})
for future in admin.create_topics([NewTopic("t", 1, 1)]).values():
    try:
        future.result(60)
    except KafkaException as failure:
        if failure.args[0].name() != "TOPIC_ALREADY_EXISTS":
            raise
reader = Consumer({"bootstrap.servers": servers, "group.id": "finding"})
first = producer()
assert attempt(first) == "committed"
reader.assign([TopicPartition("__transaction_state", 0, 0)])
wait_for("the tombstone", lambda: is_forgotten(reader))
tries = [attempt(first) for _ in range(3)]
print(f"{'; '.join(tries)}; another producer: {attempt(producer())}")
END

# expect VERSION FIRST LINE: whether the librdkafka of that release of confluent-kafka behaves so
expect() {
    local seen
    if [[ ! -e $folder/$1 ]]; then
        python3 -m venv "$folder/$1"
        "$folder/$1/bin/pip" install -q --disable-pip-version-check "confluent-kafka==$1"
    fi
    seen=$("$folder/$1/bin/python" "$folder/finding.py" "127.0.0.1:$port" "$2" 2>"$folder/log") || { cat "$folder/log" >&2 && exit 2; }
    echo "confluent-kafka $1, $2 first: $seen"
    [[ $seen == "$3" ]]
}

fails='INVALID_PRODUCER_ID_MAPPING (abortable), aborted'
changed=0
for version in 2.12.1 2.16.1; do
    expect "$version" record "$fails; committed; committed; another producer: committed" || changed=1
    expect "$version" offsets "$fails; $fails; $fails; another producer: committed" || changed=1
done
((!changed))
