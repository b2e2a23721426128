import java.util.ArrayList;
import java.util.List;

import org.apache.kafka.tools.AclCommand;

/**
 * {@code kafka-acls} for many rules in one JVM: the first two arguments, the server, go with each list of arguments that stands
 * between two {@code --}.
 *
 * <p>{@code script/kafka acls} runs it.
 */
final class Acls {
    public static void main(String[] arguments) {
        List<String> server = List.of(arguments).subList(0, 2), one = new ArrayList<>(server);
        for (String argument : List.of(arguments).subList(2, arguments.length)) {
            if (!argument.equals("--")) {
                one.add(argument);
                continue;
            }
            AclCommand.main(one.toArray(String[]::new));
            one = new ArrayList<>(server);
        }
        AclCommand.main(one.toArray(String[]::new)); // ends the JVM with 1 where it fails
    }
}
