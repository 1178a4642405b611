R"page(// SPDX-License-Identifier: MIT
//
// What the training's machine had to do, as charts over epochs.

import {Board} from "./board.js";
import {Chart} from "./chart.js";
import {element} from "./dom.js";
import {call} from "./hub.js";

// A chart for each of these; a figure goes to the first that it fits.
const kinds = [
  ["Processor and memory, %", /^(cpu|ram|memory)$/],
  ["GPU use, %", /^gpus\/.*\/usage$/],
  ["GPU memory, %", /^gpus\/.*\/memory$/],
  ["GPU temperature, °C", /^gpus\/.*\/temp$/],
  ["GPU power, W", /^gpus\/.*\/power$/],
  ["Disk, MB/s", /^disk.*_mbs$/],
  ["Network, MB/s", /^network.*_mbs$/],
  ["Disk, GB", /^disk.*_gb$/],
  ["Others", /./],
];

export class System {
  constructor(id) {
    this.id = id;
    this.board = new Board("epoch");
    this.charts = new Map();
    this.grid = element("div", {class: "charts"});
    this.node = element("section", {class: "stack", hidden: true, "aria-label": "System"},
      element("h2", {}, "System"), this.grid);
  }

  async fetch() {
    const {epochs, columns} = await call("GET", `api/models/${this.id}/system`);
    this.node.hidden = !epochs.length;
    const groups = new Map();
    for (const [name, y] of Object.entries(columns)) {
      const [title] = kinds.find(([, pattern]) => pattern.test(name));
      groups.set(title, [...groups.get(title) ?? [], {name, x: epochs, y, steps: epochs}]);
    }
    for (const [title, series] of groups)
      this.chartOf(title).update(series.map((each, i) => ({...each, color: i, dash: Math.floor(i / 8)})));
  }

  chartOf(title) {
    if (!this.charts.has(title)) {
      this.charts.set(title, new Chart(title, this.board));
      this.grid.append(this.charts.get(title).node);
    }
    return this.charts.get(title);
  }

  remove() {
    for (const chart of this.charts.values()) chart.remove();
  }
}
)page"
