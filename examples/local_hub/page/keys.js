R"page(// SPDX-License-Identifier: MIT
//
// Keys: which there are, a new one, and revoking. A key is shown once, when it is made.

import {ask, field, tell} from "./dialogs.js";
import {element} from "./dom.js";
import {at, call} from "./hub.js";
import {models} from "./live.js";
import {table} from "./table.js";
import {linesForHub, linesForPlatform, snippet} from "./train_it.js";

export function showKeys(main) {
  document.title = "Keys · local_hub";
  const list = element("div");
  const fresh = element("div", {class: "stack"});
  const draw = () => drawKeys(list).catch((problem) => { list.textContent = problem.message; });
  const make = () => askForKey((name, {key, platform_key: other}) => {
    fresh.prepend(element("div", {class: "card stack"}, element("p", {class: "soft"},
      "It is shown until this page is left, and kept nowhere. It has two forms. Paste the lines into a shell."),
    snippet(`${name}, for HUB's clients, in Python (ultralytics before 8.4) and C++`, linesForHub(key)),
    snippet(`${name}, for the Platform's clients, in Python (from 8.4 on) and C++`, linesForPlatform(other))));
    draw();
  });
  main.append(element("div", {class: "stack"},
    element("div", {class: "row between"}, element("div", {}, element("h1", {}, "Keys"),
      element("p", {class: "soft"}, "Whoever has one of these can train here.")),
    element("button", {class: "main", id: "new-key", onclick: make}, "New key")),
    fresh, element("section", {class: "card"}, list)));
  draw();
  return () => {};

  async function drawKeys(node) {
    const {keys} = await call("GET", "api/keys");
    node.replaceChildren(keys.length ? table("Keys", [{name: "Name"}, {name: "Good for"}, {name: "Made"}, {name: ""}],
      keys.map((key) => [key.name, key.model ? modelLink(key.model) : "everything",
        key.made.replace("T", " ").replace("Z", " UTC"),
        element("button", {class: "small bad", onclick: () => askToRevoke(key, draw)}, "Revoke")]))
      : "No key yet.");
  }
}

function modelLink(id) {
  return element("a", {href: at(`models/${id}`), "data-route": true}, models.get(id)?.name ?? id);
}

function askForKey(done) {
  ask("New key", [
    element("p", {class: "soft"}, "One for each person or machine can be revoked by itself."),
    field("Name", "name", {required: true, maxlength: "100", placeholder: "such as laptop"}),
  ], "Make it", async (form) => {
    const name = form.elements.name.value;
    done(name, await call("POST", "api/keys", {name}));
  });
}

function askToRevoke(key, done) {
  ask(`Revoke the key “${key.name}”?`,
    [element("p", {}, "Whatever trains with it is refused from its next request on. A key cannot come back.")],
    "Revoke it", async () => {
      await call("DELETE", `api/keys/${encodeURIComponent(key.id)}`);
      tell(`“${key.name}” is revoked.`);
      done();
    }, {destroys: true});
}
)page"
