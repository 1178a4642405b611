R"page(// SPDX-License-Identifier: MIT
//
// A chart to take away, as a picture and as numbers.

import {element} from "./dom.js";
import {lineColor} from "./lines.js";

function offer(name, blob) {
  const link = element("a", {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const fileName = (title, kind) => `${title.replace(/[^\w.() -]+/g, "_").slice(0, 80) || "chart"}.${kind}`;

// The lines with their title above and their names below.
export function savePicture(title, canvas, lines, color) {
  const scale = canvas.width / canvas.clientWidth, row = 18 * scale;
  const named = lines.slice(0, 30);
  const picture = element("canvas", {width: canvas.width, height: canvas.height + row * (named.length + 2.5)});
  const pen = picture.getContext("2d");
  pen.fillStyle = color("--card");
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.font = `bold ${13 * scale}px sans-serif`;
  pen.fillStyle = color("--ink");
  pen.fillText(title, row, row);
  pen.drawImage(canvas, 0, row * 1.5);
  pen.font = `${12 * scale}px sans-serif`;
  named.forEach((line, i) => {
    const y = canvas.height + row * (i + 2.3);
    pen.fillStyle = color(lineColor(line));
    pen.fillRect(row, y - row / 3, row, row / 6);
    pen.fillStyle = color("--ink");
    pen.fillText(line.name, row * 2.5, y);
  });
  picture.toBlob((blob) => offer(fileName(title, "png"), blob));
}

// A name that begins like a formula is quoted for spreadsheets, which would run it.
const cell = (text) => `"${/^[=+\-@\t\r]/.test(text) ? "'" : ""}${text.replaceAll('"', '""')}"`;

// A row for each place, a column for each line.
export function saveNumbers(title, axis, lines) {
  const rows = new Map();
  lines.forEach(({x, y}, column) => x.forEach((place, i) => {
    if (!rows.has(place)) rows.set(place, []);
    rows.get(place)[column] = y[i];
  }));
  const said = [...rows].sort(([a], [b]) => a - b).map(([place, values]) =>
    [place, ...Array.from(lines, (_, i) => values[i] ?? "")].join(","));
  const head = [axis, ...lines.map(({name}) => cell(name))].join(",");
  offer(fileName(title, "csv"), new Blob([[head, ...said, ""].join("\r\n")], {type: "text/csv"}));
}
)page"
