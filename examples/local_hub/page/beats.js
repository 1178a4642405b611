R"page(// SPDX-License-Identifier: MIT
//
// When heartbeats came, and the gaps between them.

import {element, shape} from "./dom.js";
import {now} from "./live.js";
import {table} from "./table.js";
import {moment} from "./words.js";

export class Beats {
  constructor() {
    this.node = element("div");
  }

  draw({spans, state}) {
    if (!spans.length) return;
    const from = spans[0].from, last = spans[spans.length - 1].to;
    const to = Math.max(state === "trained" ? last : now(), from + 1);
    const key = `${state} ${from} ${last} ${spans.length} ${Math.round(1000 * (last - from) / (to - from))}`;
    if (this.key === key) return;
    this.key = key;
    const gaps = spans.length - 1 + (state === "disconnected");
    const open = this.node.querySelector("details")?.open ?? false;
    this.node.replaceChildren(picture(spans, state, from, to, gaps),
      element("div", {class: "row between small soft"}, element("span", {}, moment(from)),
        element("span", {}, state === "trained" ? moment(last) : "now")),
      element("details", {open}, element("summary", {}, gaps ? `${gaps} without a heartbeat` : "No gap"),
        table("Heartbeats", [{name: "From"}, {name: "To"}, {name: "Heartbeats", number: true}, {name: "Agent"}],
          spans.map((each) => [moment(each.from), moment(each.to), String(each.beats), each.agent]).reverse())));
  }
}

function picture(spans, state, from, to, gaps) {
  const x = (time) => 1000 * (time - from) / (to - from);
  const ends = spans.map((each) => each.to);
  if (state === "training") ends[ends.length - 1] = to;  // the next one is not due yet
  return shape("svg", {class: "beats", viewBox: "0 0 1000 46", preserveAspectRatio: "none", role: "img",
    "aria-label": `Heartbeats in ${spans.length} stretches with ${gaps} gaps`},
  shape("rect", {class: "ground", x: 0, y: 8, width: 1000, height: 30, rx: 4}),
  ...spans.map((each, i) => shape("rect", {class: "on", x: x(each.from), y: 8,
    width: Math.max(2, x(ends[i]) - x(each.from)), height: 30, rx: 2})));
}
)page"
