// A threshold on one quantity: a histogram (of logarithmic height) with two bounds, or a list of categories.

const BINS = 80;

export class Threshold {
  constructor(changed) {
    this.changed = changed;
    this.canvas = document.getElementById("histogram");
    this.sliders = ["low", "high"].map((id) => document.getElementById(id));
    this.numbers = ["low-value", "high-value"].map((id) => document.getElementById(id));
    this.sliders.forEach((slider, side) => slider.addEventListener("input", () => this.set(side, this.span[0] + (slider.value / 1000) * (this.span[1] - this.span[0]))));
    new ResizeObserver(() => { if (this.counts && this.canvas.clientWidth) this.draw(); }).observe(this.canvas);
    this.numbers.forEach((number, side) => number.addEventListener("change", () => this.set(side, Number(number.value))));
  }

  /** Show a quantity; its bounds begin at its ends. */
  show(values, quantity, shown, selected) {
    this.values = values; this.quantity = quantity;
    const isNumber = !quantity.categories.length;
    document.getElementById("range").hidden = !isNumber;
    const list = document.getElementById("categories");
    list.hidden = isNumber; list.replaceChildren();
    if (isNumber) {
      let low = Infinity, high = -Infinity;
      for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
      this.span = low <= high ? [low, high] : [0, 1];
      this.bounds = [...this.span];
    } else quantity.categories.forEach((name, i) => {
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox"; box.value = i; box.addEventListener("change", () => this.changed());
      label.append(box, ` ${name}`); list.append(label);
    });
    this.refresh(shown, selected);
    this.changed();
  }

  set(side, value) {
    if (!Number.isFinite(value)) value = this.span[side];
    this.bounds[side] = side ? Math.max(value, this.bounds[0]) : Math.min(value, this.bounds[1]);
    this.draw();
    this.changed();
  }

  /** Which shown particles are within the bounds, and the same in words. */
  picked(shown) {
    const mask = new Uint8Array(this.values.length);
    if (this.quantity.categories.length) {
      const chosen = [...document.querySelectorAll("#categories input:checked")].map((box) => Number(box.value)), wanted = new Set(chosen);
      for (let i = 0; i < mask.length; i++) mask[i] = shown[i] && wanted.has(this.values[i]) ? 1 : 0;
      return { mask, words: `${this.quantity.name} is ${chosen.map((i) => this.quantity.categories[i]).join(" or ")}` };
    }
    const [low, high] = this.bounds;
    for (let i = 0; i < mask.length; i++) mask[i] = shown[i] && this.values[i] >= low && this.values[i] <= high ? 1 : 0;
    return { mask, words: `${this.quantity.name} from ${short(low)} to ${short(high)}` };
  }

  /** Count anew after other particles are shown or selected. */
  refresh(shown, selected) {
    if (!this.values || this.quantity.categories.length) return;
    const [low, high] = this.span, scale = BINS / (high - low || 1);
    this.counts = [new Float64Array(BINS), new Float64Array(BINS)];
    for (let i = 0; i < this.values.length; i++) {
      if (!shown[i] || Number.isNaN(this.values[i])) continue;
      const bin = Math.min(BINS - 1, ((this.values[i] - low) * scale) | 0);
      this.counts[0][bin]++;
      if (selected[i]) this.counts[1][bin]++;
    }
    this.draw();
  }

  draw() {
    const [low, high] = this.span, context = this.canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    this.canvas.width = this.canvas.clientWidth * 2; this.canvas.height = this.canvas.clientHeight * 2;
    const { width, height } = this.canvas, most = Math.log1p(Math.max(1, ...this.counts[0]));
    const inBounds = (bin) => low + ((bin + 1) / BINS) * (high - low) >= this.bounds[0] && low + (bin / BINS) * (high - low) <= this.bounds[1];
    for (let bin = 0; bin < BINS; bin++) {
      const tall = (counts) => (counts[bin] ? Math.max(4, (Math.log1p(counts[bin]) / most) * height) : 0);
      context.fillStyle = style.getPropertyValue(inBounds(bin) ? "--quiet" : "--line");
      context.fillRect((bin / BINS) * width, height - tall(this.counts[0]), width / BINS - 1, tall(this.counts[0]));
      context.fillStyle = style.getPropertyValue("--accent");
      context.fillRect((bin / BINS) * width, height - tall(this.counts[1]), width / BINS - 1, tall(this.counts[1]));
    }
    this.bounds.forEach((bound, side) => {
      this.sliders[side].value = Math.round((1000 * (bound - low)) / (high - low || 1));
      this.numbers[side].value = short(bound);
    });
  }
}

/** A number with as many digits as people read. */
export function short(value) { return Number(value.toPrecision(5)).toString(); }
