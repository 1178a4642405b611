R"page(// SPDX-License-Identifier: MIT
//
// A chart on a canvas: lines over epochs, time or anything else, to be read by pointer, by arrow keys, and by
// its legend, which says the values at the cursor or else the last ones. Dragging zooms. Charts of one board
// share their cursor and what is seen. Nothing is drawn out of sight, and nothing twice in one frame.

import {element, text} from "./dom.js";
import {Legend} from "./legend.js";
import {extent, lineColor, nearest, smoothed, traceLine} from "./lines.js";
import {saveNumbers, savePicture} from "./save.js";
import {valueScale} from "./scale.js";
import {number} from "./words.js";

const right = 12, top = 10, bottom = 24;
const manyLines = 50;  // from where on they are thin, and get no mark at the cursor
const dashes = [[], [7, 4], [2, 3]];
const all = new Set();

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  // tools: more buttons for the chart's head.
  constructor(title, board, ...tools) {
    Object.assign(this, {title, board, series: [], drag: null, left: 0, isSeen: false, frame: 0});
    this.legend = new Legend(title, () => this.invalidate());
    this.legend.filled = () => this.say();
    this.canvas = element("canvas", {tabindex: "0", role: "img",
      onpointerdown: (event) => this.startDrag(event), onpointermove: (event) => this.point(event),
      onpointerup: () => this.endDrag(), onpointercancel: () => { this.drag = null; },
      onpointerleave: () => board.setCursor(null), onblur: () => board.setCursor(null),
      ondblclick: () => board.setZoom(null), onkeydown: (event) => this.handleKey(event)});
    this.over = element("canvas", {class: "over", "aria-hidden": "true"});
    this.at = element("span", {class: "small soft number"});
    const button = (name, label, onclick) => element("button", {class: "small", "aria-label": `${label} of ${title}`,
      onclick}, name);
    this.node = element("figure", {class: "card chart"},
      element("div", {class: "row between"}, element("h3", {title}, title),
        element("div", {class: "tools"}, this.at, button("PNG", "Picture",
            () => savePicture(title, this.canvas, this.visible(), color)),
          button("CSV", "Numbers", () => saveNumbers(title, board.axis.name, this.visible())), ...tools)),
      element("div", {class: "canvases"}, this.canvas, this.over), this.legend.node);
    this.resizing = new ResizeObserver(() => this.invalidate());
    this.resizing.observe(this.canvas);
    this.seeing = new IntersectionObserver(([entry]) => {
      this.isSeen = entry.isIntersecting;
      this.invalidate();
    }, {rootMargin: "200px"});
    this.seeing.observe(this.canvas);
    board.charts.add(this);
    all.add(this);
  }

  remove() {
    this.resizing.disconnect();
    this.seeing.disconnect();
    this.board.charts.delete(this);
    all.delete(this);
    this.node.remove();
  }

  // Each of the series: {name, color: a number, dash: a number, x, y, steps}; x rises, y has null where there
  // is no value, steps (or nothing) are numbers that count up by one unless something is missing.
  update(series) {
    this.series = series;
    this.legend.update(series);
    this.invalidate();
  }

  visible() {
    return this.series.filter(({name}) => this.legend.shows(name));
  }

  startDrag(event) {
    if (event.button || event.pointerType === "touch") return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = {from: event.offsetX, to: event.offsetX};
  }

  point({offsetX}) {
    if (this.drag) this.drag.to = offsetX;
    this.board.setCursor(this.nearestPlace(this.placeAt(offsetX)));
  }

  endDrag() {
    const {from, to} = this.drag ?? {from: 0, to: 0};
    this.drag = null;
    if (Math.abs(to - from) > 5)
      this.board.setZoom([from, to].sort((a, b) => a - b).map((pixel) => this.placeAt(pixel)));
    else this.drawCursor();
  }

  placeAt(pixel) {
    const [from, to] = this.range();
    const share = (pixel - this.left) / Math.max(1, this.canvas.clientWidth - this.left - right);
    return from + Math.min(1, Math.max(0, share)) * (to - from);
  }

  // All places that have values, without looking at any list twice.
  lists() {
    return [...new Set(this.visible().map(({x}) => x))].filter((x) => x.length);
  }

  nearestPlace(wanted) {
    const found = this.lists().map((x) => x[nearest(x, wanted)]);
    return found.reduce((a, b) => Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a, found[0] ?? null);
  }

  handleKey(event) {
    const x = this.lists().reduce((longest, each) => each.length > longest.length ? each : longest, []);
    if (!x.length) return;
    const [from, to] = this.range().map((each) => nearest(x, each));
    const at = this.board.cursor == null ? to : nearest(x, this.board.cursor);
    const page = Math.max(1, Math.round((to - from) / 20));
    const next = {ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page,
      Home: from, End: to}[event.key];
    if (event.key === "Escape") this.board.cursor == null ? this.board.setZoom(null) : this.board.setCursor(null);
    if (event.key === "+" || event.key === "-") this.zoomAround(x[at], event.key === "+" ? 0.5 : 2);
    if (next === undefined) return;
    event.preventDefault();
    this.board.setCursor(x[Math.min(to, Math.max(from, next))]);
    this.legend.list.setAttribute("aria-live", "polite");
  }

  zoomAround(place, factor) {
    const [first, last] = this.wholeRange();
    const [from, to] = this.range().map((end) => place + (end - place) * factor);
    this.board.setZoom(from <= first && to >= last ? null : [from, to]);
  }

  wholeRange() {
    let first = Infinity, last = -Infinity;
    for (const {x} of this.series) if (x.length) {
      first = Math.min(first, x[0]);
      last = Math.max(last, x[x.length - 1]);
    }
    if (first > last) return [0, 1];
    return [first, last > first ? last : first + 1];
  }

  range() {
    return this.board.zoom ?? this.wholeRange();
  }

  // [begin, end) of what is in range, and one more at each end, so that lines go on to the edge.
  part({x}) {
    const [from, to] = this.range();
    return [Math.max(0, nearest(x, from) - 1), Math.min(x.length, nearest(x, to) + 2)];
  }

  // What is drawn of a line, smoothed once.
  drawn(each) {
    const weight = this.board.smoothing;
    if (weight && each.smooth?.weight !== weight) each.smooth = {weight, y: smoothed(each.y, weight)};
    return weight ? each.smooth.y : each.y;
  }

  invalidate() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.isSeen) this.draw();
    });
  }

  draw() {
    const {pen, width, height} = clear(this.canvas);
    if (!width) return;
    const lines = this.visible();
    const found = {low: Infinity, high: -Infinity, least: Infinity};
    for (const each of lines)
      for (const y of new Set([each.y, this.drawn(each)])) extent(y, ...this.part(each), found);
    const values = valueScale(found, this.board.log);
    pen.font = "11px sans-serif";
    this.left = 14 + Math.max(...values.ticks.map(({label}) => pen.measureText(label).width));
    const [from, to] = this.range();
    const places = this.board.axis.scale(from, to, Math.max(2, Math.floor((width - this.left) / 65)));
    this.x = (place) => this.left + places.share(place) * (width - this.left - right);
    this.y = (value) => height - bottom - values.share(value) * (height - top - bottom);
    this.drawGrid(pen, places, values, width, height);
    pen.save();
    pen.beginPath();
    pen.rect(this.left - 3, 0, width - this.left - right + 6, height - bottom + 3);
    pen.clip();
    for (const each of lines) {
      if (this.board.smoothing) this.drawLine(pen, each, each.y, 1, 0.28, 0);
      this.drawLine(pen, each, this.drawn(each), lines.length > manyLines ? 1 : 2, 1, each.dash);
    }
    pen.restore();
    this.drawCursor();
  }

  drawGrid(pen, places, values, width, height) {
    pen.fillStyle = color("--soft");
    pen.strokeStyle = color("--line");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const {at, label} of values.ticks) {
      pen.beginPath();
      pen.moveTo(this.left, Math.round(this.y(at)) + 0.5);
      pen.lineTo(width - right, Math.round(this.y(at)) + 0.5);
      pen.stroke();
      pen.fillText(label, this.left - 8, this.y(at));
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const {at, label} of places.ticks) pen.fillText(label, this.x(at), height - bottom + 7);
  }

  drawLine(pen, each, y, width, alpha, dash) {
    Object.assign(pen, {strokeStyle: strokeOf(each), lineWidth: width, globalAlpha: alpha, lineJoin: "round",
      lineCap: dash ? "butt" : "round"});
    pen.setLineDash(dashes[dash % dashes.length]);
    pen.beginPath();
    traceLine(pen, {...each, y}, ...this.part(each), this.x, this.y);
    pen.stroke();
  }

  drawCursor() {
    if (!this.isSeen || !this.x) return;
    const {pen, width, height} = clear(this.over);
    const {cursor} = this.board;
    if (this.drag) {
      pen.fillStyle = color("--accent");
      pen.globalAlpha = 0.15;
      pen.fillRect(this.drag.from, top, this.drag.to - this.drag.from, height - top - bottom);
      pen.globalAlpha = 1;
    }
    if (cursor != null && this.x(cursor) >= this.left - 1 && this.x(cursor) <= width - right + 1) {
      pen.fillStyle = color("--soft");
      pen.fillRect(this.x(cursor), top, 1, height - top - bottom);
      const lines = this.visible();
      for (const each of lines.length > manyLines ? [] : lines) {
        const value = this.valueAt(each, this.drawn(each), cursor);
        if (value == null || Number.isNaN(this.y(value))) continue;
        pen.fillStyle = strokeOf(each);
        pen.beginPath();
        pen.arc(this.x(cursor), this.y(value), 4, 0, 7);
        pen.fill();
      }
    }
    this.say();
  }

  // Between two moments the nearer one counts; between two epochs there is nothing.
  valueAt({x}, y, place) {
    if (!x.length || place < x[0] || place > x[x.length - 1]) return null;
    const i = nearest(x, place);
    return this.board.axis.isCount && x[i] !== place ? null : y[i];
  }

  say() {
    const {cursor, axis} = this.board;
    text(this.at, cursor == null ? "last" : axis.say(cursor));
    const known = new Map(this.series.map((each) => [each.name, each]));
    const read = (name) => {
      const each = known.get(name);
      if (!each) return "";
      return number(cursor == null ? each.y.findLast((value) => value != null) : this.valueAt(each, each.y, cursor));
    };
    this.legend.say(read);
    const said = this.visible().slice(0, 12).map(({name}) => `${name} ${read(name)}`);
    this.canvas.setAttribute("aria-label", `${this.title}, chart, ${this.at.textContent}: ${said.join(", ")}. ` +
      "Arrow keys move along it, plus and minus zoom.");
  }
}

const strokeOf = (each) => color(lineColor(each));

// A canvas with a pixel for each of the screen's.
function clear(canvas) {
  const width = canvas.clientWidth, height = canvas.clientHeight, density = devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  return {pen, width, height};
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of all) chart.invalidate();
});
)page"
