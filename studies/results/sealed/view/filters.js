"use strict";
// Which rows are shown, in which order. A facet's count is what choosing it would show.

class Filters {
  constructor(index) {
    this.index = index;
    this.size = index.rows.id.length;
    this.facets = facetsOf(index);
    this.chosen = new Map(this.facets.map((facet) => [facet.name, new Set()]));
    this.query = "";
    this.within = null; // rows whose text matched a search of all texts
    this.order = "source";
    this.haystack = null;
  }

  // {rows: Int32Array, counts: Map facet → Map value → count}
  apply() {
    const { facets, chosen } = this;
    const sets = facets.map((facet) => chosen.get(facet.name));
    const counts = facets.map((facet) => new Map(facet.values.map(([value]) => [value, 0])));
    const matches = this.matcher();
    const kept = new Int32Array(this.size);
    let found = 0;
    for (let row = 0; row < this.size; row++) {
      if (!matches(row)) continue;
      let failed = -1;
      let failures = 0;
      for (let at = 0; at < facets.length && failures < 2; at++) {
        if (sets[at].size && !facets[at].has(row, sets[at])) {
          failed = at;
          failures++;
        }
      }
      if (failures > 1) continue;
      if (!failures) kept[found++] = row;
      for (let at = 0; at < facets.length; at++) {
        if (failures && at !== failed) continue;
        facets[at].count(row, counts[at]);
      }
    }
    const rows = kept.subarray(0, found);
    this.sort(rows);
    return { rows, counts: new Map(facets.map((facet, at) => [facet.name, counts[at]])) };
  }

  matcher() {
    const { within } = this;
    if (within) return (row) => within.has(row);
    const query = this.query.trim().toLowerCase();
    if (!query) return () => true;
    const { rows, problems } = this.index;
    this.haystack ??= problems.preview.map((text, place) => `${text}\n${problems.id[place]}`.toLowerCase());
    const ofProblem = this.haystack.map((text) => text.includes(query));
    return (row) =>
      ofProblem[rows.problem[row]] || rows.prediction[row].toLowerCase().includes(query) || rows.id[row].toLowerCase().includes(query);
  }

  sort(rows) {
    const { tokens, characters, problem } = this.index.rows;
    const length = (row) => (tokens[row] >= 0 ? tokens[row] : characters[row]);
    if (this.order === "longest") rows.sort((a, b) => length(b) - length(a) || a - b);
    if (this.order === "shortest") rows.sort((a, b) => length(a) - length(b) || a - b);
    if (this.order === "problem") rows.sort((a, b) => problem[a] - problem[b] || a - b);
  }

  toggle(name, value) {
    const set = this.chosen.get(name);
    if (!set.delete(value)) set.add(value);
  }

  clear() {
    for (const set of this.chosen.values()) set.clear();
    this.query = "";
    this.within = null;
  }

  get active() {
    return [...this.chosen.values()].reduce((sum, set) => sum + set.size, 0) + (this.query ? 1 : 0);
  }
}

const FLAGS = [[1, "wrong calculation"], [2, "think block open"], [4, "verifiers disagree"], [8, "near duplicate"], [16, "contaminated"]];

// A facet: its values in order, [value, name]; those that no row has are left out.
function facetsOf(index) {
  const { rows, names, problems } = index;
  const named = (name, title, column, words) => single(name, title, words.map((word, code) => [code, dom.words(word)]), (row) => column[row]);
  const facets = [
    single("status", "Status", [...names.status.map((word, code) => [code, word]), [-1, "undecided"]], (row) => rows.status[row]),
    named("drop", "Dropped by", rows.drop, names.drop),
    single("outcome", "Verdict", [...names.outcome.map((word, code) => [code, `${dom.sign(word)} ${dom.words(word)}`]), [-1, "· not verified"]], (row) => rows.outcome[row]),
    single("author", "Author", names.author.map((word, code) => [code, word]), (row) => rows.author[row]),
    single("teacher", "Written by", [[1, "teacher"], [0, "student"]], (row) => rows.teacher[row]),
    rows.step ? single("step", "Optimizer step", steps(rows.step), (row) => rows.step[row] ?? -1) : null,
    single("source", "Source", problems.sources.map((word, code) => [code, word]), (row) => problems.source[rows.problem[row]]),
    {
      name: "flags", title: "Look at", values: FLAGS,
      has: (row, set) => { for (const bit of set) if (rows.flags[row] & bit) return true; return false; },
      count: (row, counts) => { for (const [bit] of FLAGS) if (rows.flags[row] & bit) counts.set(bit, counts.get(bit) + 1); },
    },
  ];
  return facets.filter((facet) => facet && worthAsking(facet, index.rows.id.length));
}

function single(name, title, values, valueOf) {
  return {
    name, title, values,
    has: (row, set) => set.has(valueOf(row)),
    count: (row, counts) => counts.set(valueOf(row), (counts.get(valueOf(row)) || 0) + 1),
  };
}

function steps(column) {
  const distinct = [...new Set(column.filter((step) => step !== null))].sort((a, b) => a - b);
  return distinct.map((step) => [step, `step ${step}`]);
}

// What every row has divides nothing.
function worthAsking(facet, size) {
  const counts = new Map(facet.values.map(([value]) => [value, 0]));
  for (let row = 0; row < size; row++) facet.count(row, counts);
  facet.values = facet.values.filter(([value]) => counts.get(value));
  const [first, ...others] = facet.values;
  return first !== undefined && (others.length > 0 || counts.get(first[0]) < size);
}
