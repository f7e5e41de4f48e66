// Selections: a byte per particle, 1 or 0; pure functions on them.

/** What becomes of a selection when something is picked: "new", "or", "and", or "not" (and not). */
export function combine(mode, selected, picked) {
  const result = new Uint8Array(selected.length);
  for (let i = 0; i < result.length; i++) {
    if (mode === "new") result[i] = picked[i];
    else if (mode === "or") result[i] = selected[i] | picked[i];
    else if (mode === "and") result[i] = selected[i] & picked[i];
    else result[i] = selected[i] & (1 - picked[i]);
  }
  return result;
}

export function count(mask) {
  let total = 0;
  for (let i = 0; i < mask.length; i++) total += mask[i];
  return total;
}

/** The shown particles that are not selected; what is not shown stays as it is. */
export function invert(selected, shown) {
  return selected.map((one, i) => (shown[i] ? 1 - one : one));
}

/** A bit per particle, the first in the lowest bit of the first byte. */
export function pack(mask) {
  const bytes = new Uint8Array((mask.length + 7) >> 3);
  for (let i = 0; i < mask.length; i++) bytes[i >> 3] |= mask[i] << (i & 7);
  return bytes;
}

export function unpack(bytes, length) {
  const mask = new Uint8Array(length);
  for (let i = 0; i < length; i++) mask[i] = (bytes[i >> 3] >> (i & 7)) & 1;
  return mask;
}

/** Which of the points (x, y) lie inside a closed outline [[x, y], ...], by the even-odd rule. */
export function insideOutline(outline, x, y, shown) {
  const picked = new Uint8Array(x.length);
  if (outline.length < 3) return picked;
  // Edges are sorted into bands of y, so that a point is compared with the few edges of its band.
  let top = Infinity, bottom = -Infinity;
  for (const [, py] of outline) { top = Math.min(top, py); bottom = Math.max(bottom, py); }
  const bands = Array.from({ length: 512 }, () => []);
  const scale = bands.length / (bottom - top || 1);
  const band = (value) => Math.min(bands.length - 1, Math.max(0, Math.floor((value - top) * scale)));
  outline.forEach(([x0, y0], i) => {
    const [x1, y1] = outline[(i + 1) % outline.length];
    if (y0 === y1) return;
    for (let b = band(Math.min(y0, y1)); b <= band(Math.max(y0, y1)); b++) bands[b].push([x0, y0, x1, y1]);
  });
  for (let i = 0; i < x.length; i++) {
    const py = y[i];
    if (!shown[i] || !(py >= top && py <= bottom)) continue;
    let inside = 0;
    for (const [x0, y0, x1, y1] of bands[band(py)]) {
      if (y0 > py !== y1 > py && x[i] < ((x1 - x0) * (py - y0)) / (y1 - y0) + x0) inside = 1 - inside;
    }
    picked[i] = inside;
  }
  return picked;
}
