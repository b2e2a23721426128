#!/usr/bin/env bash
# Apache Kafka 4.4.0 (the newest on 2026-11-30) shows a record of an aborted transaction to a `read_committed` reader.
#
# Kafka's documentation of the consumer's `isolation.level`: "If set to read_committed, consumer.poll() will only return
# transactional messages which have been committed."
#
# What is done, with Kafka's own broker, its own Java client, and nothing else:
#
#   1. Two brokers on loopback. The only replica of partition t-0 is on broker 2; the coordinator is on broker 1.
#   2. A producer begins a transaction and sends `aborted` to t-0, which is acknowledged.
#   3. Broker 2 is killed. When t-0 has no leader the producer aborts.
#   4. Broker 2 starts again with its old disk, and gets 20 s.
#   5. The same producer sends `committed` to t-0 in its next transaction, and commits.
#   6. A reader with `read_committed` reads t-0 from the beginning.
#
# Seen (`state`: what the coordinator says of the aborted transaction; `open`: transactions that are open in t-0):
#
#   4.4.0: state CompleteAbort, open 1, reader gets [aborted, committed]
#   4.2.2: state CompleteAbort, open 0, reader gets [committed]
#
# 4.4.0 regards the transaction as complete although t-0 has no marker of it, so nobody writes one when the leader is back
# (KAFKA-20734). 4.2.2 waits, and is right.
#
# Exit 0: both behave as above. Exit 1: one of them does not any more. Needs a JDK (17 or later) and Maven, which fetches
# Kafka's jars (2 x 54 MB). Takes two minutes.
set -euo pipefail

folder=$(mktemp -d)
java=''
finish() {
    if [[ $java ]] && kill "$java" 2>/dev/null; then # its end ends the brokers
        wait "$java" || :
    fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

# fetch VERSION: the jars of Kafka's broker and client
fetch() {
    cat >"$folder/pom.xml" <<END
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
      <version>$1</version>
    </dependency>
  </dependencies>
</project>
END
    mvn -q -B -Dstyle.color=never -f "$folder/pom.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$folder/$1/jars" &>"$folder/mvn.log" || { cat "$folder/mvn.log" >&2 && exit 2; }
}

cat >"$folder/Finding.java" <<'END'
import java.io.File;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Callable;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

final class Finding {
    static final String ID = "finding";
    static final TopicPartition T0 = new TopicPartition("t", 0);
    static final List<Process> started = new ArrayList<>();
    static Path folder;

    public static void main(String[] arguments) throws Exception {
        folder = Path.of(arguments[0]);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> started.forEach(Process::destroyForcibly)));
        int controller = freePort(), first = freePort(), second = freePort();
        String common = "controller.quorum.voters=1@127.0.0.1:" + controller
            + "\ncontroller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT"
            + "\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
            + "\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1"
            + "\ntransaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1"
            + "\ntransaction.state.log.num.partitions=1\n";
        String cluster = Uuid.randomUuid().toString();
        Path one = broker(1, common + "process.roles=broker,controller\nlisteners=PLAINTEXT://127.0.0.1:" + first
            + ",CONTROLLER://127.0.0.1:" + controller, cluster);
        Path two = broker(2, common + "process.roles=broker\nlisteners=PLAINTEXT://127.0.0.1:" + second, cluster);
        start(one);
        Properties client = new Properties();
        client.put("bootstrap.servers", "127.0.0.1:" + first);
        try (Admin admin = Admin.create(client); KafkaProducer<String, String> producer = producer(client)) {
            producer.initTransactions(); // while there is only broker 1, which is the coordinator from now on
            Process killed = start(two);
            await("two brokers", () -> admin.describeCluster().nodes().get().size() == 2);
            admin.createTopics(List.of(new NewTopic("t", Map.of(0, List.of(2))))).all().get();
            await("a leader", () -> hasLeader(admin));

            producer.beginTransaction();
            producer.send(new ProducerRecord<>("t", 0, null, "aborted")).get();
            killed.destroyForcibly().waitFor();
            await("no leader", () -> !hasLeader(admin));
            producer.abortTransaction();
            start(two);
            await("the leader is back", () -> hasLeader(admin));
            Thread.sleep(20_000);
            String state = admin.describeTransactions(List.of(ID)).description(ID).get().state().toString();
            long open = admin.describeProducers(List.of(T0)).partitionResult(T0).get().activeProducers().stream()
                .filter(known -> known.currentTransactionStartOffset().isPresent()).count();

            producer.beginTransaction();
            producer.send(new ProducerRecord<>("t", 0, null, "committed")).get();
            producer.commitTransaction();
            System.out.println("state " + state + ", open " + open + ", reader gets " + read(client));
        }
        System.exit(0);
    }

    static KafkaProducer<String, String> producer(Properties client) {
        Properties settings = new Properties();
        settings.putAll(client);
        settings.put("transactional.id", ID);
        return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }

    /** What a read_committed reader gets until nothing came for five seconds. */
    static List<String> read(Properties client) {
        Properties settings = new Properties();
        settings.putAll(client);
        settings.put("isolation.level", "read_committed");
        List<String> values = new ArrayList<>();
        try (var reader = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            reader.assign(List.of(T0));
            reader.seekToBeginning(List.of(T0));
            for (long last = System.nanoTime(); System.nanoTime() - last < 5_000_000_000L; ) {
                for (var record : reader.poll(Duration.ofMillis(200))) {
                    values.add(record.value());
                    last = System.nanoTime();
                }
            }
        }
        return values;
    }

    static boolean hasLeader(Admin admin) throws Exception {
        var leader = admin.describeTopics(List.of("t")).allTopicNames().get().get("t").partitions().get(0).leader();
        return leader != null && !leader.isEmpty();
    }

    static void await(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + 60_000_000_000L;
        while (true) {
            try {
                if (condition.call()) return;
            } catch (java.util.concurrent.ExecutionException notYet) {
                // Brokers learn of topics and of each other one after the other.
            }
            if (System.nanoTime() > deadline) throw new IllegalStateException("waited for " + what);
            Thread.sleep(100);
        }
    }

    static int freePort() throws Exception {
        try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        }
    }

    /** The settings of a broker whose disk is formatted. */
    static Path broker(int id, String settings, String cluster) throws Exception {
        Path file = folder.resolve(id + ".properties");
        Files.writeString(file, settings + "\nnode.id=" + id + "\nlog.dirs=" + folder.resolve("records-" + id) + "\n");
        if (run(file, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", file.toString()).waitFor() != 0) {
            throw new IllegalStateException(Files.readString(folder.resolve(id + ".properties.log")));
        }
        return file;
    }

    static Process start(Path file) throws Exception {
        Process broker = run(file, "kafka.Kafka", file.toString());
        started.add(broker);
        return broker;
    }

    static Process run(Path file, String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-cp",
            System.getProperty("java.class.path")));
        command.addAll(List.of(arguments));
        File log = new File(file + ".log");
        return new ProcessBuilder(command).redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.appendTo(log)).start();
    }
}
END

# expect VERSION LINE: whether that version behaves so
expect() {
    local seen
    fetch "$1"
    java -cp "$folder/$1/jars/*" "$folder/Finding.java" "$folder/$1" >"$folder/$1/seen" 2>"$folder/$1/log" &
    java=$!
    wait "$java" || { cat "$folder/$1/log" "$folder/$1"/*.properties.log >&2 && exit 2; }
    java=''
    seen=$(tail -n 1 "$folder/$1/seen")
    echo "$1: $seen"
    [[ $seen == "$2" ]]
}

changed=0
expect 4.4.0 'state CompleteAbort, open 1, reader gets [aborted, committed]' || changed=1
expect 4.2.2 'state CompleteAbort, open 0, reader gets [committed]' || changed=1
((!changed))
