R"page(// SPDX-License-Identifier: MIT
//
// What a training ended with: its checkpoints, curves, confusion matrix and validation.

import {Board} from "./board.js";
import {Chart} from "./chart.js";
import {element} from "./dom.js";
import {at} from "./hub.js";
import {drawMatrix} from "./matrix.js";
import {table} from "./table.js";
import {bytes, moment, number} from "./words.js";

export function checkpointTable(id, checkpoints) {
  return table("Checkpoints",
    [{name: "File"}, {name: "Epoch", number: true}, {name: "Size", number: true}, {name: "Arrived"},
      {name: "SHA-256", class: "hash"}],
    checkpoints.map((each) => [
      element("a", {href: at(`api/models/${id}/files/${each.name}`), download: true},
        each.final ? "best.pt (final)" : `epoch-${each.epoch}.pt${each.best ? " (best so far)" : ""}`),
      String(each.epoch), bytes(each.bytes), moment(each.time), each.sha256]));
}

// ---- plots ----

const curves = new Map([
  ["pr_curve", ["Precision over recall", "recall"]],
  ["f1_curve", ["F1 over confidence", "confidence"]],
  ["precision_curve", ["Precision over confidence", "confidence"]],
  ["recall_curve", ["Recall over confidence", "confidence"]],
]);

export function drawPlots(node, plots, classNames) {
  const grid = element("div", {class: "charts"});
  const others = [];
  for (const plot of plots) {
    const {type, x, y, matrix} = plot;
    if (curves.has(type) && Array.isArray(x) && Array.isArray(y)) grid.append(curveOf(plot, classNames));
    if (type === "confusion_matrix" && Array.isArray(matrix)) others.push(drawMatrix(matrix, classNames));
  }
  node.hidden = !grid.children.length && !others.length;
  node.replaceChildren(element("section", {class: "stack", "aria-label": "Results"}, element("h2", {}, "Results"),
    grid, ...others));
}

function curveOf({type, x, y, ap}, classNames) {
  const [title, axis] = curves.get(type);
  const all = Array.isArray(y[0]) ? y : [y];
  const chart = new Chart(title, new Board(axis));
  const name = (i) => (all.length === 1 && !classNames[i] ? "all classes" : classNames[i] ?? `class ${i}`) +
    (Number.isFinite(ap?.[i]) ? `, AP ${number(ap[i])}` : "");
  chart.update(all.map((values, i) => ({name: name(i), color: i, dash: Math.floor(i / 8), x, y: values})));
  return chart.node;
}

// ---- validation ----

const rowsAtFirst = 10, rowsMore = 100;

export function drawValidation({population, sampling, rows, extremes}) {
  const heads = [{name: "Image"}, ...["True positives", "False positives", "False negatives"]
    .map((name) => ({name, number: true}))];
  const words = [population != null && `of ${population} images`, sampling && `chosen by ${sampling}`].filter(Boolean);
  const shown = element("div");
  let count = rowsAtFirst;
  const draw = () => shown.replaceChildren(
    table("Validation", heads, rows.slice(0, count).map((row) => [row].flat().map(String))),
    rows.length > count ? more : "");
  const more = element("button", {class: "small", onclick: () => { count += rowsMore; draw(); }}, "More");
  draw();
  return element("div", {class: "stack"},
    element("p", {class: "soft"}, [`${rows.length} rows`, ...words].join(", ")),
    extremesOf("Worst", extremes?.worst), extremesOf("Best", extremes?.best), shown);
}

function extremesOf(title, found) {
  if (!found?.length) return null;
  const said = found.slice(0, 10).map((each) => String(typeof each === "object" ? Object.values(each)[0] : each));
  return element("p", {class: "small"}, element("b", {}, `${title}: `), said.join(", "));
}
)page"
