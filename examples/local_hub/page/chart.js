R"page(// A chart on a canvas: lines over epochs, to be read by pointer, by arrow keys, and by its legend,
// which says the values at the cursor or else the last ones. All charts share one cursor. However
// many epochs there are, no more is drawn than there are pixels.

import {element, text} from "./dom.js";
import {number} from "./words.js";

const left = 52, right = 12, top = 10, bottom = 24;

export const settings = {smoothing: 0, log: false};
const charts = new Set();
let cursor = null;  // an epoch

function setCursor(epoch) {
  cursor = epoch;
  for (const chart of charts) chart.draw();
}

export class Chart {
  // Losses follow the switch between a linear and a logarithmic scale.
  constructor(title, isLoss) {
    this.title = title;
    this.isLoss = isLoss;
    this.series = [];
    this.canvas = element("canvas", {tabindex: "0", role: "img",
      onpointermove: (event) => setCursor(this.epochAt(event.offsetX)),
      onpointerleave: () => setCursor(null), onblur: () => setCursor(null),
      onkeydown: (event) => this.handleKey(event)});
    this.legend = element("ul", {class: "legend"});
    this.at = element("span", {class: "small soft number"});
    this.node = element("figure", {class: "card chart"},
      element("div", {class: "row between"}, element("h3", {}, title), this.at), this.canvas, this.legend);
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(this.canvas);
    charts.add(this);
  }

  remove() {
    this.resizing.disconnect();
    charts.delete(this);
    this.node.remove();
  }

  // Each of the series: {name, color, dashed, x, y}, x rising, y with null where there is no value.
  update(series) {
    this.series = series.map((each) => ({...each, drawn: smoothed(each.y, settings.smoothing)}));
    this.legend.replaceChildren(...this.series.map((each) => {
      const swatch = element("i", {class: each.dashed ? "swatch dashed" : "swatch"});
      each.value = element("b");
      each.swatch = swatch;
      return element("li", {}, swatch, each.name, each.value);
    }));
    this.draw();
  }

  handleKey(event) {
    const x = this.longest();
    if (!x.length) return;
    const at = cursor == null ? x.length - 1 : nearest(x, cursor);
    const page = Math.max(1, Math.round(x.length / 20));
    const to = {ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page,
      Home: 0, End: x.length - 1}[event.key];
    if (event.key === "Escape") setCursor(null);
    if (to === undefined) return;
    event.preventDefault();
    setCursor(x[Math.min(x.length - 1, Math.max(0, to))]);
    this.legend.setAttribute("aria-live", "polite");
  }

  longest() {
    return this.series.reduce((found, each) => each.x.length > found.length ? each.x : found, []);
  }

  epochAt(pixel) {
    const x = this.longest();
    if (!x.length) return null;
    const {first, last} = this.range();
    const share = (pixel - left) / Math.max(1, this.canvas.clientWidth - left - right);
    return x[nearest(x, first + share * (last - first))];
  }

  range() {
    const x = this.longest();
    return {first: x[0] ?? 0, last: Math.max(x[x.length - 1] ?? 1, (x[0] ?? 0) + 1)};
  }

  draw() {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width) return;
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const density = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * density);
    this.canvas.height = Math.round(height * density);
    const pen = this.canvas.getContext("2d");
    pen.scale(density, density);
    const {first, last} = this.range();
    const scale = scaleOf(this.series, this.isLoss && settings.log);
    const x = (epoch) => left + (epoch - first) / (last - first) * (width - left - right);
    const y = (value) => height - bottom - scale.share(value) * (height - top - bottom);
    drawGrid(pen, scale, {x, y, first, last, width, height, line: color("--line"), ink: color("--soft")});
    for (const each of this.series) {
      const stroke = color(each.color);
      if (settings.smoothing) drawLine(pen, each.x, each.y, x, y, {stroke, width: 1, alpha: 0.28});
      drawLine(pen, each.x, each.drawn, x, y, {stroke, width: 2, alpha: 1, dash: each.dashed ? [7, 4] : []});
      each.swatch.style.background = stroke;
      each.swatch.style.color = stroke;
    }
    this.drawCursor(pen, x, y, height, color);
    this.say();
  }

  drawCursor(pen, x, y, height, color) {
    if (cursor == null || !this.series.length) return;
    pen.strokeStyle = color("--soft");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x(cursor), top);
    pen.lineTo(x(cursor), height - bottom);
    pen.stroke();
    for (const each of this.series) {
      const at = each.x[nearest(each.x, cursor)] === cursor ? each.drawn[nearest(each.x, cursor)] : null;
      if (at == null || Number.isNaN(y(at))) continue;
      pen.fillStyle = color(each.color);
      pen.beginPath();
      pen.arc(x(cursor), y(at), 4, 0, 7);
      pen.fill();
    }
  }

  say() {
    text(this.at, cursor == null ? "last" : `epoch ${cursor}`);
    const parts = this.series.map((each) => {
      const i = cursor == null ? lastWithValue(each.y) : nearest(each.x, cursor);
      const value = cursor == null || each.x[i] === cursor ? number(each.y[i]) : "–";
      text(each.value, value);
      return `${each.name} ${value}`;
    });
    this.canvas.setAttribute("aria-label", `${this.title}, chart over epochs, ${this.at.textContent}: ` +
      `${parts.join(", ")}. Arrow keys move through the epochs.`);
  }
}

export function redraw() {
  for (const chart of charts) chart.update(chart.series);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setCursor(cursor));

function lastWithValue(values) {
  let i = values.length - 1;
  while (i > 0 && values[i] == null) --i;
  return i;
}

// The index of the epoch that is nearest, by halving.
function nearest(x, epoch) {
  let low = 0, high = x.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < epoch) low = middle + 1;
    else high = middle;
  }
  return low > 0 && epoch - x[low - 1] <= x[low] - epoch ? low - 1 : low;
}

// An exponential mean that is not drawn towards zero at the beginning.
function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0, total = 0;
  return values.map((value) => {
    if (value == null) return null;
    mean = mean * weight + value * (1 - weight);
    total = total * weight + 1 - weight;
    return mean / total;
  });
}

function scaleOf(series, wantsLog) {
  let low = Infinity, high = -Infinity, least = Infinity;
  for (const each of series) for (const value of each.y) {
    if (value == null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
    if (value > 0 && value < least) least = value;
  }
  if (low > high) [low, high] = [0, 1];
  if (wantsLog && least < Infinity) return logScale(least, high);
  return linearScale(low, high);
}

// The next number that is one of these times a power of ten.
function roundStep(rough, choice) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * (choice.find((each) => each * power >= rough) ?? 10);
}

// A tick's number without what binary fractions add to it: a label never says another place than its line's.
const exact = (tick) => String(Number(tick.toPrecision(12)));

function linearScale(low, high) {
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  const bottomEnd = low >= 0 && low < room * 2 ? 0 : low - room, topEnd = high + room;
  const step = roundStep((topEnd - bottomEnd) / 4, [1, 2, 2.5, 5, 10]);
  const ticks = [];
  for (let i = Math.ceil(bottomEnd / step); i * step <= topEnd; ++i) ticks.push(i * step);
  return {ticks, share: (value) => (value - bottomEnd) / (topEnd - bottomEnd)};
}

function logScale(least, high) {
  const from = Math.log10(least) - 0.05, to = Math.max(Math.log10(high) + 0.05, from + 0.1);
  const ticks = [];
  for (let power = Math.floor(from); power <= to; ++power) {
    for (const each of to - from > 3 ? [1] : [1, 2, 5]) {
      const at = Math.log10(each) + power;
      if (at >= from && at <= to) ticks.push(10 ** at);
    }
  }
  return {ticks, share: (value) => value > 0 ? (Math.log10(value) - from) / (to - from) : NaN};
}

function drawGrid(pen, scale, {x, y, first, last, width, height, line, ink}) {
  pen.font = "11px system-ui, sans-serif";
  pen.lineWidth = 1;
  pen.fillStyle = ink;
  pen.strokeStyle = line;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const tick of scale.ticks) {
    pen.beginPath();
    pen.moveTo(left, Math.round(y(tick)) + 0.5);
    pen.lineTo(width - right, Math.round(y(tick)) + 0.5);
    pen.stroke();
    pen.fillText(exact(tick), left - 8, y(tick));
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  const step = Math.max(1, roundStep((last - first) / 5, [1, 2, 5, 10]));
  for (let epoch = Math.ceil(first / step) * step; epoch <= last; epoch += step)
    pen.fillText(exact(epoch), x(epoch), height - bottom + 7);
}

function drawLine(pen, epochs, values, x, y, {stroke, width, alpha, dash = []}) {
  pen.save();
  pen.strokeStyle = stroke;
  pen.lineWidth = width;
  pen.globalAlpha = alpha;
  pen.lineJoin = "round";
  pen.setLineDash(dash);
  pen.beginPath();
  const move = (px, py, start) => start ? pen.moveTo(px, py) : pen.lineTo(px, py);
  let start = true, column = null, low = 0, high = 0;
  const finish = () => { if (column != null && high > low) { pen.lineTo(column, low); pen.lineTo(column, high); } };
  for (let i = 0; i < values.length; ++i) {
    const py = values[i] == null ? NaN : y(values[i]);
    if (Number.isNaN(py)) { finish(); start = true; column = null; continue; }
    const px = Math.round(x(epochs[i]) * 2) / 2;
    if (px === column) { low = Math.min(low, py); high = Math.max(high, py); continue; }
    finish();
    move(px, py, start);
    start = false;
    column = px;
    low = high = py;
  }
  finish();
  pen.stroke();
  if (values.length === 1 && values[0] != null) pen.fillRect(x(epochs[0]) - 2, y(values[0]) - 2, 4, 4);
  pen.restore();
}
)page"
