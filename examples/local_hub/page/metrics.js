R"page(// SPDX-License-Identifier: MIT
//
// The metrics of one model: which of them share a chart, and the same values as a table.

import {ChosenBoard} from "./choices.js";
import {element} from "./dom.js";
import {Gallery} from "./gallery.js";
import {table} from "./table.js";
import {Values} from "./values.js";
import {number} from "./words.js";

const pageRows = 50, columnsMax = 60;

export class Metrics {
  constructor(id) {
    this.values = new Values(id);
    this.board = new ChosenBoard(() => this.draw());
    this.gallery = new Gallery(this.board);
    this.facts = element("dl", {class: "facts"});
    this.none = element("p", {class: "soft", hidden: true}, "No epoch has been reported yet.");
    this.rows = element("div");
    this.details = element("details", {ontoggle: () => this.drawTable()},
      element("summary", {}, "All values as a table"), this.rows);
    this.end = null;  // of the part of the table that is shown; null: the newest
    this.node = element("section", {class: "stack", "aria-label": "Metrics"},
      element("div", {class: "row between"},
        element("div", {class: "row"}, element("h2", {}, "Metrics"), this.gallery.filter), this.board.controls),
      this.none, this.facts, this.gallery.node, element("div", {class: "card"}, this.details));
  }

  fetch() {
    return this.values.fetch();
  }

  draw() {
    const {columns, epochs} = this.values;
    this.none.hidden = epochs.length > 0;
    this.drawFacts();
    const groups = groupsOf([...columns.keys()].filter((name) => !name.startsWith("model/")));
    for (const group of groups.values())
      group.series = () => group.names.map((name, i) => this.series(name, i, group));
    this.gallery.update(groups);
    this.drawTable();
    this.node.dataset.epochs = epochs.length;
  }

  series(name, color, group) {
    const dash = group.isLoss ? Number(name.startsWith("val")) : Math.floor(color / 8);
    return {name, color, dash, ...this.values.line(name, !this.board.axis.isCount)};
  }

  // What HUB is told once, about the model itself.
  drawFacts() {
    const facts = [...this.values.columns].filter(([name]) => name.startsWith("model/"));
    this.facts.hidden = !facts.length;
    this.facts.replaceChildren(...facts.map(([name, values]) => element("div", {},
      element("dt", {}, name.slice(6)),
      element("dd", {class: "number"}, (values.find((value) => value != null) ?? "–").toLocaleString()))));
  }

  drawTable() {
    if (!this.details.open) return;
    const {columns, epochs} = this.values;
    const names = [...columns.keys()].slice(0, columnsMax);
    const end = this.end ?? epochs.length, begin = Math.max(0, end - pageRows);
    const rows = [];
    for (let i = end - 1; i >= begin; --i)
      rows.push([String(epochs[i]), ...names.map((name) => number(columns.get(name)[i]))]);
    const turn = (to) => () => { this.end = to >= epochs.length ? null : to; this.drawTable(); };
    this.rows.replaceChildren(
      table("Values by epoch, the newest first", ["epoch", ...names].map((name) => ({name, number: true})), rows),
      element("div", {class: "row"},
        element("button", {class: "small", disabled: end >= epochs.length, onclick: turn(end + pageRows)}, "Newer"),
        element("button", {class: "small", disabled: begin === 0, onclick: turn(begin)}, "Older"),
        columns.size > columnsMax
          ? element("span", {class: "soft small"},
                    `${columnsMax} of ${columns.size} metrics; the CSV has all`) : null));
  }

  remove() {
    this.gallery.remove();
  }
}

const titles = new Map([["metrics", "Metrics"], ["lr", "Learning rate"]]);

// A loss shares its chart with the same loss in validation; anything else goes by what stands before its
// last slash, so that metrics share one, and so do learning rates.
function groupsOf(names) {
  const groups = new Map();
  const add = (key, title, isLoss, name) => {
    if (!groups.has(key)) groups.set(key, {title, isLoss, names: []});
    groups.get(key).names.push(name);
  };
  for (const name of [...names].sort()) {
    const [, place, rest] = name.match(/^(train|val)\/(.*)$/) ?? [];
    const prefix = name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : name;
    const isLoss = name.includes("loss");
    if (place) add(`1 ${rest}`, rest, isLoss, name);
    else add(prefix === "metrics" ? "0" : `2 ${prefix}`, titles.get(prefix) ?? prefix, isLoss, name);
  }
  return new Map([...groups].sort(([a], [b]) => a < b ? -1 : 1));
}
)page"
