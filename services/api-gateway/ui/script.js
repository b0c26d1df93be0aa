// The theater's page. Every light is one real request: where it went is read from its answer, nothing is
// simulated. Text is set as text, never as markup.

import { text } from "./messages.js";

const LIGHTS = 16;
const REMEMBERED = 100;
const SLOW_MS = 1000;
const CLUSTERS = ["ctx1", "ctx2"];
const SERVICES = {
  users: { path: "/users/", weights: "UserService" },
  movies: { path: "/movies/", weights: "MovieService" },
  bookings: { path: "/bookings/", weights: "BookingService" },
};
// Shape and colour: neither alone tells what happened.
const SHAPES = { ok: "●", elsewhere: "○", slow: "◆", error: "✕", fault: "▲", none: "·" };

const state = {
  language: navigator.language.startsWith("ko") ? "ko" : "en",
  requests: { users: [], movies: [], bookings: [] },
  lists: { users: [], movies: [], bookings: [] },
  weights: {},
  chosen: new Set(),
  timer: null,
};

const t = (key, values) => text(state.language, key, values);
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "className") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Sends a request and remembers where it went. */
async function send(service, options = {}) {
  const started = performance.now();
  const request = { status: 0, ms: 0, cluster: null, pod: null, fault: false };
  try {
    const response = await fetch(options.path ?? SERVICES[service].path, options);
    const body = await response.text();
    request.status = response.status;
    request.cluster = response.headers.get("X-Service-Cluster");
    request.pod = response.headers.get("X-Pod-Name");
    request.fault = body === "fault filter abort";
    request.ms = Math.round(performance.now() - started);
    remember(service, request);
    const parsed = parse(body);
    if (!response.ok) throw new Error(parsed?.error?.message ?? (body || String(response.status)));
    return parsed;
  } catch (error) {
    if (request.status === 0) {
      request.ms = Math.round(performance.now() - started);
      remember(service, request);
    }
    throw error;
  }
}

function parse(body) {
  try { return JSON.parse(body); } catch { return null; }
}

function remember(service, request) {
  const requests = state.requests[service];
  requests.push(request);
  if (requests.length > REMEMBERED) requests.shift();
  console.info(`${service}: status ${request.status}, cluster ${request.cluster}, pod ${request.pod}, ${request.ms} ms`);
  showTraffic(service);
}

/** What happened to a request, as seen from one cluster's row of lights. */
function kindOf(request, cluster) {
  if (!request) return "none";
  if (request.fault) return "fault";
  if (request.status === 0 || request.status >= 500) return "error";
  if (request.cluster !== cluster) return "elsewhere";
  return request.ms > SLOW_MS ? "slow" : "ok";
}

/** The 95 % interval of a share (Wilson score), in percent. */
export function interval(hits, n) {
  const z = 1.96;
  const p = hits / n;
  const centre = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n))) / (1 + (z * z) / n);
  return [Math.max(0, centre - half), Math.min(1, centre + half)].map((share) => Math.round(share * 100));
}

function showTraffic(service) {
  const requests = state.requests[service];
  const last = requests.slice(-LIGHTS);
  const rows = CLUSTERS.map((cluster) => {
    const lights = Array.from({ length: LIGHTS }, (_, index) => light(last[index], cluster));
    return make("div", { className: "row" }, make("span", { className: "cluster" }, cluster.toUpperCase()),
      make("span", { className: "lights" }, ...lights));
  });
  const refresh = make("button", { type: "button", className: "refresh" }, t("refresh"));
  refresh.addEventListener("click", () => load(service));
  const box = document.querySelector(`#${service} .traffic`);
  const focused = box.contains(document.activeElement);
  box.replaceChildren(...rows, make("div", { className: "ratios" }, configured(service), measured(requests)), refresh);
  if (focused) refresh.focus();
}

function light(request, cluster) {
  const kind = kindOf(request, cluster);
  const label = request
    ? t("lightText", { kind: t(kind, { ms: SLOW_MS }), status: request.status || "–", ms: request.ms,
        pod: request.pod ?? t("unknown"), cluster: request.cluster ?? t("unknown") })
    : t("none");
  return make("span", { className: `light ${kind}`, title: label, role: "img", "aria-label": label }, SHAPES[kind]);
}

function configured(service) {
  const prefix = SERVICES[service].weights;
  const values = CLUSTERS.map((cluster) => state.weights[`${prefix}C${cluster.slice(1)}Weight`]);
  const known = values.every((value) => value !== undefined);
  return make("div", { className: "ratio configured" }, make("small", {}, t("configured")),
    make("strong", {}, known ? `${values[0]}% : ${values[1]}%` : t("noWeights")),
    make("small", {}, known ? "" : state.weights.error ?? ""));
}

function measured(requests) {
  const routed = requests.filter((request) => CLUSTERS.includes(request.cluster));
  const box = make("div", { className: "ratio measured" }, make("small", {}, t("measured", { n: routed.length })));
  if (routed.length === 0) {
    box.append(make("strong", {}, t("noneYet")));
    return box;
  }
  const hits = routed.filter((request) => request.cluster === "ctx1").length;
  const share = Math.round((hits / routed.length) * 100);
  const [low, high] = interval(hits, routed.length);
  box.append(make("strong", {}, `${share}% : ${100 - share}%`), make("small", {}, t("interval", { low, high })));
  return box;
}

async function load(service) {
  try {
    state.lists[service] = await send(service);
    showList(service);
  } catch (error) {
    console.warn(`${service}: ${error.message}`);
  }
}

function showList(service) {
  const list = document.querySelector(`#${service} .list`);
  const items = state.lists[service].map((item) => make("li", {}, ...describe[service](item)));
  list.replaceChildren(...(items.length ? items : [make("li", { className: "empty" }, t("empty"))]));
  if (service === "users") options("userId", state.lists.users, (user) => user.name);
  if (service === "movies") options("movieId", state.lists.movies, (movie) => movie.title);
}

const describe = {
  users: (user) => [make("b", {}, user.name), " ", make("small", {}, user.email)],
  movies: (movie) => [make("b", {}, movie.title), " ", make("small", {}, `${movie.genre}, ${movie.year}`)],
  bookings: (booking) => [make("b", {}, booking.seats.join(", ")), " ",
    make("small", {}, `${booking.userName ?? booking.userId}, ${booking.movieTitle ?? booking.movieId}`)],
};

function options(name, items, label) {
  const select = byId("book").elements[name];
  const before = select.value;
  select.replaceChildren(...items.map((item) => make("option", { value: item.id }, label(item))));
  if (items.some((item) => item.id === before)) select.value = before;
  else if (name === "movieId" && items.length) loadSeats();
}

async function loadSeats() {
  const movie = byId("book").elements.movieId.value;
  if (!movie) return;
  try {
    showSeats(await send("bookings", { path: `/bookings/seats/${encodeURIComponent(movie)}` }));
  } catch (error) {
    byId("book-result").textContent = error.message;
  }
}

function showSeats(map) {
  state.chosen.clear();
  const rows = map.rows.map((row) => make("div", { className: "seat-row" },
    make("span", { "aria-hidden": "true" }, row),
    ...Array.from({ length: map.perRow }, (_, index) => seat(`${row}${index + 1}`, map.taken))));
  byId("seats").replaceChildren(...rows);
}

function seat(label, taken) {
  const isTaken = taken.includes(label);
  const button = make("button", { type: "button", className: "seat", "aria-pressed": "false",
    "aria-label": t(isTaken ? "seatTaken" : "seatFree", { seat: label }) }, label.slice(1));
  button.disabled = isTaken;
  button.addEventListener("click", () => {
    const chosen = !state.chosen.delete(label);
    if (chosen) state.chosen.add(label);
    button.setAttribute("aria-pressed", String(chosen));
  });
  return button;
}

async function post(service, body) {
  return send(service, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

function onSubmit(id, submit) {
  byId(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    try {
      await submit(form, Object.fromEntries(new FormData(form)));
      problem("");
    } catch (error) {
      problem(error.message);
    }
  });
}

function problem(message) {
  byId("problem").textContent = message;
  byId("problem").hidden = !message;
}

async function json(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** What the Kubernetes APIs say, read again and again: weights and pods change without this page. */
async function watchClusters() {
  try {
    const [weights, deployments] = await Promise.all([json("/traffic-weights"), json("/deployment-status")]);
    state.weights = weights;
    Object.keys(SERVICES).forEach(showTraffic);
    showPods(deployments.clusters);
  } catch (error) {
    problem(t("unreachablePage", { why: error.message }));
  }
  setTimeout(watchClusters, 1000);
}

function showPods(clusters) {
  byId("clusters").replaceChildren(...clusters.map((cluster) => {
    const box = make("div", { className: "pods" }, make("h3", {}, cluster.name.toUpperCase()));
    if (cluster.error) {
      box.append(make("p", { className: "unreachable" }, t("unreachable", { why: cluster.error })));
      return box;
    }
    const heads = ["podName", "podService", "podStatus", "podReady", "podRestarts", "podNode"];
    const rows = cluster.pods.map((pod) => make("tr", {},
      ...[pod.podName, pod.service ?? "", pod.status, `${pod.ready}/${pod.containers}`, pod.restarts, pod.nodeName ?? ""]
        .map((value) => make("td", {}, String(value)))));
    box.append(make("div", { className: "scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, t(head))))),
      make("tbody", {}, ...rows))));
    return box;
  }));
}

function speak() {
  document.documentElement.lang = state.language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  document.title = t("title");
  byId("legend").replaceChildren(...Object.keys(SHAPES).map((kind) =>
    make("li", {}, make("span", { className: `light ${kind}`, "aria-hidden": "true" }, SHAPES[kind]), " ", t(kind, { ms: SLOW_MS }))));
  Object.keys(SERVICES).forEach(showTraffic);
  Object.keys(SERVICES).forEach(showList);
}

function steady() {
  clearInterval(state.timer);
  if (!byId("steady").checked) return;
  let next = 0;
  const names = Object.keys(SERVICES);
  state.timer = setInterval(() => load(names[next++ % names.length]), 1000 / Number(byId("rate").value));
}

byId("language").addEventListener("click", () => {
  state.language = state.language === "ko" ? "en" : "ko";
  speak();
});
byId("steady").addEventListener("change", steady);
byId("rate").addEventListener("change", steady);
byId("book").elements.movieId.addEventListener("change", loadSeats);
onSubmit("add-user", async (form, values) => { await post("users", values); form.reset(); await load("users"); });
onSubmit("add-movie", async (form, values) => {
  await post("movies", { ...values, year: Number(values.year) });
  form.reset();
  await load("movies");
});
onSubmit("book", async (form, values) => {
  if (state.chosen.size === 0) throw new Error(t("chooseSeats"));
  try {
    const booking = await post("bookings", { ...values, seats: [...state.chosen] });
    byId("book-result").textContent = t("booked", { seats: booking.seats.join(", ") });
  } finally {
    await Promise.all([load("bookings"), loadSeats()]);
  }
});

speak();
Promise.all(Object.keys(SERVICES).map(load));
watchClusters();
