#!/usr/bin/env python3
"""Records server-printed tables (tables.json) and the column definitions of all kinds (../../data/columns.json)."""
import base64, datetime, json, os, subprocess, sys, time, yaml
from email.utils import parsedate_to_datetime
from measure import call, path, PLURALS, here

SERVED = [(l["groupVersion"], r["kind"]) for l in json.load(open(here + "/../../data/discovery.json")) for r in l["resources"]]
ACCEPT = "application/json;as=Table;v=v1;g=meta.k8s.io"
now = datetime.datetime.now(datetime.timezone.utc)
ago = lambda s: (now - datetime.timedelta(seconds=s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(name, status, spec=None, meta=None):
    s = {"nodeName": "nowhere", "automountServiceAccountToken": False, "containers": [{"name": "a", "image": "x:1"}], "terminationGracePeriodSeconds": 0}
    s.update(spec or {})
    return {"o": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **(meta or {})}, "spec": s}, "s": status}


def cs(name, ready=False, restarts=0, state=None, last=None, started=None):
    out = {"name": name, "ready": ready, "restartCount": restarts, "image": "x:1", "imageID": "", "state": state or {}}
    if last:
        out["lastState"] = last
    if started is not None:
        out["started"] = started
    return out


run = {"running": {"startedAt": ago(60)}}
two = {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"}]}
ini = {"initContainers": [{"name": "i", "image": "x:1"}, {"name": "j", "image": "x:1"}]}
side = {"initContainers": [{"name": "i", "image": "x:1", "restartPolicy": "Always"}]}
term = lambda code, reason=None, sig=None, fin=90: {"terminated": {k: v for k, v in {"exitCode": code, "reason": reason, "signal": sig, "startedAt": ago(100), "finishedAt": ago(fin)}.items() if v is not None}}
ready = [{"type": "Ready", "status": "True"}]
PODS = [
    pod("pending", {"phase": "Pending"}),
    pod("running", {"phase": "Running", "conditions": ready, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [cs("a", True, 0, run)]}),
    pod("restarted", {"phase": "Running", "conditions": ready, "containerStatuses": [cs("a", True, 3, run, term(1, "Error"))]}),
    pod("two-of-two", {"phase": "Running", "conditions": ready, "containerStatuses": [cs("a", True, 1, run, term(1, "Error", fin=50)), cs("b", True, 2, run, term(1, "Error", fin=7000))]}, two),
    pod("one-of-two", {"phase": "Running", "containerStatuses": [cs("a", True, 0, run), cs("b", False, 0, run)]}, two),
    pod("crashloop", {"phase": "Running", "containerStatuses": [cs("a", False, 5, {"waiting": {"reason": "CrashLoopBackOff"}}, term(1, "Error"))]}),
    pod("creating", {"phase": "Pending", "containerStatuses": [cs("a", False, 0, {"waiting": {"reason": "ContainerCreating"}})]}),
    pod("imagepull", {"phase": "Pending", "containerStatuses": [cs("a", False, 0, {"waiting": {"reason": "ImagePullBackOff"}})]}),
    pod("exited", {"phase": "Running", "containerStatuses": [cs("a", False, 0, term(3))]}),
    pod("signalled", {"phase": "Running", "containerStatuses": [cs("a", False, 0, term(137, None, 9))]}),
    pod("error", {"phase": "Failed", "containerStatuses": [cs("a", False, 0, term(1, "Error"))]}),
    pod("completed", {"phase": "Succeeded", "containerStatuses": [cs("a", False, 0, term(0, "Completed"))]}),
    pod("completed-one-runs", {"phase": "Running", "conditions": ready, "containerStatuses": [cs("a", False, 0, term(0, "Completed")), cs("b", True, 0, run)]}, two),
    pod("completed-one-runs-unready", {"phase": "Running", "containerStatuses": [cs("a", False, 0, term(0, "Completed")), cs("b", True, 0, run)]}, two),
    pod("evicted", {"phase": "Failed", "reason": "Evicted"}),
    pod("gated", {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
    pod("init-0", {"phase": "Pending", "initContainerStatuses": [cs("i", False, 0, run), cs("j")]}, ini),
    pod("init-1", {"phase": "Pending", "initContainerStatuses": [cs("i", True, 0, term(0, "Completed")), cs("j", False, 0, run)]}, ini),
    pod("init-waiting", {"phase": "Pending", "initContainerStatuses": [cs("i", False, 0, {"waiting": {"reason": "PodInitializing"}}), cs("j")]}, ini),
    pod("init-crash", {"phase": "Pending", "initContainerStatuses": [cs("i", False, 4, {"waiting": {"reason": "CrashLoopBackOff"}}, term(1, "Error")), cs("j")]}, ini),
    pod("init-error", {"phase": "Failed", "initContainerStatuses": [cs("i", False, 0, term(1, "Error")), cs("j")]}, ini),
    pod("init-exit", {"phase": "Failed", "initContainerStatuses": [cs("i", False, 0, term(4)), cs("j")]}, ini),
    pod("init-signal", {"phase": "Failed", "initContainerStatuses": [cs("i", False, 0, term(137, None, 9)), cs("j")]}, ini),
    pod("sidecar", {"phase": "Running", "conditions": ready, "initContainerStatuses": [cs("i", True, 1, run, term(1, "Error"), True)], "containerStatuses": [cs("a", True, 0, run)]}, side),
    pod("sidecar-starting", {"phase": "Pending", "initContainerStatuses": [cs("i", False, 0, run, None, False)], "containerStatuses": [cs("a", False, 0, {"waiting": {"reason": "PodInitializing"}})]}, side),
    pod("initialized", {"phase": "Pending", "conditions": [{"type": "Initialized", "status": "True"}], "initContainerStatuses": [cs("i", True, 0, term(0, "Completed")), cs("j", True, 0, term(0, "Completed"))], "containerStatuses": [cs("a", False, 0, {"waiting": {"reason": "PodInitializing"}})]}, ini),
    pod("terminating", {"phase": "Running", "conditions": ready, "containerStatuses": [cs("a", True, 0, run)]}, {"terminationGracePeriodSeconds": 3000}),
    pod("node-lost", {"phase": "Running", "reason": "NodeLost", "containerStatuses": [cs("a", True, 0, run)]}, {"terminationGracePeriodSeconds": 3000}),
    pod("finished-terminating", {"phase": "Succeeded", "containerStatuses": [cs("a", False, 0, term(0, "Completed"))]}, {"terminationGracePeriodSeconds": 3000}, {"finalizers": ["a.b/c"]}),
    pod("gates", {"phase": "Running", "nominatedNodeName": "n2", "conditions": [{"type": "g1", "status": "True"}], "containerStatuses": [cs("a", True, 0, run)]}, {"readinessGates": [{"conditionType": "g1"}, {"conditionType": "g2"}]}),
]
TERMINATE = {"terminating", "node-lost", "finished-terminating"}
tmpl = {"metadata": {"labels": {"app": "t"}}, "spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}
OTHERS = yaml.safe_load("""
- {o: {apiVersion: apps/v1, kind: Deployment, metadata: {name: d0}, spec: {paused: true, replicas: 0, selector: {matchLabels: {app: t, b: c}, matchExpressions: [{key: x, operator: NotIn, values: [y, z]}]}, template: {metadata: {labels: {app: t, b: c}}, spec: {containers: [{name: a, image: 'x:1'}, {name: b, image: 'y:2'}]}}}}, s: {replicas: 3, updatedReplicas: 2, availableReplicas: 1, readyReplicas: 1, observedGeneration: 1}}
- {o: {apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: r0}, spec: {replicas: 0, selector: {matchLabels: {app: t}}, template: {metadata: {labels: {app: t}}, spec: {containers: [{name: a, image: 'x:1'}]}}}}}
- {o: {apiVersion: batch/v1, kind: Job, metadata: {name: j-run}, spec: {suspend: true, completions: 3, template: {spec: {restartPolicy: Never, containers: [{name: a, image: 'x:1'}]}}}}}
- {o: {apiVersion: batch/v1, kind: Job, metadata: {name: j-par}, spec: {suspend: true, parallelism: 4, template: {spec: {restartPolicy: Never, containers: [{name: a, image: 'x:1'}]}}}}}
- {o: {apiVersion: v1, kind: Service, metadata: {name: s-cluster}, spec: {selector: {app: a, b: c}, ports: [{name: a, port: 80}, {name: b, port: 53, protocol: UDP}]}}}
- {o: {apiVersion: v1, kind: Service, metadata: {name: s-node}, spec: {type: NodePort, ports: [{port: 80, nodePort: 31811}]}}}
- {o: {apiVersion: v1, kind: Service, metadata: {name: s-lb-pending}, spec: {type: LoadBalancer, ports: [{port: 80, nodePort: 31812}]}}}
- {o: {apiVersion: v1, kind: Service, metadata: {name: s-lb}, spec: {type: LoadBalancer, ports: [{port: 80, nodePort: 31813}], externalIPs: [9.9.9.9]}}, s: {loadBalancer: {ingress: [{ip: 1.2.3.4}, {hostname: a.b}]}}}
- {o: {apiVersion: v1, kind: Service, metadata: {name: s-headless}, spec: {clusterIP: None}}}
- {o: {apiVersion: v1, kind: Service, metadata: {name: s-ext}, spec: {type: ExternalName, externalName: example.com}}}
- {o: {apiVersion: v1, kind: Service, metadata: {name: s-extip}, spec: {externalIPs: [9.9.9.8], ports: [{port: 80}]}}}
- {o: {apiVersion: v1, kind: Endpoints, metadata: {name: e-none}}}
- {o: {apiVersion: v1, kind: Endpoints, metadata: {name: e-some}, subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{port: 80, name: a}, {port: 81, name: b}]}]}}
- {o: {apiVersion: v1, kind: Endpoints, metadata: {name: e-noport}, subsets: [{addresses: [{ip: 10.0.0.1}]}]}}
- {o: {apiVersion: v1, kind: Endpoints, metadata: {name: e-notready}, subsets: [{notReadyAddresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]}}
- {o: {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: es}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}, {addresses: [10.0.0.4]}], ports: [{port: 80, name: a}, {port: 81, name: b}, {name: c}, {port: 83, name: d}]}}
- {o: {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: es0}, addressType: IPv4, endpoints: []}}
- {o: {apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {a: b}, binaryData: {z: ZA==}}}
- {o: {apiVersion: v1, kind: Secret, metadata: {name: sec}, data: {a: ZA==}}}
- {o: {apiVersion: v1, kind: ServiceAccount, metadata: {name: sa}, secrets: [{name: x}]}}
- {o: {apiVersion: v1, kind: Event, metadata: {name: ev1, namespace: probe}, involvedObject: {kind: Pod, name: p, namespace: probe, fieldPath: 'spec.containers{a}'}, reason: R, message: ' M ', type: Warning, count: 3, firstTimestamp: '2026-01-01T00:00:00Z', lastTimestamp: '2026-11-20T00:00:00Z', source: {component: kubelet, host: n1}}}
- {o: {apiVersion: v1, kind: Event, metadata: {name: ev2, namespace: probe}, involvedObject: {kind: Pod, name: p, namespace: probe}, reason: R, message: M, type: Normal, eventTime: '2026-11-20T00:00:00.000000Z', reportingComponent: sched, reportingInstance: i, action: Bind, series: {count: 4, lastObservedTime: '2026-11-20T10:00:00.000000Z'}}}
- {o: {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r}, rules: []}}
- {o: {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: rb}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: x, namespace: probe}, {kind: User, name: u}, {kind: Group, name: g}, {kind: Group, name: h}]}}
- {o: {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: probe-cr}, rules: []}}
- {o: {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: probe-crb}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: probe-cr}, subjects: [{kind: User, name: u}]}}
- {o: {apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: l}, spec: {holderIdentity: me}}}
- {o: {apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: l0}}}
- {o: {apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: probe-m}, webhooks: []}}
- {o: {apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: probe-v}, webhooks: [{name: a.b.c, admissionReviewVersions: [v1], sideEffects: None, failurePolicy: Ignore, clientConfig: {url: 'https://127.0.0.1:1/z'}}]}}
- {o: {apiVersion: probe.io/v1, kind: Widget, metadata: {name: tw}, spec: {size: 3, hosts: [a, b], ports: [{name: x}, {name: y}]}}}
- {o: {apiVersion: probe.io/v1, kind: Widget, metadata: {name: tw2}, spec: {size: 3}}}
- {o: {apiVersion: v1, kind: Node, metadata: {name: probe-node, labels: {node-role.kubernetes.io/control-plane: '', node-role.kubernetes.io/worker: '', kubernetes.io/role: x}}, spec: {unschedulable: true}}, s: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: ExternalIP, address: 9.9.9.9}], nodeInfo: {kubeletVersion: v1.32.0, osImage: Linux, kernelVersion: 6.1, containerRuntimeVersion: theater://1}, conditions: [{type: Ready, status: 'False'}]}}
- {o: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h0}, spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: nobody}}}}
- {o: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h1}, spec: {minReplicas: 2, maxReplicas: 9, scaleTargetRef: {kind: Deployment, name: nobody}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}, {type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 100Mi}}}, {type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: '10'}}}]}}, s: {currentReplicas: 2, desiredReplicas: 2, currentMetrics: [{type: Resource, resource: {name: cpu, current: {averageUtilization: 7, averageValue: 14m}}}, {type: Resource, resource: {name: memory, current: {averageValue: '1048576'}}}]}}
- {o: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h2}, spec: {maxReplicas: 9, scaleTargetRef: {kind: Deployment, name: nobody}, metrics: [{type: External, external: {metric: {name: q}, target: {type: AverageValue, averageValue: '3'}}}, {type: Object, object: {describedObject: {kind: Ingress, name: i}, metric: {name: m}, target: {type: Value, value: 10k}}}]}}}
- {o: {apiVersion: v1, kind: PersistentVolume, metadata: {name: probe-pv}, spec: {storageClassName: manual, capacity: {storage: 10Gi}, accessModes: [ReadWriteOnce, ReadOnlyMany], claimRef: {namespace: n, name: c}, hostPath: {path: /mnt/data}}}}
- {o: {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c0}, spec: {storageClassName: slow, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}
- {o: {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c1}, spec: {storageClassName: '', volumeName: none-such, accessModes: [ReadWriteMany, ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}, s: {phase: Bound, capacity: {storage: 2Gi}, accessModes: [ReadWriteMany, ReadWriteOnce]}}
- {o: {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: probe-sc, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: a.b/c, allowVolumeExpansion: true}}
- {o: {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: probe-sc2}, provisioner: a.b/c, reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer}}
- {o: {apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: probe.driver}, spec: {}}}
- {o: {apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: probe-node}, spec: {drivers: []}}}
- {o: {apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: probe-va}, spec: {attacher: a, nodeName: n, source: {persistentVolumeName: p}}}}
- {o: {apiVersion: storage.k8s.io/v1, kind: CSIStorageCapacity, metadata: {name: cap}, storageClassName: x, capacity: 1Gi}}
- {o: {apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: probe-csr}, spec: {signerName: example.com/x, expirationSeconds: 86400, usages: [client auth], request: CSR}}}
- {o: {apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: probe-fs}, spec: {matchingPrecedence: 700, priorityLevelConfiguration: {name: nobody}}}}
- {o: {apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: probe-pl}, spec: {type: Limited, limited: {nominalConcurrencyShares: 0, limitResponse: {type: Queue, queuing: {queues: 16, handSize: 4}}}}}}
- {o: {apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.probe.example}, spec: {group: probe.example, version: v1, groupPriorityMinimum: 100, versionPriority: 10, insecureSkipTLSVerify: true, service: {namespace: probe, name: nobody}}}}
""")
# A certificate request that can be read.
KEY = subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=jane"],
                     capture_output=True, check=True).stdout
for o in OTHERS:
    if o["o"]["kind"] == "CertificateSigningRequest":
        o["o"]["spec"]["request"] = base64.b64encode(KEY).decode()
for o in OTHERS:
    if o["o"]["kind"] == "Node":
        o["s"]["nodeInfo"].update({"kernelVersion": "6.1", "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "", "operatingSystem": "", "architecture": ""})

# With names of kinds as arguments, only those are recorded, beside what is there.
ONLY = sys.argv[1:]
made = []
for case in [c for c in PODS + OTHERS if not ONLY or c["o"]["kind"] in ONLY]:
    p = path(case["o"])
    name = case["o"]["metadata"]["name"]
    call("PATCH", f"{p}/{name}", {"metadata": {"finalizers": None}}, "application/merge-patch+json")
    call("DELETE", f"{p}/{name}?gracePeriodSeconds=0&propagationPolicy=Background")
    call("PATCH", f"{p}/{name}", {"metadata": {"finalizers": None}}, "application/merge-patch+json")
    code, _, _, body = call("POST", p, case["o"])
    assert code == 201, body
    if case.get("s"):
        code, _, _, body = call("PATCH", f"{p}/{name}/status", {"status": case["s"]}, "application/merge-patch+json")
        assert code == 200, body
    if name in TERMINATE:
        call("DELETE", f"{p}/{name}")
    made.append(f"{p}/{name}")
time.sleep(2)
columns, tables = {}, []
for (gv, kind), r in sorted(PLURALS.items()):
    if ONLY and kind not in ONLY or "get" not in r["verbs"] or (kind != "Widget" and (gv, kind) not in SERVED):
        continue
    base = ("/api/" if gv == "v1" else "/apis/") + gv
    p = base + ("/namespaces/probe" if r["namespaced"] else "") + "/" + r["name"]
    code, headers, _, body = call("GET", p + "?includeObject=Object", accept=ACCEPT)
    assert code == 200, body
    at = parsedate_to_datetime(headers.get("Date") or headers["date"]).strftime("%Y-%m-%dT%H:%M:%SZ")
    defs = body["columnDefinitions"]
    for d in defs:
        d["description"] = ""
    columns[f"{gv}/{kind}"] = defs
    rows = [row for row in body["rows"] or [] if kind != "Event" or row["object"]["metadata"]["name"].startswith("ev")]
    if kind == "APIService":
        rows = [row for row in rows if row["object"]["metadata"]["name"] in ("v1.apps", "v1.probe.example")]
    if kind in ("ClusterRole", "ClusterRoleBinding"):
        rows = [row for row in rows if row["object"]["metadata"]["name"].startswith("probe")]
    for row in rows:
        row["object"]["metadata"].pop("managedFields", None)
        if kind == "CustomResourceDefinition":
            row["object"].pop("spec", None)
    tables.append({"resource": [gv, kind], "now": at, "columns": defs, "rows": rows})
if ONLY:
    columns = {**json.load(open(here + "/../../data/columns.json")), **columns}
    new = [t["resource"] for t in tables]
    tables = [t for t in json.load(open(here + "/tables.json")) if t["resource"] not in new] + tables
json.dump(tables, open(here + "/tables.json", "w"), indent=1, ensure_ascii=False)
print(len(tables), "tables", sum(len(t["rows"]) for t in tables), "rows")
columns = {f"{gv}/{kind}": columns[f"{gv}/{kind}"] for gv, kind in dict.fromkeys(SERVED) if f"{gv}/{kind}" in columns}
with open(here + "/../../data/columns.json", "w") as f:
    json.dump(columns, f, indent=1)
    f.write("\n")
for p in made:
    call("PATCH", p, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
    call("DELETE", p + "?gracePeriodSeconds=0&propagationPolicy=Background")
