R"page(// Which part of the page is shown, and signing in.

import {ask, call, element, field, go} from "./dom.js";
import {listen, startClock} from "./live.js";
import {showList} from "./list.js";
import {showModel} from "./model.js";

const main = document.getElementById("main");
let leave = () => {};

function show() {
  leave();
  const id = location.pathname.match(/^\/models\/([A-Za-z0-9]+)$/)?.[1];
  main.replaceChildren();
  leave = (id ? showModel(main, id) : showList(main)) ?? (() => {});
  scrollTo(0, 0);
}

// Links within the page do not load it again.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-route]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  main.focus({preventScroll: true});
});
addEventListener("popstate", show);

function signIn() {
  if (document.querySelector("dialog.sign-in")) return;
  ask("This HUB asks for a key", [
    element("p", {class: "soft"}, "On the HUB's machine, ", element("code", {}, "local_hub keys make NAME"),
      " prints one."),
    field("Key", "key", {type: "password", required: true}),
  ], "Sign in", async (form) => {
    await call("POST", "/api/sign-in", {key: form.elements.key.value.trim()});
    start();
  });
  document.querySelector("dialog:last-of-type").classList.add("sign-in");
}
addEventListener("key-needed", signIn);

async function start() {
  const status = await call("GET", "/api/status");
  if (!status.signed_in) return signIn();
  listen();
  show();
}

startClock();
start().catch(() => { main.textContent = "The HUB does not answer."; });
)page"
