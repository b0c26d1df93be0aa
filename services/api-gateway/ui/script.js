// The theater's page: lists, forms, traffic, pods. See traffic.js for requests, panel.js for lights.

import { byId, make, showTip, svgUse, tableOf } from "./dom.js";
import { text } from "./messages.js";
import { Panel, kindText } from "./panel.js";
import { SeatMap } from "./seats.js";
import { CLUSTERS, LIMIT_MS, REMEMBERED, SLOW_MS, send } from "./traffic.js";

const SERVICES = {
  users: { name: "user-service", weights: "UserService" },
  movies: { name: "movie-service", weights: "MovieService" },
  bookings: { name: "booking-service", weights: "BookingService" },
};
const KINDS = ["ok", "elsewhere", "slow", "error", "fault"];
/** Steady traffic waits while so many of its requests have no answer yet. */
const IN_FLIGHT = 6;
const HISTORY = 10;

const eachService = (action) => Object.keys(SERVICES).forEach((service) => action(service));
const section = (service, selector) => document.querySelector(`#${service} ${selector}`);

const state = {
  language: localStorage.getItem("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en"),
  requests: { users: [], movies: [], bookings: [] },
  // null until a list was read: only then is "nothing here yet" true.
  lists: { users: null, movies: null, bookings: null },
  weights: {},
  clusters: [],
  history: [],
  // How many refreshes of each list have no answer yet, and how many of those are steady traffic.
  loading: { users: 0, movies: 0, bookings: 0 },
  inFlight: 0,
  timer: null,
};
const t = (key, values) => text(state.language, key, values);
const seats = new SeatMap();
const panels = Object.fromEntries(Object.keys(SERVICES).map((service) => [service, new Panel(section(service, ".traffic"), showTip)]));

// ---- requests ----

function request(service, path, options) {
  return send(SERVICES[service].name, path, options, (remembered) => {
    const requests = state.requests[service];
    requests.push(remembered);
    if (requests.length > REMEMBERED) requests.shift();
    showTraffic(service);
  });
}

function post(service, body) {
  return request(service, `/${service}/`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

const why = (error) => {
  if (error.name === "TimeoutError") return t("tooSlow", { s: LIMIT_MS / 1000 });
  return error.status ? t("failed", { status: error.status, why: error.message }) : error.message;
};

/** One refresh: one request, one light. What was read before stays when it fails. */
async function load(service) {
  state.loading[service] += 1;
  showLoading(service);
  try {
    const list = await request(service, `/${service}/`);
    if (JSON.stringify(list) === JSON.stringify(state.lists[service])) return;
    state.lists[service] = list;
    showList(service);
  } catch (error) {
    console.warn(`${service}: ${why(error)}`);
  } finally {
    state.loading[service] -= 1;
    showLoading(service);
  }
}

function showLoading(service) {
  section(service, ".refresh").ariaBusy = state.loading[service] > 0 ? "true" : null;
}

// ---- traffic ----

function showTraffic(service) {
  const prefix = SERVICES[service].weights;
  const values = CLUSTERS.map((cluster) => state.weights[`${prefix}C${cluster.slice(1)}Weight`]);
  const note = state.weights.error ? t("weightsUnread", { why: state.weights.error }) : "";
  panels[service].show(t, state.requests[service], values, note);
}

function steady() {
  clearInterval(state.timer);
  if (!byId("steady").checked) return;
  const names = Object.keys(SERVICES);
  let next = 0;
  state.timer = setInterval(async () => {
    if (state.inFlight >= IN_FLIGHT) return;
    state.inFlight += 1;
    await load(names[next++ % names.length]);
    state.inFlight -= 1;
  }, 1000 / Number(byId("rate").value));
}

// ---- lists and forms ----

const describe = {
  users: (user) => [user.name, user.email],
  movies: (movie) => [movie.title, [movie.genre, movie.year, movie.director].filter(Boolean).join(" · ")],
  bookings: (booking) => [booking.seats.join(", "), `${booking.userName ?? booking.userId} · ${booking.movieTitle ?? booking.movieId}`],
};

function showList(service) {
  const list = state.lists[service];
  if (list === null) return;
  const items = list.map((item) => {
    const [main, more] = describe[service](item);
    return make("li", {}, make("b", {}, main), " ", make("small", {}, more));
  });
  section(service, ".list").replaceChildren(...(items.length ? items : [make("li", { className: "empty" }, t("empty"))]));
  if (service === "users") choices("userId", list, (user) => user.name);
  if (service === "movies") choices("movieId", list, (movie) => movie.title);
  if (service === "bookings") markTaken();
}

function choices(name, items, label) {
  const select = byId("book").elements[name];
  const before = select.value;
  select.replaceChildren(...items.map((item) => make("option", { value: item.id }, label(item))));
  if (items.some((item) => item.id === before)) select.value = before;
  else if (name === "movieId") loadSeats();
}

const chosenMovie = () => byId("book").elements.movieId.value;

async function loadSeats() {
  const movie = chosenMovie();
  if (!movie) return;
  try {
    const map = await request("bookings", `/bookings/seats/${encodeURIComponent(movie)}`);
    if (movie === chosenMovie()) seats.draw(t, map);
  } catch (error) {
    result(byId("book"), why(error), true);
  }
}

/** The list of bookings tells which seats are gone, without a request of its own. */
function markTaken() {
  const movie = chosenMovie();
  seats.mark(t, (state.lists.bookings ?? []).filter((booking) => booking.movieId === movie).flatMap((booking) => booking.seats));
}

function onSubmit(id, submit) {
  byId(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const button = form.querySelector("button:not([type])");
    button.disabled = true;
    try {
      result(form, await submit(Object.fromEntries(new FormData(form)), form), false);
    } catch (error) {
      result(form, why(error), true);
    }
    button.disabled = false;
  });
}

function result(form, message, failed) {
  const line = form.querySelector(".result");
  line.textContent = message;
  line.classList.toggle("failed", failed);
}

// ---- clusters ----

async function json(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(LIMIT_MS) });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** Asks again and again, a second after each answer: weights and pods change without this page. */
async function follow(path, show) {
  try {
    show(await json(path));
    problem(path, null);
  } catch (error) {
    problem(path, error);
  }
  setTimeout(follow, 1000, path, show);
}

const problems = new Map();

function problem(path, error) {
  if (error) problems.set(path, error);
  else problems.delete(path);
  const [first] = problems.values();
  byId("problem").textContent = first ? t("unreachablePage", { why: why(first) }) : "";
  byId("problem").hidden = !first;
}

function showPods() {
  byId("clusters").replaceChildren(...state.clusters.map((cluster) => {
    const box = make("div", { className: "pods" }, make("h3", {}, cluster.name.toUpperCase()));
    if (cluster.error) {
      box.append(make("p", { className: "failed" }, t("unreachable", { why: cluster.error })));
    } else if (cluster.pods.length === 0) {
      box.append(make("p", { className: "empty" }, t("noPods")));
    } else {
      const heads = ["podName", "podStatus", "podReady", "podRestarts", "podNode"].map((head) => t(head));
      box.append(make("table", {}, ...tableOf(heads, cluster.pods.map(podRow))));
    }
    return box;
  }));
}

function podRow(pod) {
  const well = pod.status === "Running" && pod.ready === pod.containers;
  const kind = well ? "ok" : pod.status === "Running" || pod.status === "Pending" ? "slow" : "error";
  return [make("b", {}, pod.podName), chip(kind, pod.status), `${pod.ready}/${pod.containers}`, String(pod.restarts), pod.nodeName ?? "–"];
}

const chip = (kind, words) => make("span", { className: "chip", "data-kind": kind }, svgUse(`shape-${kind}`), words);

function showHistory() {
  const heads = ["time", "podService", "status", "latency", "cluster", "podName"].map((head) => t(head));
  const rows = state.history.map((entry) => [new Date(entry.timestamp).toLocaleTimeString(state.language), entry.service,
    chip(entry.status >= 500 ? "error" : entry.latencyMs > SLOW_MS ? "slow" : "ok", String(entry.status)), `${entry.latencyMs} ms`, entry.cluster ?? "–", entry.pod ?? "–"]);
  document.querySelector("#history table").replaceChildren(...tableOf(heads, rows));
  document.querySelector("#history .empty").hidden = rows.length > 0;
}

/** The last requests of all services, newest first. */
function latest(report) {
  return Object.entries(report)
    .flatMap(([service, { requests }]) => requests.map((entry) => ({ service, ...entry })))
    .sort((a, b) => b.timestamp - a.timestamp)
    .slice(0, HISTORY);
}

// ---- start ----

function speak() {
  document.documentElement.lang = state.language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const line of document.querySelectorAll(".result")) line.textContent = "";
  document.title = t("title");
  const bars = { share: t("barShare"), band: t("barBand"), mark: t("barMark") };
  byId("legend").replaceChildren(
    ...KINDS.map((kind) => make("li", {}, make("span", { className: "light", "data-kind": kind }, svgUse(`shape-${kind}`)), kindText(t, kind))),
    ...Object.entries(bars).map(([className, meaning]) => make("li", {}, make("span", { className }), meaning)));
  eachService(showTraffic);
  eachService(showList);
  markTaken();
  showPods();
  showHistory();
}

byId("language").addEventListener("click", () => {
  state.language = state.language === "ko" ? "en" : "ko";
  localStorage.setItem("language", state.language);
  speak();
});
eachService((service) => section(service, ".refresh").addEventListener("click", () => load(service)));
byId("refresh-all").addEventListener("click", () => eachService(load));
byId("steady").addEventListener("change", steady);
byId("rate").addEventListener("change", steady);
byId("book").elements.movieId.addEventListener("change", loadSeats);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") showTip(null); });
document.addEventListener("scroll", () => showTip(null), { passive: true });

onSubmit("add-user", async (values, form) => {
  const user = await post("users", values);
  form.reset();
  await load("users");
  return t("added", { name: user.name });
});
onSubmit("add-movie", async (values, form) => {
  const movie = await post("movies", { ...values, year: Number(values.year) });
  form.reset();
  await load("movies");
  return t("added", { name: movie.title });
});
onSubmit("book", async (values) => {
  if (seats.chosen.size === 0) throw new Error(t("chooseSeats"));
  try {
    const booking = await post("bookings", { ...values, seats: [...seats.chosen] });
    return t("booked", { seats: booking.seats.join(", ") });
  } finally {
    await load("bookings");
  }
});

speak();
eachService(load);
follow("/traffic-weights", (weights) => { state.weights = weights; eachService(showTraffic); });
follow("/deployment-status", ({ clusters }) => { state.clusters = clusters; showPods(); });
follow(`/traffic-history?last=${HISTORY}`, (report) => { state.history = latest(report); showHistory(); });
