"use strict";
// Elements are made here, from names and text. Nothing on this page parses a string as HTML.

const dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SVG_TAGS = new Set(["svg", "g", "rect", "line", "path", "text", "circle", "title"]);

  // el("p", {class: "note", onclick: f}, "text", child, …): strings become text nodes.
  function el(tag, attributes = {}, ...children) {
    const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  // An outcome is told by sign and word as well as by colour.
  const SIGNS = { correct: "✓", wrong: "✗", no_answer: "∅", timeout: "◷" };
  const sign = (outcome) => (outcome ? SIGNS[outcome] || "?" : "·");
  const words = (name) => (name || "not verified").replaceAll("_", " ");

  function tone(outcome) {
    if (outcome === "correct") return "good";
    if (outcome === "wrong") return "bad";
    return outcome ? "unknown" : "none";
  }

  function chip(text, kind = "") {
    return el("span", { class: `chip ${kind}` }, text);
  }

  const outcomeChip = (outcome) => chip(`${sign(outcome)} ${words(outcome)}`, tone(outcome));

  const format = new Intl.NumberFormat("en-US", { maximumFractionDigits: 4 }); // once: toLocaleString makes one a call
  const number = (value) => format.format(value);
  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part === whole ? 0 : 1)} %` : "–");
  const many = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

  // A column that says nothing in any row is left out.
  function table(head, rows, attributes = {}) {
    const said = head.map((_, place) => rows.some((row) => row[place] !== null && row[place] !== undefined && row[place] !== ""));
    head = head.filter((_, place) => said[place]);
    rows = rows.map((row) => row.filter((_, place) => said[place]));
    const cells = (row) => row.map((cell, place) => el(place ? "td" : "th", place ? {} : { scope: "row" }, cell ?? ""));
    return el("div", { class: "table-wrap" },
      el("table", attributes,
        el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows.map((row) => el("tr", {}, cells(row))))));
  }

  return { el, chip, outcomeChip, sign, tone, words, number, percent, many, table };
})();
