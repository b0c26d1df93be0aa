#!/usr/bin/env python3
"""Makes go_fields.json: what OpenAPI does not say of the Go structs behind it, read from the Go modules
k8s.io/{api,apimachinery,apiextensions-apiserver,kube-aggregator} v0.32 in the module cache, for the schemas of this directory.

pointers: optional scalars that are pointers, so that a zero is kept (other optional scalars are left out when zero).
always:   lists without omitempty: written as null when absent.
times:    times that are no pointers: written as null when absent.
named:    Go type of scalars that have a named type (error texts show it).
"""
import glob, gzip, json, os, re, subprocess

here = os.path.dirname(os.path.abspath(__file__))
cache = subprocess.check_output(["go", "env", "GOMODCACHE"], text=True).strip() + "/k8s.io/"
META = "io.k8s.apimachinery.pkg.apis.meta.v1"
ROOTS = {META: "apimachinery@v0.32.0/pkg/apis/meta/v1",
         "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1": "kube-aggregator@v0.32.0/pkg/apis/apiregistration/v1",
         "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1": "apiextensions-apiserver@v0.32.0/pkg/apis/apiextensions/v1"}
for g in "core apps batch discovery events rbac coordination admissionregistration autoscaling policy authentication authorization scheduling node networking storage certificates flowcontrol".split():
    ROOTS[f"io.k8s.api.{g}.v1"] = f"api@v0.32.0/{g}/v1"
ROOTS["io.k8s.api.autoscaling.v2"] = "api@v0.32.0/autoscaling/v2"

schemas = {}
for f in glob.glob(here + "/openapi_*.json.gz"):
    schemas.update(json.load(gzip.open(f))["components"]["schemas"])
structs = {}
for prefix, d in ROOTS.items():
    for f in glob.glob(cache + d + "/types*.go"):
        for m in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", open(f).read(), re.S | re.M):
            fields = re.findall(r'^\s+(?:\w+\s+)?([\[\]\*\w\.]+)\s+`.*?json:"([^"]*)"', m[2], re.M)
            structs[f"{prefix}.{m[1]}"] = [(t, tag.split(",")) for t, tag in fields]


def fields(name):
    for ty, tag in structs.get(name, []):
        if "inline" in tag:
            base = ty.split(".")[-1]
            if base != "TypeMeta":
                yield from fields(name.rsplit(".", 1)[0] + "." + base)
        else:
            yield ty, tag


out = {"pointers": {}, "always": {}, "times": {}, "named": {}}
BASIC = {"string", "bool", "int", "int32", "int64", "float64", "float32", "int16"}
for name in sorted(schemas):
    props = schemas[name].get("properties", {})
    for ty, tag in fields(name):
        field, omit = tag[0], "omitempty" in tag
        p = props.get(field)
        if p is None:
            continue
        if p.get("type") in ("string", "integer", "boolean", "number"):
            if ty.startswith("*"):
                out["pointers"].setdefault(name, []).append(field)
            bare = ty.lstrip("*")
            if bare not in BASIC and not bare.startswith("["):
                bare = bare.split(".")[-1]
                out["named"].setdefault(name, {})[field] = "v1." + bare if bare != "UID" else "types.UID"
        if p.get("type") == "array" and not omit:
            out["always"].setdefault(name, []).append(field)
        if ty.split(".")[-1] in ("Time", "MicroTime") and ty[0] not in "*[" and not ty.startswith("map["):
            out["times"].setdefault(name, []).append(field)
with open(here + "/go_fields.json", "w") as f:
    json.dump(out, f, separators=(",", ":"))
    f.write("\n")
