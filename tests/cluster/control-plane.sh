# shellcheck shell=bash
# A Kubernetes control plane on loopback, for script/cluster, which sources this: etcd, API server, controllers and
# scheduler as they are, and kwok, which says of nodes and pods what kubelets would. It lives in $work, and as long as
# the shell that started it.
#
#   start_control_plane    until nodes are ready; sets KUBECONFIG
#   end_control_plane      nothing of it is there after that

plane_pids=()
start_timeout_s=120 # on two busy cores; idle ones take 5

# launch NAME COMMAND...: ends with this shell, even where that is killed
launch() {
    local name=$1
    shift
    setpriv --pdeathsig KILL "$@" </dev/null >"$work/$name.log" 2>&1 &
    plane_pids+=($!)
}

# until_ready NAME COMMAND...: until the command succeeds; not when the process of that name has ended, or after too long
until_ready() {
    local name=$1 deadline=$((SECONDS + start_timeout_s)) why=''
    shift
    until "$@" &>/dev/null; do
        kill -0 "${plane_pids[-1]}" 2>/dev/null || why='has ended'
        ((SECONDS < deadline)) || why="was not ready within $start_timeout_s s"
        [[ ! $why ]] || { tail -n 30 "$work/$name.log" >&2 && die "$name $why; above is the end of its log"; }
        sleep 0.1
    done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_ports: the first of three that follow each other, below those that Linux gives to outgoing connections
free_ports() {
    local port
    until port=$((20000 + RANDOM % 12000)) && ! listens "$port" && ! listens $((port + 1)) && ! listens $((port + 2)); do :; done
    echo "$port"
}

start_etcd() { # PORT PEER_PORT
    launch etcd "$kubernetes/server" --data-dir "$work/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "http://127.0.0.1:$1" --advertise-client-urls "http://127.0.0.1:$1" \
        --listen-peer-urls "http://127.0.0.1:$2" --initial-advertise-peer-urls "http://127.0.0.1:$2" \
        --initial-cluster "default=http://127.0.0.1:$2"
}

start_api_server() { # PORT ETCD_PORT TOKEN
    openssl genrsa -out "$work/service-accounts.key" 2048 2>/dev/null
    echo "$3,admin,admin,system:masters" >"$work/tokens.csv"
    launch kube-apiserver "$kubernetes/kube-apiserver" --etcd-servers "http://127.0.0.1:$2" \
        --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$1" --cert-dir "$work/certificates" \
        --service-cluster-ip-range 10.96.0.0/16 --endpoint-reconciler-type none --authorization-mode RBAC \
        --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$work/service-accounts.key" \
        --service-account-signing-key-file "$work/service-accounts.key" --token-auth-file "$work/tokens.csv"
}

configure_clients() { # PORT TOKEN
    export KUBECONFIG=$work/kubeconfig
    cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$1", certificate-authority: $work/certificates/apiserver.crt}}]
users: [{name: admin, user: {token: $2}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
END
}

start_controllers() {
    local own=(--kubeconfig "$KUBECONFIG" --authentication-kubeconfig "$KUBECONFIG"
        --authorization-kubeconfig "$KUBECONFIG" --leader-elect=false --secure-port 0)
    launch kwok "$kubernetes/kwok" --kubeconfig "$KUBECONFIG" --manage-all-nodes --node-lease-duration-seconds 40 \
        --config tests/cluster/kwok.yaml
    launch kube-scheduler "$kubernetes/kube-scheduler" "${own[@]}"
    launch kube-controller-manager "$kubernetes/kube-controller-manager" "${own[@]}" \
        --service-account-private-key-file "$work/service-accounts.key" --horizontal-pod-autoscaler-sync-period 1s
}

# cloud: gives Services of type LoadBalancer the address that Helm waits for
cloud() {
    local namespace name type
    kubectl get services --all-namespaces --watch \
        -o jsonpath='{.metadata.namespace} {.metadata.name} {.spec.type}{"\n"}' 2>/dev/null |
        while read -r namespace name type; do
            [[ $type != LoadBalancer ]] || kubectl patch --namespace "$namespace" service "$name" --subresource status \
                --patch '{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}' &>/dev/null || :
        done
}

# nodes: six, two in each of three zones
nodes() {
    local i
    for i in 1 2 3 4 5 6; do
        cat <<END
---
apiVersion: v1
kind: Node
metadata:
  name: node-$i
  labels: {kubernetes.io/hostname: node-$i, topology.kubernetes.io/zone: zone-$((i % 3))}
END
    done
}

# volumes: more than all tests claim; none has a class, as no claim has. Nothing is ever in them
volumes() {
    local i
    for ((i = 0; i < 100; i++)); do
        cat <<END
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-$i}
spec: {capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /nowhere}}
END
    done
}

start_control_plane() {
    local port token
    port=$(free_ports) token=$(openssl rand -hex 16)
    start_etcd $((port + 1)) $((port + 2))
    until_ready etcd curl -fsS -m 2 "http://127.0.0.1:$((port + 1))/readyz"
    start_api_server "$port" $((port + 1)) "$token"
    configure_clients "$port" "$token"
    until_ready kube-apiserver kubectl get --request-timeout 2s --raw /readyz
    start_controllers
    { nodes && volumes; } | kubectl apply -f - >/dev/null
    until_ready kube-controller-manager kubectl wait --for condition=Ready node --all --timeout 2s
    until_ready kube-controller-manager kubectl get serviceaccount default
    cloud & # ends with the API server
}

# end_control_plane: at once, for all that it knows goes with it; asked to, the API server waits a minute for its watchers
end_control_plane() {
    local pid
    for pid in "${plane_pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
}
