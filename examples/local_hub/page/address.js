R"page(// SPDX-License-Identifier: MIT
//
// What is chosen on the page stands in its address, so that it survives a reload and can be sent.

export const chosen = (name) => new URLSearchParams(location.search).get(name) ?? "";
export const chosenList = (name) => new URLSearchParams(location.search).getAll(name);

// A text, or a list of them. What is empty is taken out, and so is all of it where the query would become longer
// than so many characters.
export function choose(name, value, lengthMax = Infinity) {
  const all = new URLSearchParams(location.search);
  all.delete(name);
  const others = all.toString();
  for (const each of [value].flat()) if (each) all.append(name, each);
  const query = all.toString().length > lengthMax ? others : all.toString();
  if (query === location.search.slice(1)) return;  // browsers take only so many in a while
  history.replaceState(null, "", location.pathname + (query && `?${query}`));
}
)page"
