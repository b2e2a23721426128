# shellcheck shell=bash
# Of script/image: the compose file, brought up.

project=clearfeed-relay-test
services=(kafka relay simulate prometheus alertmanager)

# Without ports on this machine, which may be taken, and with a secret of this run.
compose() {
    {
        echo 'services:'
        printf '  %s: {ports: !reset []}\n' kafka relay prometheus alertmanager grafana
        printf 'secrets:\n  signing-secret: {file: %s}\n' "$work/secret"
    } >"$work/override.yaml"
    DOCKER_HOST=unix://$work/podman.sock timeout 300 "$tools/docker-compose" --project-name $project \
        --file deploy/compose/compose.yaml --file "$work/override.yaml" "$@"
}

container() { echo "$project-$1-1"; }
address() { podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container "$1")"; }

# What waits until the relay is healthy waits for its health check. It is run once it would succeed: Podman counts failures
# of the time that it has to start, as Docker does not.
up() {
    local up
    podman system service --time=0 "unix://$work/podman.sock" &>"$work/service" &
    service=$!
    within 60 'the API of podman' test -S "$work/podman.sock"
    compose up --detach --pull never --no-build "${services[@]}" &>"$work/up" &
    up=$!
    while kill -0 $up 2>/dev/null; do
        if podman exec "$(container relay)" "${health[@]}" --config /etc/clearfeed-relay/relay.toml; then
            podman healthcheck run "$(container relay)" || :
        fi &>/dev/null
        sleep 0.5
    done
    wait $up || { cat "$work/up" >&2 && die 'docker compose up failed'; }
}

# The command of deploy/README.md. Not by `compose exec`: each of those leaves a process of Podman's behind for minutes.
reads_events() {
    podman exec "$(container kafka)" /opt/kafka/bin/kafka-console-consumer.sh --bootstrap-server kafka:19092 \
        --topic clearfeed.request --from-beginning --isolation-level read_committed --max-messages 20 --timeout-ms 20000
}

# prometheus_says PATH FILTER: of the answer of its API, by jq
prometheus_says() { curl -sS -m 5 "http://$(address prometheus):9090/api/v1/$1" | jq -e "$2"; }

compose_up() {
    local rules exit_code
    timed 'compose: up' up
    within 120 'events in Kafka' reads_events
    within 120 'the relay is scraped' prometheus_says targets \
        '.data.activeTargets | length == 1 and all(.health == "up" and .labels.job == "clearfeed-relay")'
    within 120 'accepted deliveries in Prometheus' prometheus_says \
        'query?query=sum(clearfeed_relay_deliveries_total%7Boutcome=%22accepted%22%7D)' '.data.result[0].value[1] | tonumber > 0'
    rules=$(grep -cE '^ +- (alert|record):' helm/clearfeed-relay/files/alerts.yaml)
    within 120 "$rules rules, all evaluated" prometheus_says rules \
        "[.data.groups[].rules[]] | length == $rules and all(.health == \"ok\")"
    within 120 'Prometheus knows Alertmanager' prometheus_says alertmanagers '.data.activeAlertmanagers | length == 1'
    compose stop --timeout 30 &>/dev/null # said again: the API of Podman does not take it from the file
    exit_code=$(podman inspect --format '{{.State.ExitCode}}' "$(container relay)")
    ((!exit_code)) || die "compose: the relay ended with $exit_code"
    compose down --volumes &>/dev/null
}
