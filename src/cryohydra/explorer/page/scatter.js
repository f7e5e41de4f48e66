// A million points on a canvas: drawn by hand into its pixels, which needs no graphics card.

import { insideOutline } from "./masks.js";

const LEFT = 56, BOTTOM = 30, TOP = 8, RIGHT = 8; // CSS pixels around the plot
const NEAR = 30; // CSS pixels within which a click means a point

export class Scatter {
  /** `hears` has `lasso(picked, event)`, `click(i, event)`, and `line(points)` for a drawn way. */
  constructor(canvas, overlay, hears) {
    this.canvas = canvas; this.overlay = overlay; this.hears = hears;
    this.tool = "lasso"; this.marks = []; this.drawing = []; this.pointers = new Map();
    this.x = new Float32Array(0); this.y = this.x; this.shown = new Uint8Array(0);
    this.selected = this.shown; this.numSelected = 0; this.view = [0, 1, 0, 1];
    this.colours = { index: this.shown, table: new Uint8Array(768) };
    this.names = [[], []];
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => this.forget());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** Names of categories along an axis; none for numbers. */
  setPoints(x, y, xNames, yNames) { this.x = x; this.y = y; this.names = [xNames, yNames]; }

  /** Show all points, with a little room around them. */
  fit() {
    const bounds = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < this.x.length; i++) {
      const x = this.x[i], y = this.y[i];
      if (!this.shown[i] || x !== x || y !== y) continue;
      if (x < bounds[0]) bounds[0] = x;
      if (x > bounds[1]) bounds[1] = x;
      if (y < bounds[2]) bounds[2] = y;
      if (y > bounds[3]) bounds[3] = y;
    }
    this.view = [0, 2].flatMap((a) => {
      const low = bounds[a], high = bounds[a + 1];
      if (!(low <= high)) return [0, 1];
      const room = (high - low) * 0.04 || 0.5;
      return [low - room, high + room];
    });
    this.draw();
  }

  /** Factors from values to CSS pixels. */
  transform() {
    const [x0, x1, y0, y1] = this.view, { width, height } = this.box;
    const sx = (width - LEFT - RIGHT) / (x1 - x0), sy = (height - TOP - BOTTOM) / (y1 - y0);
    return { sx, sy, ox: LEFT - x0 * sx, oy: height - BOTTOM + y0 * sy };
  }

  toPixel(x, y) { const t = this.transform(); return [x * t.sx + t.ox, t.oy - y * t.sy]; }
  toValue(px, py) { const t = this.transform(); return [(px - t.ox) / t.sx, (t.oy - py) / t.sy]; }

  draw() {
    this.box = { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
    if (this.box.width < 100 || this.box.height < 100) return;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(this.box.width * ratio); canvas.height = Math.round(this.box.height * ratio);
    }
    this.ratio = ratio;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(this.canvas.width, this.canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    if (this.numSelected) {
      const dim = getComputedStyle(document.documentElement).getPropertyValue("--dim").trim().split(" ").map(Number);
      this.splat(pixels, 0, dim);
      this.splat(pixels, 1, null);
    } else this.splat(pixels, 0, null);
    context.putImageData(image, 0, 0);
    this.drawOverlay();
  }

  /** Add the points that are (1) or are not (0) selected to the pixels; many on one pixel make it more opaque. */
  splat(pixels, wanted, plain) {
    const width = this.canvas.width, height = this.canvas.height, ratio = this.ratio;
    const t = this.transform(), sx = t.sx * ratio, ox = t.ox * ratio, sy = t.sy * ratio, oy = t.oy * ratio;
    const left = LEFT * ratio, right = width - RIGHT * ratio, top = TOP * ratio, bottom = height - BOTTOM * ratio;
    const { x, y, shown, selected } = this, { index, table } = this.colours, n = x.length;
    const radius = ratio * (n <= 5000 ? 2.6 : n <= 30000 ? 1.8 : n <= 200000 ? 1 : 0.5), reach = Math.floor(radius);
    const offsets = [];
    for (let dy = -reach; dy <= reach; dy++) for (let dx = -reach; dx <= reach; dx++) {
      if (dx * dx + dy * dy <= radius * radius) offsets.push(dy * width + dx);
    }
    const counts = new Uint16Array(width * height), sums = new Float32Array(width * height * 3);
    for (let i = 0; i < n; i++) {
      if (!shown[i] || selected[i] !== wanted) continue;
      const px = (x[i] * sx + ox) | 0, py = (oy - y[i] * sy) | 0;
      if (!(x[i] === x[i] && y[i] === y[i]) || px < left + reach || px >= right - reach || py < top + reach || py >= bottom - reach) continue;
      const at = py * width + px, c = 3 * index[i];
      for (let o = 0; o < offsets.length; o++) {
        const p = at + offsets[o];
        if (counts[p] < 65535) { counts[p]++; sums[3 * p] += table[c]; sums[3 * p + 1] += table[c + 1]; sums[3 * p + 2] += table[c + 2]; }
      }
    }
    let most = 1;
    for (let p = 0; p < counts.length; p++) if (counts[p] > most) most = counts[p];
    const floor = n > 200000 ? 0.35 : 0.75, scale = (1 - floor) / Math.log(1 + most);
    for (let p = 0; p < counts.length; p++) {
      const count = counts[p];
      if (!count) continue;
      const alpha = Math.round(255 * (floor + scale * Math.log(1 + count)));
      const r = plain ? plain[0] : sums[3 * p] / count, g = plain ? plain[1] : sums[3 * p + 1] / count, b = plain ? plain[2] : sums[3 * p + 2] / count;
      pixels[p] = (alpha << 24) | (b << 16) | (g << 8) | (r & 255);
    }
  }

  drawOverlay() {
    const context = this.overlay.getContext("2d"), style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--quiet"), line = style.getPropertyValue("--line"), accent = style.getPropertyValue("--accent");
    const { width, height } = this.box;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = line;
    context.strokeRect(LEFT, TOP, width - LEFT - RIGHT, height - TOP - BOTTOM);
    context.font = "12px system-ui, sans-serif"; context.fillStyle = ink;
    context.textAlign = "center"; context.textBaseline = "top";
    for (const [value, text] of ticks(this.view[0], this.view[1], width / 90, this.names[0])) context.fillText(text, this.toPixel(value, 0)[0], height - BOTTOM + 8);
    context.textAlign = "right"; context.textBaseline = "middle";
    for (const [value, text] of ticks(this.view[2], this.view[3], height / 60, this.names[1])) context.fillText(text, LEFT - 6, this.toPixel(0, value)[1], LEFT - 8);
    context.strokeStyle = accent; context.lineWidth = 2;
    if (this.marks.length) {
      const points = this.marks.map((i) => this.toPixel(this.x[i], this.y[i]));
      if (this.tool === "path" || this.marks.length > 1) stroke(context, points);
      points.forEach(([px, py], i) => ring(context, px, py, i === this.current ? 8 : 5, style.getPropertyValue("--paper")));
    }
    if (this.drawing.length > 1) {
      if (this.tool === "lasso") { context.fillStyle = accent; context.globalAlpha = 0.15; outline(context, this.drawing); context.fill(); context.globalAlpha = 1; }
      stroke(context, this.drawing);
    }
  }

  place(event) { const box = this.canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; }

  down(event) {
    if (event.button > 1) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.drawing = this.pointers.size === 1 ? [this.place(event)] : [];
    this.moves = this.tool === "move" || event.button === 1 || this.pointers.size > 1;
  }

  move(event) {
    if (!this.pointers.has(event.pointerId)) return;
    const before = [...this.pointers.values()], here = this.place(event);
    const last = this.pointers.get(event.pointerId);
    this.pointers.set(event.pointerId, here);
    if (this.moves) {
      const after = [...this.pointers.values()], from = centre(before), to = centre(after);
      const factor = before.length > 1 ? spread(before) / Math.max(1, spread(after)) : 1;
      this.zoom(factor, to, [from[0] - to[0], from[1] - to[1]]);
      if (Math.hypot(here[0] - last[0], here[1] - last[1]) > 0) this.drawing.push(here);
    } else {
      const end = this.drawing.at(-1);
      if (Math.hypot(here[0] - end[0], here[1] - end[1]) >= 3) { this.drawing.push(here); this.drawOverlay(); }
    }
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
    const drawn = this.drawing, here = this.place(event);
    this.drawing = [];
    if (drawn.length <= 2 && !(this.moves && drawn.length !== 1)) this.click(here, event);
    else if (this.moves) return;
    else if (this.tool === "path") this.hears.line(drawn);
    else this.lasso(drawn, event);
    this.drawOverlay();
  }

  forget() { this.pointers.clear(); this.drawing = []; this.drawOverlay(); }

  click(here, event) {
    const found = this.nearest(here, NEAR);
    if (found >= 0) this.hears.click(found, event);
  }

  lasso(drawn, event) {
    const outline = drawn.map(([px, py]) => this.toValue(px, py));
    this.hears.lasso(insideOutline(outline, this.x, this.y, this.shown), event);
  }

  /** The shown point nearest to a place, in CSS pixels; -1 if none is within reach. `may` can leave points out. */
  nearest([px, py], reach, may = null) {
    const t = this.transform();
    let best = -1, least = reach * reach;
    for (let i = 0; i < this.x.length; i++) {
      if (!this.shown[i] || (may && !may(i))) continue;
      const dx = this.x[i] * t.sx + t.ox - px, dy = t.oy - this.y[i] * t.sy - py, square = dx * dx + dy * dy;
      if (square < least) { least = square; best = i; }
    }
    return best;
  }

  wheel(event) { event.preventDefault(); this.zoom(Math.exp(event.deltaY * 0.0015), this.place(event), [0, 0]); }

  /** Scale around a place and move by some pixels. */
  zoom(factor, [px, py], [dx, dy]) {
    const t = this.transform(), [x, y] = this.toValue(px, py), [x0, x1, y0, y1] = this.view;
    const mx = dx / t.sx, my = -dy / t.sy;
    this.view = [x + (x0 - x) * factor + mx, x + (x1 - x) * factor + mx, y + (y0 - y) * factor + my, y + (y1 - y) * factor + my];
    if (!this.waits) { this.waits = true; requestAnimationFrame(() => { this.waits = false; this.draw(); }); }
  }
}

function outline(context, points) { context.beginPath(); points.forEach(([x, y]) => context.lineTo(x, y)); }
function stroke(context, points) { outline(context, points); context.stroke(); }
function ring(context, x, y, radius, paper) {
  context.beginPath(); context.arc(x, y, radius, 0, 2 * Math.PI); context.fillStyle = paper; context.fill(); context.stroke();
}
function centre(points) { return [0, 1].map((a) => points.reduce((sum, p) => sum + p[a], 0) / points.length); }
function spread(points) { return Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]); }

/** Values along an axis and what to write there. */
export function ticks(low, high, about, names) {
  if (names.length) return names.map((name, i) => [i, name]).filter(([i]) => i > low && i < high);
  const rough = (high - low) / Math.max(1, about), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push([i * step, (i * step).toFixed(digits)]);
  return found;
}
