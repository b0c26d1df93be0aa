// The traffic panel of one service: two rows of lights, the configured weights and the measured ratio.
// Elements are made once and changed in place, so that focus and tooltips outlive every request.

import { make, svgUse } from "./dom.js";
import { CLUSTERS, SLOW_MS, kindOf, ratio } from "./traffic.js";

const LIGHTS = 16;

/** What a kind of light means, in words. */
export const kindText = (t, kind) => t(kind, { ms: SLOW_MS });

export class Panel {
  /** Fills `box`; `tip(light, lines, side)` shows a tooltip, `tip(null)` hides it. */
  constructor(box, tip) {
    this.tip = tip;
    this.rows = CLUSTERS.map((cluster) => new Row(cluster, this));
    this.configured = ratioBox("configured");
    this.measured = ratioBox("measured");
    this.bar = new Bar();
    box.replaceChildren(...this.rows.map((row) => row.element),
      make("div", { className: "ratios" }, this.configured.element, this.measured.element), this.bar.element);
  }

  /** Shows the last requests beside the weights (`values`, undefined if there are none; `note` about them). */
  show(t, requests, values, note) {
    const last = requests.slice(-LIGHTS);
    this.rows.forEach((row) => row.show(t, last));
    const known = values.every((value) => value !== undefined);
    this.configured.show(t("configured"), known ? `${values[0]}% : ${values[1]}%` : t("noWeights"), note);
    const measured = ratio(requests);
    this.measured.show(t("measured", { n: measured?.n ?? 0 }),
      measured ? `${measured.share}% : ${100 - measured.share}%` : "–",
      measured ? t("interval", measured) : t("noneYet"));
    this.bar.show(measured, known ? values[0] : null);
  }
}

/** One cluster's lights. One of them takes part in the tab order; arrow keys lead to the others. */
class Row {
  constructor(cluster, panel) {
    this.cluster = cluster;
    this.panel = panel;
    this.lights = Array.from({ length: LIGHTS }, () => this.light());
    this.lights[0].tabIndex = 0;
    this.element = make("div", { className: "row" }, make("span", { className: "cluster", "aria-hidden": "true" }, cluster.toUpperCase()),
      make("div", { className: "lights", role: "group", "aria-label": cluster.toUpperCase() }, ...this.lights));
    this.element.addEventListener("keydown", (event) => this.move(event));
  }

  light() {
    const light = make("button", { type: "button", className: "light", tabindex: "-1" }, svgUse("shape-none"));
    // Never over the other cluster's row.
    const side = this.cluster === CLUSTERS[0] ? "above" : "below";
    const show = () => this.panel.tip(light, light.lines ?? [], side);
    const hide = () => this.panel.tip(null);
    for (const event of ["mouseenter", "focus"]) light.addEventListener(event, show);
    for (const event of ["mouseleave", "blur"]) light.addEventListener(event, hide);
    return light;
  }

  move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const from = this.lights.indexOf(document.activeElement);
    const to = this.lights[from + step];
    if (!step || !to) return;
    event.preventDefault();
    this.lights[from].tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  show(t, requests) {
    this.lights.forEach((light, index) => {
      const request = requests[index];
      const kind = kindOf(request, this.cluster);
      light.lines = describe(t, request, kind);
      light.setAttribute("aria-label", light.lines.join(", "));
      if (light.dataset.kind === kind) return;
      light.dataset.kind = kind;
      light.querySelector("use").setAttribute("href", `#shape-${kind}`);
    });
  }
}

function describe(t, request, kind) {
  if (!request) return [t("none")];
  return [kindText(t, kind), t("lightStatus", { status: request.status || t("noAnswer"), ms: request.ms }),
    request.cluster ? t("lightPlace", request) : t("noPlace"),
    ...(request.age === null ? [] : [t("lightAge", request)])];
}

function ratioBox(className) {
  const [label, value, note] = ["small", "strong", "small"].map((tag) => make(tag));
  note.className = "note";
  return {
    element: make("div", { className: `ratio ${className}` }, label, value, note),
    show(...texts) {
      [label, value, note].forEach((element, index) => { element.textContent = texts[index]; });
      note.title = texts[2];
    },
  };
}

/** The share of the first cluster on a scale from 0 to 100 %: measured, its interval, and a mark where the weight is. */
class Bar {
  constructor() {
    [this.share, this.band, this.mark] = ["share", "band", "mark"].map((className) => make("span", { className }));
    this.element = make("div", { className: "bar", "aria-hidden": "true" }, this.share, this.band, this.mark);
  }

  show(measured, weight) {
    this.share.style.width = `${measured?.share ?? 0}%`;
    this.band.style.left = `${measured?.low ?? 0}%`;
    this.band.style.width = `${measured ? measured.high - measured.low : 0}%`;
    this.mark.hidden = weight === null;
    this.mark.style.left = `${weight ?? 0}%`;
  }
}
