R"page(// One model: how far it is, its metrics, heartbeats and checkpoints, how it is to be trained, and what
// was refused.

import {ask, field, tell} from "./dialogs.js";
import {element, shape, text} from "./dom.js";
import {at, call, go} from "./hub.js";
import {changes, models, now} from "./live.js";
import {Metrics} from "./metrics.js";
import {keepKey, keyOf} from "./new_keys.js";
import {refusedTable, table} from "./table.js";
import {linesFor, snippet} from "./train_it.js";
import {bytes, moment, number, span, stateMark} from "./words.js";

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
    view.metrics.remove();
  };
}

const tile = (title, ...content) => element("div", {class: "card tile"}, element("span", {class: "soft small"}, title), ...content);
const section = (title, content) => element("section", {class: "card"}, element("h2", {}, title), content);

class View {
  constructor(id) {
    this.id = id;
    this.metrics = new Metrics(id);
    this.name = element("h1");
    this.state = element("span");
    this.bar = element("i");
    for (const name of ["epoch", "best", "beat"]) this[name] = element("b");
    for (const name of ["bestName", "agent"]) this[name] = element("span", {class: "soft small"});
    for (const name of ["beats", "files", "args", "refused", "howTo"]) this[name] = element("div");
    this.refusedSection = section("Refused since the HUB was started", this.refused);
    this.body = element("div", {class: "stack", hidden: true},
      this.howTo,
      element("div", {class: "tiles"},
        tile("Epoch", this.epoch, element("div", {class: "bar", "aria-hidden": "true"}, this.bar)),
        tile("Best", this.best, this.bestName),
        tile("Last heartbeat", this.beat, this.agent)),
      this.metrics.node,
      section("Heartbeats", this.beats), section("Checkpoints", this.files),
      section("Train args", this.args), this.refusedSection);
    this.node = element("div", {class: "stack"},
      element("div", {class: "row between"},
        element("div", {}, element("a", {href: at(""), "data-route": true, class: "small"}, "← All models"),
          element("div", {class: "row"}, this.name, this.state)),
        this.actions()),
      this.body);
    this.busy = false;
  }

  actions() {
    const base = at(`api/models/${this.id}`);
    return element("div", {class: "row"},
      element("a", {class: "button", href: `${base}/everything.zip`, download: true}, "Download all (.zip)"),
      element("a", {class: "button", href: `${base}/metrics.csv`, download: true}, "Metrics (.csv)"),
      element("button", {onclick: () => this.rename()}, "Rename"),
      element("button", {onclick: () => this.reset()}, "Reset"),
      element("button", {class: "bad", onclick: () => this.remove()}, "Delete"));
  }

  // What arrives while this fetches is fetched afterwards, once.
  async refresh() {
    this.again = this.busy;
    if (this.busy) return;
    this.busy = true;
    try {
      const model = await call("GET", `api/models/${this.id}`);
      await this.metrics.fetch();
      this.draw(model);
      this.metrics.draw();
    } catch (problem) {
      if (!models.has(this.id)) text(this.name, `No model ${this.id}: ${problem.message}`);
    }
    this.busy = false;
    if (this.again) this.refresh();
  }

  draw(model) {
    this.model = model;
    this.body.hidden = false;
    document.title = `${model.name} · local_hub`;
    text(this.name, model.name);
    this.state.replaceChildren(stateMark(model));
    text(this.epoch, `${model.epoch} of ${model.epochs}`);
    this.bar.style.width = `${Math.min(100, 100 * model.epoch / model.epochs)}%`;
    text(this.best, model.best ? number(model.best.value) : "–");
    text(this.bestName, model.best ? `${model.best.name}, epoch ${model.best.epoch}` : "");
    text(this.agent, model.agent ?? "");
    this.drawFiles(model);
    this.drawArgs(model);
    this.drawHowTo(model);
    this.refusedSection.hidden = !model.refused.length;
    if (model.refused.length) this.refused.replaceChildren(refusedTable(model.refused));
    this.tick();
  }

  tick() {
    if (!this.model) return;
    text(this.beat, this.model.last ? `${span(now() - this.model.last)} ago` : "none yet");
    this.drawBeats(this.model);
  }

  drawBeats({spans, state}) {
    if (!spans.length) return text(this.beats, "No heartbeat has arrived yet.");
    const from = spans[0].from, last = spans[spans.length - 1].to;
    const to = Math.max(state === "trained" ? last : now(), from + 1);
    const key = `${state} ${from} ${last} ${spans.length} ${Math.round(1000 * (last - from) / (to - from))}`;
    if (this.beatsKey === key) return;
    this.beatsKey = key;
    const open = this.beats.querySelector("details")?.open ?? false;
    const ends = spans.map((each) => each.to);
    if (state === "training") ends[ends.length - 1] = to;  // the next one is not due yet
    const x = (time) => 1000 * (time - from) / (to - from);
    const gaps = spans.slice(1).map((each, i) => [spans[i].to, each.from]);
    if (state === "disconnected") gaps.push([last, null]);
    this.beats.replaceChildren(
      shape("svg", {class: "beats", viewBox: "0 0 1000 46", preserveAspectRatio: "none", role: "img",
        "aria-label": `Heartbeats in ${spans.length} stretches with ${gaps.length} gaps`},
      shape("rect", {class: "ground", x: 0, y: 8, width: 1000, height: 30, rx: 4}),
      ...spans.map((each, i) => shape("rect", {class: "on", x: x(each.from), y: 8,
        width: Math.max(2, x(ends[i]) - x(each.from)), height: 30, rx: 2}))),
      element("div", {class: "row between small soft"}, element("span", {}, moment(from)),
        element("span", {}, state === "trained" ? moment(last) : "now")),
      element("details", {open}, element("summary", {}, gaps.length ? `${gaps.length} without a heartbeat` : "No gap"),
        table("Heartbeats", [{name: "From"}, {name: "To"}, {name: "Heartbeats", number: true}, {name: "Agent"}],
          spans.map((each) => [moment(each.from), moment(each.to), String(each.beats), each.agent]).reverse())));
  }

  drawFiles({checkpoints}) {
    if (!checkpoints.length) return text(this.files, "No checkpoint has arrived yet.");
    const key = JSON.stringify(checkpoints);
    if (this.filesKey === key) return;
    this.filesKey = key;
    this.files.replaceChildren(table("Checkpoints",
      [{name: "File"}, {name: "Epoch", number: true}, {name: "Size", number: true}, {name: "Arrived"},
        {name: "SHA-256", class: "hash"}],
      checkpoints.map((each) => [
        element("a", {href: at(`api/models/${this.id}/files/${each.name}`), download: true},
          each.final ? "best.pt (final)" : `epoch-${each.epoch}.pt${each.best ? " (best so far)" : ""}`),
        String(each.epoch), bytes(each.bytes), moment(each.time), each.sha256])));
  }

  drawArgs({train_args: args}) {
    this.args.replaceChildren(element("dl", {class: "args"}, ...Object.entries(args).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {class: "mono"},
        value === "" || value == null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value))))));
  }

  // What to paste: in sight until something has arrived, then folded away.
  drawHowTo(model) {
    const key = keyOf(this.id);
    const isNew = model.state === "new";
    const shown = `${key} ${isNew}`;
    if (this.howToShown === shown) return;
    this.howToShown = shown;
    this.howTo.replaceChildren(element("details", {class: "card", open: isNew || key != null},
      element("summary", {}, "Train it"),
      element("p", {class: "soft"}, key ? "The key is shown until this page is closed, and kept nowhere."
        : "Put a key in place of the dots, or make a new one."),
      element("div", {class: "stack"}, ...linesFor(model, key).map(([title, code]) => snippet(title, code)),
        key ? null : element("div", {}, element("button", {onclick: () => this.makeKey()}, "Make a new key")))));
  }

  async makeKey() {
    try {
      keepKey(this.id, (await call("POST", `api/models/${this.id}/key`)).key);
      this.drawHowTo(this.model);
    } catch (problem) {
      tell(problem.message);
    }
  }

  rename() {
    ask("Rename", [field("Name", "name", {required: true, maxlength: "100", value: this.model?.name})], "Rename",
      (form) => call("PATCH", `api/models/${this.id}`, {name: form.elements.name.value}));
  }

  reset() {
    ask(`Reset “${this.model.name}”?`, [element("p", {}, `${this.contents()} are deleted, and it can be trained again.`)],
      "Delete them", () => call("POST", `api/models/${this.id}/reset`), {destroys: true});
  }

  remove() {
    ask(`Delete “${this.model.name}”?`, [element("p", {}, `It goes away with ${this.contents()}.`)], "Delete it",
      async () => { await call("DELETE", `api/models/${this.id}`); go(""); }, {destroys: true});
  }

  contents() {
    const {epoch, checkpoints} = this.model;
    const size = checkpoints.reduce((sum, each) => sum + each.bytes, 0);
    return `the metrics of ${epoch} epochs, its heartbeats and ${checkpoints.length} checkpoints (${bytes(size)})`;
  }
}
)page"
