// Along an axis of categories: points of one category spread over a strip, wider where there are more of them.

const BINS = 80;
const HALF_WIDTH = 0.42;

/** Places along an axis: numbers as they are, categories spread, always in the same way. */
export function spreadCategories(values, quantity, across, acrossQuantity) {
  if (!quantity.categories.length) return values;
  const width = acrossQuantity.categories.length ? null : densities(values, quantity.categories.length, across);
  return values.map((value, i) => {
    const random = ((Math.imul(i + 1, 2654435761) >>> 0) / 2 ** 32) * 2 - 1;
    return value + random * HALF_WIDTH * (width ? width(i) : 1);
  });
}

/** How dense a point's category is at its place, from 0 to 1. */
function densities(values, numCategories, across) {
  let low = Infinity, high = -Infinity;
  for (const value of across) { if (value < low) low = value; if (value > high) high = value; }
  const scale = (BINS - 1) / (high - low || 1), bin = (i) => Math.round((across[i] - low) * scale);
  let counts = Array.from({ length: numCategories }, () => new Float64Array(BINS));
  for (let i = 0; i < values.length; i++) if (values[i] === values[i] && across[i] === across[i]) counts[values[i]][bin(i)]++;
  for (let pass = 0; pass < 3; pass++) counts = counts.map((line) => line.map((c, b) => ((line[b - 1] ?? 0) + 2 * c + (line[b + 1] ?? 0)) / 4));
  const most = counts.map((line) => Math.max(...line) || 1);
  return (i) => (counts[values[i]]?.[bin(i)] ?? 0) / most[values[i]];
}
