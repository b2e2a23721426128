# shellcheck shell=bash
# The life of a release in each scenario of the chart, for script/cluster, which sources this.
#
#   scenarios MAJOR    all of them, one after the other, with this Helm

wait_s=120 # for what takes a second or two where nothing else runs

# helm MAJOR ARGUMENT...
helm() {
    local home=$work/helm$1 it=$tools/helm$1
    shift
    HELM_CACHE_HOME=$home HELM_CONFIG_HOME=$home HELM_DATA_HOME=$home "$it" "$@"
}

# eventually COMMAND...: until it succeeds
eventually() {
    local deadline=$((SECONDS + wait_s))
    until "$@"; do
        ((SECONDS < deadline)) || die "not within $wait_s s: $*"
        sleep 0.1
    done
}

# namespace NAME: one that takes restricted pods only, when it has what every namespace has
namespace() {
    kubectl create namespace "$1"
    kubectl label namespace "$1" pod-security.kubernetes.io/{enforce,warn}=restricted
    eventually kubectl get --namespace "$1" serviceaccount/default configmap/kube-root-ca.crt
} &>/dev/null

# read_manifests WHAT FILE...: `secrets`: the Secrets that pods in these manifests cannot start without, as manifests;
# `kept`: the names of what stays when Helm removes a release: resources that it is told to keep, and the claims of a
# StatefulSet, which may hold deliveries that were answered 200 and are nowhere else
read_manifests() {
    "$tools/python" - "$@" <<'END'
import sys, yaml
what, *paths = sys.argv[1:]
loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
resources = [it for path in paths for it in yaml.load_all(open(path), loader) if it]
if what == "kept":
    for it in resources:
        if it["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep":
            print(f"{it['kind'].lower()}.{it['apiVersion'].split('/')[0]}/{it['metadata']['name']}")
        for claim in it["spec"]["volumeClaimTemplates"] if it["kind"] == "StatefulSet" else []:
            for i in range(it["spec"]["replicas"]):
                print(f"persistentvolumeclaim/{claim['metadata']['name']}-{it['metadata']['name']}-{i}")
    sys.exit()

keys = {}
def find(node):
    for name, it in node.items() if isinstance(node, dict) else enumerate(node):
        if name == "secret" and not it.get("optional"):
            wanted = [item["key"] for item in it.get("items", [])] or ["tls.crt", "tls.key"]
            keys.setdefault(it.get("name") or it["secretName"], set()).update(wanted)
        if isinstance(it, (dict, list)):
            find(it)
find([it for it in resources if it["kind"] in ("Deployment", "StatefulSet", "CronJob", "Pod")])
for name, wanted in keys.items():
    print(yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {key: "0123456789abcdef" for key in wanted}}), "---", sep="\n")
END
}

# note_kinds: what all_in is about: every kind but those that only report
note_kinds() {
    kubectl api-resources --namespaced --verbs list,delete -o name |
        grep -vE '^(endpoints|events|leases)(\.|$)' | paste -sd, >"$work/kinds"
}

# all_in NAMESPACE: the names of all resources in it
all_in() { kubectl get --namespace "$1" --ignore-not-found -o name "$(cat "$work/kinds")" | sort; }

# has_only NAMESPACE FILE: whether just what the file lists is in it
has_only() { all_in "$1" | cmp -s - "$2"; }

# takes_strictly NAMESPACE MANIFESTS: whether the API server takes them as they are, with no field unknown and no warning
takes_strictly() { kubectl apply --namespace "$1" --dry-run=server --validate=strict --warnings-as-errors -f "$2"; }

# life MAJOR VALUES NEXT: from the installation to the last trace of it, by way of the values of another scenario
life() {
    local name namespace it
    name=$(basename "$2" -values.yaml) namespace=helm$1-$name
    it=$work/$namespace
    local -x HELM_NAMESPACE=$namespace
    namespace "$namespace"
    helm "$1" template relay $chart --values "$2" --skip-tests >"$it.yaml"
    helm "$1" template relay $chart --values "$2" --show-only templates/tests/check.yaml >"$it-test.yaml"
    helm "$1" template relay $chart --values "$3" >"$it-next.yaml"
    read_manifests secrets "$it.yaml" "$it-next.yaml" | kubectl apply --namespace "$namespace" -f - >/dev/null
    { all_in "$namespace" && read_manifests kept "$it.yaml" "$it-next.yaml"; } | sort -u >"$it.after"
    takes_strictly "$namespace" "$it.yaml"
    helm "$1" install relay $chart --values "$2" --wait --timeout ${wait_s}s
    takes_strictly "$namespace" "$it-test.yaml" # not before there is its account
    helm "$1" test relay --timeout ${wait_s}s
    helm "$1" get manifest relay >"$it-installed.yaml"
    helm "$1" upgrade relay $chart --values "$3" --wait --timeout ${wait_s}s
    helm "$1" rollback relay 1 --wait --timeout ${wait_s}s
    helm "$1" get manifest relay | diff "$it-installed.yaml" -
    helm "$1" uninstall relay --wait --timeout ${wait_s}s
    eventually has_only "$namespace" "$it.after"
}

scenarios() {
    local all=("$chart"/ci/*-values.yaml) i log
    for i in "${!all[@]}"; do
        log=$work/life-$1-$i.log
        if ! (set -e && life "$1" "${all[i]}" "${all[(i + 1) % ${#all[@]}]}") >"$log" 2>&1; then
            tail -n 30 "$log" >&2
            die "Helm $1, ${all[i]}: above is the end of what it said"
        fi
    done
}
