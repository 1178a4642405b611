R"page(// SPDX-License-Identifier: MIT
//
// Tables, and what a table stands in.

import {element} from "./dom.js";
import {moment} from "./words.js";

export const section = (title, ...content) => element("section", {class: "card"}, element("h2", {}, title), ...content);

// Each of the heads: {name, number, class}. A table that is too wide scrolls by itself.
export function table(caption, heads, rows) {
  const cells = (tag, row) => row.map((cell, i) =>
    element(tag, {class: heads[i].number ? "number" : heads[i].class, scope: tag === "th" ? "col" : null},
      cell));
  return element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
    element("table", {"aria-label": caption},
      element("thead", {}, element("tr", {}, ...cells("th", heads.map((head) => head.name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row))))));
}

// Puts a table in the place of another one, scrolled as that was.
export function swap(node, next) {
  const scrolled = node.querySelector(".scroll")?.scrollLeft;
  node.replaceChildren(next);
  if (scrolled) next.scrollLeft = scrolled;
}

// A run's own arguments, or what HUB tells a training.
export const argumentsOf = ({run, train_args: args}) => run?.args ?? args;

// Names with their values, such as arguments.
export function pairs(values) {
  return element("dl", {class: "args"}, ...Object.entries(values).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {class: "mono"}, valueText(value)))));
}

export function valueText(value) {
  if (value == null || value === "") return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function refusedTable(refused) {
  return table("Refused requests",
    [{name: "When"}, {name: "Request", class: "mono"}, {name: "Status", number: true}, {name: "Why"}],
    refused.map((each) => [moment(each.time), each.what, String(each.status), each.why]));
}
)page"
