R"page(// SPDX-License-Identifier: MIT
//
// One model: how far it is, its metrics, and whatever else was sent for it.

import {ask, tell} from "./dialogs.js";
import {element, text} from "./dom.js";
import {Beats} from "./beats.js";
import {Console} from "./console.js";
import {checkpointTable, drawPlots, drawValidation} from "./results.js";
import {at, call} from "./hub.js";
import {changes, models, now} from "./live.js";
import {Metrics} from "./metrics.js";
import {askToDelete, askToEdit, askToReset, askToStop} from "./model_dialogs.js";
import {keepKey, keyOf} from "./new_keys.js";
import {System} from "./system.js";
import {argumentsOf, pairs, refusedTable, section, swap} from "./table.js";
import {linesFor, snippet} from "./train_it.js";
import {moment, number, pace, span, stateMark, timeLeft, timeTaken} from "./words.js";

export function showModel(main, id) {
  const view = new View(id);
  main.append(view.node);
  const follow = (event) => { if (event.detail === id) view.refresh(); };
  const tick = () => view.tick();
  changes.addEventListener("model", follow);
  changes.addEventListener("second", tick);
  view.refresh();
  return () => {
    changes.removeEventListener("model", follow);
    changes.removeEventListener("second", tick);
    view.remove();
  };
}

const partTitles = [["checkpoints", "Checkpoints"], ["validation", "Validation"], ["arguments", "Arguments"],
  ["environment", "Environment"], ["refused", "Refused since the HUB was started"]];

const tile = (title, ...content) =>
  element("div", {class: "card tile"}, element("span", {class: "soft small"}, title), ...content);

class View {
  constructor(id) {
    this.id = id;
    this.metrics = new Metrics(id);
    this.system = new System(id);
    this.console = new Console(id);
    this.beats = new Beats();
    this.drawn = new Map();  // part -> what it shows, as text
    this.name = element("h1");
    this.bar = element("i");
    for (const name of ["epoch", "best", "beat", "time"]) this[name] = element("b");
    for (const name of ["bestName", "agent", "pace", "left"]) this[name] = element("span", {class: "soft small"});
    for (const name of ["state", "labels", "note", "howTo", "plots"]) this[name] = element("div");
    this.beatTitle = element("span");
    this.beatsPart = section("Heartbeats", this.beats.node);
    this.parts = {};
    for (const [name, title] of partTitles) this.addPart(name, title);
    this.why = element("p", {class: "card error"});
    this.body = element("div", {class: "stack", hidden: true}, this.why, this.note, this.howTo, this.tiles(),
      this.metrics.node, this.plots, this.parts.validation.node, this.console.node, this.parts.checkpoints.node,
      this.system.node, this.beatsPart, this.parts.arguments.node,
      this.parts.environment.node, this.parts.refused.node);
    this.buttons = this.actions();
    this.node = element("div", {class: "stack"},
      element("div", {class: "row between"},
        element("div", {}, element("a", {href: at(""), "data-route": true, class: "small"}, "← All models"),
          element("div", {class: "row"}, this.name, this.state, this.labels)),
        this.buttons),
      this.body);
    this.busy = false;
  }

  addPart(name, title) {
    const content = element("div");
    const node = section(title, content);
    node.hidden = true;
    this.parts[name] = {node, content};
  }

  tiles() {
    return element("div", {class: "tiles"},
      tile("Epoch", this.epoch, element("div", {class: "bar", "aria-hidden": "true"}, this.bar), this.left),
      tile("Best", this.best, this.bestName),
      tile("Time", this.time, this.pace),
      tile(this.beatTitle, this.beat, this.agent));
  }

  actions() {
    const base = at(`api/models/${this.id}`);
    const button = (label, act, attributes = {}) =>
      element("button", {onclick: () => act(this.model), ...attributes}, label);
    this.stop = button("Stop", askToStop, {id: "stop", hidden: true});
    this.reset = button("Reset", askToReset);
    return element("div", {class: "row", hidden: true}, this.stop,
      element("a", {class: "button", href: `${base}/everything.zip`, download: true}, "Download all (.zip)"),
      element("a", {class: "button", href: `${base}/metrics.csv`, download: true}, "Metrics (.csv)"),
      button("Edit", askToEdit), this.reset, button("Delete", askToDelete, {class: "bad"}));
  }

  // What arrives while this fetches is fetched afterwards, once.
  async refresh() {
    this.again = this.busy;
    if (this.busy) return;
    this.busy = true;
    try {
      const model = await call("GET", `api/models/${this.id}`);
      await this.metrics.values.fetch();
      this.draw(model);
      this.metrics.draw();
      if (model.run) await this.fetchRun(model);
    } catch (problem) {
      if (!models.has(this.id)) text(this.name, `No model ${this.id}: ${problem.message}`);
    }
    this.busy = false;
    if (this.again) this.refresh();
  }

  // What of a run is large is fetched apart.
  async fetchRun({run, epoch}) {
    await this.console.fetch();
    if (this.isNew("system", epoch)) await this.system.fetch();
    if (this.isNew("ending", run.ended)) this.drawEnding(await call("GET", `api/models/${this.id}/ending`));
  }

  isNew(part, value) {
    const said = JSON.stringify(value) ?? "";
    const isOld = this.drawn.get(part) === said;
    this.drawn.set(part, said);
    return !isOld;
  }

  // Calls draw() where `value` is not what it was.
  once(part, value, draw) {
    if (this.isNew(part, value)) draw();
  }

  // A part of the page that is there where there is something to show.
  drawPart(name, value, isThere, make) {
    this.once(name, value, () => {
      this.parts[name].node.hidden = !isThere;
      if (isThere) swap(this.parts[name].content, make());
    });
  }

  draw(model) {
    this.model = model;
    this.body.hidden = this.buttons.hidden = false;
    document.title = `${model.name} · local_hub`;
    text(this.name, model.name);
    this.once("state", [model.state, model.last], () => this.state.replaceChildren(stateMark(model)));
    this.once("labels", [model.project, model.tags], () => this.labels.replaceChildren(element("span", {class: "row"},
      ...[model.project, ...model.tags].filter(Boolean).map((each) => element("span", {class: "tag"}, each)))));
    this.note.hidden = !model.note;
    text(this.note, model.note);
    this.note.className = "card note";
    this.stop.hidden = !model.run || model.state !== "training";
    this.reset.hidden = Boolean(model.run);
    this.why.hidden = !model.run?.why;
    text(this.why, `It failed: ${model.run?.why}`);
    if (!model.run) this.drawHowTo(model);
    this.drawTiles(model);
    this.drawParts(model);
    this.tick();
  }

  drawTiles(model) {
    text(this.epoch, `${model.epoch} of ${model.epochs}`);
    this.bar.style.width = `${Math.min(100, 100 * model.epoch / model.epochs)}%`;
    text(this.best, model.best ? number(model.best.value) : "–");
    text(this.bestName, model.best ? `${model.best.name}, epoch ${model.best.epoch}` : "");
    text(this.beatTitle, model.run ? "Last event" : "Last heartbeat");
    text(this.agent, model.agent ?? "");
  }

  drawParts(model) {
    const {checkpoints, refused} = model;
    this.beatsPart.hidden = Boolean(model.run) || !model.spans.length;
    this.drawPart("checkpoints", checkpoints, checkpoints.length, () => checkpointTable(this.id, checkpoints));
    const args = argumentsOf(model), environment = model.run?.environment;
    this.drawPart("arguments", args, true, () => pairs(args));
    this.drawPart("environment", environment, environment != null, () => pairs(environment));
    this.drawPart("refused", refused, refused.length, () => refusedTable(refused));
  }

  drawEnding({plots, class_names: names, validation}) {
    this.once("plots", plots, () => drawPlots(this.plots, plots ?? [], names ?? []));
    this.drawPart("validation", validation, validation?.rows?.length, () => drawValidation(validation));
  }

  tick() {
    const {model} = this;
    if (!model) return;
    text(this.beat, model.last ? `${span(now() - model.last)} ago` : "none yet");
    text(this.time, model.began ? span(timeTaken(model, now())) : "–");
    text(this.pace, [model.began && `began ${moment(model.began)}`, model.pace && `${pace(model.pace)} for an epoch`]
      .filter(Boolean).join(", "));
    text(this.left, timeLeft(model) ? `${span(timeLeft(model))} left` : "");
    this.beats.draw(model);
  }

  // What to paste: in sight until something has arrived, then folded away.
  drawHowTo(model) {
    const key = keyOf(this.id), isNew = model.state === "new";
    this.once("howTo", [key, isNew], () => this.howTo.replaceChildren(
      element("details", {class: "card", open: isNew || key != null}, element("summary", {}, "Train it"),
        element("p", {class: "soft"}, key ? "The key is shown until this page is closed, and kept nowhere."
          : "Put a key in place of the dots, or make a new one."),
        element("div", {class: "stack"}, ...linesFor(model, key).map(([title, code]) => snippet(title, code)),
          key ? null : element("div", {}, element("button", {onclick: () => this.makeKey()}, "Make a new key"))))));
  }

  async makeKey() {
    try {
      keepKey(this.id, (await call("POST", `api/models/${this.id}/key`)).key);
      this.drawHowTo(this.model);
    } catch (problem) {
      tell(problem.message);
    }
  }

  remove() {
    this.metrics.remove();
    this.system.remove();
    this.drawn.clear();
  }
}
)page"
