R"page(// SPDX-License-Identifier: MIT
//
// What is chosen on the page stands in its address, so that it survives a reload and can be sent.

export const chosen = (name) => new URLSearchParams(location.search).get(name) ?? "";
export const chosenList = (name) => new URLSearchParams(location.search).getAll(name);

// A text, or a list of them. What is empty is taken out.
export function choose(name, value) {
  const all = new URLSearchParams(location.search);
  all.delete(name);
  for (const each of [value].flat()) if (each) all.append(name, each);
  const query = all.toString();
  history.replaceState(null, "", location.pathname + (query && `?${query}`));
}
)page"
