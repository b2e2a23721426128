# shellcheck shell=bash
# Of script/image: the image, run as the chart's Deployment says.

health=(/usr/local/bin/clearfeed-relay health)
health() { podman exec relay "${health[@]}" --config /etc/clearfeed-relay/relay.yaml "$@"; }

start_relay() {
    "$helm" template relay helm/clearfeed-relay --values helm/clearfeed-relay/ci/minimal-values.yaml \
        --set config.kafka.bootstrap_servers=localhost:9092 >"$work/manifests.yaml"
    "$tools/python" tests/deploy/as_the_chart_says.py "$work/manifests.yaml" "$work/pod" "$(<"$work/secret")"
    mapfile -t options <"$work/pod/options"
    mapfile -t arguments <"$work/pod/arguments"
    podman run --detach --name relay --network=none --no-healthcheck "${options[@]}" "$image" "${arguments[@]}" >/dev/null
    pid=$(podman inspect --format '{{.State.Pid}}' relay)
}

as_the_chart_says() {
    local grace_s intake liveness readiness began peak_kib
    ! podman run --rm --network=none --entrypoint /bin/sh "$image" -c true &>/dev/null || die 'the image has a shell'
    start_relay
    # shellcheck source=/dev/null
    source "$work/pod/env"
    within 60 'alive, while there is no Kafka' answers 200 "$liveness"
    answers 503 "$readiness" || die 'ready, though there is no Kafka'
    health --live >/dev/null || die 'health --live does not say that it is alive'
    ! health >/dev/null || die 'health says that it is ready, though there is no Kafka'
    start_kafka relay
    within 240 'ready, with a Kafka' answers 200 "$readiness"
    health >/dev/null || die 'health does not say that it is ready'
    sends 1000 "$intake"
    peak_kib=$(sed -n 's/^VmHWM:\s*\([0-9]*\) kB/\1/p' "/proc/$pid/status")
    began=$SECONDS
    podman stop --time "$grace_s" relay >/dev/null
    [[ $(podman inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}}' relay) == '0 false' ]] ||
        die "ended with $(podman inspect --format '{{.State.ExitCode}}, out of memory: {{.State.OOMKilled}}' relay)"
    say "1000 events, each once; $((peak_kib / 1024)) MiB at most; drained in $((SECONDS - began)) of $grace_s s"
    remove_all
}
