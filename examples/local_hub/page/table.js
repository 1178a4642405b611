R"page(// Tables.

import {element} from "./dom.js";
import {moment} from "./words.js";

// Each of the heads: {name, number, class}. A table that is too wide scrolls by itself.
export function table(caption, heads, rows) {
  const cells = (tag, row) => row.map((cell, i) =>
    element(tag, {class: heads[i].number ? "number" : heads[i].class, scope: tag === "th" ? "col" : null},
      cell));
  return element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
    element("table", {"aria-label": caption},
      element("thead", {}, element("tr", {}, ...cells("th", heads.map((head) => head.name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row))))));
}

export function refusedTable(refused) {
  return table("Refused requests",
    [{name: "When"}, {name: "Request", class: "mono"}, {name: "Status", number: true}, {name: "Why"}],
    refused.map((each) => [moment(each.time), each.what, String(each.status), each.why]));
}
)page"
