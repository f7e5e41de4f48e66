"use strict";
// A scatter plot of some ten thousand points on a canvas, coloured by a number or a name.

const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const MARGIN = { left: 58, right: 14, top: 10, bottom: 44 };

/** "#rrggbb" on the way through a scale, share from 0 to 1. */
function colourAt(scale, share) {
  const place = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
  const low = Math.min(Math.floor(place), scale.length - 2);
  const [from, to] = [scale[low], scale[low + 1]].map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)));
  const mixed = from.map((value, k) => Math.round(value + (place - low) * (to[k] - value)));
  return "#" + mixed.map((value) => value.toString(16).padStart(2, "0")).join("");
}

/** About `count` round numbers between two. */
function roundNumbers(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

/** A number as a short word. */
function shortNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return `${+value.toPrecision(3)}`;
}

class Scatter {
  /**
   * Columns are {name, values, names, colours}: values is a Float32Array with NaN where there is none; names and
   * colours belong to a column whose values count from 0. `says(row)` are lines about a point under the pointer.
   */
  constructor(canvas, tip, says) {
    this.canvas = canvas;
    this.tip = tip;
    this.says = says;
    this.points = [];
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  /** Draw some rows; gives back the range of colours: {low, high} or null for names. */
  show(x, y, colour, rows) {
    this.chosen = { x, y, colour, rows };
    const { canvas } = this;
    const density = Math.min(window.devicePixelRatio || 1, 2);
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    const kept = rows.filter((row) => Number.isFinite(x.values[row]) && Number.isFinite(y.values[row]));
    const [rangeX, rangeY] = [x, y].map((column) => rangeOf(column, kept, 0.04));
    const toX = (value) => MARGIN.left + (value - rangeX[0]) / (rangeX[1] - rangeX[0]) * (width - MARGIN.left - MARGIN.right);
    const toY = (value) => height - MARGIN.bottom - (value - rangeY[0]) / (rangeY[1] - rangeY[0]) * (height - MARGIN.top - MARGIN.bottom);
    this.frame(pen, width, height, rangeX, rangeY, toX, toY);
    const range = colour.names ? null : colourRange(colour, kept);
    const paints = colour.names
      ? kept.map((row) => colour.colours[colour.values[row]] || "#8c959f")
      : kept.map((row) => Number.isFinite(colour.values[row])
        ? PALETTE[Math.round(63 * Math.min(Math.max((colour.values[row] - range[0]) / (range[1] - range[0]), 0), 1))]
        : "#8c959f");
    const radius = Math.min(Math.max(85 / Math.sqrt(kept.length || 1), 1.2), 4.5);
    pen.globalAlpha = Math.min(Math.max(14 / (kept.length || 1) ** 0.35, 0.45), 0.95);
    this.points = kept.map((row, k) => {
      const [px, py] = [toX(x.values[row]), toY(y.values[row])];
      pen.fillStyle = paints[k];
      pen.beginPath();
      pen.arc(px, py, radius, 0, 2 * Math.PI);
      pen.fill();
      return [px, py, row];
    });
    return range;
  }

  /** Draw the same again, after the page changed its size or theme. */
  redraw() {
    if (this.chosen && this.canvas.clientWidth) this.show(this.chosen.x, this.chosen.y, this.chosen.colour, this.chosen.rows);
  }

  frame(pen, width, height, rangeX, rangeY, toX, toY) {
    const style = getComputedStyle(this.canvas);
    const [ink, line] = [style.color, style.getPropertyValue("--line")];
    pen.font = `12px ${style.fontFamily}`;
    pen.lineWidth = 1;
    pen.fillStyle = ink;
    pen.strokeStyle = line;
    pen.textAlign = "center";
    for (const value of ticks(this.chosen.x, rangeX, width / 60)) {
      const place = Math.round(toX(value)) + 0.5;
      pen.beginPath(); pen.moveTo(place, MARGIN.top); pen.lineTo(place, height - MARGIN.bottom); pen.stroke();
      pen.fillText(this.chosen.x.names ? this.chosen.x.names[value] : shortNumber(value), place, height - MARGIN.bottom + 16);
    }
    pen.textAlign = "right";
    for (const value of ticks(this.chosen.y, rangeY, height / 60)) {
      const place = Math.round(toY(value)) + 0.5;
      pen.beginPath(); pen.moveTo(MARGIN.left, place); pen.lineTo(width - MARGIN.right, place); pen.stroke();
      pen.fillText(this.chosen.y.names ? this.chosen.y.names[value] : shortNumber(value), MARGIN.left - 6, place + 4);
    }
    pen.font = `13px ${style.fontFamily}`;
    pen.textAlign = "center";
    pen.fillText(this.chosen.x.name, (MARGIN.left + width - MARGIN.right) / 2, height - 8);
    pen.save();
    pen.translate(14, (MARGIN.top + height - MARGIN.bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(this.chosen.y.name, 0, 0);
    pen.restore();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let nearest = null;
    let least = 12 ** 2;
    for (const point of this.points) {
      const square = (point[0] - px) ** 2 + (point[1] - py) ** 2;
      if (square < least) [least, nearest] = [square, point];
    }
    this.tip.hidden = nearest === null;
    if (!nearest) return;
    this.tip.replaceChildren(...this.says(nearest[2]).map((line) => {
      const part = document.createElement("div");
      part.textContent = line;
      return part;
    }));
    const isLeft = nearest[0] > box.width / 2;
    this.tip.style.left = isLeft ? "auto" : `${nearest[0] + 12}px`;
    this.tip.style.right = isLeft ? `${box.width - nearest[0] + 12}px` : "auto";
    this.tip.style.top = `${Math.min(nearest[1], box.height - 90)}px`;
  }
}

const PALETTE = Array.from({ length: 64 }, (_, k) => colourAt(VIRIDIS, k / 63));

function ticks(column, range, count) {
  if (column.names) return column.names.map((_, value) => value).filter((_, value) => column.names.length <= 2 * count || value % 5 === 0);
  return roundNumbers(range[0], range[1], Math.min(Math.max(count, 2), 8));
}

/** The range of a column over some rows, with an empty margin. */
function rangeOf(column, rows, margin) {
  let [low, high] = [Infinity, -Infinity];
  for (const row of rows) {
    low = Math.min(low, column.values[row]);
    high = Math.max(high, column.values[row]);
  }
  if (column.names) return [-0.5, column.names.length - 0.5];
  if (!(high > low)) return Number.isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
  return [low - margin * (high - low), high + margin * (high - low)];
}

/** The range in which colours change: all but a hundredth at either end. */
function colourRange(column, rows) {
  const sorted = Float32Array.from(rows.map((row) => column.values[row]).filter(Number.isFinite)).sort();
  if (!sorted.length) return [0, 1];
  const [low, high] = [0.01, 0.99].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}
