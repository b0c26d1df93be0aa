#!/usr/bin/env python3
"""Makes the files of this directory from a running kube-apiserver 1.32.

    measure.py            (kubectl's current context names the server)

Keeps the resources of SERVED only, drops descriptions and media types that we do not speak, and keeps of the schemas
what the remaining paths reach.
"""
import gzip, json, re, subprocess

SERVED = {
    "v1": "namespaces nodes pods services endpoints configmaps secrets serviceaccounts events"
    " limitranges podtemplates replicationcontrollers resourcequotas persistentvolumes persistentvolumeclaims",
    "apps/v1": "deployments replicasets controllerrevisions daemonsets statefulsets",
    "batch/v1": "jobs cronjobs",
    "discovery.k8s.io/v1": "endpointslices",
    "events.k8s.io/v1": "events",
    "policy/v1": "poddisruptionbudgets",
    "scheduling.k8s.io/v1": "priorityclasses",
    "node.k8s.io/v1": "runtimeclasses",
    "rbac.authorization.k8s.io/v1": "roles rolebindings clusterroles clusterrolebindings",
    "coordination.k8s.io/v1": "leases",
    "apiextensions.k8s.io/v1": "customresourcedefinitions",
    "admissionregistration.k8s.io/v1": "mutatingwebhookconfigurations validatingwebhookconfigurations"
    " validatingadmissionpolicies validatingadmissionpolicybindings",
    "networking.k8s.io/v1": "ingresses ingressclasses",
    "storage.k8s.io/v1": "storageclasses csidrivers csinodes csistoragecapacities volumeattachments",
    "certificates.k8s.io/v1": "certificatesigningrequests",
    "autoscaling/v2": "horizontalpodautoscalers",
    "autoscaling/v1": "horizontalpodautoscalers",
    "apiregistration.k8s.io/v1": "apiservices",
    "flowcontrol.apiserver.k8s.io/v1": "flowschemas prioritylevelconfigurations",
    "authentication.k8s.io/v1": "tokenreviews selfsubjectreviews",
    "authorization.k8s.io/v1": "subjectaccessreviews selfsubjectaccessreviews selfsubjectrulesreviews localsubjectaccessreviews",
}
# Kinds that only appear as bodies of subresources.
EXTRA_GROUPS = {"autoscaling/v1", "policy/v1", "meta/v1"}
MEDIA = {
    "application/json", "application/json;stream=watch", "application/json-patch+json", "application/merge-patch+json",
    "application/strategic-merge-patch+json", "application/apply-patch+yaml", "*/*",
}


def get(path):
    return json.loads(subprocess.check_output(["kubectl", "get", "--raw", path]))


def prefix(gv):
    return f"/api/{gv}" if gv == "v1" else f"/apis/{gv}"


def strip(node, parent=""):
    """Descriptions out (a response must have one), unspoken media types out."""
    if isinstance(node, list):
        return [strip(x) for x in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for k, v in node.items():
        if k == "description" and isinstance(v, str) and parent != "response":
            continue
        if k == "tags":
            continue
        if k == "content":
            v = {m: s for m, s in v.items() if m in MEDIA}
        if k == "properties":  # names of fields, one of which may be "description"
            out[k] = {n: strip(s) for n, s in v.items()}
        elif k == "responses":
            out[k] = {n: strip(s, "response") for n, s in v.items()}
        elif k == "x-kubernetes-group-version-kind" and isinstance(v, list):
            out[k] = [g for g in v if (g["group"] + "/" + g["version"]).lstrip("/") in SERVED or (len(v) == 1)]
        else:
            out[k] = strip(v)
    return out


def refs(node, into):
    if isinstance(node, dict):
        r = node.get("$ref")
        if isinstance(r, str) and r.startswith("#/components/schemas/"):
            into.add(r.rsplit("/", 1)[1])
        for v in node.values():
            refs(v, into)
    elif isinstance(node, list):
        for v in node:
            refs(v, into)


discovery = []
for gv, names in SERVED.items():
    names = set(names.split())
    resources = [r for r in get(prefix(gv))["resources"] if r["name"].split("/")[0] in names]
    discovery.append({"groupVersion": gv, "resources": resources})

    doc = get("/openapi/v3" + prefix(gv))
    paths = {}
    for path, item in doc["paths"].items():
        rest = path[len(prefix(gv)):].strip("/")
        m = re.match(r"(?:namespaces/\{namespace\}/)?([a-z]+)", rest)
        if rest and not rest.startswith("watch/") and m and m.group(1) in names:
            paths[path] = strip(item)
    keep, todo = set(), set()
    refs(paths, todo)
    while todo:
        name = todo.pop()
        keep.add(name)
        found = set()
        refs(doc["components"]["schemas"][name], found)
        todo |= found - keep
    out = {
        "openapi": doc["openapi"],
        "info": {"title": "Kubernetes", "version": "1.32"},
        "paths": paths,
        "components": {"schemas": {n: strip(doc["components"]["schemas"][n]) for n in sorted(keep)}},
    }
    name = gv.replace("/", "_")
    body = json.dumps(out, separators=(",", ":")).encode()
    with open(f"openapi_{name}.json.gz", "wb") as f:
        f.write(gzip.compress(body, 9, mtime=0))
    print(name, len(body), len(paths), "paths", len(keep), "schemas")
with open("discovery.json", "w") as f:
    json.dump(discovery, f, indent=1)
    f.write("\n")

# What a fresh cluster has of flow control: the mandatory and the suggested objects.
flow = []
for plural in ("prioritylevelconfigurations", "flowschemas"):
    for o in get(f"/apis/flowcontrol.apiserver.k8s.io/v1/{plural}")["items"]:
        if (o["metadata"].get("annotations") or {}).get("apf.kubernetes.io/autoupdate-spec"):
            kind = "PriorityLevelConfiguration" if plural[0] == "p" else "FlowSchema"
            flow.append({"kind": kind, "metadata": {"name": o["metadata"]["name"]}, "spec": o["spec"]})
with open("flowcontrol.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(o, sort_keys=True, separators=(",", ":")) for o in flow) + "\n]\n")
# Where the groups stand in /apis.
with open("../../apiserver/data/priorities.json", "w") as f:
    specs = [a["spec"] for a in get("/apis/apiregistration.k8s.io/v1/apiservices")["items"]
             if a["metadata"].get("labels", {}).get("kube-aggregator.kubernetes.io/automanaged") == "onstart"]
    rows = [[s.get("group", ""), s["version"], s["groupPriorityMinimum"], s["versionPriority"]] for s in specs]
    f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
