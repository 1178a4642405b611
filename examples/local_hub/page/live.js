R"page(// SPDX-License-Identifier: MIT
//
// The models as they are now, and whether the HUB is there. It sends its time once a second, so that
// silence means it is gone, even where no connection breaks.

import {text} from "./dom.js";
import {Feed} from "./feed.js";
import {at} from "./hub.js";

const silenceMax = 5000;  // milliseconds

export const models = new Map();
export const changes = new EventTarget();  // "models", "second"; "model" has the id in detail

let stream = null;  // {open(), close()}
let listening = false;
let lastEvent = performance.now();
let goneSince = null;
let ready = false;  // once every model has been heard of
let ahead = 0;  // of this machine's clock, in seconds

export const isReady = () => ready;
export const now = () => Date.now() / 1000 + ahead;

export function listen() {
  if (!stream) {
    stream = globalThis.SharedWorker ? sharedStream() : ownStream();
    addEventListener("pagehide", () => stream.close());
    addEventListener("pageshow", (event) => { if (event.persisted) stream.open(); });
  }
  lastEvent = performance.now();
  listening = true;
  stream.open();
}

// Without a key there is nothing to listen to.
export function stopListening(why) {
  listening = false;
  stream?.close();
  document.getElementById("gone").hidden = true;
  const mark = document.getElementById("live");
  mark.className = "live";
  text(mark, why);
}

function sharedStream() {
  const worker = new SharedWorker(at("page/shared.js"), {type: "module"});
  worker.port.onmessage = ({data}) => take(data);
  worker.onerror = () => { stream = ownStream(); stream.open(); };  // no modules in workers
  return {open: () => worker.port.postMessage("open"), close: () => worker.port.postMessage("leave")};
}

// Where tabs cannot share one: only while the tab is seen.
function ownStream() {
  const feed = new Feed(at("api/events"), take);
  document.addEventListener("visibilitychange", () => {
    if (listening) document.hidden ? feed.close() : listen();
  });
  return feed;
}

function take({all, row, gone, time, lost, refused}) {
  if (!listening) return;
  if (all) {
    models.clear();
    for (const each of all) models.set(each.id, each);
    ready = true;
    changes.dispatchEvent(new Event("models"));
    for (const id of models.keys()) changes.dispatchEvent(new CustomEvent("model", {detail: id}));
  }
  if (row) models.set(row.id, row);
  if (gone) models.delete(gone);
  if (row || gone) {
    changes.dispatchEvent(new Event("models"));
    changes.dispatchEvent(new CustomEvent("model", {detail: row?.id ?? gone}));
  }
  if (time) {
    lastEvent = performance.now();
    ahead = time - Math.floor(Date.now() / 1000);
    if (Math.abs(ahead) <= 2) ahead = 0;
    setGone(false);
  }
  if (lost) setGone(true);
  if (refused) setTimeout(comeBack, 2000);
}

async function comeBack() {
  const reply = await fetch(at("api/status")).catch(() => null);
  const status = await reply?.json().catch(() => null);
  if (status && !status.signed_in) dispatchEvent(new Event("key-needed"));
  else listen();
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
    if (listening && !document.hidden && performance.now() - lastEvent > silenceMax) setGone(true);
    changes.dispatchEvent(new Event("second"));
  }, 1000);
}
)page"
