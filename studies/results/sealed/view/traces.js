"use strict";
// The view of traces: filters, list, and the trace beside another of the same problem.

const tracesView = (() => {
  const { el, number } = dom;
  let filters;
  let list;
  let node;
  let facetsNode;
  let countNode;
  let panel;
  let searching = 0;
  let current = -1;
  let beside = -1;
  let settled = false; // the reader has chosen what stands beside, for as long as the problem is the same
  let siblingsOf = null;
  let search;

  function build(index) {
    filters = new Filters(index);
    siblingsOf = siblings(index);
    list = new VirtualList({ label: "Traces", rowHeight: 62, make: makeRow, fill: fillRow, open: (row) => page.go(`trace/${encodeURIComponent(index.rows.id[row])}`) });
    countNode = el("p", { class: "count", role: "status" });
    facetsNode = el("div", { class: "facets" });
    panel = el("div", { class: "panel", tabindex: "-1" }, empty());
    search = el("input", { type: "search", placeholder: "Search problems, answers, ids", "aria-label": "Search problems, answers and ids", autocomplete: "off", spellcheck: "false",
      oninput: () => { filters.query = search.value; filters.within = null; searching++; refresh(); },
      onkeydown: (event) => { if (event.key === "Enter") searchTexts(); } });
    const order = el("select", { "aria-label": "Order", onchange: () => { filters.order = order.value; refresh(); } },
      [["source", "in source order"], ["problem", "by problem"], ["longest", "longest first"], ["shortest", "shortest first"]].map(([value, text]) => el("option", { value }, text)));
    node = el("div", { class: "traces" },
      el("aside", { class: "side", "aria-label": "Filters" },
        el("button", { type: "button", class: "side-toggle", "aria-expanded": "false", onclick: foldFilters }, "Filters"), facetsNode),
      el("section", { class: "middle", "aria-label": "List" },
        el("div", { class: "search" }, search, el("button", { type: "button", onclick: searchTexts, title: "Read every response for these words (Enter)" }, "All text")),
        el("div", { class: "list-head" }, countNode, order), list.node),
      panel);
    refresh();
    return node;
  }

  // In a narrow window the filters stand behind their button.
  function foldFilters(event) {
    const open = event.target.parentElement.classList.toggle("unfolded");
    event.target.setAttribute("aria-expanded", String(open));
  }

  const empty = () => el("p", { class: "empty" }, "Choose a trace. ", el("kbd", {}, "j"), " and ", el("kbd", {}, "k"), " walk through the list.");

  function makeRow() {
    return el("div", { class: "row" }, el("span", { class: "row-sign" }), el("span", { class: "row-text" }), el("span", { class: "row-facts" }));
  }

  function fillRow(element, row) {
    const { rows, names, problems } = tracekit.index;
    const outcome = names.outcome[rows.outcome[row]];
    const [sign, text, facts] = element.children;
    if (sign.outcome !== outcome || !sign.firstChild) {
      sign.outcome = outcome;
      VirtualList.write(sign, dom.sign(outcome));
      sign.className = `row-sign ${dom.tone(outcome)}`;
      sign.title = dom.words(outcome);
    }
    VirtualList.write(text, problems.preview[rows.problem[row]]);
    const said = [names.author[rows.author[row]] ?? "", traceView.length(row)];
    if (rows.step && rows.step[row] !== null) said.unshift(`step ${rows.step[row]}`);
    const status = names.status[rows.status[row]];
    if (status === "dropped") said.push(`✗ ${names.drop[rows.drop[row]] || "dropped"}`);
    if (status === "rejected side") said.push("rejected side");
    VirtualList.write(facts, said.join(" · "));
    element.classList.toggle("dropped", status === "dropped");
  }

  function refresh() {
    const { rows, counts } = filters.apply();
    list.show(rows, rows.indexOf(current));
    list.node.classList.toggle("nothing", !rows.length);
    const total = filters.size;
    countNode.textContent = rows.length === total ? dom.many(total, "trace") : `${number(rows.length)} of ${dom.many(total, "trace")}`;
    drawFacets(counts);
  }

  function drawFacets(counts) {
    const focused = document.activeElement?.dataset?.facet;
    const folded = new Set([...facetsNode.querySelectorAll("details:not([open])")].map((one) => one.dataset.name));
    const groups = filters.facets.map((facet) => el("details", { class: "facet", open: !folded.has(facet.name), "data-name": facet.name }, el("summary", {}, facet.title),
      facet.values.map(([value, name]) => {
        const count = counts.get(facet.name).get(value) || 0;
        const on = filters.chosen.get(facet.name).has(value);
        return el("label", { class: `choice${count || on ? "" : " none"}` },
          el("input", { type: "checkbox", checked: on, "data-facet": `${facet.name}/${value}`, onchange: () => { filters.toggle(facet.name, value); refresh(); } }),
          el("span", { class: "choice-name", title: name }, name), el("span", { class: "choice-count" }, number(count)));
      })));
    const clear = el("button", { type: "button", class: "clear", disabled: !filters.active, onclick: () => { filters.clear(); search.value = ""; refresh(); } }, "Clear filters");
    facetsNode.replaceChildren(...groups, clear);
    if (focused) facetsNode.querySelector(`[data-facet="${CSS.escape(focused)}"]`)?.focus();
  }

  // The index holds no responses: their words are looked for shard by shard, and only matches are kept.
  async function searchTexts() {
    const query = filters.query.trim().toLowerCase();
    if (!query) return;
    const mine = ++searching;
    const found = new Set();
    try {
      await tracekit.scan((row, text) => { if (text.toLowerCase().includes(query)) found.add(row); },
        (done, all) => { if (mine === searching) countNode.textContent = `reading ${done} of ${all} shards, ${number(found.size)} found`; },
        () => mine !== searching);
    } catch (error) {
      if (mine === searching) countNode.textContent = error.message;
      return;
    }
    if (mine !== searching) return;
    filters.within = found;
    refresh();
  }

  // The rows of each problem, as [starts, rows]: a counting sort.
  function siblings(index) {
    const { problem } = index.rows;
    const starts = new Int32Array(index.problems.id.length + 1);
    for (const one of problem) starts[one + 1]++;
    for (let at = 1; at < starts.length; at++) starts[at] += starts[at - 1];
    const next = starts.slice();
    const order = new Int32Array(problem.length);
    for (let row = 0; row < problem.length; row++) order[next[problem[row]]++] = row;
    return (row) => Array.from(order.subarray(starts[problem[row]], starts[problem[row] + 1]));
  }

  async function show(id) {
    const { rows } = tracekit.index;
    const row = rows.id.indexOf(id);
    if (row < 0) {
      panel.replaceChildren(el("p", { class: "empty" }, `No trace is called ${id}.`));
      return;
    }
    const family = siblingsOf(row);
    const sameProblem = current >= 0 && rows.problem[current] === rows.problem[row];
    current = row;
    if (!sameProblem || beside === row) settled = false;
    if (!settled) beside = defaultBeside(row, family);
    const place = list.items.indexOf(row);
    if (place >= 0 && place !== list.chosen) list.choose(place, { quiet: true });
    await draw(family);
  }

  // A student's rollout stands beside its teacher's trace.
  function defaultBeside(row, family) {
    const { teacher } = tracekit.index.rows;
    if (teacher[row]) return -1;
    return family.find((one) => teacher[one] && one !== row) ?? -1;
  }

  async function draw(family = siblingsOf(current)) {
    const row = current;
    node.classList.add("opened");
    try {
      const trace = await tracekit.trace(row);
      const { teacher } = tracekit.index.rows;
      const alike = beside >= 0 && teacher[beside] === teacher[row];
      const name = (one) => (alike ? (one === row ? "This trace" : "Beside it") : teacher[one] ? "Teacher" : "Student");
      const columns = beside >= 0
        ? [await traceView.render(beside, { heading: name(beside) }), await traceView.render(row, { heading: name(row) })]
        : [await traceView.render(row)];
      if (row !== current) return; // another was chosen meanwhile
      panel.replaceChildren(tools(), traceView.problem(trace, row), family.length > 1 ? relatives(family) : "",
        el("div", { class: beside >= 0 ? "columns two" : "columns" }, columns));
      panel.scrollTop = 0;
    } catch (error) {
      panel.replaceChildren(tools(), el("p", { class: "empty" }, error.message));
    }
  }

  function tools() {
    return el("div", { class: "tools" },
      el("button", { type: "button", class: "back", onclick: close }, "← List"),
      el("button", { type: "button", onclick: () => toggleMaths() }, maths.enabled ? "Show source" : "Set maths"),
      beside >= 0 ? el("button", { type: "button", onclick: () => putBeside(-1) }, "One column") : null);
  }

  // All traces of the problem, by author and step: a sign each, to be opened or put beside.
  function relatives(family) {
    const { rows, names } = tracekit.index;
    const groups = new Map();
    const mixed = family.some((row) => rows.teacher[row]) && family.some((row) => !rows.teacher[row]);
    for (const row of family) {
      const step = rows.step && rows.step[row] !== null ? `step ${rows.step[row]}` : "";
      const name = [mixed ? (rows.teacher[row] ? "teacher" : "student") : "", names.author[rows.author[row]], step].filter(Boolean).join(" · ");
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(row);
    }
    const right = family.filter((row) => names.outcome[rows.outcome[row]] === "correct").length;
    return el("details", { class: "relatives", open: true },
      el("summary", {}, el("h3", {}, `${family.length} traces of this problem`), el("span", { class: "quiet" }, `${right} correct · click opens, Shift-click puts beside`)),
      el("div", { class: "relatives-grid" }, [...groups].map(([name, members]) => el("div", { class: "relatives-line" },
        el("span", { class: "relatives-name", title: name }, name), el("span", { class: "dots" }, members.map(dot))))));
  }

  function dot(row) {
    const { rows, names } = tracekit.index;
    const outcome = names.outcome[rows.outcome[row]];
    const state = row === current ? " here" : row === beside ? " beside" : "";
    return el("button", { type: "button", class: `dot ${dom.tone(outcome)}${state}`, "aria-current": row === current ? "true" : null,
      title: `${dom.words(outcome)} · ${traceView.length(row)}${rows.status[row] >= 0 ? ` · ${names.status[rows.status[row]]}` : ""}`,
      "aria-label": `${names.author[rows.author[row]]}, ${dom.words(outcome)}, ${traceView.length(row)}`,
      onclick: (event) => {
        if (!event.shiftKey) return page.go(`trace/${encodeURIComponent(rows.id[row])}`);
        putBeside(row === current || row === beside ? -1 : row);
      } }, dom.sign(outcome));
  }

  function close() {
    node.classList.remove("opened");
    list.node.focus();
  }

  function toggleMaths() {
    maths.toggle();
    if (current >= 0) draw();
  }

  // The next trace of the same problem goes beside the one that is read.
  function compare() {
    if (current < 0) return;
    const others = siblingsOf(current).filter((row) => row !== current);
    const place = others.indexOf(beside);
    putBeside(place + 1 < others.length ? others[place + 1] : -1);
  }

  function putBeside(row) {
    beside = row;
    settled = true;
    draw();
  }

  function stepBy(by) {
    const nodes = [...panel.querySelectorAll(".columns > :last-child .step")];
    const top = panel.getBoundingClientRect().top + 8;
    const at = nodes.findIndex((one) => one.getBoundingClientRect().top > top + 4);
    const here = at < 0 ? nodes.length : at;
    nodes[Math.min(Math.max(by > 0 ? here : here - 2, 0), nodes.length - 1)]?.scrollIntoView({ block: "start" });
  }

  function choose(name, value) {
    filters.clear();
    search.value = "";
    if (filters.chosen.has(name)) filters.toggle(name, value);
    refresh();
  }

  const keys = {
    j: () => list.move(1), k: () => list.move(-1), ArrowDown: () => list.move(1), ArrowUp: () => list.move(-1),
    PageDown: () => list.move(10), PageUp: () => list.move(-10), Home: () => list.choose(0), End: () => list.choose(list.items.length - 1),
    "/": () => search.focus(), m: toggleMaths, c: compare, "[": () => stepBy(-1), "]": () => stepBy(1), Escape: close,
  };

  return { build, show, keys, choose, get list() { return list; } };
})();
