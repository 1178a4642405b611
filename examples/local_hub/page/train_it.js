R"page(// SPDX-License-Identifier: MIT
//
// What to paste, so that a training reports to a model: for C++, and for Python's old and new clients.

import {tell} from "./dialogs.js";
import {element} from "./dom.js";
import {root} from "./hub.js";

// A word for a shell: what comes from a model's names is never run.
const word = (text) => /^[\w.,:@%+=\/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
const exports = (values) =>
  Object.entries(values).map(([name, value]) => `export ${name}=${word(value)}`).join("\n");

const hub = root.href.replace(/\/$/, "");
export const linesForHub = (key) =>
  exports({ULTRALYTICS_HUB_API: hub, ULTRALYTICS_HUB_WEB: hub, ULTRALYTICS_API_KEY: key});
export const linesForPlatform = (key) => exports({ULTRALYTICS_PLATFORM_URL: hub, ULTRALYTICS_API_KEY: key});

// Pairs of a title and the lines. A model's key is good for that model alone.
export function linesFor(model, key = "...") {
  const page = `${hub}/models/${model.id}`;
  const old = linesForHub(key);
  const args = model.train_args;
  const name = slug(model.name);
  const train = [`model=${args.weights || args.cfg}`, `data=${args.data}`, `epochs=${model.epochs}`,
    "project=local", `name=${name}`].map(word).join(" ");
  return [
    ["Environment", old],
    ["C++", `hub::training_session session{"${page}"};`],
    ["The example of this project", `build/train --model ${model.id}`],
    ["Python, HUB's clients (ultralytics before 8.4)", `${old}\nyolo train model=${page}`],
    ["Python, the Platform's clients (ultralytics from 8.4 on): they make a model of their own, with a key from Keys",
      `${linesForPlatform("...")}\nyolo train ${train}`],
    ["C++, with the Platform's protocol and these variables: it makes a model of its own as well",
      `hub::platform_session session{{.project = "local", .name = "${name}", .epochs = ${model.epochs}}};`],
  ];
}

// As the Platform's client does it.
function slug(name) {
  return name.toLowerCase().replace(/[^a-z0-9 -]/g, "").replace(/[ -]+/g, "-").replace(/^-|-$/g, "") || "train";
}

export function snippet(title, code) {
  const lines = element("pre", {tabindex: "0", "aria-label": title}, code);
  // Without TLS, and not on this machine, a page has no clipboard.
  const select = () => {
    getSelection().selectAllChildren(lines);
    tell("Selected: Ctrl-C copies it.");
  };
  const copy = () => navigator.clipboard
    ? navigator.clipboard.writeText(code).then(() => tell("Copied."), select) : select();
  return element("div", {class: "code"},
    element("div", {class: "row between"}, element("span", {class: "soft small"}, title),
      element("button", {class: "small", type: "button", onclick: copy}, "Copy")), lines);
}
)page"
