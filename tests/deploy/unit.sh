# shellcheck shell=bash
# Of script/image: the unit, under a systemd of its own, with everything that it forbids.

systemd() { podman exec host systemctl "$@"; }
state() { systemd show clearfeed-relay --property "$1" --value; }
is() { [[ $(state "$1") == "$2" ]]; }

says_why() { [[ $(state StatusText) == 'not ready: '* ]]; }

# ended RESULT EXIT_CODE: so, and it is not started again
ended() {
    local found
    found="$(state Result) $(state ExecMainStatus) $(state NRestarts) $(state ActiveState)"
    [[ $found =~ ^"$1 $2 "[0-9]+" "(inactive|failed)$ ]] || die "wanted to see it end with $1, $2; found $found"
}

# A Debian with systemd, where the relay is installed as deploy/README.md says. A host's mounts are shared, and systemd counts
# on it.
start_host() {
    local host=$work/host
    mkdir "$host"
    cat >"$host/relay.toml" <<END
[sources.main]
public_url = "$url"
signing_secret_files = ["/run/credentials/clearfeed-relay.service/signing-secret"]

[kafka]
bootstrap_servers = "localhost:9092"
END
    install -m 600 "$work/secret" "$host/signing-secret"
    podman create --name relay "$image" >/dev/null
    podman cp relay:/usr/local/bin/clearfeed-relay "$work/clearfeed-relay"
    podman run --detach --name host --network=none --privileged --systemd=always --volume "$host:/etc/clearfeed-relay" \
        --volume "$PWD/deploy/systemd/clearfeed-relay.service:/etc/systemd/system/clearfeed-relay.service:ro" \
        --volume "$work/clearfeed-relay:/usr/local/bin/clearfeed-relay:ro" localhost/host:bookworm \
        sh -c 'mount --make-rshared / && exec /lib/systemd/systemd' >/dev/null
    pid=$(podman inspect --format '{{.State.Pid}}' host)
}

under_systemd() {
    local began
    start_host
    within 120 'systemd in a container' systemd list-units
    systemd start clearfeed-relay || die 'did not start, while there is no Kafka'
    within 60 'not ready, and a status that says so' says_why
    start_kafka host
    within 240 'ready, with a Kafka' is StatusText ready
    sends 200 8080
    inside curl -sS -m 5 http://127.0.0.1:9090/metrics | grep -qE '^process_start_time_seconds [1-9]' ||
        die 'the unit hides from the relay when it was started'
    systemd reload clearfeed-relay
    systemd kill --kill-whom=main --signal=STOP clearfeed-relay
    within 120 'frozen, and started again by the watchdog' is NRestarts 1
    within 120 'ready again' is StatusText ready
    began=$SECONDS
    systemd stop clearfeed-relay
    ended success 0
    say "200 events, each once; started again when frozen; drained in $((SECONDS - began)) s"
    echo 'unknown = 1' >>"$work/host/relay.toml"
    ! systemd start clearfeed-relay 2>/dev/null || die 'started with a wrong configuration'
    ended exit-code 78
    remove_all
}
