# shellcheck shell=bash
# Of script/image: Podman, and whether it works here.

# Its own store and networks: nobody's images are replaced by ours of the same name. Limits of processes no higher than this
# shell's: more would need CAP_SYS_RESOURCE, which root in a container has not. And health checks are run by who asks for
# them, not by systemd's timers.
configure_podman() {
    mkdir -p "$store/networks"
    exec {lock}>"$store/.lock"
    flock "$lock" # another checkout's run may be under way
    cat >"$store/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "$store/networks"
END
    cat >"$store/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$store/storage"
runroot = "/run/clearfeed-relay-image/$(cksum <<<"$store" | cut -d' ' -f1)"
END
    export CONTAINERS_CONF=$store/containers.conf CONTAINERS_STORAGE_CONF=$store/storage.conf DISABLE_HC_SYSTEMD=true
    local root
    root=$(podman info --format '{{.Store.GraphRoot}}' 2>"$work/why") || skip "podman does not work here: $(tail -n 1 "$work/why")"
    [[ $root == "$store/storage" ]] || die "podman wants to work in $root, where containers of others may be"
}

# All that is in the store, which is ours; that which is in another's network goes first.
remove_all() {
    podman rm --force --time 0 --ignore kafka &>/dev/null || :
    podman rm --all --force --time 0 &>/dev/null || :
    podman network prune --force &>/dev/null || :
    podman volume prune --force &>/dev/null || :
}

clean_up() {
    local status=$? container
    trap '' INT TERM
    if ((status && status != 77)); then
        for container in $(podman ps --all --format '{{.Names}}' 2>/dev/null); do
            say "the last lines of $container:"
            podman logs --tail 10 "$container" >&2 || :
        done
    fi
    remove_all
    [[ ! ${service-} ]] || kill "$service" 2>/dev/null || :
    wait
    rm -rf -- "$work"
}

# Debian itself, and whether it runs: what keeps a machine from running containers is found out only by trying.
base() {
    unshare --mount --net --pid --fork true 2>"$work/why" || skip "no right to make namespaces: $(<"$work/why")"
    if ! podman image exists localhost/debian:bookworm; then
        debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" &>"$work/why" ||
            { tail -n 5 "$work/why" >&2 && die 'debootstrap could not make a Debian in a folder'; }
        tar -C "$work/debian" -c . | podman import - localhost/debian:bookworm &>/dev/null
        rm -rf -- "$work/debian"
    fi
    podman run --rm --network=none localhost/debian:bookworm true 2>"$work/why" ||
        skip "podman cannot start a container: $(tail -n 1 "$work/why")"
}
