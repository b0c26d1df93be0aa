#!/usr/bin/env python3
"""A theater under load while its configuration changes: every request through gateway and sidecars must be answered.

    bench/changes.py [--changes 500] [--seconds 60] [--connections 16] [--only KIND,...] [--state-dir DIR] [PROGRAM]

Starts PROGRAM (default target/release/theater), or uses the theater that runs with that state directory. Clients ask as fast as they are answered,
over kept connections, while VirtualServices, DestinationRules, the Gateway and policies are patched, ServiceEntries and Sidecars come and go,
Deployments are scaled and rolled out: at even times, both clusters at once, what is of one kind one after another. None of the changes means a failure, so any answer but 200 is one; they are told by kind, with the change before.
Ends with 1 if there was one. Needs python3 with PyYAML (or JSON kubeconfig) and nothing else.
"""
import argparse, base64, collections, concurrent.futures, copy, http.client, itertools, json, multiprocessing, os, re, shutil, signal, socket, ssl, statistics, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NS = "theater-msa"
PATHS = ["/users/", "/movies/", "/bookings/"]


def ask(stream, buffer, request):
    """One request; the status line and the body."""
    stream.sendall(request)
    while b"\r\n\r\n" not in buffer:
        part = stream.recv(65536)
        if not part:
            raise ConnectionError("closed before the answer" if not buffer else "closed within the head")
        buffer += part
    head, _, rest = buffer.partition(b"\r\n\r\n")
    found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
    if found:
        length = int(found.group(1))
        while len(rest) < length:
            part = stream.recv(65536)
            if not part:
                raise ConnectionError("closed within the body")
            rest += part
        return head, rest[:length], rest[length:]
    while not rest.endswith(b"0\r\n\r\n"):
        part = stream.recv(65536)
        if not part:
            raise ConnectionError("closed within a chunk")
        rest += part
    return head, rest, b""


def client(port, host, over, out, number):
    """A connection that asks until it is over, opened again whenever the gateway says so."""
    counts, failures = collections.Counter(), []
    stream, buffer, fresh = None, b"", True
    for at in itertools.count(number):
        if over.is_set():
            break
        path = PATHS[at % len(PATHS)]
        request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: changes/1.0\r\n\r\n".encode()
        try:
            if stream is None:
                stream, buffer, fresh = socket.create_connection(("127.0.0.1", port), 30), b"", True
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head, body, buffer = ask(stream, buffer, request)
        except OSError as problem:
            # A kept connection may close between two requests: HTTP's own race, which clients answer with a new connection.
            kind = f"{path} {problem}" + ("" if fresh else " (kept connection)")
            counts[kind] += 1
            failures.append((time.time(), kind))
            stream, buffer = None, b""
            continue
        fresh = False
        status = head.split(b" ", 2)[1].decode()
        if status == "200":
            counts["200"] += 1
        else:
            kind = f"{path} {status} {body[:90].decode(errors='replace')}"
            counts[kind] += 1
            failures.append((time.time(), kind))
        if re.search(rb"\r\nconnection: *close", head, re.I):
            stream.close()
            stream = None
    out.append((counts, failures))


def load(port, host, over, connections, first, pipe):
    out = []
    threads = [threading.Thread(target=client, args=(port, host, over, out, first + n)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send(out)


class Cluster:
    """The API server of one cluster over one kept connection."""

    def __init__(self, config, context):
        named = lambda kind, name: next(x for x in config[kind + "s"] if x["name"] == name)[kind]
        about = named("context", context)
        cluster, user = named("cluster", about["cluster"]), named("user", about["user"])
        self.tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile("w") as pem:
            for part in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(user[part]).decode() + "\n")
            pem.flush()
            self.tls.load_cert_chain(pem.name)
        self.address = re.sub("^https://", "", cluster["server"])
        self.connection = None

    def another(self):
        """The same over a connection of its own."""
        other = copy.copy(self)
        other.connection = None
        return other

    def send(self, method, path, value=None):
        kind = "application/json" if method != "PATCH" else f"application/{'json' if isinstance(value, list) else 'merge'}-patch+json"
        for last in (False, True):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPSConnection(self.address, context=self.tls, timeout=30)
                self.connection.request(method, path, None if value is None else json.dumps(value), {"content-type": kind})
                answer = self.connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.connection = None
                if last:
                    raise
        if answer.status >= 300 and (method, answer.status) not in {("DELETE", 404), ("POST", 409)}:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
        return json.loads(text)


NET = f"/apis/networking.istio.io/v1/namespaces/{NS}"
SEC = f"/apis/security.istio.io/v1/namespaces/{NS}"


def changes():
    """For ever: what is changed, in which clusters, and how."""
    to = lambda host, subset, weight: {"destination": {"host": host, "subset": subset}, "weight": weight}

    def weights(n):
        here = (n * 7) % 101
        return "PATCH", f"{NET}/virtualservices/user-service-vs", {"spec": {"http": [
            {"route": [to("user-service", "ctx1", here), to("user-service", "ctx2", 100 - here)]}]}}

    def rules(n):
        more = [{"match": [{"headers": {"x-round": {"exact": str(i)}}}], "route": [to("movie-service", "ctx2", 100)]} for i in range(n % 20)]
        plain = {"route": [to("movie-service", "ctx1", 50), to("movie-service", "ctx2", 50)], "timeout": f"{10 + n % 5}s"}
        return "PATCH", f"{NET}/virtualservices/movie-service-vs", {"spec": {"http": more + [plain]}}

    def policy(n):
        policies = [
            {"loadBalancer": {"simple": "ROUND_ROBIN"}},
            {"loadBalancer": {"simple": "RANDOM"}, "connectionPool": {"http": {"maxRequestsPerConnection": 50}}},
            {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}},
            {"loadBalancer": {"simple": "LEAST_REQUEST"}, "outlierDetection": {"consecutive5xxErrors": 5, "interval": "1s", "baseEjectionTime": "2s"}}]
        host = ("user-service", "booking-service")[n // 4 % 2]
        return "PATCH", f"{NET}/destinationrules/{host}-dr", [{"op": "add", "path": "/spec/trafficPolicy", "value": policies[n % 4]}]

    def gateway(n):
        hosts = ["*"] if n % 2 else ["*", f"round-{n}.example"]
        return "PATCH", "gateway", hosts

    def entry(n):
        if n % 2:
            return "DELETE", f"{NET}/serviceentries/outside-{n // 2 % 3}", None
        return "POST", f"{NET}/serviceentries", {
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": f"outside-{n // 2 % 3}"},
            "spec": {"hosts": [f"outside-{n // 2 % 3}.example"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
                     "ports": [{"number": 8090 + n // 2 % 3, "name": "http", "protocol": "HTTP"}], "endpoints": [{"address": "192.0.2.1"}]}}

    def sidecar(n):
        if n % 2:
            return "DELETE", f"{NET}/sidecars/scope", None
        return "POST", f"{NET}/sidecars", {
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "scope"},
            "spec": {"workloadSelector": {"labels": {"app": "movie-service"}}, "egress": [{"hosts": ["./*", "istio-system/*"]}]}}

    def strict(n):
        if n % 2:
            return "DELETE", f"{SEC}/peerauthentications/mode", None
        return "POST", f"{SEC}/peerauthentications", {
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "mode"}, "spec": {"mtls": {"mode": "STRICT"}}}

    def allow(n):
        if n % 2:
            return "DELETE", f"{SEC}/authorizationpolicies/everyone", None
        return "POST", f"{SEC}/authorizationpolicies", {
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "everyone"},
            "spec": {"action": "ALLOW", "rules": [{}]}}

    def scale(n):
        name, many = [("user-service", 3), ("movie-service", 2), ("user-service", 1), ("movie-service", 1)][n % 4]
        return "PATCH", f"/apis/apps/v1/namespaces/{NS}/deployments/{name}", {"spec": {"replicas": many}}

    def rollout(n):
        name = ("movie-service", "booking-service", "api-gateway")[n % 3]
        return "PATCH", f"/apis/apps/v1/namespaces/{NS}/deployments/{name}", {
            "spec": {"template": {"metadata": {"annotations": {"round": str(n)}}}}}

    # How many of each in a round, and whether both clusters get it.
    kinds = [(weights, 6, True), (rules, 4, True), (policy, 4, True), (gateway, 1, False), (entry, 2, True), (sidecar, 1, True),
             (strict, 1, True), (allow, 1, True), (scale, 1, True), (rollout, 0.25, False)]
    # So that the rarest is among the first.
    due, made = {kind: 0.75 for kind, _, _ in kinds}, collections.Counter()
    while True:
        for kind, often, both in kinds:
            due[kind] += often
            while due[kind] >= 1:
                due[kind] -= 1
                made[kind] += 1
                yield (kind.__name__, both, *kind(made[kind] - 1))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--changes", type=int, default=500)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--connections", type=int, default=16)
    arguments.add_argument("--only", default="", help="kinds of change, with commas between")
    arguments.add_argument("--state-dir")
    arguments.add_argument("program", nargs="?", default=os.path.join(ROOT, "target/release/theater"))
    given = arguments.parse_args()
    state, process = given.state_dir, None
    if not state:
        state = tempfile.mkdtemp()
        log = open(os.path.join(state, "up.log"), "w")
        process = subprocess.Popen([given.program, "up", "--state-dir", state, "--port", "0", "--api-port", "0"],
                                   stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, "THEATER_LANG": "en"})
        while "Ready in " not in open(log.name).read():
            if process.poll() is not None:
                raise SystemExit(open(log.name).read())
            time.sleep(0.05)
    try:
        return storm(given, state)
    finally:
        if process:
            process.send_signal(signal.SIGINT)
            process.wait()
            shutil.rmtree(state)


def storm(given, state):
    printed = subprocess.run([given.program, "env", "--state-dir", state], capture_output=True, text=True, check=True).stdout
    env = dict(re.findall(r"^export (\w+)='?([^'\n]*)", printed, re.M))
    text = subprocess.run(["kubectl", "config", "view", "--raw", "-o", "json"], env={**os.environ, "KUBECONFIG": env["KUBECONFIG"].split(":")[0]},
                          capture_output=True, text=True, check=True).stdout
    clusters = [Cluster(json.loads(text), context) for context in ("ctx1", "ctx2")]
    host = "theater." + env["DOMAIN"]
    port = int(host.rpartition(":")[2]) if ":" in host else 80
    gateways = clusters[0].send("GET", "/apis/networking.istio.io/v1/gateways")["items"]
    gateway = next(g for g in gateways if any("theater" in h or h == "*" for s in g["spec"]["servers"] for h in s["hosts"]) and "cross" not in g["metadata"]["name"])
    servers = gateway["spec"]["servers"]
    where = f"/apis/networking.istio.io/v1/namespaces/{gateway['metadata']['namespace']}/gateways/{gateway['metadata']['name']}"
    over, began, pipes = multiprocessing.Event(), time.time(), []
    for n in range(2):
        mine, theirs = multiprocessing.Pipe()
        multiprocessing.Process(target=load, args=(port, host, over, given.connections // 2, n * 1000, theirs), daemon=True).start()
        pipes.append(mine)
    time.sleep(1)
    start, done, only = time.time(), [], [kind for kind in given.only.split(",") if kind]
    every, writes = given.seconds / given.changes, collections.defaultdict(list)
    series = (change for change in changes() if not only or change[0] in only)
    lanes = {}

    def write(cluster, name, method, path, value):
        asked = time.time()
        cluster.send(method, path, value)
        writes[name.split()[0]].append(time.time() - asked)
        done.append((time.time(), name))

    outcomes = []
    for number, (kind, both, method, path, value) in zip(range(given.changes), series):
        time.sleep(max(0.0, start + number * every - time.time()))
        if path == "gateway":
            path, value = where, {"spec": {"servers": [{**server, "hosts": server["hosts"] + value[1:]} for server in servers]}}
        for at in range(2 if both else 1):
            if (kind, at) not in lanes:
                lanes[kind, at] = concurrent.futures.ThreadPoolExecutor(1), clusters[at].another()
            lane, cluster = lanes[kind, at]
            outcomes.append(lane.submit(write, cluster, f"{kind} {number}", method, path, value))
    for outcome in outcomes:
        outcome.result()
    took = time.time() - start
    time.sleep(1)
    over.set()
    loaded = time.time() - began
    counts, failures = collections.Counter(), []
    for pipe in pipes:
        for some, failed in pipe.recv():
            counts += some
            failures += failed
    total = sum(counts.values())
    kinds = collections.Counter(name.split()[0] for name in {name for _, name in done})
    print(f"{sum(kinds.values())} changes in {took:.1f} s ({', '.join(f'{many} {kind}' for kind, many in kinds.items())})")
    for kind, times in writes.items():
        print(f"  {kind}: {len(times)} writes, {1000 * statistics.median(times):.0f} ms each, {1000 * max(times):.0f} ms at most")
    print(f"{total} requests, {total / loaded:.0f}/s; failed: {total - counts['200']}")
    for kind, many in counts.most_common():
        if kind != "200":
            print(f"  {many:6} {kind}")
    for at, kind in sorted(failures)[:40]:
        before = [f"{name} {at - then:.2f} s before" for then, name in sorted(done) if then <= at][-3:]
        print(f"  {at - start:7.3f} s {kind}   after {', '.join(before)}")
    return 1 if total != counts["200"] else 0


if __name__ == "__main__":
    sys.exit(main())
