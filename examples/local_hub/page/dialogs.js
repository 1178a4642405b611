R"page(// SPDX-License-Identifier: MIT
//
// Short messages, and dialogs with a form.

import {element, text} from "./dom.js";

// What was done; `undo`, if any, takes it back for as long as the message is there.
let hiding;
export function tell(message, undo) {
  const node = document.getElementById("told");
  const hide = () => node.classList.remove("shown");
  node.replaceChildren(message);
  if (undo) node.append(element("button", {class: "small", onclick: () => { hide(); undo(); }}, "Undo"));
  node.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(hide, undo ? 15000 : 3500);
}

// A dialog with a form; done(form) may fail, and its message is shown. What destroys something never
// has the focus. Returns the dialog, which is "done" or "" in returnValue when it closes.
export function ask(title, fields, verb, done, {destroys = false} = {}) {
  const error = element("p", {class: "error", role: "alert", hidden: true});
  const form = element("form", {onsubmit: async (event) => {
    event.preventDefault();
    try {
      await done(form);
      dialog.close("done");
    } catch (problem) {
      error.hidden = false;
      text(error, problem.message);
    }
  }}, element("h2", {}, title), ...fields, error,
  element("div", {class: "row"}, element("button", {class: destroys ? "bad" : "main"}, verb),
    element("button", {type: "button", autofocus: destroys, onclick: () => dialog.close()}, "Cancel")));
  const dialog = element("dialog", {"aria-label": title, onclose: () => dialog.remove()}, form);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export function field(label, name, attributes = {}) {
  return element("label", {}, label, element("input", {name, autocomplete: "off", ...attributes}));
}
)page"
