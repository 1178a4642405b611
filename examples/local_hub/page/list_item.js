R"page(// SPDX-License-Identifier: MIT
//
// One model in the list.

import {element, shape, text} from "./dom.js";
import {at} from "./hub.js";
import {now} from "./live.js";
import {moment, number, span, stateMark, stateText, timeLeft, timeTaken} from "./words.js";

// choose(on) is called when the model is chosen to be compared, or not any more.
export function makeItem(id, choose) {
  const part = (tag, name) => element(tag, {class: name});
  const name = part("span", "name"), tags = part("span", "tags"), note = part("span", "small soft clip");
  const state = element("span"), bar = element("i"), epochs = part("span", "small soft number");
  const value = part("span", "value number"), metric = part("span", "small soft clip");
  const time = part("span", "small"), left = part("span", "small soft clip");
  const last = part("span", "small"), agent = part("span", "small soft clip");
  const line = shape("path");
  const box = element("input", {type: "checkbox", onchange: () => choose(box.checked)});
  const link = element("a", {class: "card model", href: at(`models/${id}`), "data-route": true},
    element("span", {}, name, element("span", {class: "row"}, state, tags), note),
    element("span", {}, epochs, element("span", {class: "bar", "aria-hidden": "true"}, bar), left),
    shape("svg", {class: "spark", viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true"}, line),
    element("span", {}, value, metric),
    element("span", {class: "times"}, time, last, agent));
  const item = element("li", {"data-key": id, class: "entry"}, box, link);
  let row;
  item.tick = () => {
    const sign = row.run ? "event" : "heartbeat";
    text(last, row.last ? `${sign} ${span(now() - row.last)} ago` : `no ${sign} yet`);
    text(time, row.began ? `${moment(row.began)}, ${span(timeTaken(row, now()))}` : "");
    text(left, timeLeft(row) ? `${span(timeLeft(row))} left` : "");
  };
  item.update = (next, isChosen) => {
    row = next;
    text(name, row.name);
    box.checked = isChosen;
    box.setAttribute("aria-label", `Choose ${row.name} to compare`);
    if (state.textContent !== stateText(row)) state.replaceChildren(stateMark(row));
    if (tags.dataset.of !== row.tags.join()) {
      tags.dataset.of = row.tags.join();
      tags.replaceChildren(...row.tags.map((tag) => element("span", {class: "tag"}, tag)));
    }
    text(note, row.note.split("\n")[0]);
    text(epochs, `epoch ${row.epoch} of ${row.epochs}`);
    bar.style.width = `${Math.min(100, 100 * row.epoch / row.epochs)}%`;
    text(value, row.best ? number(row.best.value) : "–");
    text(metric, row.best ? `best ${row.best.name.replace(/^metrics\//, "")}` : "no metric yet");
    line.setAttribute("d", sparkPath(row.best?.spark ?? []));
    text(agent, row.agent ?? "");
    item.tick();
  };
  return item;
}

function sparkPath(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const x = (i) => (100 * i / Math.max(1, values.length - 1)).toFixed(1);
  const y = (value) => (high > low ? 38 - 36 * (value - low) / (high - low) : 20).toFixed(1);
  return values.map((value, i) => `${i ? "L" : "M"}${x(i)} ${y(value)}`).join("");
}
)page"
