R"page(// SPDX-License-Identifier: MIT
//
// Making a model.

import {ask, field} from "./dialogs.js";
import {element} from "./dom.js";
import {call, go} from "./hub.js";
import {keepKey} from "./new_keys.js";

export function askForModel() {
  const number = (label, name, value, attributes) =>
    field(label, name, {type: "number", value, required: true, ...attributes});
  ask("New model", [
    field("Name", "name", {required: true, maxlength: "100", placeholder: "such as spirals"}),
    field("Start from (.yaml or .pt)", "start", {value: "yolov8n.yaml"}),
    field("Dataset", "data", {value: "coco8.yaml"}),
    element("div", {class: "fields"},
      number("Epochs", "epochs", "100", {min: "1", max: "1000000"}),
      number("Batch size (-1: as fits)", "batch", "-1", {min: "-1", max: "1000000", step: "any"}),
      number("Image size", "imgsz", "640", {min: "1", max: "1000000"}),
      number("Patience, epochs", "patience", "100", {min: "0", max: "1000000"}),
      field("Device", "device", {placeholder: "such as 0 or cpu"})),
  ], "Make it", async ({elements}) => {
    const about = {};
    for (const each of ["name", "start", "data", "device"]) about[each] = elements[each].value;
    for (const each of ["epochs", "batch", "imgsz", "patience"]) about[each] = Number(elements[each].value);
    const made = await call("POST", "api/models", about);
    keepKey(made.id, made.key);
    go(`models/${made.id}`);
  });
}
)page"
