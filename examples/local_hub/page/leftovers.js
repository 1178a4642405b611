R"page(// SPDX-License-Identifier: MIT
//
// What is below the list: models that were deleted and can still be brought back, and what was refused.

import {ask, tell} from "./dialogs.js";
import {element} from "./dom.js";
import {call} from "./hub.js";
import {refusedTable, table} from "./table.js";
import {moment} from "./words.js";

export async function bringBack(id, name) {
  try {
    await call("POST", `api/trash/${id}`);
    tell(`“${name}” is back.`);
  } catch (problem) {
    tell(problem.message);
  }
}

export async function showLeftovers(node) {
  const [{trash}, {refused}] = await Promise.all([call("GET", "api/trash"), call("GET", "api/refused")]);
  const again = () => showLeftovers(node).catch((problem) => tell(problem.message));
  const fold = (title, content) => element("details", {class: "card"}, element("summary", {}, title), content);
  node.replaceChildren(...[
    trash.length ? fold(`Deleted, and kept for a day: ${trash.length}`, trashTable(trash, again)) : null,
    refused.length ? fold(`Refused since the HUB was started: ${refused.length}`, refusedTable(refused)) : null,
  ].filter(Boolean));
}

function trashTable(trash, again) {
  return table("Deleted models", [{name: "Name"}, {name: "Deleted"}, {name: ""}], trash.map(({id, name, time}) => [
    name, moment(time), element("span", {class: "row"},
      element("button", {class: "small", onclick: () => bringBack(id, name).then(again)}, "Bring back"),
      element("button", {class: "small bad", onclick: () => askToErase(id, name, again)}, "Delete for good")),
  ]));
}

function askToErase(id, name, done) {
  const what = "What arrived for it is removed from the disk, and cannot be brought back.";
  ask(`Delete “${name}” for good?`, [element("p", {}, what)], "Delete it",
    () => call("DELETE", `api/trash/${id}`).then(done), {destroys: true});
}
)page"
