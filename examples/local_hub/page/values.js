R"page(// SPDX-License-Identifier: MIT
//
// The values of one model by epoch, as they come in.

import {call} from "./hub.js";

export class Values {
  constructor(id) {
    this.id = id;
    this.forget();
  }

  forget() {
    this.version = 0;
    this.rowOf = new Map();  // epoch -> index
    this.epochs = [];
    this.times = [];  // when each epoch arrived, in seconds since 1970
    this.columns = new Map();  // name -> values
  }

  // Fetches what is new. Where epochs went away, the model was reset, and everything is new.
  async fetch() {
    const news = await call("GET", `api/models/${this.id}/metrics?since=${this.version}`);
    this.take(news);
    if (news.count !== this.epochs.length) {
      this.forget();
      this.take(await call("GET", `api/models/${this.id}/metrics?since=0`));
    }
  }

  take(news) {
    this.version = news.version;
    const places = news.epochs.map((epoch) => {
      if (!this.rowOf.has(epoch)) this.rowOf.set(epoch, this.epochs.push(epoch) - 1);
      return this.rowOf.get(epoch);
    });
    places.forEach((at, i) => { this.times[at] = news.times[i]; });
    for (const values of this.columns.values()) for (const at of places) values[at] = null;
    for (const [name, values] of Object.entries(news.columns)) {
      if (!this.columns.has(name)) this.columns.set(name, []);
      const column = this.columns.get(name);
      values.forEach((value, i) => { column[places[i]] = value; });
    }
    for (const column of this.columns.values())
      for (let i = 0; i < this.epochs.length; ++i) column[i] ??= null;
    if (places.length && !rises(this.epochs)) this.sort();
    this.byTime = null;
  }

  // An epoch that was delayed comes after later ones.
  sort() {
    const order = orderOf(this.epochs);
    this.epochs = order.map((i) => this.epochs[i]);
    this.times = order.map((i) => this.times[i]);
    this.rowOf = new Map(this.epochs.map((epoch, i) => [epoch, i]));
    for (const [name, column] of this.columns) this.columns.set(name, order.map((i) => column[i]));
  }

  // {x, y, steps} of a line over epochs, or over the seconds since the first one arrived.
  line(name, overTime) {
    const y = this.columns.get(name);
    if (!overTime) return {x: this.epochs, y, steps: this.epochs};
    this.byTime ??= this.timeline();
    const {order, x, steps} = this.byTime;
    return {x, y: order.map((i) => y[i]), steps};
  }

  // Epochs that were trained again arrived after later ones.
  timeline() {
    const order = orderOf(this.times);
    const began = this.times[order[0]];
    return {order, x: order.map((i) => this.times[i] - began), steps: order.map((i) => this.epochs[i])};
  }
}

export const lessIsBetter = (name) => name.includes("loss");

// The best value of a column, and its epoch.
export function bestOf(values, name) {
  const column = values.columns.get(name) ?? [];
  let best = -1;
  for (let i = 0; i < column.length; ++i) {
    if (column[i] == null) continue;
    if (best < 0 || (lessIsBetter(name) ? column[i] < column[best] : column[i] > column[best])) best = i;
  }
  return best < 0 ? null : {value: column[best], epoch: values.epochs[best]};
}

const orderOf = (numbers) => numbers.map((_, i) => i).sort((a, b) => numbers[a] - numbers[b]);

function rises(numbers) {
  for (let i = 1; i < numbers.length; ++i) if (numbers[i] < numbers[i - 1]) return false;
  return true;
}
)page"
