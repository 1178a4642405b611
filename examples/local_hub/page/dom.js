R"page(// What every part of the page needs: elements, words for numbers, and calls to the HUB. Whatever comes
// from a training gets into the page through text() alone, so no name can bring markup with it.

// element("a", {class: "x", href: "/"}, "text", child): null children are left out.
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// Replaces what is in a node only where it differs, so that a selection and the focus stay.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

export function table(caption, heads, rows) {
  const cells = (tag, row) => row.map((cell, i) =>
    element(tag, {class: heads[i].number ? "number" : heads[i].class, scope: tag === "th" ? "col" : null},
      cell));
  return element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
    element("table", {"aria-label": caption},
      element("thead", {}, element("tr", {}, ...cells("th", heads.map((head) => head.name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row))))));
}

// ---- words ----

const units = ["B", "kB", "MB", "GB", "TB"];
export function bytes(count) {
  let step = 0;
  while (count >= 1000 && step < units.length - 1) { count /= 1000; ++step; }
  return `${step && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[step]}`;
}

export function number(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(2);
  if (Number.isInteger(value)) return String(value);
  return value.toFixed(size >= 100 ? 1 : size >= 1 ? 3 : 4);
}

export function span(seconds) {
  const all = Math.max(0, Math.round(seconds));
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min`;
  if (all < 86400) return `${Math.floor(all / 3600)} h ${Math.floor(all / 60) % 60} min`;
  return `${Math.floor(all / 86400)} d ${Math.floor(all / 3600) % 24} h`;
}

export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], today ? {timeStyle: "medium"} : {dateStyle: "medium", timeStyle: "short"});
}

export function stateText(model) {
  return model.state === "disconnected" && model.last ? `disconnected since ${moment(model.last)}`
    : model.state;
}

export function stateMark(model) {
  return element("span", {class: `state ${model.state}`}, stateText(model));
}

// ---- messages and dialogs ----

let hiding;
export function tell(message) {
  const node = document.getElementById("told");
  node.textContent = message;
  node.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => node.classList.remove("shown"), 3500);
}

// A dialog with a form; done(form) may fail, and its message is shown.
export function ask(title, fields, verb, done) {
  const error = element("p", {class: "error", role: "alert", hidden: true});
  const close = () => { dialog.close(); dialog.remove(); };
  const form = element("form", {onsubmit: async (event) => {
    event.preventDefault();
    try {
      await done(form);
      close();
    } catch (problem) {
      error.hidden = false;
      text(error, problem.message);
    }
  }}, element("h2", {}, title), ...fields, error,
  element("div", {class: "row"}, element("button", {class: "main"}, verb),
    element("button", {type: "button", onclick: close}, "Cancel")));
  const dialog = element("dialog", {"aria-label": title, onclose: () => dialog.remove()}, form);
  document.body.append(dialog);
  dialog.showModal();
}

export function field(label, name, attributes = {}) {
  return element("label", {}, label, element("input", {name, autocomplete: "off", ...attributes}));
}

// ---- the HUB ----

export async function call(method, path, body) {
  const reply = await fetch(path, {
    method,
    headers: body ? {"Content-Type": "application/json"} : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  const said = await reply.json().catch(() => ({}));
  if (reply.status === 401 && path !== "/api/sign-in") dispatchEvent(new Event("key-needed"));
  if (!reply.ok) throw new Error(said.message ?? `the HUB answered ${reply.status}`);
  return said;
}

export function go(path) {
  history.pushState(null, "", path);
  dispatchEvent(new Event("popstate"));
}
)page"
