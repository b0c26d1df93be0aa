// Requests and what they tell. A request is remembered as its answer said: nothing is simulated.

/** How many requests the measured ratio is about. */
export const REMEMBERED = 100;
/** From here on an answer is slow. */
export const SLOW_MS = 1000;
/** How long the page waits for an answer. */
export const LIMIT_MS = 15000;
export const CLUSTERS = ["ctx1", "ctx2"];

/** Sends a request. `record` gets what is remembered of it; the answer is what it says, as JSON. */
export async function send(service, path, options, record) {
  const started = performance.now();
  const request = { status: 0, ms: 0, cluster: null, pod: null, fault: false, age: null };
  try {
    const response = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(LIMIT_MS) });
    const body = await response.text();
    request.status = response.status;
    // The gateway signs its own errors; those came from no pod of the service.
    if (response.headers.get("X-Service-Name") === service) {
      request.cluster = response.headers.get("X-Service-Cluster");
      request.pod = response.headers.get("X-Pod-Name");
    }
    // Without its store a service tells what it read last, and how many seconds ago.
    if (response.headers.get("X-Store") === "unavailable") request.age = Number(response.headers.get("Age"));
    // What Envoy answers in the place of the service when a VirtualService says to.
    request.fault = body === "fault filter abort";
    const answer = parse(body);
    if (response.ok && answer !== null) return answer;
    throw Object.assign(new Error(answer?.error?.message ?? body.slice(0, 200)), { status: request.status });
  } finally {
    request.ms = Math.round(performance.now() - started);
    console.info(`${service}: status ${request.status}, cluster ${request.cluster}, pod ${request.pod}, ${request.ms} ms`);
    record(request);
  }
}

function parse(body) {
  try { return JSON.parse(body); } catch { return null; }
}

/** What happened to a request, as seen from one cluster's row of lights. */
export function kindOf(request, cluster) {
  if (!request) return "none";
  if (request.fault) return "fault";
  // An error of a pod belongs to its cluster, any other one to nobody and so to both.
  if (CLUSTERS.includes(request.cluster) && request.cluster !== cluster) return "elsewhere";
  if (request.status === 0 || request.status >= 500) return "error";
  if (request.cluster !== cluster) return "error";
  return request.ms > SLOW_MS ? "slow" : "ok";
}

/** How many of the requests that reached a pod went to the first cluster: share and 95 % interval in percent. */
export function ratio(requests) {
  const routed = requests.filter((request) => CLUSTERS.includes(request.cluster));
  if (routed.length === 0) return null;
  const hits = routed.filter((request) => request.cluster === CLUSTERS[0]).length;
  const [low, high] = interval(hits, routed.length);
  return { n: routed.length, share: Math.round((hits / routed.length) * 100), low, high };
}

/** The 95 % interval of a share (Wilson score), in percent. */
export function interval(hits, n) {
  const z = 1.96;
  const p = hits / n;
  const scale = 1 + (z * z) / n;
  const centre = (p + (z * z) / (2 * n)) / scale;
  const half = (z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n))) / scale;
  return [Math.max(0, centre - half), Math.min(1, centre + half)].map((share) => Math.round(share * 100));
}
