R"page(// SPDX-License-Identifier: MIT
//
// A confusion matrix: a row for each class that was predicted, a column for each that was true, darker the
// greater its share of the column.

import {element} from "./dom.js";
import {section} from "./table.js";

const classesMax = 60;

export function drawMatrix(matrix, classNames) {
  const names = matrix.map((_, i) => classNames[i] ?? (i === matrix.length - 1 ? "background" : `class ${i}`));
  const sums = matrix.map((_, column) => matrix.reduce((sum, row) => sum + row[column], 0));
  const shown = worst(matrix).sort((a, b) => a - b);
  const cell = (row, column) => {
    const share = sums[column] ? matrix[row][column] / sums[column] : 0;
    const node = element("td", {class: share > 0.5 ? "number dark" : "number",
      title: `predicted ${names[row]}, true ${names[column]}: ${matrix[row][column]}`}, String(matrix[row][column]));
    node.style.setProperty("--share", `${Math.round(100 * share)}%`);
    return node;
  };
  const head = (name) => element("th", {scope: "col"}, element("span", {}, name));
  return section("Confusion matrix",
    element("p", {class: "soft small"}, "A row for each predicted class, a column for each true one." +
      (shown.length < names.length ? ` The ${shown.length} classes with the most mistakes, of ${names.length}.` : "")),
    element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Confusion matrix"},
      element("table", {class: "matrix"},
        element("thead", {}, element("tr", {}, element("td"), ...shown.map((i) => head(names[i])))),
        element("tbody", {}, ...shown.map((row) => element("tr", {}, element("th", {scope: "row"}, names[row]),
          ...shown.map((column) => cell(row, column))))))));
}

// The indices of the classes that are taken for others most often.
function worst(matrix) {
  const mistakes = matrix.map((row, i) => row.reduce((sum, count, j) => i === j ? sum : sum + count + matrix[j][i], 0));
  return matrix.map((_, i) => i).sort((a, b) => mistakes[b] - mistakes[a]).slice(0, classesMax);
}
)page"
