// Iso-surfaces of densities, by 3Dmol.

export class Viewer {
  constructor(element) { this.element = element; this.level = 3; this.surfaces = []; }

  /** Show a density; `pinned` ones stay behind it in grey. The view stays as it was turned. */
  show(density, colour) { this.density = density; this.colour = colour; this.draw(); }

  setLevel(sigmas) { this.level = sigmas; if (this.density) this.draw(); }

  pin() { this.pinned = this.pinned ? null : this.density; this.draw(); return Boolean(this.pinned); }

  /** Make room for a surface, which takes a moment the first time. */
  prepare() {
    if (this.viewer) return;
    this.viewer = window.$3Dmol.createViewer(this.element, { antialias: true });
    new ResizeObserver(() => this.viewer.resize()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.viewer.setBackgroundColor(getComputedStyle(document.documentElement).getPropertyValue("--ground").trim());
    this.viewer.render();
  }

  draw() {
    this.prepare();
    const style = getComputedStyle(document.documentElement), isFirst = !this.surfaces.length;
    this.viewer.setBackgroundColor(style.getPropertyValue("--ground").trim());
    this.viewer.removeAllShapes();
    this.surfaces = [this.pinned, this.density].filter(Boolean).map((density) => {
      const isPinned = density === this.pinned && density !== this.density;
      return this.viewer.addIsosurface(density.data, { isoval: this.level * density.sigma, color: isPinned ? "#9aa5b1" : this.colour, opacity: isPinned ? 0.45 : 1, smoothness: 1 });
    });
    if (isFirst) { this.viewer.zoomTo(); this.viewer.zoom(1.1); }
    this.viewer.render();
  }

  /** What is seen now: rows of red, green, blue. */
  picture() {
    this.viewer.render();
    const from = this.viewer.getCanvas(), shrink = Math.min(1, 640 / Math.max(from.width, from.height));
    const canvas = new OffscreenCanvas(Math.round(from.width * shrink), Math.round(from.height * shrink)), context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--ground").trim();
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(from, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height), pixels = new Uint8Array((data.length / 4) * 3);
    for (let i = 0; i < data.length / 4; i++) pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
    return { width: canvas.width, height: canvas.height, pixels };
  }
}

/** A density as it came, axes [z, y, x], as 3Dmol wants it, axes [x, y, z]; sigma is its spread around zero. */
export function asDensity(values, pixelSize) {
  const side = Math.round(Math.cbrt(values.length)), turned = new Float32Array(values.length);
  let square = 0;
  for (let z = 0, i = 0; z < side; z++) for (let y = 0; y < side; y++) for (let x = 0; x < side; x++, i++) {
    turned[(x * side + y) * side + z] = values[i];
    square += values[i] * values[i];
  }
  const data = new window.$3Dmol.VolumeData("", "none"), corner = -pixelSize * Math.floor(side / 2);
  data.size = { x: side, y: side, z: side };
  data.unit = { x: pixelSize, y: pixelSize, z: pixelSize };
  data.origin = { x: corner, y: corner, z: corner };
  data.data = turned;
  return { data, sigma: Math.sqrt(square / values.length) };
}
