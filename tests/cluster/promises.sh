# shellcheck shell=bash
# What the chart promises beyond single resources, for script/cluster, which sources this and scenarios.sh. Each takes a
# namespace of its own.

# install NAMESPACE RELEASE SCENARIO [ARGUMENT...], with Helm 4
install() {
    local namespace=$1 release=$2 scenario=$3
    shift 3
    helm 4 install "$release" $chart --namespace "$namespace" --values $chart/ci/"$scenario"-values.yaml \
        --wait --timeout "${wait_s}s" "$@" >/dev/null
}

# upgrade MAJOR NAMESPACE RELEASE SCENARIO [ARGUMENT...]
upgrade() {
    local major=$1 namespace=$2 release=$3 scenario=$4
    shift 4
    helm "$major" upgrade "$release" $chart --namespace "$namespace" --values $chart/ci/"$scenario"-values.yaml \
        --wait --timeout "${wait_s}s" "$@" >/dev/null
}

# field NAMESPACE RESOURCE PATH
field() { kubectl get --namespace "$1" "$2" -o jsonpath="{$3}"; }

# is NAMESPACE RESOURCE PATH VALUE
is() { [[ $(field "$1" "$2" "$3") == "$4" ]]; }

# ---- What is refused -------------------------------------------------------------------------------------------------

# Before there are CRDs: a release that wants one is not half installed, and says what is missing.
missing_crds_are_named() {
    local major
    namespace no-crds
    note_kinds
    all_in no-crds >"$work/no-crds.after"
    for major in 3 4; do
        if helm $major install relay $chart --namespace no-crds --values $chart/ci/ha-values.yaml &>"$work/no-crds.log"; then
            die "Helm $major installs a ServiceMonitor without its CRD"
        fi
        grep -q 'no matches for kind "ServiceMonitor".*ensure CRDs are installed first' <(tr '\n' ' ' <"$work/no-crds.log") ||
            { cat "$work/no-crds.log" >&2 && die "Helm $major does not say which CRD is missing"; }
        eventually has_only no-crds "$work/no-crds.after"
    done
}

# The resources that tests/chart/manifests.py refuses are refused here, too: what it passes is worth as much as this.
wrong_fields_are_refused() {
    local i=0 case
    namespace wrong
    "$tools/python" - "$work" <<'END'
import sys, yaml
for i, case in enumerate(yaml.safe_load(open("tests/chart/wrong.yaml"))):
    if not case.get("only_here"):
        with open(f"{sys.argv[1]}/wrong-{i}.yaml", "w") as file:
            yaml.safe_dump(case["resource"], file)
END
    for case in "$work"/wrong-*.yaml; do
        ! kubectl apply --namespace wrong --dry-run=server --validate=strict -f "$case" &>/dev/null ||
            { cat "$case" >&2 && die "the API server takes this"; }
        i=$((i + 1))
    done
    ((i > 10)) || die "only $i wrong resources were tried"
}

# ---- Availability ----------------------------------------------------------------------------------------------------

# evict NAMESPACE POD, as a drain does
evict() {
    kubectl create --raw "/api/v1/namespaces/$1/pods/$2/eviction" -f - &>"$work/eviction.log" <<END
{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "$2", "namespace": "$1"}}
END
}

# One pod may go, the next one only when the first is back; a pod that is not ready may always go.
evictions_take_turns() {
    local pods pending
    namespace evictions
    install evictions relay minimal
    eventually is evictions pdb/relay-clearfeed-relay .status.disruptionsAllowed 1
    mapfile -t pods < <(kubectl get pods --namespace evictions -o name | sed 's|pod/||')
    kubectl cordon --selector kubernetes.io/hostname >/dev/null # none comes back
    evict evictions "${pods[0]}" || die "no pod can be evicted: $(cat "$work/eviction.log")"
    eventually is evictions pdb/relay-clearfeed-relay .status.disruptionsAllowed 0
    ! evict evictions "${pods[1]}" || die 'a second pod is evicted while the first is away'
    grep -q "violate the pod's disruption budget" "$work/eviction.log" || die "refused otherwise: $(cat "$work/eviction.log")"
    pending=$(kubectl get pods --namespace evictions --field-selector status.phase=Pending -o name | sed 's|pod/||')
    evict evictions "$pending" || die "a pod that is not ready holds up a drain: $(cat "$work/eviction.log")"
    kubectl uncordon --selector kubernetes.io/hostname >/dev/null
    eventually evict evictions "${pods[1]}"
}

# witness NAMESPACE: notes every change of a pod; sets `witness`
witness() {
    local line='{.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.metadata.deletionTimestamp}'
    kubectl get pods --namespace "$1" --watch -o jsonpath="$line"'{"\n"}' >"$work/$1.seen" &
    witness=$!
    eventually test -s "$work/$1.seen"
}

# saw NAMESPACE FEWEST CHANGES: since there were so many ready pods, there never were fewer; and not just nothing happened
saw() {
    kill "$witness"
    wait "$witness" || :
    awk -v fewest="$2" -v changes="$3" '
        { is = $2 == "True" && $3 == ""; ready += is - was[$1]; was[$1] = is }
        ready >= fewest { enough = 1 }
        enough && ready < fewest { print "only " ready ": " $0; bad = 1 }
        END { exit bad || !enough || NR < changes }' \
        "$work/$1.seen" >&2 || { cat "$work/$1.seen" >&2 && die "wanted at least $2 ready pods all the while"; }
}

roll_outs_keep_all_available() {
    local before
    namespace roll-out
    install roll-out relay minimal
    before=$(field roll-out deployment/relay-clearfeed-relay '.spec.template.metadata.annotations.checksum/config')
    witness roll-out
    upgrade 4 roll-out relay minimal --set config.dedup.max_ids=1000000
    saw roll-out 3 15
    ! is roll-out deployment/relay-clearfeed-relay '.spec.template.metadata.annotations.checksum/config' "$before" ||
        die 'another configuration does not make other pods'
}

# A new pod that does not get ready, as with a wrong configuration, stops the roll-out before an old one goes.
bad_roll_outs_stop() {
    local major
    namespace bad-roll-out
    install bad-roll-out relay minimal
    for major in 3 4; do
        witness bad-roll-out
        if upgrade $major bad-roll-out relay minimal --set 'intake.podAnnotations.test/never-ready=yes' \
            --timeout 4s 2>/dev/null; then
            die "Helm $major does not notice that the new pod is not ready"
        fi
        helm $major rollback relay --namespace bad-roll-out --wait --timeout "${wait_s}s" >/dev/null
        saw bad-roll-out 3 4
    done
}

# claims NAMESPACE: each claim of the release, and the volume that it got
claims() {
    kubectl get --namespace "$1" persistentvolumeclaims --selector app.kubernetes.io/instance=relay \
        -o jsonpath='{range .items[*]}{.metadata.name} {.spec.volumeName}{"\n"}{end}'
}

# With a spool pods come back one at a time, each to its own volume, whatever becomes of a roll-out, of their number and of
# the release.
spools_outlive_their_pods() {
    local it before
    namespace spools
    install spools relay spool
    before=$(claims spools)
    [[ $(grep -c ' volume-' <<<"$before") == 3 ]] || die "wanted a volume for each of three pods: $before"
    for it in 3 4; do
        witness spools
        upgrade $it spools relay spool --set "config.dedup.max_ids=${it}000000"
        saw spools 2 9
        witness spools
        if upgrade $it spools relay spool --set 'intake.podAnnotations.test/never-ready=yes' --timeout 4s 2>/dev/null; then
            die "Helm $it does not notice that the new pod is not ready"
        fi
        helm $it rollback relay --namespace spools --wait --timeout "${wait_s}s" >/dev/null
        saw spools 2 4
    done
    # The first is to fewer pods and to other ones at once.
    for it in 1 3; do upgrade 4 spools relay spool --set intake.replicas=$it; done
    kubectl delete --namespace spools statefulset/relay-clearfeed-relay --cascade=orphan >/dev/null
    upgrade 4 spools relay spool --set spool.size=2Gi # of a claim to come, for which the StatefulSet is another
    helm 4 uninstall relay --namespace spools --wait --timeout "${wait_s}s" >/dev/null
    install spools relay spool
    [[ $(claims spools) == "$before" ]] || die "wanted the volumes of before: $before; found $(claims spools)"
}

# A release goes over to spools as docs/operating.md says, and no pod is missing meanwhile; long names have room for the hash that
# Kubernetes puts behind a StatefulSet's.
spools_are_switched_on() {
    local name=relay-whose-name-is-as-long-as-a-name-may-be-so-that-it
    namespace switched
    install switched relay minimal --set mode=split,fullnameOverride=$name
    name=${name::50}
    witness switched
    kubectl delete --namespace switched "deployment/$name-intake" --cascade=orphan >/dev/null
    upgrade 4 switched relay spool --set mode=split --set "fullnameOverride=$name"
    kubectl delete --namespace switched replicaset \
        --selector app.kubernetes.io/instance=relay,app.kubernetes.io/component=intake >/dev/null
    eventually has_endpoints switched "$name" 3
    saw switched 5 10
    ! endpoints switched "$name" | grep -v -- '-intake-[012]$' || die 'wanted pods of the StatefulSet alone'
}

# What the autoscaler says stands, whatever an upgrade brings; forward, which it does not scale, keeps its own number.
autoscalers_are_let_be() {
    local major
    namespace autoscaling
    install autoscaling relay split
    eventually is autoscaling deployment/relay-clearfeed-relay-intake .spec.replicas 3
    for major in 3 4; do
        kubectl scale --namespace autoscaling deployment/relay-clearfeed-relay-intake --replicas $((major + 2)) >/dev/null
        upgrade $major autoscaling relay split --set "config.dedup.max_ids=${major}000000"
        is autoscaling deployment/relay-clearfeed-relay-intake .spec.replicas $((major + 2)) ||
            die "an upgrade with Helm $major undoes what the autoscaler did"
        is autoscaling deployment/relay-clearfeed-relay-forward .spec.replicas 3 || die 'forward has another number of pods'
    done
}

# ---- Neighbours ------------------------------------------------------------------------------------------------------

# endpoints NAMESPACE SERVICE: the pods that it sends to
endpoints() {
    kubectl get --namespace "$1" endpointslices --selector "kubernetes.io/service-name=$2" \
        -o jsonpath='{range .items[*].endpoints[*]}{.targetRef.name}{"\n"}{end}' | sort
}

# has_endpoints NAMESPACE SERVICE COUNT
has_endpoints() { (($(endpoints "$1" "$2" | grep -c .) == $3)); }

# forward_of NAMESPACE RELEASE: what makes its consumers and producers another's
forward_of() {
    field "$1" "configmap/$2-clearfeed-relay" '.data.relay\.yaml' | "$tools/python" -c '
import json, sys
forward = json.load(sys.stdin)["forward"]
print(forward["group"], forward["transactional_id"])'
}

releases_do_not_meet() {
    local release all
    namespace neighbours
    namespace elsewhere
    for release in one two; do install neighbours $release minimal; done
    install elsewhere one minimal
    for release in one two; do
        eventually has_endpoints neighbours $release-clearfeed-relay 3
        ! endpoints neighbours $release-clearfeed-relay | grep -v "^$release-" || die "$release sends to its neighbour's pods"
        eventually is neighbours pdb/$release-clearfeed-relay .status.expectedPods 3
    done
    all=$(forward_of neighbours one && forward_of neighbours two && forward_of elsewhere one)
    [[ $(tr ' ' '\n' <<<"$all" | sort -u | wc -l) == 6 ]] || die "releases share a group or a transactional id: $all"
    helm 4 uninstall one --namespace neighbours --wait --timeout "${wait_s}s" >/dev/null
    has_endpoints neighbours two-clearfeed-relay 3 || die 'a release goes with its neighbour'
}

# Topics that Strimzi made are there when the release is not, and the next one takes them over.
topics_outlive_their_release() {
    namespace topics
    install topics relay strimzi
    helm 4 uninstall relay --namespace topics --wait --timeout "${wait_s}s" >/dev/null
    [[ $(kubectl get --namespace topics kafkatopics,kafkausers -o name | cut -d. -f1 | sort -u) == kafkatopic ]] ||
        die 'wanted topics alone to stay'
    install topics relay strimzi
}
