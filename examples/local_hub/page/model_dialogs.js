R"page(// SPDX-License-Identifier: MIT
//
// What is done with a model: its labels are edited, it is stopped, reset, deleted. Whatever takes something
// away says what.

import {ask, field, tell} from "./dialogs.js";
import {element} from "./dom.js";
import {call, go} from "./hub.js";
import {bringBack} from "./leftovers.js";
import {bytes} from "./words.js";

export function askToEdit(model) {
  const note = element("textarea", {name: "note", rows: "4", maxlength: "5000"}, model.note);
  ask("Edit", [
    field("Name", "name", {required: true, maxlength: "100", value: model.name}),
    field("Project", "project", {maxlength: "50", value: model.project}),
    field("Tags, with commas between", "tags", {value: model.tags.join(", ")}),
    element("label", {}, "Note", note),
  ], "Save", ({elements}) => call("PATCH", `api/models/${model.id}`, {
    name: elements.name.value,
    project: elements.project.value.trim(),
    tags: elements.tags.value.split(",").map((tag) => tag.trim()).filter(Boolean),
    note: note.value,
  }));
}

export function askToStop(model) {
  const what = `It is at epoch ${model.epoch} of ${model.epochs}. It ends at its next epoch, and sends what it has.`;
  ask(`Stop “${model.name}”?`, [element("p", {}, what)], "Stop it",
    () => call("POST", `api/models/${model.id}/stop`), {destroys: true});
}

export function askToReset(model) {
  const what = `${contentsOf(model)} are deleted for good, and it can be trained again.`;
  ask(`Reset “${model.name}”?`, [element("p", {}, what)], "Delete them",
    () => call("POST", `api/models/${model.id}/reset`), {destroys: true});
}

export function askToDelete(model) {
  const {id, name} = model;
  const what = `It goes away with ${contentsOf(model)}. For a day, it can be brought back.`;
  ask(`Delete “${name}”?`, [element("p", {}, what)], "Delete it", async () => {
    await call("DELETE", `api/models/${id}`);
    go("");
    tell(`“${name}” is deleted.`, () => bringBack(id, name));
  }, {destroys: true});
}

const count = (number, name) => number === 1 ? `1 ${name}` : `${number} ${name}s`;

function contentsOf({epoch, checkpoints, run}) {
  const size = checkpoints.reduce((sum, each) => sum + each.bytes, 0);
  return `the metrics of ${count(epoch, "epoch")}, its ${run ? "console" : "heartbeats"} and ` +
    `${count(checkpoints.length, "checkpoint")} (${bytes(size)})`;
}
)page"
