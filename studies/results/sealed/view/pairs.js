"use strict";
// Pairs: near duplicates, and problems that stand in a benchmark; what both sides share is marked.

const pairsView = (() => {
  const { el } = dom;
  const KINDS = { contamination: "Contaminated", problem: "Problems alike", trace: "Traces alike" };
  const SHINGLE = 5; // words; the curation's default for near duplicates
  let list;
  let panel;
  let current = -1;

  function build(index) {
    const { pairs } = index;
    if (!pairs.kind.length) return el("p", { class: "empty" }, "No near duplicates and no contaminated problems were found in this run.");
    const kinds = [...new Set(pairs.kind)];
    list = new VirtualList({ label: "Pairs", rowHeight: 62, make: () => el("div", { class: "row pair-row" }, el("span", { class: "row-text" }), el("span", { class: "row-facts" })),
      fill: (node, place) => {
        VirtualList.write(node.children[0], pairs.preview[place]);
        VirtualList.write(node.children[1], `${KINDS[pairs.kind[place]]} · ${score(pairs.kind[place], pairs.score[place])} · ${pairs.label[place]}`);
      },
      open: (place) => page.go(`pair/${place}`) });
    const all = pairs.kind.map((_, place) => place);
    const choose = el("select", { "aria-label": "Kind", onchange: () => list.show(all.filter((place) => !choose.value || pairs.kind[place] === choose.value)) },
      el("option", { value: "" }, `all ${dom.many(all.length, "pair")}`),
      kinds.map((kind) => el("option", { value: kind }, `${KINDS[kind]}: ${dom.number(pairs.kind.filter((one) => one === kind).length)}`)));
    panel = el("div", { class: "panel", tabindex: "-1" }, el("p", { class: "empty" }, "Choose a pair."));
    list.show(all);
    return el("div", { class: "traces pairs" }, el("section", { class: "middle", "aria-label": "List" }, el("div", { class: "list-head" }, choose), list.node), panel);
  }

  const score = (kind, value) => (kind === "contamination" ? (value ? dom.many(value, "shared n-gram") : "near match") : `Jaccard ${value.toFixed(3)}`);

  async function show(place) {
    if (!list || !(place >= 0 && place < tracekit.index.pairs.kind.length)) return;
    current = place;
    const at = list.items.indexOf(place);
    if (at >= 0 && at !== list.chosen) list.choose(at, { quiet: true });
    try {
      const pair = await tracekit.pair(place);
      const [left, right] = await texts(pair);
      if (place !== current) return;
      const words = pair.ngram ? pair.ngram.trim().split(/\s+/).length : SHINGLE;
      const [leftNode, rightNode] = marked(left, right, words);
      panel.closest(".traces").classList.add("opened");
      panel.replaceChildren(
        el("div", { class: "tools" }, el("button", { type: "button", class: "back", onclick: close }, "← List")),
        el("p", { class: "quiet pair-note" }, `${KINDS[pair.kind]}: ${score(pair.kind, pair.score)}. Marked: runs of ${words} words or more that stand on both sides.`),
        el("div", { class: "columns two" }, side(pair.kind === "contamination" ? "This run" : "First", pair.leftId, leftNode, pair.kind), side(pair.kind === "contamination" ? pair.label : "Second", pair.rightId, rightNode, pair.kind)));
      panel.scrollTop = 0;
    } catch (error) {
      panel.replaceChildren(el("p", { class: "empty" }, error.message));
    }
  }

  async function texts(pair) {
    if (pair.kind !== "trace") return [pair.left, pair.right];
    const both = await Promise.all([tracekit.trace(Number(pair.left)), tracekit.trace(Number(pair.right))]);
    return both.map((trace) => trace.text);
  }

  function side(name, id, node, kind) {
    return el("section", { class: "problem" }, el("div", { class: "problem-head" }, el("h2", {}, name),
      id && kind === "trace" ? el("button", { type: "button", class: "link", onclick: () => page.go(`trace/${encodeURIComponent(id)}`) }, id) : el("span", { class: "quiet" }, id)), node);
  }

  // Words that belong to a run of n shared words are marked on both sides.
  function marked(left, right, n) {
    const tokens = [left, right].map((text) => text.match(/\S+|\s+/g) || []);
    const words = tokens.map((all) => all.map((token, place) => [token, place]).filter(([token]) => /\S/.test(token)));
    const grams = words.map((all) => {
      const seen = new Map();
      for (let at = 0; at + n <= all.length; at++) {
        const gram = all.slice(at, at + n).map(([token]) => token.toLowerCase()).join(" ");
        if (!seen.has(gram)) seen.set(gram, []);
        seen.get(gram).push(at);
      }
      return seen;
    });
    return [0, 1].map((which) => {
      const inside = new Set();
      for (const [gram, places] of grams[which]) {
        if (!grams[1 - which].has(gram)) continue;
        for (const at of places) for (let word = at; word < at + n; word++) inside.add(words[which][word][1]);
      }
      return el("div", { class: "prose" }, runs(tokens[which], inside));
    });
  }

  function runs(tokens, inside) {
    const nodes = [];
    for (let at = 0; at < tokens.length;) {
      const on = inside.has(at);
      let end = at + 1;
      while (end < tokens.length && (inside.has(end) === on || (on && !/\S/.test(tokens[end]) && inside.has(end + 1)))) end++;
      const text = tokens.slice(at, end).join("");
      nodes.push(on ? el("mark", {}, text) : text);
      at = end;
    }
    return nodes;
  }

  function close() {
    panel.closest(".traces").classList.remove("opened");
    list.node.focus();
  }

  const keys = { j: () => list?.move(1), k: () => list?.move(-1), ArrowDown: () => list?.move(1), ArrowUp: () => list?.move(-1), Escape: () => list && close() };

  return { build, show, keys };
})();
