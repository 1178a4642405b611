R"page(// SPDX-License-Identifier: MIT
//
// Elements. Whatever comes from a training gets into the page through text() or as a string child,
// so no name can bring markup with it.

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
)page"
