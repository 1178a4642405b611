R"page(// SPDX-License-Identifier: MIT
//
// What the charts of a view have in common: how they are drawn, the part that is seen, and the cursor.

import {countScale, linearScale, timeScale} from "./scale.js";
import {number, span} from "./words.js";

// What lies along a chart: its name, its scale, how a place is said, and whether a value counts for its place alone.
const axes = new Map([
  ["epoch", {name: "epoch", scale: countScale, say: (x) => `epoch ${x}`, isCount: true}],
  ["time", {name: "seconds", scale: timeScale, say: (x) => `after ${span(x)}`}],
]);
const other = (name) => ({name, scale: linearScale, say: (x) => `${name} ${number(x)}`});

export class Board {
  constructor(axis) {
    Object.assign(this, {charts: new Set(), log: false, smoothing: 0, zoom: null, cursor: null});
    this.setAxis(axis);
  }

  setAxis(name) {
    this.axis = axes.get(name) ?? other(name);
    this.cursor = null;
    if (this.zoom) this.setZoom(null);
  }

  redraw() {
    for (const chart of this.charts) chart.invalidate();
  }

  setCursor(place) {
    this.cursor = place;
    for (const chart of this.charts) chart.drawCursor();
  }

  // [from, to]; null is all of it.
  setZoom(part) {
    this.zoom = part && this.axis.isCount ? [Math.floor(part[0]), Math.ceil(part[1])] : part;
    this.redraw();
  }
}
)page"
