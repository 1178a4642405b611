R"page(// SPDX-License-Identifier: MIT
//
// Charts side by side: those that are pinned first, then what is searched for. Both stand in the address. No
// more than a screen or two of them exist at a time, however many metrics there are.

import {choose, chosen, chosenList} from "./address.js";
import {Chart} from "./chart.js";
import {element, text} from "./dom.js";

const chartsMax = 100;

export class Gallery {
  constructor(board) {
    this.board = board;
    this.groups = new Map();
    this.charts = new Map();  // key -> {chart, pin}
    this.pinned = new Set(chosenList("pin"));
    this.grid = element("div", {class: "charts"});
    this.words = element("p", {class: "soft"});
    this.filter = element("input", {type: "search", id: "find", placeholder: "Find charts",
      "aria-label": "Find charts", value: chosen("find"), oninput: () => {
        choose("find", this.filter.value);
        this.arrange();
      }});
    this.node = element("div", {class: "stack"}, this.words, this.grid);
  }

  // groups: key -> {title, names, series()}, in order.
  update(groups) {
    this.groups = groups;
    this.arrange();
    for (const [key, {chart}] of this.charts) chart.update(groups.get(key).series());
  }

  arrange() {
    const wanted = this.filter.value.toLowerCase();
    const has = (word) => word.toLowerCase().includes(wanted);
    const isPinned = ([key]) => this.pinned.has(key);
    const found = [...this.groups].filter(([key, {title, names}]) => isPinned([key]) || [title, ...names].some(has));
    const others = found.filter((group) => !isPinned(group));
    const order = [...found.filter(isPinned), ...others].slice(0, chartsMax);
    const keys = new Set(order.map(([key]) => key));
    for (const [key, {chart}] of this.charts)
      if (!keys.has(key)) { chart.remove(); this.charts.delete(key); }
    order.forEach(([key, group], i) => {
      const {node} = this.chartOf(key, group);
      // Moving an element takes the focus from it, so only what is out of place moves.
      if (this.grid.children[i] !== node) this.grid.insertBefore(node, this.grid.children[i] ?? null);
    });
    this.words.hidden = found.length > 0 && found.length <= chartsMax || !this.groups.size;
    text(this.words, found.length ? `${chartsMax} of ${found.length} charts; search for the others.`
      : "No chart is called so.");
  }

  chartOf(key, group) {
    if (!this.charts.has(key)) {
      const pin = element("button", {class: "small", "aria-label": `Pin ${group.title}`, title: "Pin: show it first",
        onclick: () => this.togglePin(key)});
      const chart = new Chart(group.title, this.board, pin);
      chart.update(group.series());
      this.charts.set(key, {chart, pin});
    }
    const {chart, pin} = this.charts.get(key);
    pin.setAttribute("aria-pressed", String(this.pinned.has(key)));
    text(pin, this.pinned.has(key) ? "★" : "☆");
    return chart;
  }

  togglePin(key) {
    if (!this.pinned.delete(key)) this.pinned.add(key);
    choose("pin", [...this.pinned]);
    this.arrange();
  }

  remove() {
    for (const {chart} of this.charts.values()) chart.remove();
  }
}
)page"
