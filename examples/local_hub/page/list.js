R"page(// SPDX-License-Identifier: MIT
//
// The list of models: searched, sorted, filtered, by project, and chosen from to be compared.

import {choose, chosen, chosenList} from "./address.js";
import {compareAddress} from "./compare.js";
import {element, text} from "./dom.js";
import {at} from "./hub.js";
import {showLeftovers} from "./leftovers.js";
import {makeItem} from "./list_item.js";
import {changes, isReady, models} from "./live.js";
import {askForModel} from "./new_model.js";

const states = ["training", "stopping", "disconnected", "new", "trained", "failed"];

// Each column: its label, what it sorts by, and whether the greatest comes first.
const columns = new Map([
  ["state", {label: "State", of: (row) => states.indexOf(row.state), then: (row) => -(row.last ?? 0)}],
  ["name", {label: "Name", of: (row) => row.name.toLowerCase()}],
  ["epoch", {label: "Epoch", of: (row) => row.epoch, greatFirst: true}],
  ["best", {label: "Best", of: (row) => row.best?.value ?? null, greatFirst: true}],
  ["began", {label: "Began", of: (row) => row.began, greatFirst: true}],
  ["took", {label: "Took", of: (row) => row.took, greatFirst: true}],
  ["last", {label: "Heartbeat", of: (row) => row.last, greatFirst: true}],
]);

export function showList(main) {
  document.title = "Models · local_hub";
  const list = new List();
  main.append(list.node);
  const draw = () => list.draw();
  const tick = () => list.tick();
  changes.addEventListener("models", draw);
  changes.addEventListener("second", tick);
  draw();
  return () => {
    changes.removeEventListener("models", draw);
    changes.removeEventListener("second", tick);
  };
}

class List {
  constructor() {
    this.chosen = new Set(chosenList("runs"));
    this.list = element("ul", {class: "models"});
    this.count = element("p", {class: "soft"});
    this.compare = element("a", {class: "button main", id: "compare", "data-route": true});
    this.none = element("button", {class: "small", onclick: () => this.choose([])}, "Choose none");
    this.search = element("input", {type: "search", id: "search", placeholder: "Find by name, tag, note …",
      "aria-label": "Find models", value: chosen("q"),
      oninput: () => { choose("q", this.search.value); this.draw(); }});
    this.state = element("select", {id: "state", "aria-label": "State",
      onchange: () => { choose("state", this.state.value); this.draw(); }},
    element("option", {value: ""}, "any state"), ...states.map((state) => element("option", {value: state}, state)));
    this.state.value = chosen("state");
    this.grouped = element("input", {type: "checkbox", id: "group", checked: chosen("group") === "project",
      onchange: () => { choose("group", this.grouped.checked && "project"); this.draw(); }});
    this.heads = element("div", {class: "row heads", role: "group", "aria-label": "Sort by"});
    const leftovers = element("div", {class: "stack"});
    showLeftovers(leftovers);
    this.node = element("div", {class: "stack"},
      element("div", {class: "row between"},
        element("div", {}, element("h1", {}, "Models"), this.count),
        element("button", {class: "main", id: "new-model", onclick: askForModel}, "New model")),
      element("div", {class: "row"}, this.search, this.state,
        element("label", {class: "inline"}, this.grouped, "by project"), this.compare, this.none),
      this.heads, this.list, leftovers);
  }

  draw() {
    const all = [...models.values()];
    const training = all.filter((row) => row.state === "training").length;
    text(this.count, all.length ? `${all.length} in all, ${training} in training` : "");
    this.drawHeads(all.length);
    this.drawChoice();
    const rows = this.sorted(all.filter((row) => this.wants(row)));
    const known = new Map([...this.list.children].map((item) => [item.dataset.key, item]));
    const made = (key, make) => known.get(key) ?? make();
    const items = [];
    for (const [project, members] of this.groupsOf(rows)) {
      if (project != null) items.push(made(`project ${project}`, () => makeProject(project)));
      items.at(-1)?.update?.(members);
      for (const row of members) {
        const item = made(row.id, () => makeItem(row.id, (on) => this.choose(on
          ? [...this.chosen, row.id] : [...this.chosen].filter((id) => id !== row.id))));
        item.update(row, this.chosen.has(row.id));
        items.push(item);
      }
    }
    if (!items.length && isReady()) items.push(all.length ? nothingFound() : nothingYet());
    // Moving an element takes the focus from it, so only what is out of place moves.
    items.forEach((item, i) => {
      if (this.list.children[i] !== item) this.list.insertBefore(item, this.list.children[i]);
    });
    while (this.list.children.length > items.length) this.list.lastChild.remove();
  }

  tick() {
    for (const item of this.list.children) item.tick?.();
  }

  wants(row) {
    const words = [row.name, row.project, row.note, row.agent ?? "", ...row.tags].join("\n").toLowerCase();
    const wanted = this.search.value.toLowerCase().split(/\s+/);
    return (!this.state.value || row.state === this.state.value) && wanted.every((each) => words.includes(each));
  }

  // ---- the order ----

  // "name", or "-name" for the other way round.
  sorted(rows) {
    const by = chosen("sort") || "state";
    const {of, then, greatFirst} = columns.get(by.replace(/^-/, "")) ?? columns.get("state");
    const direction = (by.startsWith("-") ? -1 : 1) * (greatFirst ? -1 : 1);
    return rows.sort((a, b) => {
      const [x, y] = [of(a), of(b)];
      if (x == null || y == null) return (x == null) - (y == null);  // what is not known comes last
      return direction * (x < y ? -1 : x > y ? 1 : 0) || (then ? then(a) - then(b) : 0) ||
        a.name.localeCompare(b.name);
    });
  }

  drawHeads(any) {
    this.heads.hidden = !any;
    const by = chosen("sort") || "state";
    if (this.headsOf === by) return;
    this.headsOf = by;
    const focused = document.activeElement?.dataset.sort;
    const buttons = [...columns].map(([name, {label}]) => {
      const isBy = by.replace(/^-/, "") === name;
      return element("button", {class: "small", "data-sort": name, "aria-pressed": String(isBy),
        onclick: () => { choose("sort", by === name ? `-${name}` : name); this.draw(); }},
      label + (isBy ? by.startsWith("-") ? " ↑" : " ↓" : ""));
    });
    this.heads.replaceChildren(element("span", {class: "small soft"}, "Sort by"), ...buttons);
    this.heads.querySelector(`[data-sort="${focused}"]`)?.focus();
  }

  // Pairs of a project and its rows; without projects, one of no name.
  groupsOf(rows) {
    if (!this.grouped.checked) return [[null, rows]];
    const groups = new Map();
    for (const row of rows) groups.set(row.project, [...groups.get(row.project) ?? [], row]);
    return [...groups].sort(([a], [b]) => !a - !b || a.localeCompare(b));
  }

  // ---- what is chosen ----

  choose(ids) {
    this.chosen = new Set(ids);
    choose("runs", ids);
    this.draw();
  }

  drawChoice() {
    const ids = [...this.chosen].filter((id) => models.has(id));
    this.compare.hidden = ids.length < 2;
    this.none.hidden = !ids.length;
    this.compare.href = at(compareAddress(ids));
    text(this.compare, `Compare ${ids.length}`);
  }
}

function makeProject(project) {
  const count = element("span", {class: "soft small"});
  const link = element("a", {class: "small", "data-route": true}, "Compare them");
  const item = element("li", {"data-key": `project ${project}`, class: "row project"},
    element("h2", {}, project || "No project"), count, link);
  item.update = (rows) => {
    text(count, rows.length === 1 ? "1 model" : `${rows.length} models`);
    link.hidden = rows.length < 2;
    link.href = at(compareAddress(rows.map(({id}) => id)));
  };
  return item;
}

function nothingFound() {
  return element("li", {class: "card empty", "data-key": ""},
    element("p", {class: "soft"}, "No model is like this."));
}

function nothingYet() {
  return element("li", {class: "card empty", "data-key": ""},
    element("h2", {}, "No model yet"),
    element("p", {class: "soft"}, "Make one, and this page shows the lines that a training needs to report here."),
    element("button", {class: "main", onclick: askForModel}, "Make the first model"));
}
)page"
