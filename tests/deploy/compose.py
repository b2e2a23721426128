"""Of what docker compose understood of deploy/compose, which comes as JSON: what it takes, and what is wrong all the same."""

import json
import os
import sys

import yaml

compose = json.load(open(sys.argv[1]))
services = compose["services"]
wrong = []


def want(holds, message):
    if not holds:
        wrong.append(message)


def mounts(service):
    return {mount["target"]: mount["source"] for mount in services[service].get("volumes", []) if mount["type"] == "bind"}


for name, service in services.items():
    for port in service.get("ports", []):
        want(port.get("host_ip") == "127.0.0.1", f"{name}: port {port['published']} can be reached from other machines")
    for source in mounts(name).values():
        want(os.path.isfile(source), f"{name}: there is no {source} to mount")
    tag = service["image"].rpartition(":")[2]
    want(any(c.isdigit() for c in tag), f"{name}: the image {service['image']} has no version")
    want(service.get("cap_drop") == ["ALL"], f"{name}: has capabilities")
    want("no-new-privileges:true" in service.get("security_opt", []), f"{name}: may gain privileges")
    want(service.get("mem_limit"), f"{name}: has no limit of memory")

for name in ["relay", "simulate"]:
    want(services[name].get("read_only") and services[name].get("user") == "65532:65532", f"{name}: is not as hard as the chart's pod")

# Grafana looks for what its files name, and starts all the same where it is not there.
for mount, source in mounts("grafana").items():
    if "/datasources/" in mount:
        for datasource in yaml.safe_load(open(source))["datasources"]:
            host = datasource["url"].removeprefix("http://").rpartition(":")[0]
            want(host in services, f"{source}: there is no service {host}")
    elif "/provisioning/dashboards/" in mount:
        for provider in yaml.safe_load(open(source))["providers"]:
            folder = provider["options"]["path"]
            want(any(os.path.dirname(m) == folder for m in mounts("grafana")), f"{source}: nothing is mounted in {folder}")
home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
want(home in mounts("grafana"), f"grafana: nothing is mounted as its first page, {home}")

# Prometheus has the rules where it looks for them, and scrapes what there is.
prometheus = yaml.safe_load(open(mounts("prometheus")["/etc/prometheus/prometheus.yml"]))
for rules in prometheus["rule_files"]:
    want(rules in mounts("prometheus"), f"prometheus: no rules are mounted as {rules}")
jobs = prometheus["scrape_configs"] + prometheus["alerting"]["alertmanagers"]
for target in (t for job in jobs for static in job["static_configs"] for t in static["targets"]):
    want(target.partition(":")[0] in services, f"prometheus: there is no service of the target {target}")

for message in wrong:
    print(f"compose: {message}", file=sys.stderr)
sys.exit(bool(wrong))
