R"page(// SPDX-License-Identifier: MIT
//
// Several runs side by side: a chart for each metric with a line for each run, the best values, and the
// arguments that differ. Which runs is in the address.

import {choose, chosenList} from "./address.js";
import {ChosenBoard} from "./choices.js";
import {element, text} from "./dom.js";
import {Gallery} from "./gallery.js";
import {at, call} from "./hub.js";
import {changes, models} from "./live.js";
import {argumentsOf, section, swap, table, valueText} from "./table.js";
import {Values, bestOf, lessIsBetter} from "./values.js";
import {number, stateMark} from "./words.js";

export const compareAddress = (ids) => `compare?${new URLSearchParams(ids.map((id) => ["runs", id]))}`;

export function showCompare(main) {
  document.title = "Compare · local_hub";
  const view = new Comparison(chosenList("runs"));
  main.append(view.node);
  const follow = (event) => view.refresh(event.detail);
  const ready = () => view.drawChoice();
  changes.addEventListener("model", follow);
  changes.addEventListener("models", ready);
  for (const id of view.runs.keys()) view.refresh(id);
  view.drawChoice();
  return () => {
    changes.removeEventListener("model", follow);
    changes.removeEventListener("models", ready);
    view.gallery.remove();
  };
}

class Comparison {
  constructor(ids) {
    this.runs = new Map();  // id -> {values, color, model, busy, again}
    for (const id of ids) this.add(id);
    this.board = new ChosenBoard(() => this.drawCharts());
    this.gallery = new Gallery(this.board);
    this.chosen = element("ul", {class: "runs"});
    this.more = element("select", {id: "add-run", "aria-label": "Add a run", onchange: ({target: {value: id}}) => {
      this.add(id);
      this.changed();
      this.refresh(id);
    }});
    this.best = element("div");
    this.differ = element("div");
    this.node = element("div", {class: "stack"},
      element("div", {}, element("a", {href: at(""), "data-route": true, class: "small"}, "← All models"),
        element("h1", {}, "Compare")),
      element("div", {class: "row"}, this.chosen, this.more),
      element("section", {class: "stack", "aria-label": "Metrics"},
        element("div", {class: "row between"}, this.gallery.filter, this.board.controls), this.gallery.node),
      section("Best values", this.best), section("Arguments that differ", this.differ));
  }

  // The colour that the fewest others have.
  add(id) {
    const uses = Array(8).fill(0);
    for (const {color} of this.runs.values()) ++uses[color % 8];
    const color = uses.indexOf(Math.min(...uses));
    if (!this.runs.has(id)) this.runs.set(id, {values: new Values(id), color: color + 8 * uses[color]});
  }

  remove(id) {
    this.runs.delete(id);
    this.changed();
  }

  changed() {
    choose("runs", [...this.runs.keys()]);
    this.drawChoice();
    this.draw();
  }

  // What arrives while this fetches is fetched afterwards, once.
  async refresh(id) {
    const run = this.runs.get(id);
    if (!run) return;
    run.again = run.busy;
    if (run.busy) return;
    run.busy = true;
    try {
      run.model = await call("GET", `api/models/${id}`);
      await run.values.fetch();
      this.draw();
    } catch (problem) {
      run.problem = problem.message;
    }
    run.busy = false;
    this.drawChoice();
    if (run.again) this.refresh(id);
  }

  drawChoice() {
    this.chosen.replaceChildren(...[...this.runs].map(([id, {color, model, problem}]) => element("li",
      {class: `s${color % 8 + 1}`}, element("i", {class: "swatch", "aria-hidden": "true"}),
      element("a", {href: at(`models/${id}`), "data-route": true}, model?.name ?? problem ?? id),
      model ? stateMark(model) : null,
      element("button", {class: "small", "aria-label": `Without ${model?.name ?? id}`,
        onclick: () => this.remove(id)}, "×"))));
    const others = [...models.values()].filter(({id}) => !this.runs.has(id))
      .sort((a, b) => a.name.localeCompare(b.name));
    const key = others.map(({id, name}) => id + name).join();
    if (this.choiceKey === key) return;
    this.choiceKey = key;
    this.more.hidden = !others.length;
    this.more.replaceChildren(element("option", {value: ""}, "Add a run …"),
      ...others.map(({id, name}) => element("option", {value: id}, name)));
  }

  draw() {
    this.known = [...this.runs.values()].filter(({model}) => model);
    this.nameRuns();
    this.drawCharts();
    this.drawBest();
    this.drawDifferences();
  }

  // Two runs may have one name.
  nameRuns() {
    const uses = new Map();
    for (const run of this.known) {
      const count = (uses.get(run.model.name) ?? 0) + 1;
      uses.set(run.model.name, count);
      run.name = count > 1 ? `${run.model.name} (${count})` : run.model.name;
    }
  }

  metrics() {
    const names = new Set(this.known.flatMap(({values}) => [...values.columns.keys()]));
    const rank = (name) => ["metrics/", "val/", "train/"].findIndex((each) => name.startsWith(each)) >>> 0;
    return [...names].filter((name) => !name.startsWith("model/"))
      .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  }

  drawCharts() {
    this.gallery.update(new Map(this.metrics().map((name) =>
      [name, {title: name, names: [name], series: () => this.linesOf(name)}])));
    this.node.dataset.runs = this.known.filter(({values}) => values.columns.size).length;  // that have lines
  }

  linesOf(name) {
    return this.known.filter(({values}) => values.columns.has(name)).map((run) => ({name: run.name, color: run.color,
      dash: Math.floor(run.color / 8), ...run.values.line(name, !this.board.axis.isCount)}));
  }

  drawBest() {
    const rows = this.metrics().map((name) => {
      const all = this.known.map(({values}) => bestOf(values, name));
      const found = all.filter(Boolean).map(({value}) => value);
      const best = lessIsBetter(name) ? Math.min(...found) : Math.max(...found);
      return [name, ...all.map((each) => each &&
        element(each.value === best ? "b" : "span", {title: `epoch ${each.epoch}`}, number(each.value)))];
    });
    swap(this.best, table("Best values", [{name: "Metric"}, ...this.heads(true)], rows));
  }

  drawDifferences() {
    const said = this.known.map(({model}) => new Map(Object.entries(argumentsOf(model))));
    const names = [...new Set(said.flatMap((each) => [...each.keys()]))];
    const rows = names.map((name) => [name, ...said.map((each) => valueText(each.get(name)))])
      .filter(([, first, ...others]) => others.some((each) => each !== first));
    const heads = [{name: "Argument"}, ...this.heads()];
    if (rows.length) swap(this.differ, table("Arguments that differ", heads, rows));
    else text(this.differ, "None.");
  }

  heads(isNumber) {
    return this.known.map(({name}) => ({name, number: isNumber}));
  }
}
)page"
