R"page(// SPDX-License-Identifier: MIT
//
// What a training printed: it comes as it is printed, follows its end, can be searched, and has the colours
// that terminals have. Everything else that a terminal would obey is left out, and nothing becomes markup.

import {element, text} from "./dom.js";
import {call} from "./hub.js";
import {section} from "./table.js";

const linesMax = 2000, lateMax = 20;

export class Console {
  constructor(id) {
    this.id = id;
    this.chunks = new Map();  // number -> its lines, {node, words} each; they may come out of order
    this.search = element("input", {type: "search", id: "console-search", placeholder: "Find lines",
      "aria-label": "Find lines", oninput: () => this.filter()});
    this.count = element("span", {class: "small soft"});
    this.following = element("input", {type: "checkbox", id: "follow", checked: true,
      onchange: () => this.follow()});
    this.screen = element("div", {class: "console", tabindex: "0", role: "log", "aria-label": "Console",
      onscroll: () => { this.following.checked = this.isAtEnd(); }});
    this.node = section("Console", element("div", {class: "row tools"}, this.search, this.count,
      element("label", {class: "inline"}, this.following, "follow")), this.screen);
    this.node.hidden = true;
  }

  async fetch() {
    const {chunks} = await call("GET", `api/models/${this.id}/console?since=${this.known()}`);
    for (const {chunk, content} of chunks) this.take(chunk, content);
    while (this.lines().length > linesMax && this.chunks.size > 1) this.dropFirst();
    this.node.hidden = !this.chunks.size;
    this.countThem();
    this.follow();
  }

  // Up to which chunk nothing is missing; one that is missing for long does not come any more.
  known() {
    const numbers = [...this.chunks.keys()].sort((a, b) => a - b);
    const gap = numbers.findIndex((number, i) => i > 0 && number > numbers[i - 1] + 1);
    const last = numbers.at(-1) ?? 0;
    return gap < 0 ? last : Math.max(numbers[gap - 1], last - lateMax);
  }

  take(number, content) {
    if (this.chunks.has(number)) return;
    const lines = content.split("\n").map((said) => {
      const node = element("div", {}, ...pieces(said));
      const line = {node, words: node.textContent.toLowerCase()};
      node.hidden = !this.wants(line);
      return line;
    });
    const later = Math.min(...[...this.chunks.keys()].filter((each) => each > number));
    const before = this.chunks.get(later)?.[0].node ?? null;
    for (const {node} of lines) this.screen.insertBefore(node, before);
    this.chunks.set(number, lines);
  }

  dropFirst() {
    const first = Math.min(...this.chunks.keys());
    for (const {node} of this.chunks.get(first)) node.remove();
    this.chunks.delete(first);
  }

  lines() {
    return [...this.chunks.values()].flat();
  }

  wants({words}) {
    return words.includes(this.search.value.toLowerCase());
  }

  filter() {
    for (const line of this.lines()) line.node.hidden = !this.wants(line);
    this.countThem();
    this.follow();
  }

  countThem() {
    const all = this.lines();
    const found = all.filter(({node}) => !node.hidden).length;
    text(this.count, this.search.value ? `${found} of ${all.length} lines` : `${all.length} lines`);
  }

  isAtEnd() {
    return this.screen.scrollTop + this.screen.clientHeight >= this.screen.scrollHeight - 4;
  }

  follow() {
    if (this.following.checked) this.screen.scrollTop = this.screen.scrollHeight;
  }
}

// ---- colours ----

// SGR is the one sequence that counts; the others, and control characters, are dropped.
const sequences = new RegExp([
  /\x1b\[([0-9;]*)m/,  // SGR
  /\x1b\[[0-?]*[ -/]*[@-~]/,  // other control sequences
  /\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?/,  // titles and links
  /\x1b[ -~]?/, /[\x00-\x08\x0b-\x1f\x7f-\x9f]/,
].map((each) => each.source).join("|"), "g");

function pieces(line) {
  const found = [];
  let style = {}, from = 0;
  const add = (part) => {
    if (!part) return;
    const piece = element("span", {class: [style.ink, style.bold && "bold"].filter(Boolean).join(" ") || null}, part);
    if (style.color) piece.style.color = style.color;
    found.push(piece);
  };
  for (const sequence of line.matchAll(sequences)) {
    add(line.slice(from, sequence.index));
    from = sequence.index + sequence[0].length;
    if (sequence[1] !== undefined) style = changed(style, sequence[1].split(";").map(Number));
  }
  add(line.slice(from));
  return found;
}

function changed(style, codes) {
  const next = {...style};
  for (let i = 0; i < codes.length; ++i) {
    const code = codes[i];
    if (code === 0) Object.assign(next, {ink: null, color: null, bold: false});
    if (code === 1) next.bold = true;
    if (code === 22) next.bold = false;
    if (code === 39) Object.assign(next, {ink: null, color: null});
    if (code >= 30 && code <= 37) Object.assign(next, {ink: `ink-${code - 30}`, color: null});
    if (code >= 90 && code <= 97) Object.assign(next, {ink: `ink-${code - 82}`, color: null});
    if (code !== 38 && code !== 48) continue;
    const isIndex = codes[i + 1] === 5;
    const values = codes.slice(i + 2, i + (isIndex ? 3 : 5));
    i += isIndex ? 2 : 4;
    if (code === 38) Object.assign(next, isIndex ? indexed(values[0]) : {ink: null, color: rgb(values)});
  }
  return next;
}

const rgb = (values) => `rgb(${values.map((value) => Math.min(255, value || 0)).join(" ")})`;

// Of 256 colours: 16 by name, a cube of 6 by 6 by 6, and 24 greys.
function indexed(index) {
  if (index < 16) return {ink: `ink-${index}`, color: null};
  if (index > 231) return {ink: null, color: rgb(Array(3).fill(8 + 10 * (index - 232)))};
  const level = (place) => { const at = Math.floor((index - 16) / place) % 6; return at && 55 + 40 * at; };
  return {ink: null, color: rgb([level(36), level(6), level(1)])};
}
)page"
