R"page(// SPDX-License-Identifier: MIT
//
// The names of a chart's lines with their values. It is bounded however many there are: it scrolls, shows the
// first ones, and the rest is found by searching. A click hides a line or shows it again; with Shift, or
// twice, it shows that line alone. This stands in the address as long as that stays short: the names of the lines
// that are shown where some were singled out, else of those that are hidden.

import {choose, chosenList} from "./address.js";
import {element, text} from "./dom.js";

const shownMax = 60, searchedFrom = 9;
const addressMax = 4000;  // characters of an address that names lines; local_hub takes twice as many
const nobody = " ";  // the name of no line

export class Legend {
  // changed() is called when other lines are to be drawn.
  constructor(title, changed) {
    Object.assign(this, {title, changed});
    const only = chosenList(`only.${title}`);
    this.isOnly = only.length > 0;
    this.chosen = new Set(this.isOnly ? only : chosenList(`hide.${title}`));  // names
    this.names = [];
    this.items = [];
    this.list = element("ul", {class: "legend"});
    this.more = element("span", {class: "small soft"});
    this.search = element("input", {type: "search", placeholder: "Find a line", "aria-label": "Find a line",
      oninput: () => this.fill()});
    this.tools = element("div", {class: "row legend-tools", hidden: true}, this.search, this.more,
      element("button", {class: "small", onclick: () => this.choose(false, [])}, "All"),
      element("button", {class: "small", onclick: () => this.choose(true, [])}, "None"));
    this.node = element("div", {}, this.tools, this.list);
  }

  update(series) {
    this.series = series;
    const names = series.map((each) => each.name);
    if (names.length === this.names.length && names.every((name, i) => name === this.names[i])) return;
    this.names = names;
    this.tools.hidden = names.length < searchedFrom;
    this.fill();
  }

  shows(name) {
    return this.chosen.has(name) === this.isOnly;
  }

  fill() {
    const wanted = this.search.value.toLowerCase();
    const found = this.series.filter(({name}) => name.toLowerCase().includes(wanted));
    this.items = found.slice(0, shownMax).map((each) => this.makeItem(each));
    this.list.replaceChildren(...this.items.map((item) => element("li", {}, item.button)));
    text(this.more, found.length > shownMax ? `${shownMax} of ${found.length} lines` : `${found.length} lines`);
    this.mark();
    this.filled?.();
  }

  makeItem({name, color, dash}) {
    const value = element("b");
    const button = element("button", {class: `s${color % 8 + 1}`, type: "button",
      title: "Click: hide or show. Shift-click or double click: this one alone.",
      onclick: (event) => event.shiftKey ? this.single(name) : this.toggle(name),
      ondblclick: () => this.single(name)},
    element("i", {class: dash ? "swatch dashed" : "swatch"}), element("span", {}, name), value);
    return {name, button, value};
  }

  toggle(name) {
    const others = [...this.chosen].filter((each) => each !== name);
    this.choose(this.isOnly, this.chosen.has(name) ? others : [...others, name]);
  }

  single(name) {
    this.choose(true, [name]);
  }

  // Shows these lines only, or all but these.
  choose(isOnly, names) {
    this.isOnly = isOnly;
    this.chosen = new Set(names);
    choose(`only.${this.title}`, isOnly ? (names.length ? names : nobody) : [], addressMax);
    choose(`hide.${this.title}`, isOnly ? [] : names, addressMax);
    this.mark();
    this.changed();
  }

  mark() {
    for (const {name, button} of this.items) button.setAttribute("aria-pressed", String(this.shows(name)));
  }

  // Writes beside each name what read(name) returns.
  say(read) {
    for (const {name, value} of this.items) text(value, read(name));
  }
}
)page"
