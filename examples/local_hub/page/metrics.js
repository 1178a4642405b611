R"page(// The metrics of one model: their values as they come, which of them share a chart, and the same
// values as a table.

import {Chart, redraw, settings} from "./chart.js";
import {element, text} from "./dom.js";
import {call} from "./hub.js";
import {table} from "./table.js";
import {number} from "./words.js";

const pageRows = 50;

export class Metrics {
  constructor(id) {
    this.id = id;
    this.forget();
    this.charts = new Map();
    this.facts = element("dl", {class: "facts"});
    this.grid = element("div", {class: "charts"});
    this.none = element("p", {class: "soft", hidden: true}, "No epoch has been reported yet.");
    this.values = element("details", {ontoggle: () => this.drawTable()},
      element("summary", {}, "All values as a table"));
    this.rows = element("div");
    this.values.append(this.rows);
    this.end = null;  // of the part of the table that is shown; null: the newest
    this.node = element("section", {class: "stack", "aria-label": "Metrics"},
      element("div", {class: "row between"}, element("h2", {}, "Metrics"), this.controls()),
      this.none, this.facts, this.grid, element("div", {class: "card"}, this.values));
  }

  forget() {
    this.version = 0;
    this.rowOf = new Map();   // epoch -> index
    this.epochs = [];
    this.columns = new Map();  // name -> values
  }

  controls() {
    const share = element("output", {class: "number"}, "0");
    return element("div", {class: "row"},
      element("label", {class: "inline"}, element("input", {type: "checkbox", id: "log",
        onchange: (event) => { settings.log = event.target.checked; redraw(); }, checked: settings.log}),
      "logarithmic losses"),
      element("label", {class: "inline"}, "smoothing", element("input", {type: "range", min: "0", max: "0.98",
        step: "0.02", value: String(settings.smoothing), id: "smoothing", oninput: (event) => {
          settings.smoothing = Number(event.target.value);
          text(share, event.target.value);
          redraw();
        }}), share));
  }

  // Fetches what is new. Where epochs went away, the model was reset, and everything is new.
  async fetch() {
    let news = await call("GET", `api/models/${this.id}/metrics?since=${this.version}`);
    this.take(news);
    if (news.count !== this.epochs.length) {
      this.forget();
      this.take(await call("GET", `api/models/${this.id}/metrics?since=0`));
    }
  }

  take(news) {
    this.version = news.version;
    const places = news.epochs.map((epoch) => {
      if (!this.rowOf.has(epoch)) this.rowOf.set(epoch, this.epochs.push(epoch) - 1);
      return this.rowOf.get(epoch);
    });
    for (const values of this.columns.values()) for (const at of places) values[at] = null;
    for (const [name, values] of Object.entries(news.columns)) {
      if (!this.columns.has(name)) this.columns.set(name, []);
      const column = this.columns.get(name);
      values.forEach((value, i) => { column[places[i]] = value; });
    }
    for (const column of this.columns.values())
      for (let i = column.length; i < this.epochs.length; ++i) column[i] = null;
    if (places.length && !rises(this.epochs)) this.sort();
  }

  // An epoch that was delayed comes after later ones.
  sort() {
    const order = this.epochs.map((_, i) => i).sort((a, b) => this.epochs[a] - this.epochs[b]);
    this.epochs = order.map((i) => this.epochs[i]);
    this.rowOf = new Map(this.epochs.map((epoch, i) => [epoch, i]));
    for (const [name, column] of this.columns) this.columns.set(name, order.map((i) => column[i]));
  }

  draw() {
    this.none.hidden = this.epochs.length > 0;
    this.drawFacts();
    const groups = groupsOf([...this.columns.keys()].filter((name) => !name.startsWith("model/")));
    for (const [key, chart] of this.charts) if (!groups.has(key)) { chart.remove(); this.charts.delete(key); }
    for (const [key, group] of groups) {
      if (!this.charts.has(key)) {
        const chart = new Chart(group.title, group.isLoss);
        this.charts.set(key, chart);
        this.grid.append(chart.node);
      }
      this.charts.get(key).update(group.names.map((name, i) => this.series(name, i, group)));
    }
    if (this.values.open) this.drawTable();
    this.node.dataset.epochs = this.epochs.length;
  }

  series(name, i, group) {
    return {name, color: `--s${i % 8 + 1}`, dashed: group.isLoss && name.startsWith("val"),
      x: this.epochs, y: this.columns.get(name)};
  }

  // What HUB is told once, about the model itself.
  drawFacts() {
    const facts = [...this.columns].filter(([name]) => name.startsWith("model/"));
    this.facts.hidden = !facts.length;
    this.facts.replaceChildren(...facts.map(([name, values]) => element("div", {},
      element("dt", {}, name.slice(6)),
      element("dd", {class: "number"}, (values.find((value) => value != null) ?? "–").toLocaleString()))));
  }

  drawTable() {
    if (!this.values.open) return;
    const names = [...this.columns.keys()];
    const end = this.end ?? this.epochs.length, begin = Math.max(0, end - pageRows);
    const rows = [];
    for (let i = end - 1; i >= begin; --i)
      rows.push([String(this.epochs[i]), ...names.map((name) => number(this.columns.get(name)[i]))]);
    const turn = (to) => () => { this.end = to >= this.epochs.length ? null : to; this.drawTable(); };
    this.rows.replaceChildren(
      table("Values by epoch, the newest first", [{name: "epoch", number: true}, ...names.map((name) => ({name, number: true}))], rows),
      element("div", {class: "row"},
        element("button", {class: "small", disabled: end >= this.epochs.length, onclick: turn(end + pageRows)}, "Newer"),
        element("button", {class: "small", disabled: begin === 0, onclick: turn(begin)}, "Older")));
  }

  remove() {
    for (const chart of this.charts.values()) chart.remove();
  }
}

function rises(numbers) {
  for (let i = 1; i < numbers.length; ++i) if (numbers[i] < numbers[i - 1]) return false;
  return true;
}

const titles = new Map([["metrics", "Metrics"], ["lr", "Learning rate"]]);

// A loss shares its chart with the same loss in validation; metrics share one, and so do learning
// rates; anything else goes by what stands before its slash.
function groupsOf(names) {
  const groups = new Map();
  const add = (key, title, isLoss, name) => {
    if (!groups.has(key)) groups.set(key, {title, isLoss, names: []});
    groups.get(key).names.push(name);
  };
  for (const name of [...names].sort()) {
    const [, place, rest] = name.match(/^(train|val)\/(.*)$/) ?? [];
    if (place) add(`1 ${rest}`, `${rest}: train and val`, rest.includes("loss"), name);
  }
  for (const name of [...names].sort()) {
    if (/^(train|val)\//.test(name)) continue;
    const prefix = name.includes("/") ? name.slice(0, name.indexOf("/")) : name;
    const title = titles.get(prefix) ?? prefix;
    add(prefix === "metrics" ? "0" : `2 ${prefix}`, title, name.includes("loss"), name);
  }
  return new Map([...groups].sort(([a], [b]) => a < b ? -1 : 1));
}
)page"
