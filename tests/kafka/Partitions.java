import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

/**
 * The judge of our own partitioner: where Kafka's Java client puts a key. Reads lines {@code KEY<TAB>PARTITIONS} in
 * UTF-8 from standard input; writes one line for each, the partition.
 *
 * <p>{@code java -cp 'target/kafka/libs/*' tests/kafka/Partitions.java}
 */
final class Partitions {
    public static void main(String[] arguments) throws IOException {
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var answers = new StringBuilder();
        for (String line; (line = lines.readLine()) != null; ) {
            int tab = line.lastIndexOf('\t');
            byte[] key = line.substring(0, tab).getBytes(StandardCharsets.UTF_8);
            int partitions = Integer.parseInt(line.substring(tab + 1));
            answers.append(BuiltInPartitioner.partitionForKey(key, partitions)).append('\n');
        }
        System.out.print(answers);
    }
}
