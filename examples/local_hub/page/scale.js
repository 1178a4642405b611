R"page(// SPDX-License-Identifier: MIT
//
// Where a number lies on an axis, and which numbers are written beside it. A label is exact: it says the
// number of the very place where it stands.

// The next number, or one hardly below, that is one of these times a power of ten.
function roundStep(rough, choice) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * choice.find((each) => each * power >= 0.8 * rough);
}

// Bounded, so that no range, however narrow, takes long.
function multiples(step, low, high) {
  const found = [], first = Math.ceil(low / step - 1e-9);
  for (let i = 0; i < 100 && (first + i) * step <= high + step * 1e-9; ++i) found.push((first + i) * step);
  return found;
}

// Without what binary fractions add to it.
function exact(tick) {
  const value = Number(tick.toPrecision(15)), size = Math.abs(value);
  return size && (size >= 1e6 || size < 1e-4) ? value.toExponential().replace("e+", "e") : String(value);
}

// Each scale: share(value) from 0 to 1 within it, and ticks of {at, label}.
export function linearScale(low, high, count = 4, choice = [1, 2, 2.5, 5, 10]) {
  const step = roundStep((high - low) / count, choice);
  return {share: (value) => (value - low) / (high - low),
    ticks: multiples(step, low, high).map((at) => ({at, label: exact(at)}))};
}

export function countScale(low, high, count) {
  const scale = linearScale(low, high, count, [1, 2, 5, 10]);
  return {...scale, ticks: scale.ticks.filter(({at}) => Math.abs(at - Math.round(at)) < 1e-9)};
}

const timeUnits = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const timeSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200];

export function timeScale(low, high, count) {
  const rough = (high - low) / count;
  const step = rough < 1 ? roundStep(rough, [1, 2, 5, 10])
    : timeSteps.find((each) => each >= 0.8 * rough) ?? 86400 * roundStep(rough / 86400, [1, 2, 5, 10]);
  const [unit, name] = timeUnits.find(([seconds]) => step % seconds === 0) ?? [1, "s"];
  return {share: (value) => (value - low) / (high - low),
    ticks: multiples(step, low, high).map((at) => ({at, label: `${exact(at / unit)} ${name}`}))};
}

function logScale(low, high) {
  const from = Math.log10(low) - 0.05, to = Math.max(Math.log10(high) + 0.05, from + 0.1);
  const ticks = [];
  const every = Math.ceil((to - from) / 6);
  for (let power = Math.floor(from); power <= to; ++power) {
    if (power % every) continue;
    for (const each of to - from > 3 ? [1] : [1, 2, 5]) {
      const place = Math.log10(each) + power;
      const at = Number(`${each}e${power}`);
      if (place >= from && place <= to) ticks.push({at, label: exact(at)});
    }
  }
  if (ticks.length < 2) return linearScale(low, high);  // so narrow that it is straight
  return {share: (value) => value > 0 ? (Math.log10(value) - from) / (to - from) : NaN, ticks};
}

// For values, with room around them; one that starts near zero starts at zero. What is not above zero
// has no place on a logarithmic scale.
export function valueScale({low, high, least}, wantsLog) {
  if (wantsLog && least < Infinity) return logScale(least, high);
  if (low > high) return linearScale(0, 1);
  const size = Math.max(Math.abs(low), Math.abs(high)), spread = high - low;
  const room = (spread > 1e-9 * size ? spread : size || 1) * 0.06;
  return linearScale(low >= 0 && low < room * 2 ? 0 : low - room, high + room);
}
)page"
