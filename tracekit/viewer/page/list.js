"use strict";
// A list of any length: only the rows in sight exist, and they are used again.

class VirtualList {
  // make() → element; fill(element, item, place) writes it; open(item) is called when a row is chosen.
  constructor({ label, rowHeight, make, fill, open }) {
    Object.assign(this, { rowHeight, make, fill, open });
    this.items = [];
    this.chosen = -1;
    this.pool = new Map(); // place → element
    this.spare = [];
    this.space = dom.el("div", { class: "list-space" });
    this.node = dom.el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": label }, this.space);
    this.node.addEventListener("scroll", () => this.draw(), { passive: true });
    this.node.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.choose(Number(row.dataset.place));
    });
    new ResizeObserver(() => this.draw()).observe(this.node);
  }

  // Browsers cap an element's height near 33 million pixels: past MAXIMUM, scrolling is in proportion.
  static MAXIMUM = 15_000_000;

  show(items, chosen = -1) {
    this.items = items;
    this.chosen = chosen;
    this.space.style.height = `${Math.min(items.length * this.rowHeight, VirtualList.MAXIMUM)}px`;
    for (const [place, row] of this.pool) this.release(place, row);
    this.draw();
  }

  get stretch() {
    const real = this.items.length * this.rowHeight - this.node.clientHeight;
    const room = Math.min(this.items.length * this.rowHeight, VirtualList.MAXIMUM) - this.node.clientHeight;
    return room > 0 ? Math.max(1, real / room) : 1;
  }

  draw() {
    const top = this.node.scrollTop;
    const offset = top * this.stretch;
    const first = Math.max(0, Math.floor(offset / this.rowHeight) - 4);
    const last = Math.min(this.items.length, Math.ceil((offset + this.node.clientHeight) / this.rowHeight) + 4);
    for (const [place, row] of this.pool) if (place < first || place >= last) this.release(place, row);
    for (let place = first; place < last; place++) {
      const row = this.pool.get(place) || this.take(place);
      row.style.transform = `translateY(${Math.round(place * this.rowHeight - offset + top)}px)`;
    }
  }

  take(place) {
    let row = this.spare.pop();
    if (!row) {
      row = this.make();
      row.setAttribute("role", "option");
      row.style.height = `${this.rowHeight}px`;
      this.space.append(row);
    }
    row.hidden = false;
    row.dataset.place = place;
    row.id = `row-${place}`;
    row.setAttribute("aria-posinset", place + 1);
    row.setAttribute("aria-setsize", this.items.length);
    this.mark(row, place);
    this.fill(row, this.items[place], place);
    this.pool.set(place, row);
    return row;
  }

  release(place, row) {
    this.pool.delete(place);
    row.hidden = true;
    this.spare.push(row);
  }

  mark(row, place) {
    row.setAttribute("aria-selected", place === this.chosen ? "true" : "false");
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
    const stretch = this.stretch;
    const top = place * this.rowHeight;
    const offset = this.node.scrollTop * stretch;
    if (top < offset) this.node.scrollTop = top / stretch;
    else if (top + this.rowHeight > offset + this.node.clientHeight) {
      this.node.scrollTop = (top + this.rowHeight - this.node.clientHeight) / stretch;
    }
    this.draw();
  }
}
