// The surface of a density, turned by dragging: drawn by the scripts that also draw the report's (surfaces.js).
/* global SurfacePainter, surfaceOf, turnedBy */

const GREY = [0.6, 0.65, 0.69], SEEN_THROUGH = 0.45;
const FROM_THE_FRONT = new Float32Array([1, 0, 0, 0, 1, 0, 0, 0, 1]);
const LARGEST_PICTURE = 640;

export class Viewer {
  constructor(element) {
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("aria-label", "Surface: drag or use the arrow keys to turn it, the wheel or two fingers to zoom");
    element.append(this.canvas);
    this.level = 3; this.turn = FROM_THE_FRONT; this.magnification = null; this.pointers = new Map();
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.listen();
  }

  /** Get hold of the graphics card, which takes a moment the first time. Throws if there is none. */
  prepare() {
    if (!this.painter) {
      try { this.painter = new SurfacePainter(); } catch { throw new Error("This browser draws no surfaces; switch WebGL on, or use another browser."); }
    }
  }

  /** Show a density; a pinned one stays behind it in grey. The view stays as it was turned. */
  show(density, colour) {
    this.density = density; this.paint = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16) / 255);
    this.find();
  }

  setLevel(sigmas) { this.level = sigmas; if (this.density) this.find(); }

  pin() { this.pinned = this.pinned ? null : this.density; this.find(); return Boolean(this.pinned); }

  /** Find the surfaces at this level. */
  find() {
    this.prepare();
    for (const { loaded } of this.surfaces ?? []) this.painter.unload(loaded);
    const isBehind = this.pinned && this.pinned !== this.density;
    this.surfaces = [[this.density, this.paint, 1], ...(isBehind ? [[this.pinned, GREY, SEEN_THROUGH]] : [])].map(([density, paint, opacity]) => {
      const found = surfaceAt(density, this.level);
      if (this.magnification === null && found.positions.length) this.magnification = fitting(found.positions, density.side);
      return { loaded: this.painter.load(found), paint, opacity };
    });
    this.draw();
  }

  draw() {
    if (!this.surfaces || !this.canvas.clientWidth) return;
    this.painter.draw(this.surfaces, this.canvas, this.turn, (this.magnification ?? 1) * 2 / this.density.side);
  }

  /** Draw with the next picture of the screen. */
  redraw() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => { this.waits = false; this.draw(); });
  }

  listen() {
    const { canvas, pointers } = this, place = (event) => [event.clientX, event.clientY];
    const apart = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    const zoomBy = (factor) => { this.magnification = Math.min(Math.max((this.magnification ?? 1) * factor, 0.3), 20); this.redraw(); };
    const turnBy = (dx, dy) => { this.turn = turnedBy(this.turn, dx, dy); this.redraw(); };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pointers.set(event.pointerId, place(event)); });
    canvas.addEventListener("pointermove", (event) => {
      const from = pointers.get(event.pointerId), to = place(event);
      if (!from) return;
      const before = pointers.size > 1 ? apart() : 0;
      pointers.set(event.pointerId, to);
      if (before) zoomBy(apart() / before);
      else { const reach = canvas.clientHeight / 2; turnBy((to[0] - from[0]) / reach, (to[1] - from[1]) / reach); }
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoomBy(Math.exp(-event.deltaY * 0.0015)); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      if (by) { event.preventDefault(); turnBy(...by); }
    });
  }

  /** What is seen now, on the page's ground: rows of red, green, blue. */
  picture() {
    this.draw();
    const shrink = Math.min(1, LARGEST_PICTURE / Math.max(this.canvas.width, this.canvas.height));
    const canvas = new OffscreenCanvas(Math.round(this.canvas.width * shrink), Math.round(this.canvas.height * shrink)), context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--ground").trim();
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.canvas, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height), pixels = new Uint8Array((data.length / 4) * 3);
    for (let i = 0; i < data.length / 4; i++) pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
    return { width: canvas.width, height: canvas.height, pixels };
  }
}

/** The surface of a density at a level in sigmas; the last one is kept, so that a film plays without finding it again. */
function surfaceAt(density, level) {
  if (density.found?.level !== level) density.found = { level, surface: surfaceOf(density.values, density.side, level * density.sigma) };
  return density.found.surface;
}

/** How large a surface can be shown whichever way it is turned, in units of its box. */
function fitting(positions, side) {
  let farthest = 0;
  for (let i = 0; i < positions.length; i += 3) farthest = Math.max(farthest, Math.hypot(positions[i], positions[i + 1], positions[i + 2]));
  return (0.94 * side) / 2 / Math.max(farthest, 1);
}

/** A density as it came, z slowest; sigma is its spread around zero. */
export function asDensity(values) {
  let square = 0;
  for (const value of values) square += value * value;
  return { values, side: Math.round(Math.cbrt(values.length)), sigma: Math.sqrt(square / values.length) };
}
