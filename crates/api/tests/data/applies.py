#!/usr/bin/env python3
"""Records sequences of server-side applies (apply.json)."""
import json, time, yaml
from measure import call, path, here

out = []
for case in yaml.safe_load(open(here + "/apply.yaml")):
    first = case["steps"][0]["o"]
    one = path(first) + "/" + first["metadata"]["name"]
    call("DELETE", one + "?gracePeriodSeconds=0&propagationPolicy=Background")
    time.sleep(1)
    steps = []
    for s in case["steps"]:
        live = call("GET", one)
        live = live[3] if live[0] == 200 else None
        if "u" in s:
            code, _, _, body = call("PATCH", one, s["u"], "application/merge-patch+json")
        else:
            code, _, _, body = call("PATCH", f"{one}?fieldManager={s['a']}" + ("&force=true" if s.get("f") else ""), s["o"], "application/apply-patch+yaml")
        steps.append({"step": s, "live": live, "code": code, "answer": body})
        time.sleep(1.1)
    out.append({"case": case["c"], "steps": steps})
    call("PATCH", one, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
    call("DELETE", one + "?gracePeriodSeconds=0&propagationPolicy=Background")
json.dump(out, open(here + "/apply.json", "w"), indent=1)
