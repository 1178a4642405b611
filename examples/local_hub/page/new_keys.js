R"page(// SPDX-License-Identifier: MIT
//
// Keys that were made here for a model: shown until the page is closed, and kept nowhere else.

const made = new Map();  // model id -> key
export const keepKey = (id, key) => made.set(id, key);
export const keyOf = (id) => made.get(id);
)page"
