R"page(// What a training printed: it comes as it is printed, follows its end, can be searched, and has the colours
// that terminals have. Everything else that a terminal would obey is left out, and nothing becomes markup.

import {element, text} from "./dom.js";
import {call} from "./hub.js";
import {section} from "./table.js";

const linesMax = 2000;

export class Console {
  constructor(id) {
    this.id = id;
    this.last = 0;
    this.lines = [];  // {node, words}
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
    const news = await call("GET", `api/models/${this.id}/console?after=${this.last}`);
    if (news.last < this.last) {  // another run, or a reset
      this.lines = [];
      this.screen.replaceChildren();
      this.last = 0;
      return this.fetch();
    }
    this.last = news.last;
    for (const {text: said} of news.lines) this.add(said);
    while (this.lines.length > linesMax) this.lines.shift().node.remove();
    this.node.hidden = !this.lines.length;
    this.countThem();
    this.follow();
  }

  add(said) {
    const node = element("div", {}, ...pieces(said));
    this.lines.push({node, words: node.textContent.toLowerCase()});
    node.hidden = !this.wants(this.lines.at(-1));
    this.screen.append(node);
  }

  wants({words}) {
    return words.includes(this.search.value.toLowerCase());
  }

  filter() {
    for (const line of this.lines) line.node.hidden = !this.wants(line);
    this.countThem();
    this.follow();
  }

  countThem() {
    const found = this.lines.filter((line) => !line.node.hidden).length;
    text(this.count, this.search.value ? `${found} of ${this.lines.length} lines` : `${this.lines.length} lines`);
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
