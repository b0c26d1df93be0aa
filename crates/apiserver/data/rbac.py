#!/usr/bin/env python3
"""Writes rbac.json: the roles and bindings that a fresh kube-apiserver 1.32 has, one object a line, without what all of them share
(apiVersion, label kubernetes.io/bootstrapping, annotation autoupdate) and without the rules of roles that are the sum of others.

    rbac.py KUBECONFIG > rbac.json

The server must be fresh, and its controllers must not have been given roles of their own.
"""
import json, subprocess, sys

SHARED = {"kubernetes.io/bootstrapping": "rbac-defaults"}


def objects(plural):
    text = subprocess.run(["kubectl", "--kubeconfig", sys.argv[1], "get", plural, "-A", "-o", "json"], check=True, capture_output=True).stdout
    for item in json.loads(text)["items"]:
        meta = item["metadata"]
        assert meta["annotations"] == {"rbac.authorization.kubernetes.io/autoupdate": "true"}, meta
        out = {"kind": item["kind"], "metadata": {"name": meta["name"]}}
        if "namespace" in meta:
            out["metadata"]["namespace"] = meta["namespace"]
        labels = {key: value for key, value in meta["labels"].items() if key not in SHARED}
        if labels:
            out["metadata"]["labels"] = labels
        for field in ["aggregationRule", "roleRef", "subjects"]:
            if field in item:
                out[field] = item[field]
        if "rules" in item and "aggregationRule" not in item:
            out["rules"] = item["rules"]
        yield out


lines = [json.dumps(one, separators=(",", ":")) for plural in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] for one in objects(plural)]
print("[" + ",\n".join(lines) + "]")
