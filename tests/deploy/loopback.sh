# shellcheck shell=bash
# Of script/image: what stands beside a container whose network has nothing but loopback: a Kafka, and one who sends events.

# inside COMMAND...: in the network of the process `pid`
inside() { nsenter --net="/proc/$pid/ns/net" "$@"; }
answers() { [[ $(inside curl -s -m 2 -o /dev/null -w '%{http_code}' "$2") == "$1" ]]; }

# start_kafka CONTAINER: in its network. As in the compose file, whose network it has not: its name is that of loopback.
start_kafka() {
    compose config --format json >"$work/compose.json"
    "$tools/python" - "$work/compose.json" >"$work/kafka" <<'END'
import json, sys
for name, value in json.load(open(sys.argv[1]))["services"]["kafka"]["environment"].items():
    print(f"--env={name}={value.replace('//kafka:', '//localhost:')}")
END
    mapfile -t options <"$work/kafka"
    podman run --detach --name kafka --network="container:$1" "${options[@]}" "$(named apache/kafka)" >/dev/null
}

# sends EVENTS PORT: a part of them twice, as ClearFeed does; each of them then stands in Kafka once
sends() {
    inside "$relay" simulate --url "http://127.0.0.1:$2/clearfeed/events" --signed-url $url --secret-file "$work/secret" \
        --ping --events "$1" --connections 16 --redeliver 20 --retries-on-failure --json >"$work/summary" ||
        { cat "$work/summary" >&2 && die 'simulate failed'; }
    within 120 "$1 events" has_events "$1"
    (($(grep -oE 'ce_id=[^,]+' "$work/events" | sort -u | wc -l) == $(wc -l <"$work/events"))) || die 'an event stands twice'
}

has_events() {
    inside "$kcat" -C -b localhost:9092 -t clearfeed.request -o beginning -e -X isolation.level=read_committed -f '%h\n' \
        >"$work/events" && (($(wc -l <"$work/events") >= $1))
}
