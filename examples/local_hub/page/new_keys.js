R"page(// Keys that were made here: shown until the page is closed, and kept nowhere else.

const made = new Map();  // model id -> key
export const keepKey = (id, key) => made.set(id, key);
export const keyOf = (id) => made.get(id);

// A key has two forms: HUB's 42 characters, and the Platform's with an underscore after "ul".
export const platformForm = (key) => /^ul[0-9a-f]{40}$/.test(key) ? `ul_${key.slice(2)}` : key;
)page"
