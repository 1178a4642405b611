R"page(// SPDX-License-Identifier: MIT
//
// Numbers, times and states as people read them.

import {element} from "./dom.js";

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

// A time for one epoch, more exactly.
export function pace(seconds) {
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  if (seconds < 60 || seconds >= 3600) return span(seconds);
  return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

// Seconds since a training began, or until the last that was heard of it.
export const timeTaken = (model, now) => model.state === "training" ? now - model.began : model.took;

// Seconds, if the epochs to come take as long as the last ones; nothing where it is not in training.
export const timeLeft = (model) =>
  model.state === "training" && model.pace ? (model.epochs - model.epoch) * model.pace : null;

export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], today ? {timeStyle: "medium"} : {dateStyle: "medium", timeStyle: "short"});
}

export function stateText(model) {
  return model.state === "disconnected" && model.last ? `disconnected since ${moment(model.last)}` : model.state;
}

export function stateMark(model) {
  return element("span", {class: `state ${model.state}`}, stateText(model));
}
)page"
