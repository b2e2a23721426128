"""Turns the Deployment of rendered manifests into what `podman run` needs to run its container in the same way.

    as_the_chart_says.py MANIFESTS FOLDER SECRET

Puts into FOLDER the files that the container mounts, with SECRET as every signing secret, and three more: `options` of
podman, one a line; `arguments` of the relay, one a line; `env`, for a shell: how long it may drain, its port, its probes.
"""

import os
import sys

import yaml

manifests, folder, secret = sys.argv[1:]
manifests = [m for m in yaml.safe_load_all(open(manifests)) if m]
pod = next(m for m in manifests if m["kind"] == "Deployment")["spec"]["template"]["spec"]
maps = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
(container,) = pod["containers"]
security = pod["securityContext"] | container["securityContext"]
group = security["fsGroup"]


def write(path, content, mode):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)
    os.chown(path, 0, group)
    os.chmod(path, mode)


def volume(spec):
    """Writes what kubelet would put into this volume, and says where."""
    place = f"{folder}/{spec['name']}"
    if "configMap" in spec:
        for key, content in maps[spec["configMap"]["name"]].items():
            write(f"{place}/{key}", content, 0o440)
        return place
    for source in spec["projected"]["sources"]:
        for item in source["secret"]["items"]:
            if not source["secret"].get("optional"):
                write(f"{place}/{item['path']}", secret, spec["projected"]["defaultMode"])
    return place


options = [
    f"--user={security['runAsUser']}:{security['runAsGroup']}",
    f"--memory={container['resources']['limits']['memory'].removesuffix('i')}",
    f"--read-only={str(security['readOnlyRootFilesystem']).lower()}",
    "--read-only-tmpfs=false",
    *(f"--cap-drop={capability}" for capability in security["capabilities"]["drop"]),
]
options += [f"--env={variable['name']}={variable['value']}" for variable in container["env"]]
if not security["allowPrivilegeEscalation"]:
    options.append("--security-opt=no-new-privileges")
# RuntimeDefault is what podman does by itself.
assert security["seccompProfile"]["type"] == "RuntimeDefault"
places = {v["name"]: volume(v) for v in pod["volumes"]}
for mount in container["volumeMounts"]:
    source = os.path.join(places[mount["name"]], mount.get("subPath", ""))
    options.append(f"--volume={source.rstrip('/')}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}")
write(f"{folder}/options", "\n".join(options), 0o400)
write(f"{folder}/arguments", "\n".join(container["args"]), 0o400)

ports = {p["name"]: p["containerPort"] for p in container["ports"]}
with open(f"{folder}/env", "w") as env:
    env.write(f"grace_s={pod['terminationGracePeriodSeconds']}\n")
    env.write(f"intake={ports['intake']}\n")
    for name in ["liveness", "readiness"]:
        probe = container[f"{name}Probe"]["httpGet"]
        env.write(f"{name}=http://127.0.0.1:{ports[probe['port']]}{probe['path']}\n")
