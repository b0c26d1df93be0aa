#!/usr/bin/env python3
"""Theater's control plane beside the real one, one after the other on the same machine, with the same client:
time to ready, memory, listing pods as a Table, applying objects, many watchers of one object.

    bench/control-plane.py [--pods N] [--objects N] [--watchers N]

Prints figures; asserts nothing. Theater's is the API server and the controllers with the scheduler, each a process of its own:
    cargo build --release --workspace --example apiserver --example controllers
    (APISERVER, CONTROLLERS name them otherwise)
The real one is that of KUBE_APISERVER, KUBE_CONTROLLER_MANAGER, KUBE_SCHEDULER and ETCD (default: etcd of the PATH); without them
only Theater's is measured. Needs python3 and openssl.
"""
import argparse, http.client, json, os, select, shutil, socket, ssl, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
REAL = ["KUBE_APISERVER", "KUBE_CONTROLLER_MANAGER", "KUBE_SCHEDULER"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Plane:
    """A control plane that is being measured, in a directory of its own."""

    def __init__(self, directory):
        self.directory, self.port, self.processes = directory, free_port(), []
        os.makedirs(directory)

    def file(self, name):
        return os.path.join(self.directory, name)

    def start(self, *command):
        log = open(self.file(os.path.basename(command[0]) + ".log"), "wb")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory))

    def runs(self):
        for process in self.processes:
            if process.poll() is not None:
                with open(self.file(os.path.basename(process.args[0]) + ".log"), errors="replace") as log:
                    sys.exit(f"{self.name}: {process.args[0]} has ended: {log.read()[-500:]}")
        return True

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait()

    def context(self):
        context = ssl.create_default_context(cafile=self.file("ca.crt"))
        context.load_cert_chain(self.file("admin.crt"), self.file("admin.key"))
        return context

    def connection(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context(), timeout=60)

    def memory(self):
        """Megabytes: the proportional share of all processes."""
        total = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        return total / 1024

    def processor_time(self):
        """Milliseconds that all processes have computed so far."""
        ticks = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/stat") as file:
                user, system = file.read().rsplit(")", 1)[1].split()[11:13]
                ticks += int(user) + int(system)
        return ticks * 1000 / os.sysconf("SC_CLK_TCK")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


class Theater(Plane):
    name = "theater"

    def prepare(self):
        pass

    def up(self):
        server = os.environ.get("APISERVER") or os.path.join(ROOT, "target/release/examples/apiserver")
        self.start(server, "--dir", self.directory, "--port", str(self.port))
        own = lambda name: self.file(name + ".kubeconfig")
        wait(lambda: self.runs() and os.path.exists(own("node-1")) and os.path.exists(self.file("ca.crt")))
        self.start(os.environ.get("CONTROLLERS") or os.path.join(ROOT, "target/release/examples/controllers"),
                   own("kube-controller-manager"), own("kube-scheduler"))
        with open(own("admin")) as file:
            import base64
            for line in file:
                field, _, value = line.strip().partition(": ")
                if field in ("client-certificate-data", "client-key-data"):
                    with open(self.file({"client-certificate-data": "admin.crt", "client-key-data": "admin.key"}[field]), "wb") as out:
                        out.write(base64.b64decode(value))


class Kubernetes(Plane):
    name = "kubernetes"

    def prepare(self):
        self.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "30", "-subj", "/CN=bench")
        for name, subject, extension in [("server", "/CN=kube-apiserver", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
                                         ("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth")]:
            with open(self.file(name + ".ext"), "w") as file:
                file.write(extension)
            self.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", subject)
            self.openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
                         "-out", name + ".crt", "-extfile", name + ".ext")
        self.openssl("genrsa", "-out", "sa.key", "2048")
        self.openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        with open(self.file("kubeconfig"), "w") as file:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "a",
                       "clusters": [{"name": "a", "cluster": {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": self.file("ca.crt")}}],
                       "users": [{"name": "a", "user": {"client-certificate": self.file("admin.crt"), "client-key": self.file("admin.key")}}],
                       "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]}, file)

    def up(self):
        client, peer = free_port(), free_port()
        url = f"http://127.0.0.1:{client}"
        self.start(os.environ.get("ETCD") or shutil.which("etcd"), "--data-dir", self.file("etcd"), "--listen-client-urls", url,
                   "--advertise-client-urls", url, "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                   "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}")
        self.start(os.environ["KUBE_APISERVER"], "--etcd-servers", url, "--secure-port", str(self.port), "--bind-address", "127.0.0.1",
                   "--tls-cert-file", "server.crt", "--tls-private-key-file", "server.key", "--client-ca-file", "ca.crt", "--authorization-mode", "RBAC",
                   "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", "sa.pub",
                   "--service-account-signing-key-file", "sa.key", "--service-cluster-ip-range", "10.96.0.0/16", "--endpoint-reconciler-type", "none")
        self.start(os.environ["KUBE_CONTROLLER_MANAGER"], "--kubeconfig", "kubeconfig", "--service-account-private-key-file", "sa.key",
                   "--root-ca-file", "ca.crt", "--secure-port", str(free_port()), "--bind-address", "127.0.0.1", "--leader-elect=false")
        self.start(os.environ["KUBE_SCHEDULER"], "--kubeconfig", "kubeconfig", "--secure-port", str(free_port()), "--bind-address", "127.0.0.1",
                   "--leader-elect=false")


def wait(condition):
    deadline = time.monotonic() + 180
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("it does not become ready within 180 s")
        time.sleep(0.01)


def ask(connection, method, path, body=None, **headers):
    kind = headers.pop("kind", "application/json")
    connection.request(method, path, body if body is None else json.dumps(body), {"Content-Type": kind, **headers})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise OSError(f"{method} {path}: {answer.status} {text[:300]}")
    return text


def ready(plane):
    """The API answers, and the controllers have given the default namespace its account."""
    try:
        connection = plane.connection()
        ask(connection, "GET", "/readyz")
        ask(connection, "GET", "/api/v1/namespaces/default/serviceaccounts/default")
        return True
    except OSError:
        return False


def list_pods(plane, count):
    """Milliseconds for one list of all pods as kubectl asks for it, the median of many."""
    connection = plane.connection()
    for number in range(count):
        ask(connection, "POST", "/api/v1/namespaces/default/pods", {
            "metadata": {"name": f"pod-{number}", "labels": {"app": "bench"}},
            "spec": {"containers": [{"name": "a", "image": "a", "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "10m"}}}]}})
    took = []
    for _ in range(15):
        started = time.perf_counter()
        text = ask(connection, "GET", "/api/v1/namespaces/default/pods", Accept=TABLE)
        took.append(time.perf_counter() - started)
    seen = len(json.loads(text)["rows"])
    if seen != count:
        sys.exit(f"{seen} rows, expected {count}")
    return statistics.median(took) * 1000


def apply_objects(plane, count):
    """Seconds for server-side applies one after the other over one connection, each acknowledged before the next."""
    connection = plane.connection()
    started = time.perf_counter()
    for number in range(count):
        ask(connection, "PATCH", f"/api/v1/namespaces/default/configmaps/applied-{number}?fieldManager=bench", {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"applied-{number}"}, "data": {"number": str(number)}},
            kind="application/apply-patch+yaml")
    return time.perf_counter() - started


def open_watch(plane, context, path):
    """A watch whose first event, the object as it is, has come."""
    for attempt in range(20):
        stream = context.wrap_socket(socket.create_connection(("127.0.0.1", plane.port), 60), server_hostname="127.0.0.1")
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n".encode())
        seen = b""
        while b'"ADDED"' not in seen:
            data = stream.recv(65536)
            seen += data
            if not data:
                break
        else:
            return stream
        # A server whose cache is behind (504) is asked again, as clients do.
        stream.close()
        if b'"code":504' not in seen:
            sys.exit(f"a watch has ended: {seen}")
        time.sleep(1)
    sys.exit("no watch is let begin")


def watchers(plane, count):
    """Milliseconds from one update until every watcher has it, the median of several updates; what the server computes for one, on
    average; and megabytes with the watchers there.

    The client reads with as little work as it can, in one thread: what is measured is to be the server."""
    context = plane.context()
    path = "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dapplied-0"
    streams = [open_watch(plane, context, path) for _ in range(count)]
    poll = select.epoll()
    by_number = {}
    for stream in streams:
        stream.setblocking(False)
        by_number[stream.fileno()] = stream
        poll.register(stream.fileno(), select.EPOLLIN)
    took, connection, turns = [], plane.connection(), 15
    computed = plane.processor_time()
    for turn in range(turns):
        mark = f'"turn":"{turn}"'.encode()
        waiting = dict.fromkeys(by_number, b"")
        started = time.perf_counter()
        connection.request("PATCH", "/api/v1/namespaces/default/configmaps/applied-0", json.dumps({"data": {"turn": str(turn)}}),
                           {"Content-Type": "application/merge-patch+json"})
        while waiting:
            ready = poll.poll(60)
            if not ready:
                sys.exit(f"{len(waiting)} watchers have not been told")
            for number, _ in ready:
                try:
                    data = by_number[number].recv(65536)
                except ssl.SSLWantReadError:
                    continue
                if not data:
                    sys.exit("a watch has ended")
                seen = waiting.get(number, b"") + data
                if mark in seen:
                    waiting.pop(number, None)
                elif number in waiting:
                    waiting[number] = seen
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - started)
        if answer.status != 200:
            sys.exit(f"the update was answered with {answer.status}")
    computed = (plane.processor_time() - computed) / turns
    memory = plane.memory()
    for stream in streams:
        stream.close()
    return statistics.median(took) * 1000, computed, memory


def measure(plane, sizes):
    plane.prepare()
    started = time.perf_counter()
    plane.up()
    try:
        wait(lambda: plane.runs() and ready(plane))
        figures = {"time to ready (ms)": (time.perf_counter() - started) * 1000, "memory when ready (MB)": plane.memory()}
        figures[f"list {sizes.pods} pods as a Table (ms)"] = list_pods(plane, sizes.pods)
        figures[f"apply {sizes.objects} objects (s)"] = apply_objects(plane, sizes.objects)
        took, computed, memory = watchers(plane, sizes.watchers)
        figures[f"one update to {sizes.watchers} watchers (ms)"] = took
        figures["processor time for that (ms)"] = computed
        figures[f"memory with {sizes.pods} pods and {sizes.watchers} watchers (MB)"] = memory
        return figures
    finally:
        plane.stop()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in [("--pods", 1000), ("--objects", 500), ("--watchers", 1000)]:
        arguments.add_argument(name, type=int, default=size)
    sizes = arguments.parse_args()
    planes = [Theater]
    missing = [name for name in REAL if not os.environ.get(name)]
    if missing:
        print(f"the real control plane is not measured: {', '.join(missing)} names no binary")
    else:
        planes.append(Kubernetes)
    with open("/proc/loadavg") as file:
        print(f"load before: {' '.join(file.read().split()[:3])}, cores: {os.cpu_count()}")
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        for kind in planes:
            results[kind.name] = measure(kind(os.path.join(directory, kind.name)), sizes)
    width = max(len(what) for what in results["theater"])
    print(" " * width, *(f"{name:>12}" for name in results), "    real : ours" if len(results) > 1 else "")
    for what, own in results["theater"].items():
        line = [f"{figures[what]:12.1f}" for figures in results.values()]
        if len(results) > 1:
            line.append(f"{results['kubernetes'][what] / own:14.1f}")
        print(f"{what:<{width}}", *line)


if __name__ == "__main__":
    main()
