// What the colours of the plot mean, and how the classes of two epochs or runs overlap.

import { RAMP_CSS } from "./colours.js";
import { short } from "./histogram.js";

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The colours of a quantity: a ramp over its range, or a dot for each category that is there; `picked(category, event)` hears clicks. */
export function fillLegend(box, quantity, values, range, picked) {
  const colour = (className, background) => { const span = make("span", { className }); span.style.background = background; return span; };
  if (range) {
    box.replaceChildren(make("div", {}, quantity.name), make("div", {}, short(range[0]), colour("ramp", RAMP_CSS), short(range[1])));
    return;
  }
  const present = new Set(values);
  const rows = quantity.categories.map((name, i) => {
    const row = make("button", { title: "Select these" }, colour("dot", quantity.colours[i]), name);
    row.addEventListener("click", (event) => picked(i, event));
    return [i, row];
  });
  box.replaceChildren(make("div", {}, quantity.name), ...rows.filter(([i]) => present.has(i)).map(([, row]) => row));
}

/** Numbers of particles by their class here (rows) and there (columns); `picked(row, column, event)` hears clicks. */
export function fillCrosstab(table, counts, picked) {
  const head = make("tr", {}, make("th", {}), ...counts[0].map((_, j) => make("th", { textContent: j, scope: "col" })));
  table.replaceChildren(head, ...counts.map((line, i) => make("tr", {}, make("th", { textContent: i, scope: "row" }), ...line.map((size, j) => {
    const button = make("button", { textContent: size.toLocaleString("en-US"), disabled: !size });
    button.addEventListener("click", (event) => picked(i, j, event));
    return make("td", {}, button);
  }))));
}
