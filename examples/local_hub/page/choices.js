R"page(// SPDX-License-Identifier: MIT
//
// A board with controls for what can be chosen of its charts. What is chosen stands in the address.

import {choose, chosen} from "./address.js";
import {Board} from "./board.js";
import {element, text} from "./dom.js";

export class ChosenBoard extends Board {
  // changed() is called when another axis is wanted.
  constructor(changed) {
    super(chosen("x") === "time" ? "time" : "epoch");
    this.log = chosen("log") === "1";
    this.smoothing = Math.min(0.98, Math.max(0, Number(chosen("smooth")) || 0));
    const [from, to] = chosen("zoom").split("_").map(Number);
    if (from < to) this.zoom = [from, to];
    this.back = element("button", {class: "small", hidden: !this.zoom, onclick: () => this.setZoom(null)},
      "Whole range");
    this.controls = element("div", {class: "row"}, this.back, this.axisControl(changed), this.logControl(),
      this.smoothingControl());
  }

  axisControl(changed) {
    const select = element("select", {id: "axis", onchange: () => {
      choose("x", select.value === "time" && "time");
      this.setAxis(select.value);
      changed();
    }}, element("option", {value: "epoch"}, "epochs"), element("option", {value: "time"}, "time"));
    select.value = this.axis.isCount ? "epoch" : "time";
    return element("label", {class: "inline"}, "over", select);
  }

  logControl() {
    return element("label", {class: "inline"}, element("input", {type: "checkbox", id: "log", checked: this.log,
      onchange: ({target}) => {
        this.log = target.checked;
        choose("log", this.log && "1");
        this.redraw();
      }}), "logarithmic");
  }

  smoothingControl() {
    const share = element("output", {class: "number"}, String(this.smoothing));
    return element("label", {class: "inline"}, "smoothing", element("input", {type: "range", min: "0", max: "0.98",
      step: "0.02", value: String(this.smoothing), id: "smoothing",
      oninput: ({target}) => {
        this.smoothing = Number(target.value);
        text(share, target.value);
        this.redraw();
      },
      onchange: () => choose("smooth", this.smoothing && String(this.smoothing))}), share);
  }

  setZoom(part) {
    super.setZoom(part);
    choose("zoom", this.zoom?.map((each) => Number(each.toPrecision(6))).join("_"));
    this.back.hidden = !this.zoom;
  }
}
)page"
