// Making elements. Text is always set as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "className") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A picture that shows one of the symbols of index.html. */
export function svgUse(symbol) {
  const [svg, use] = ["svg", "use"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${symbol}`);
  svg.append(use);
  return svg;
}

/** A table head and body; a cell is a text or an element. */
export function tableOf(heads, rows) {
  const cell = (value, index) => {
    const element = make("td", { "data-head": heads[index] });
    element.append(value);
    return element;
  };
  return [
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))),
  ];
}

/** One tooltip for the whole page, beside what it is about on the side that is asked for (`above` or `below`) if
    there is room, and always within the window. */
export function showTip(target, lines = [], side = "above") {
  const tip = byId("tip");
  tip.hidden = !target;
  if (!target) return;
  tip.replaceChildren(...lines.map((line) => make("span", {}, line)));
  const at = target.getBoundingClientRect();
  const left = at.left + at.width / 2 - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
  const [above, below] = [at.top - tip.offsetHeight - 6, at.bottom + 6];
  const fits = side === "above" ? above >= 0 : below + tip.offsetHeight > innerHeight;
  tip.style.top = `${fits ? above : below}px`;
}
