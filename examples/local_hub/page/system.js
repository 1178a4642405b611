R"page(// What the training's machine had to do, as charts over time.

import {Board} from "./board.js";
import {Chart} from "./chart.js";
import {element} from "./dom.js";

// A chart for each of these; a figure goes to the first that it fits.
const kinds = [
  ["Processor and memory, %", /^(cpu|ram|memory)$/],
  ["GPU use, %", /^gpus\/.*\/usage$/],
  ["GPU memory, %", /^gpus\/.*\/memory$/],
  ["GPU temperature, °C", /^gpus\/.*\/temp$/],
  ["GPU power, W", /^gpus\/.*\/power$/],
  ["Disk, MB/s", /_mbs$/, /^disk/],
  ["Network, MB/s", /_mbs$/, /^network/],
  ["Disk, GB", /_gb$/],
  ["Others", /./],
];

export class System {
  constructor() {
    this.board = new Board("time");
    this.charts = new Map();
    this.grid = element("div", {class: "charts"});
    this.node = element("section", {class: "stack", hidden: true, "aria-label": "System"},
      element("h2", {}, "System"), this.grid);
  }

  // Each of the samples: {time, and figures in any nesting}.
  draw(samples) {
    if (samples.length === this.count) return;
    this.count = samples.length;
    this.node.hidden = !samples.length;
    const x = samples.map(({time}) => time - samples[0].time);
    const lines = new Map();  // name -> values
    samples.forEach(({time, epoch, ...figures}, i) => {
      for (const [name, value] of flat(figures)) {
        if (!lines.has(name)) lines.set(name, Array(samples.length).fill(null));
        lines.get(name)[i] = value;
      }
    });
    const groups = new Map();
    for (const [name, y] of lines) {
      const title = kinds.find(([, ...patterns]) => patterns.every((each) => each.test(name)))[0];
      groups.set(title, [...groups.get(title) ?? [], {name, x, y}]);
    }
    for (const [title, series] of groups) this.chartOf(title).update(series.map((each, i) =>
      ({...each, color: i, dash: Math.floor(i / 8)})));
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

// Pairs of a path and a number; a disk in a list goes by where it is mounted.
function flat(value, path = "") {
  if (typeof value === "number") return [[path, value]];
  if (value == null || typeof value !== "object") return [];
  return Object.entries(value).flatMap(([name, part]) =>
    flat(part, [path, part?.mount ?? name].filter(Boolean).join("/")));
}
)page"
