R"page(// SPDX-License-Identifier: MIT
//
// Lines through values: what is smoothed, what is nearest, and how they are drawn.

// The style sheet's name for a line's colour.
export const lineColor = ({color}) => `--s${color % 8 + 1}`;

// The index of the number that is nearest, by halving.
export function nearest(x, wanted) {
  let low = 0, high = x.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low > 0 && wanted - x[low - 1] <= x[low] - wanted ? low - 1 : low;
}

// An exponential mean that is not drawn towards zero at the beginning.
export function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0, total = 0;
  return values.map((value) => {
    if (value == null) return null;
    mean = mean * weight + value * (1 - weight);
    total = total * weight + 1 - weight;
    return mean / total;
  });
}

// Widens {low, high, least} by values [begin, end); least is the least above zero.
export function extent(values, begin, end, found) {
  for (let i = begin; i < end; ++i) {
    const value = values[i];
    if (value == null) continue;
    if (value < found.low) found.low = value;
    if (value > found.high) found.high = value;
    if (value > 0 && value < found.least) found.least = value;
  }
}

// Adds a line through values [begin, end) to the pen's path. Where a value is missing, or a step was
// left out (steps: such as epochs), the line ends, and goes on behind the gap.
export function traceLine(pen, {x, y, steps}, begin, end, placeX, placeY) {
  const has = (i) => y[i] != null && !Number.isNaN(placeY(y[i]));
  for (let i = begin; i < end; ++i) {
    if (!has(i)) continue;
    const from = i;
    while (i + 1 < end && has(i + 1) && (!steps || steps[i + 1] - steps[i] <= 1)) ++i;
    traceRun(pen, from, i, (at) => placeX(x[at]), (at) => placeY(y[at]));
  }
}

// However many values there are, a column of pixels gets no more than its first, lowest, highest and
// last one, which looks the same as all of them.
function traceRun(pen, from, to, placeX, placeY) {
  pen.moveTo(placeX(from), placeY(from));
  if (from === to) {  // wide enough to be seen by itself, whatever its ends are like
    pen.moveTo(placeX(from) - 1.5, placeY(from));
    pen.lineTo(placeX(from) + 1.5, placeY(from));
  }
  for (let i = from; i <= to; ++i) {
    const column = Math.round(placeX(i));
    const first = i;
    let low = placeY(i), high = low;
    while (i < to && Math.round(placeX(i + 1)) === column) {
      const y = placeY(++i);
      if (y < low) low = y;
      if (y > high) high = y;
    }
    pen.lineTo(placeX(first), placeY(first));
    if (i - first < 2) { if (i > first) pen.lineTo(placeX(i), placeY(i)); continue; }
    pen.lineTo(column, low);
    pen.lineTo(column, high);
    pen.lineTo(placeX(i), placeY(i));
  }
}
)page"
