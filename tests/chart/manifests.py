"""Judges rendered manifests as strictly as a Kubernetes with all operators would.

    manifests.py VERSION FILE...  each resource in the files, for this version of Kubernetes
    manifests.py --wrong FILE     FILE lists resources that have to be refused, each with words that the refusal has to say

A built-in kind is held against Kubernetes' own schema, a custom one against its CRD in tests/cluster/crds: no field that
is not there, and no kind without a schema. Each pod keeps to Pod Security restricted, and to what the chart promises
beyond it.
"""

import glob
import os
import sys

import jsonschema
import kubernetes_validate
import yaml

CRDS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../cluster/crds/*.yaml")
NEWEST = "1.36.0"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def load(path):
    """The documents in a file; in C, where PyYAML has it."""
    with open(path) as file:
        return list(yaml.load_all(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


# ---- Schemas ---------------------------------------------------------------------------------------------------------


def strict(schema):
    """A CRD's schema as JSON Schema that refuses what Kubernetes would only drop: properties that it does not name."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    for key in {"items", "additionalProperties"} & schema.keys():
        schema[key] = strict(schema[key])
    if "properties" in schema:
        schema["properties"] = {name: strict(it) for name, it in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema["type"] = ["integer", "string"]
    if schema.get("nullable") and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema


def custom_schemas():
    """By (apiVersion, kind)."""
    schemas = {}
    for path in glob.glob(CRDS):
        spec = load(path)[0]["spec"]
        for version in spec["versions"]:
            key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
            schemas[key] = jsonschema.Draft4Validator(strict(version["schema"]["openAPIV3Schema"]))
    return schemas


def misfits(resource, version, schemas):
    """What the schema of its kind has against a resource."""
    custom = schemas.get((resource["apiVersion"], resource["kind"]))
    if custom:
        return [f"{'.'.join(map(str, it.path))}: {it.message}" for it in custom.iter_errors(resource)]
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as it:
        return [f"{'.'.join(map(str, it.path))}: {it.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{resource['apiVersion']} is no kind of Kubernetes {version}, and tests/cluster/crds has no CRD of it"]
    return []


# ---- Pods ------------------------------------------------------------------------------------------------------------


def pod_of(resource):
    """The pod's spec, in whatever makes pods."""
    spec = resource.get("spec") or {}
    if resource["kind"] == "Pod":
        return spec
    if resource["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template")
    return template.get("spec") if isinstance(template, dict) else None


def weaknesses(pod):
    """Where a pod breaks Pod Security restricted (https://kubernetes.io/docs/concepts/security/pod-security-standards/), or
    what the chart promises: no token, a read-only root, nothing without requests."""
    security = pod.get("securityContext", {})
    for field in "hostNetwork", "hostPID", "hostIPC":
        if pod.get(field):
            yield f"{field} is set"
    if security.get("sysctls"):
        yield "securityContext.sysctls are set"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"
    for volume in pod.get("volumes", []):
        if not volume.keys() & VOLUMES:
            yield f"volume {volume['name']} is of a kind that is not allowed"
    for container in pod.get("initContainers", []) + pod["containers"]:
        for weakness in container_weaknesses(container, security):
            yield f"container {container['name']}: {weakness}"


def container_weaknesses(container, pod_security):
    own = container.get("securityContext", {})
    either = {**pod_security, **own}
    capabilities = own.get("capabilities", {})
    if own.get("privileged"):
        yield "privileged is set"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities.drop lacks ALL"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities.add has more than NET_BIND_SERVICE"
    if either.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if either.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if either.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile.type is not RuntimeDefault"
    if own.get("procMount", "Default") != "Default":
        yield "procMount is set"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort is set"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem is not true"
    if not container.get("resources", {}).get("requests"):
        yield "resources.requests is missing"


# ----------------------------------------------------------------------------------------------------------------------


def faults(resource, version, schemas):
    """All that is wrong with a resource."""
    found = misfits(resource, version, schemas)
    pod = pod_of(resource)
    return found or (list(weaknesses(pod)) if pod else [])


def refused(path, schemas):
    """What ought to be refused, and is not, or not for its reason."""
    for case in load(path)[0]:
        found = faults(case["resource"], NEWEST, schemas)
        if not any(case["words"] in it for it in found):
            yield f"wanted the words `{case['words']}` of {case['resource']}, got {found}"


def accepted(version, path, schemas):
    """What ought to be accepted, and is not."""
    for resource in filter(None, load(path)):
        for fault in faults(resource, version, schemas):
            yield f"{path}: {resource['kind']}/{resource['metadata']['name']}: {fault}"


def main():
    version, *paths = sys.argv[1:]
    schemas = custom_schemas()
    wrong = [
        it for path in paths for it in (refused(path, schemas) if version == "--wrong" else accepted(version, path, schemas))
    ]
    if wrong:
        sys.exit("\n".join(f"manifests: {it}" for it in wrong))


main()
