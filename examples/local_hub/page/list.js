R"page(// The list of models.

import {element, shape, text} from "./dom.js";
import {at, call} from "./hub.js";
import {changes, isReady, models, now} from "./live.js";
import {askForModel} from "./new_model.js";
import {refusedTable} from "./table.js";
import {number, span, stateMark, stateText} from "./words.js";

const order = ["training", "disconnected", "new", "trained"];

export function showList(main) {
  document.title = "Models · local_hub";
  const list = element("ul", {class: "models"});
  const count = element("p", {class: "soft"});
  const refused = element("details", {class: "card", hidden: true});
  main.append(element("div", {class: "stack"},
    element("div", {class: "row between"},
      element("div", {}, element("h1", {}, "Models"), count),
      element("button", {class: "main", id: "new-model", onclick: askForModel}, "New model")),
    list, refused));

  const draw = () => drawList(list, count);
  const tick = () => { for (const card of list.querySelectorAll("li")) card.tick?.(); };
  changes.addEventListener("models", draw);
  changes.addEventListener("second", tick);
  draw();
  showRefused(refused);
  return () => {
    changes.removeEventListener("models", draw);
    changes.removeEventListener("second", tick);
  };
}

function drawList(list, count) {
  const rows = [...models.values()].sort((a, b) =>
    order.indexOf(a.state) - order.indexOf(b.state) || (b.last ?? 0) - (a.last ?? 0) ||
    a.name.localeCompare(b.name));
  const training = rows.filter((row) => row.state === "training").length;
  text(count, rows.length ? `${rows.length} in all, ${training} in training` : "");
  const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const items = rows.map((row) => {
    const item = known.get(row.id) ?? makeItem(row.id);
    item.update(row);
    return item;
  });
  if (!rows.length && isReady()) items.push(nothingYet());
  // Moving an element takes the focus from it, so only what is out of place moves.
  items.forEach((item, i) => { if (list.children[i] !== item) list.insertBefore(item, list.children[i]); });
  while (list.children.length > items.length) list.lastChild.remove();
}

function nothingYet() {
  return element("li", {class: "card empty"},
    element("h2", {}, "No model yet"),
    element("p", {class: "soft"}, "Make one, and this page shows the lines that a training needs to report here."),
    element("button", {class: "main", onclick: askForModel}, "Make the first model"));
}

function makeItem(id) {
  const name = element("span", {class: "name"});
  const state = element("span");
  const bar = element("i");
  const epochs = element("span", {class: "small soft number"});
  const value = element("span", {class: "value number"});
  const metric = element("span", {class: "small soft clip"});
  const line = shape("path");
  const last = element("span");
  const agent = element("span", {class: "small soft clip"});
  const link = element("a", {class: "card model", href: at(`models/${id}`), "data-route": true},
    element("span", {}, name, state),
    element("span", {}, epochs, element("span", {class: "bar", "aria-hidden": "true"}, bar)),
    shape("svg", {class: "spark", viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true"}, line),
    element("span", {}, value, metric),
    element("span", {class: "small"}, last, agent));
  const item = element("li", {"data-id": id}, link);
  let row;
  item.tick = () => text(last, row?.last ? `heartbeat ${span(now() - row.last)} ago` : "no heartbeat yet");
  item.update = (next) => {
    row = next;
    text(name, row.name);
    if (state.textContent !== stateText(row)) state.replaceChildren(stateMark(row));
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

async function showRefused(details) {
  const {refused} = await call("GET", "api/refused");
  details.hidden = !refused.length;
  details.replaceChildren(element("summary", {}, `Refused since the HUB was started: ${refused.length}`),
    refusedTable(refused));
}
)page"
