R"page(// SPDX-License-Identifier: MIT
//
// Where the HUB is, and calls to it. Every address is relative to where this file came from, so that
// the page works below a path as well, behind a proxy.

export const root = new URL("..", import.meta.url);
export const at = (path) => new URL(path, root).href;

export async function call(method, path, body) {
  const reply = await fetch(at(path), {
    method,
    headers: body ? {"Content-Type": "application/json"} : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  const said = await reply.json().catch(() => ({}));
  if (reply.status === 401 && path !== "api/sign-in") dispatchEvent(new Event("key-needed"));
  if (!reply.ok) throw new Error(said.message ?? `the HUB answered ${reply.status}`);
  return said;
}

// Shows another part of the page, such as "models/ID"; "" is the list.
export function go(path) {
  history.pushState(null, "", at(path));
  dispatchEvent(new Event("popstate"));
}
)page"
