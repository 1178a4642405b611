R"page(// SPDX-License-Identifier: MIT
//
// The HUB's stream of events: each model's row as it is now, and the HUB's time once a second. tell()
// gets {all}, {row}, {gone}, {time} or {lost}.

export class Feed {
  constructor(address, tell) {
    this.address = address;
    this.tell = tell;
    this.rows = new Map();
    this.ready = false;  // once every model has been heard of
  }

  // After a refusal the browser does not try again by itself, so this may be called again.
  open() {
    if (this.source && this.source.readyState !== EventSource.CLOSED) return;
    const source = this.source = new EventSource(this.address);
    let fresh = new Map();  // until "ready" has come: what was deleted meanwhile is not in it
    source.addEventListener("row", (event) => {
      const row = JSON.parse(event.data);
      (fresh ?? this.rows).set(row.id, row);
      if (!fresh) this.tell({row});
    });
    source.addEventListener("gone", (event) => {
      const gone = JSON.parse(event.data);
      this.rows.delete(gone);
      this.tell({gone});
    });
    source.addEventListener("ready", () => {
      this.rows = fresh;
      fresh = null;
      this.ready = true;
      this.tell(this.everything());
    });
    source.addEventListener("time", (event) => this.tell({time: Number(event.data)}));
    source.addEventListener("error", () => {
      fresh = new Map();
      this.ready = false;
      this.tell({lost: true, refused: source.readyState === EventSource.CLOSED});
    });
  }

  close() {
    this.source?.close();
    this.ready = false;
  }

  everything() {
    return {all: [...this.rows.values()]};
  }
}
)page"
