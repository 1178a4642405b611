R"page(// The models as they are now, and whether the HUB is there. It sends its time once a second, so that
// silence means it is gone, even where no connection breaks.

import {element, text} from "./dom.js";

const silenceMax = 5000;  // milliseconds

export const models = new Map();
export const changes = new EventTarget();  // "models", "second"; "model" has the id in detail

let source = null;
let lastEvent = performance.now();
let goneSince = null;
let ready = false;  // once every model has been heard of
let ahead = 0;  // of this machine's clock, in seconds

export const isReady = () => ready;
export const now = () => Date.now() / 1000 + ahead;

export function listen() {
  source?.close();
  source = new EventSource("/api/events");
  let fresh = new Map();  // until "ready" has come: what was deleted meanwhile is not in it
  source.addEventListener("row", (event) => {
    const row = JSON.parse(event.data);
    (fresh ?? models).set(row.id, row);
    if (!fresh) told(row.id);
  });
  source.addEventListener("gone", (event) => {
    const id = JSON.parse(event.data);
    models.delete(id);
    told(id);
  });
  source.addEventListener("ready", () => {
    models.clear();
    for (const [id, row] of fresh) models.set(id, row);
    fresh = null;
    ready = true;
    for (const id of models.keys()) told(id);
    if (!models.size) changes.dispatchEvent(new Event("models"));
  });
  source.addEventListener("time", (event) => {
    lastEvent = performance.now();
    ahead = Number(event.data) - Math.floor(Date.now() / 1000);
    if (Math.abs(ahead) <= 2) ahead = 0;
    setGone(false);
  });
  source.addEventListener("error", () => {
    fresh = new Map();
    setGone(true);
    // After a refusal the browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(comeBack, 2000);
  });
}

async function comeBack() {
  const reply = await fetch("/api/status").catch(() => null);
  const status = await reply?.json().catch(() => null);
  if (status && !status.signed_in) dispatchEvent(new Event("key-needed"));
  else listen();
}

function told(id) {
  changes.dispatchEvent(new Event("models"));
  changes.dispatchEvent(new CustomEvent("model", {detail: id}));
}

function setGone(gone) {
  const mark = document.getElementById("live");
  mark.className = gone ? "live off" : "live on";
  text(mark, gone ? "no connection" : "live");
  if (gone && !goneSince) goneSince = new Date();
  if (!gone) goneSince = null;
  const banner = document.getElementById("gone");
  banner.hidden = !gone;
  text(banner, gone ? `The HUB has not answered since ${goneSince.toLocaleTimeString()}. ` +
    "What you see is from then; the page goes on by itself when the HUB is back." : "");
}

export function startClock() {
  setInterval(() => {
    if (source && performance.now() - lastEvent > silenceMax) setGone(true);
    changes.dispatchEvent(new Event("second"));
  }, 1000);
}
)page"
