"use strict";
// A list of any length: only the rows in sight exist, and they are used again.

class VirtualList {
  // make() → element; fill(element, item, place) writes it; open(item) is called when a row is chosen.
  constructor({ label, rowHeight, make, fill, open }) {
    Object.assign(this, { label, rowHeight, make, fill, open });
    this.items = [];
    this.chosen = -1;
    this.height = 0; // of what is in sight; asked for only when it changes, for asking while drawing forces a layout
    this.pool = new Map(); // place → element
    this.spare = [];
    this.space = dom.el("div", { class: "list-space" });
    this.node = dom.el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": label }, this.space);
    this.node.addEventListener("scroll", () => this.draw(), { passive: true });
    this.node.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) this.choose(row.place);
    });
    new ResizeObserver(() => this.measure()).observe(this.node);
  }

  // Browsers cap an element's height near 33 million pixels: past MAXIMUM, scrolling is in proportion.
  static MAXIMUM = 15_000_000;

  show(items, chosen = -1) {
    this.items = items;
    this.chosen = chosen;
    this.space.style.height = `${Math.min(items.length * this.rowHeight, VirtualList.MAXIMUM)}px`;
    for (const row of this.pool.values()) this.spare.push(row);
    this.pool.clear();
    this.measure();
  }

  measure() {
    this.height = this.node.clientHeight;
    this.draw();
  }

  // Writes a text where it differs: most rows that are used again say much that they said before.
  static write(node, text) {
    if (node.said === text) return;
    node.said = text;
    if (node.firstChild) node.firstChild.data = text;
    else node.append(text);
  }

  get stretch() {
    const real = this.items.length * this.rowHeight - this.height;
    const room = Math.min(this.items.length * this.rowHeight, VirtualList.MAXIMUM) - this.height;
    return room > 0 ? Math.max(1, real / room) : 1;
  }

  draw() {
    const top = this.node.scrollTop;
    const offset = top * this.stretch;
    const first = Math.max(0, Math.floor(offset / this.rowHeight) - 4);
    const last = Math.min(this.items.length, Math.ceil((offset + this.height) / this.rowHeight) + 4);
    for (const [place, row] of this.pool) {
      if (place >= first && place < last) continue;
      this.pool.delete(place);
      this.spare.push(row);
    }
    for (let place = first; place < last; place++) {
      const row = this.pool.get(place) || this.take(place);
      const y = Math.round(place * this.rowHeight - offset + top);
      if (row.y !== y) row.style.transform = `translateY(${(row.y = y)}px)`;
    }
    for (const row of this.spare) if (!row.hidden) row.hidden = true;
  }

  // A row for this place: one that went out of sight, where there is one. Only what differs is written.
  take(place) {
    let row = this.spare.pop();
    if (!row) {
      row = this.make();
      row.setAttribute("role", "option");
      row.style.height = `${this.rowHeight}px`;
      this.space.append(row);
    }
    if (row.hidden) row.hidden = false;
    row.place = place;
    row.setAttribute("aria-posinset", place + 1);
    if (row.size !== this.items.length) row.setAttribute("aria-setsize", (row.size = this.items.length));
    this.mark(row, place);
    this.fill(row, this.items[place], place);
    this.pool.set(place, row);
    return row;
  }

  mark(row, place) {
    const chosen = place === this.chosen;
    if (row.chosen === chosen) return;
    row.chosen = chosen;
    row.setAttribute("aria-selected", String(chosen));
    if (chosen) row.id = `chosen-of-${this.label.toLowerCase()}`;
    else row.removeAttribute("id");
  }

  choose(place, { quiet = false } = {}) {
    if (!this.items.length) return;
    this.chosen = Math.min(Math.max(place, 0), this.items.length - 1);
    this.reveal(this.chosen);
    for (const [at, row] of this.pool) this.mark(row, at);
    const row = this.pool.get(this.chosen);
    if (row) this.node.setAttribute("aria-activedescendant", row.id);
    if (!quiet) this.open(this.items[this.chosen]);
  }

  move(by) {
    this.choose(this.chosen < 0 ? 0 : this.chosen + by);
  }

  reveal(place) {
    this.height ||= this.node.clientHeight; // a page that opens on a row: the observer has not spoken yet
    const stretch = this.stretch;
    const top = place * this.rowHeight;
    const offset = this.node.scrollTop * stretch;
    if (top < offset) this.node.scrollTop = top / stretch;
    else if (top + this.rowHeight > offset + this.height) {
      this.node.scrollTop = (top + this.rowHeight - this.height) / stretch;
    }
    this.draw();
  }
}
