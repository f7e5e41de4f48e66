// Colours of points.

// Viridis at even steps.
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"].map(rgb);

export function rgb(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

/** Colours of 256 steps, as three bytes each. */
export function ramp() {
  const table = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (VIRIDIS.length - 1), low = Math.min(Math.floor(at), VIRIDIS.length - 2);
    for (let c = 0; c < 3; c++) table[3 * i + c] = VIRIDIS[low][c] + (at - low) * (VIRIDIS[low + 1][c] - VIRIDIS[low][c]);
  }
  return table;
}

export const RAMP_CSS = `linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c})`).join(",")})`;

/** The bounds between which all but a hundredth of the shown values lie at either end. */
export function robustRange(values, shown, share = 0.01) {
  const step = Math.max(1, Math.floor(values.length / 50000)), sample = [];
  for (let i = 0; i < values.length; i += step) if (shown[i] && Number.isFinite(values[i])) sample.push(values[i]);
  if (!sample.length) return [0, 1];
  sample.sort((a, b) => a - b);
  const low = sample[Math.floor(share * (sample.length - 1))], high = sample[Math.ceil((1 - share) * (sample.length - 1))];
  return low < high ? [low, high] : [low - 0.5, low + 0.5];
}

/** A colour number per point and the colours they stand for; 255 steps of a ramp, or one per category. */
export function colourPoints(values, quantity, shown) {
  const index = new Uint8Array(values.length);
  if (quantity.categories.length) {
    const table = new Uint8Array(256 * 3).fill(128);
    quantity.colours.forEach((hex, i) => table.set(rgb(hex), 3 * Math.min(i, 254)));
    for (let i = 0; i < values.length; i++) index[i] = Number.isNaN(values[i]) ? 255 : Math.min(values[i], 254);
    return { index, table, range: null };
  }
  const range = robustRange(values, shown), table = ramp();
  table.set([128, 128, 128], 3 * 255);
  const scale = 254 / (range[1] - range[0]);
  for (let i = 0; i < values.length; i++) {
    index[i] = Number.isNaN(values[i]) ? 255 : Math.max(0, Math.min(254, (values[i] - range[0]) * scale));
  }
  return { index, table, range };
}
