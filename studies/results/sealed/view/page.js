"use strict";
// Tabs, addresses, keys, theme.

const page = (() => {
  const { el } = dom;
  const TABS = [["overview", "Overview"], ["traces", "Traces"], ["pairs", "Pairs"]];
  const KEYS = [["1 2 3", "overview, traces, pairs"], ["j k ↓ ↑", "next, previous"], ["/", "search; Enter reads all text"], ["c", "put the next trace of the problem beside"],
    ["[ ]", "previous, next step"], ["m", "set maths, show its source"], ["t", "light or dark"], ["Esc", "back to the list"], ["?", "this table"]];
  const built = {};
  const view = document.getElementById("view");
  let tab = null;

  const builders = { overview: overview.build, traces: tracesView.build, pairs: pairsView.build };

  function open(name) {
    if (tab !== name) {
      tab = name;
      built[name] ??= builders[name](tracekit.index);
      view.replaceChildren(built[name]);
      view.className = `view-${name}`;
    }
    for (const link of document.querySelectorAll("#tabs a")) {
      if (link.dataset.tab === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  function route() {
    const [head, tail] = location.hash.slice(1).split("/", 2);
    if (head === "trace") {
      open("traces");
      tracesView.show(decodeURIComponent(tail || ""));
    } else if (head === "pair") {
      open("pairs");
      pairsView.show(Number(tail));
    } else {
      open(builders[head] ? head : "overview");
      if (head === "traces") tracesView.list?.node.focus();
    }
  }

  const go = (address) => { location.hash = address; };

  function filter(name, value) {
    go("traces");
    open("traces");
    tracesView.choose(name, value);
  }

  function theme() {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("tracekit-theme", root.dataset.theme); } catch { /* storage may be switched off for files */ }
  }

  function help() {
    const dialog = document.getElementById("help");
    if (dialog.open) return dialog.close();
    dialog.replaceChildren(el("h2", { id: "help-title" }, "Keys"),
      el("dl", { class: "keys" }, KEYS.map(([keys, text]) => el("div", {}, el("dt", {}, keys.split(" ").map((key) => el("kbd", {}, key))), el("dd", {}, text)))),
      el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
    dialog.showModal();
  }

  const everywhere = { t: theme, "?": help, 1: () => go("overview"), 2: () => go("traces"), 3: () => go("pairs") };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
    const typing = event.target.matches("input[type=search], select, textarea");
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const local = { traces: tracesView.keys, pairs: pairsView.keys }[tab] || {};
    const inPanel = event.target.closest?.(".panel") && /^(Arrow|Page|Home|End)/.test(event.key);
    const act = inPanel ? null : local[event.key] || everywhere[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  function start(index) {
    document.title = index.title;
    document.getElementById("title").textContent = index.title;
    const counts = { traces: index.rows.id.length, pairs: index.pairs.kind.length };
    document.getElementById("tabs").replaceChildren(...TABS.map(([name, title]) => el("a", { href: `#${name}`, "data-tab": name }, title,
      counts[name] === undefined ? null : el("span", { class: "tab-count" }, dom.number(counts[name])))));
    document.getElementById("theme").addEventListener("click", theme);
    document.getElementById("keys").addEventListener("click", help);
    document.addEventListener("keydown", onKey);
    window.addEventListener("hashchange", route);
    route();
    document.documentElement.dataset.ready = String(Math.round(performance.now())); // measured by benchmarks/viewer.py
  }

  try {
    const stored = localStorage.getItem("tracekit-theme");
    if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
  } catch { /* storage may be switched off for files */ }
  tracekit.whenReady(start);

  return { go, filter };
})();
