R"page(// SPDX-License-Identifier: MIT
//
// Which part of the page is shown, and signing in.

import {showCompare} from "./compare.js";
import {ask, field} from "./dialogs.js";
import {element} from "./dom.js";
import {at, call, go, root} from "./hub.js";
import {showKeys} from "./keys.js";
import {showList} from "./list.js";
import {listen, startClock, stopListening} from "./live.js";
import {showModel} from "./model.js";

const main = document.getElementById("main");
let leave = () => {};

function show() {
  leave();
  main.replaceChildren();
  const [what, id] = location.pathname.slice(root.pathname.length).split("/");
  if (what === "models") leave = showModel(main, id);
  else if (what === "keys") leave = showKeys(main);
  else if (what === "compare") leave = showCompare(main);
  else leave = showList(main);
  scrollTo(0, 0);
}

// Links within the page do not load it again.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-route]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(link.href);
  main.focus({preventScroll: true});
});
addEventListener("popstate", show);

function signIn() {
  if (document.querySelector("dialog.sign-in")) return;
  const dialog = ask("This HUB asks for a key", [
    element("p", {class: "soft"}, "On the HUB's machine, ", element("code", {}, "local_hub keys make NAME"),
      " prints one."),
    field("Key", "key", {type: "password", required: true}),
  ], "Sign in", async (form) => {
    await call("POST", "api/sign-in", {key: form.elements.key.value.trim()});
    start();
  });
  dialog.classList.add("sign-in");
  dialog.addEventListener("close", () => { if (dialog.returnValue !== "done") stayOutside(); });
}
addEventListener("key-needed", signIn);

function stayOutside() {
  leave();
  leave = () => {};
  stopListening("not signed in");
  main.replaceChildren(element("div", {class: "card empty"},
    element("p", {class: "soft"}, "Without a key, this HUB shows nothing."),
    element("button", {class: "main", onclick: signIn}, "Sign in")));
}

async function start() {
  const status = await call("GET", "api/status");
  if (!status.signed_in) return signIn();
  listen();
  show();
}

for (const link of document.querySelectorAll("header a")) link.href = at(link.dataset.route);
startClock();
start().catch(() => { main.textContent = "The HUB does not answer."; });
)page"
