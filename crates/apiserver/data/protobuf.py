#!/usr/bin/env python3
"""Reads the protobuf field numbers of Kubernetes types from the tags of its Go structs and writes protobuf.txt.gz.

Usage: protobuf.py GO_MODULE_CACHE   (the folder that holds k8s.io/api@v0.32.x, apimachinery, apiextensions-apiserver and kube-aggregator)

One line a message: name|number,json name,type,flags|... with types s (string), i (integer), b (boolean), d (double),
y (bytes) or a message name, `[]` before lists and `{}` before maps; flags: * pointer, ~ inlined, ! shown even when empty.
"""
import glob, gzip, os, re, sys

base = sys.argv[1]
def newest(name):
    return sorted(glob.glob(os.path.join(base, "k8s.io", name + "@v0.32.*")))[-1]
roots = {"k8s.io/api": newest("api"), "k8s.io/apimachinery": newest("apimachinery"),
         "k8s.io/apiextensions-apiserver": newest("apiextensions-apiserver"), "k8s.io/kube-aggregator": newest("kube-aggregator")}
packages = ["k8s.io/api/%s/v1" % g for g in ("core", "apps", "batch", "rbac", "discovery", "events", "coordination",
            "authentication", "authorization", "admissionregistration", "networking", "policy", "autoscaling", "scheduling", "storage", "node", "certificates", "flowcontrol")]
packages += ["k8s.io/api/autoscaling/v2"]
packages += ["k8s.io/apimachinery/pkg/apis/meta/v1", "k8s.io/apimachinery/pkg/runtime", "k8s.io/apimachinery/pkg/types",
             "k8s.io/apimachinery/pkg/api/resource", "k8s.io/apimachinery/pkg/util/intstr",
             "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"]
scalars = {"string": "s", "bool": "b", "int": "i", "int32": "i", "int64": "i", "uint32": "i", "uint64": "i", "uint8": "i", "byte": "i",
           "float64": "d", "float32": "d", "[]byte": "y"}

def short(package):
    m = re.search(r"/([a-z0-9]+)/(v[12])$", package)
    return m.group(1) + "/" + m.group(2) if m else package.rsplit("/", 1)[1]

structs, aliases, empty = {}, {}, set()
for package in packages:
    root = next(r for r in roots if package.startswith(r + "/"))
    for path in glob.glob(os.path.join(roots[root] + package[len(root):], "*.go")):
        if path.endswith(("_test.go", "generated.pb.go", "zz_generated.deepcopy.go")):
            continue
        imports, current = {}, None
        for line in open(path):
            m = re.match(r'\s*(?:import\s+)?(\w+)?\s*"([\w./-]+)"\s*$', line)
            if m:
                imports[m.group(1) or m.group(2).rsplit("/", 1)[-1]] = m.group(2)
            m = re.match(r"type (\w+) struct ?\{", line)
            if m:
                current = (package, m.group(1))
                structs[current] = []
                if line.rstrip().endswith("}"):
                    empty.add(m.group(1))
                    current = None
                continue
            m = re.match(r"type (\w+) ([\w\[\].*]+)\s*(//.*)?$", line)
            if m and m.group(2) not in ("interface", "func"):
                aliases[(package, m.group(1))] = (m.group(2), imports)
            if current and line.startswith("}"):
                current = None
            if current:
                m = re.match(r"\s+(?:(\w+)\s+)?([\w\[\].*]+)\s+`(.*)`", line)
                if m and "protobuf:" in m.group(3):
                    structs[current].append((m.group(2), m.group(3), imports))

def resolve(go, package, imports, repeated):
    """-> (type, pointer)"""
    pointer = go.startswith("*")
    go = go.lstrip("*")
    if go in scalars:
        return scalars[go], pointer
    if go.startswith("[]"):
        return "[]" + resolve(go[2:], package, imports, False)[0], pointer
    m = re.match(r"map\[[\w.]+\](.*)", go)
    if m:
        return "{}" + resolve(m.group(1), package, imports, False)[0], pointer
    if "." in go:
        alias, name = go.split(".")
        where = imports.get(alias, alias)
    else:
        where, name = package, go
    if (where, name) in structs:
        return short(where) + "." + name, pointer
    if (where, name) in aliases:
        under, their = aliases[(where, name)]
        if under.startswith("[]") and under != "[]byte" and not repeated:
            # A named list inside a list or map is a message of its own.
            extra[short(where) + "." + name] = "1,,%s," % resolve(under, where, their, True)[0]
            return short(where) + "." + name, pointer
        return resolve(under, where, their, repeated)[0], pointer
    return where.rsplit("/", 1)[-1] + "." + name, pointer

extra, lines = {}, []
for (package, name), fields in sorted(structs.items()):
    out = []
    for go, tags, imports in fields:
        pb = re.search(r'protobuf:"([^"]*)"', tags).group(1).split(",")
        js = re.search(r'json:"([^"]*)"', tags)
        js = js.group(1) if js else ""
        if pb[0] == "-" or not pb[1].isdigit():
            continue
        kind, pointer = resolve(go, package, imports, "rep" in pb)
        inline = js.split(",")[0] == "" and "inline" in js
        flags = ("*" if pointer else "") + ("~" if inline else "") + ("" if "omitempty" in js else "!")
        out.append("%s,%s,%s,%s" % (pb[1], "" if inline else js.split(",")[0], kind, flags))
    # A message may have no fields and still be there.
    if out or not fields and name in empty:
        lines.append("|".join([short(package) + "." + name, *out]))
for name, field in sorted(extra.items()):
    lines.append(name + "|" + field)
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "protobuf.txt.gz"), "wb") as f:
    f.write(gzip.compress(("\n".join(sorted(lines)) + "\n").encode(), mtime=0))
