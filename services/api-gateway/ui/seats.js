// The seat map: which seats are taken, which are chosen.

import { byId, make } from "./dom.js";

export class SeatMap {
  constructor() {
    this.hall = { rows: [], perRow: 0 };
    this.taken = new Set();
    this.chosen = new Set();
    this.buttons = new Map();
  }

  /** Draws a hall; nothing is chosen in it yet. */
  draw(t, { rows, perRow, taken }) {
    this.hall = { rows, perRow };
    this.chosen.clear();
    this.buttons.clear();
    byId("seats").replaceChildren(...rows.map((row) => make("div", { className: "seat-row" },
      make("span", { "aria-hidden": "true" }, row),
      ...Array.from({ length: perRow }, (_, index) => this.seat(`${row}${index + 1}`)))));
    this.mark(t, taken);
  }

  seat(label) {
    const button = make("button", { type: "button", className: "seat", "aria-pressed": "false" }, label.slice(1));
    button.addEventListener("click", () => {
      if (!this.chosen.delete(label)) this.chosen.add(label);
      button.setAttribute("aria-pressed", String(this.chosen.has(label)));
    });
    this.buttons.set(label, button);
    return button;
  }

  /** Marks which seats are taken; what somebody else took is no longer chosen. */
  mark(t, taken) {
    this.taken = new Set(taken);
    for (const [label, button] of this.buttons) {
      const isTaken = this.taken.has(label);
      if (isTaken) this.chosen.delete(label);
      button.disabled = isTaken;
      button.setAttribute("aria-pressed", String(this.chosen.has(label)));
      button.setAttribute("aria-label", t(isTaken ? "seatTaken" : "seatFree", { seat: label }));
    }
  }
}
