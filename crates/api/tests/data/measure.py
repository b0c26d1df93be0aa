#!/usr/bin/env python3
"""Asks a real kube-apiserver 1.32 about the cases of create.yaml and update.yaml (see README.md).

    measure.py            (kubectl's current context names the server; certificates are taken from the kubeconfig)
    measure.py kinds      the cases of kinds.yaml only
"""
import json, os, ssl, subprocess, sys, time, urllib.request, urllib.error, yaml

here = os.path.dirname(os.path.abspath(__file__))
cfg = json.loads(subprocess.check_output(["kubectl", "config", "view", "--raw", "--minify", "-o", "json"]))
cluster, user = cfg["clusters"][0]["cluster"], cfg["users"][0]["user"]
ctx = ssl.create_default_context(cafile=cluster["certificate-authority"])
ctx.load_cert_chain(user["client-certificate"], user["client-key"])


def call(method, path, body=None, content="application/json", accept="application/json"):
    req = urllib.request.Request(cluster["server"] + path, method=method, data=None if body is None else json.dumps(body).encode(),
                                 headers={"Content-Type": content, "Accept": accept, "User-Agent": "probe/1"})
    try:
        with urllib.request.urlopen(req, context=ctx) as r:
            return r.status, dict(r.headers.items()), r.headers.get_all("Warning") or [], json.loads(r.read())
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers.items()), e.headers.get_all("Warning") or [], json.loads(e.read())


PLURALS = {}
for gv in ["v1", "apps/v1", "batch/v1", "discovery.k8s.io/v1", "events.k8s.io/v1", "rbac.authorization.k8s.io/v1", "coordination.k8s.io/v1",
           "apiextensions.k8s.io/v1", "admissionregistration.k8s.io/v1", "policy/v1", "scheduling.k8s.io/v1", "node.k8s.io/v1", "probe.io/v1", "autoscaling/v2", "autoscaling/v1",
           "storage.k8s.io/v1", "certificates.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1", "apiregistration.k8s.io/v1"]:
    for r in call("GET", ("/api/" if gv == "v1" else "/apis/") + gv)[3]["resources"]:
        if "/" not in r["name"]:
            PLURALS[gv, r["kind"]] = r


def path(o):
    gv = o["apiVersion"]
    r = PLURALS[gv, o["kind"]]
    base = ("/api/" if gv == "v1" else "/apis/") + gv
    return base + ("/namespaces/probe" if r["namespaced"] else "") + "/" + r["name"]


def answer(code, warnings, body):
    out = {"code": code}
    if warnings:
        out["warnings"] = [w.split('"', 1)[1].rsplit('"', 1)[0].replace('\\"', '"') for w in warnings]
    if body.get("kind") == "Status":
        out["status"] = body
    else:
        m = body["metadata"]
        out["managed"] = m.get("managedFields")
        for k in ("uid", "creationTimestamp", "managedFields", "resourceVersion", "generation", "selfLink"):
            m.pop(k, None)
        out["object"] = body
    return out


if __name__ == "__main__":
    for file in sys.argv[1:] or ["create", "kinds"]:
        results = []
        for case in yaml.safe_load(open(f"{here}/{file}.yaml")):
            code, _, warnings, body = call("POST", path(case["o"]) + "?dryRun=All", case["o"])
            results.append({"case": case["c"], "input": case["o"], **answer(code, warnings, body)})
            if file == "kinds":
                results[-1].pop("managed", None)
        json.dump(results, open(f"{here}/{file}.json", "w"), indent=1, ensure_ascii=False)
        print(len(results), file, "cases")
    if not sys.argv[1:] and os.path.exists(here + "/update.yaml"):
        results = []
        for case in yaml.safe_load(open(here + "/update.yaml")):
            p = path(case["o"])
            call("DELETE", p + "/" + case["o"]["metadata"]["name"] + "?gracePeriodSeconds=0&propagationPolicy=Background")
            call("PATCH", p + "/" + case["o"]["metadata"]["name"], {"metadata": {"finalizers": None}}, "application/merge-patch+json")
            for _ in range(50):
                if call("GET", p + "/" + case["o"]["metadata"]["name"])[0] == 404:
                    break
                time.sleep(0.1)
            code, _, _, old = call("POST", p, case["o"])
            assert code == 201, (case["c"], old)
            one = p + "/" + old["metadata"]["name"]
            time.sleep(1)  # controllers have their say first
            old = call("GET", one)[3]
            if case.get("status"):
                call("PATCH", one + "/status", {"status": case["status"]}, "application/merge-patch+json")
                old = call("GET", one)[3]
            code, _, warnings, body = call("PATCH", one + case.get("sub", "") + "?dryRun=All", case["p"], case.get("t", "application/merge-patch+json"))
            results.append({"case": case["c"], "old": old, "patch": case["p"], "type": case.get("t", "application/merge-patch+json"),
                            "sub": case.get("sub", ""), **answer(code, warnings, body)})
            call("DELETE", one + "?gracePeriodSeconds=0&propagationPolicy=Background")
        json.dump(results, open(here + "/update.json", "w"), indent=1, ensure_ascii=False)
        print(len(results), "update cases")
