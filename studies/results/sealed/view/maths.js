"use strict";
// Text with LaTeX in it → text nodes and KaTeX. The scanner is linear in the text, whatever stands in it.

const maths = (() => {
  const LONGEST = 4000; // characters of one formula; more is shown as text
  const PAIRS = [
    { open: "$$", close: "$$", display: true },
    { open: "\\[", close: "\\]", display: true },
    { open: "\\(", close: "\\)", display: false },
  ];
  // trust off: no links, no HTML. Bounds: a macro cannot grow and a rule cannot cover the page.
  const options = (displayMode) => ({
    displayMode, trust: false, strict: "ignore", maxExpand: 300, maxSize: 20, throwOnError: true,
    globalGroup: false, macros: {}, output: "htmlAndMathml",
  });

  let enabled = true;

  // [{text} or {tex, display, raw}]
  function split(text) {
    const pieces = [];
    const next = new Map(); // delimiter → place of its next occurrence; asked again only once passed
    const find = (mark, from) => {
      let place = next.get(mark);
      if (place === undefined || (place >= 0 && place < from)) {
        place = text.indexOf(mark, from);
        next.set(mark, place);
      }
      return place;
    };
    let plain = 0;
    let at = 0;
    const push = (start, end, tex, display) => {
      if (start > plain) pieces.push({ text: text.slice(plain, start) });
      pieces.push({ tex, display, raw: text.slice(start, end) });
      plain = at = end;
    };
    while (at < text.length) {
      const dollar = find("$", at);
      const slash = find("\\", at);
      const start = dollar < 0 ? slash : slash < 0 ? dollar : Math.min(dollar, slash);
      if (start < 0) break;
      at = start + 1;
      const kind = PAIRS.find((pair) => text.startsWith(pair.open, start));
      if (kind) {
        const end = find(kind.close, start + 2);
        if (end > start + 2 && end - start < LONGEST) push(start, end + 2, text.slice(start + 2, end), kind.display);
        else at = start + 2;
      } else if (start === dollar) {
        const end = inlineEnd(text, start);
        if (end > 0) push(start, end + 1, text.slice(start + 1, end), false);
      } else if (text.startsWith("\\begin{", start)) {
        environment(text, start, find, push);
      } else if (text.startsWith("\\boxed{", start)) {
        const end = balanced(text, start + 6);
        if (end > 0) push(start, end, text.slice(start, end), false);
      } else {
        at = start + 2; // an escaped sign
      }
    }
    if (plain < text.length) pieces.push({ text: text.slice(plain) });
    return pieces;
  }

  // What begins with a sum of money and goes on in words: "80,000 and the repairs cost ". A command is no word.
  const PRICE = /^\d[\d,.]*\s+(?:[A-Za-z]{2,}\s+)+[A-Za-z]{3,}\s/;

  // `$` is maths only where it hugs what it encloses and no digit follows: "$5 and $10" are prices.
  function inlineEnd(text, start) {
    if (/\s/.test(text[start + 1] || " ") || (start && text[start - 1] === "\\")) return -1;
    const last = Math.min(text.length, start + 500);
    for (let at = start + 1; at < last; at++) {
      if (text[at] === "\\") at++;
      else if (text[at] === "\n" && text[at + 1] === "\n") return -1;
      else if (text[at] === "$") {
        const inside = text.slice(start + 1, at);
        return inside && !/\s$/.test(inside) && !/\d/.test(text[at + 1] || "") && !PRICE.test(inside) ? at : -1;
      }
    }
    return -1;
  }

  function environment(text, start, find, push) {
    const name = /^\\begin\{([a-z]{1,12}\*?)\}/.exec(text.slice(start, start + 24));
    if (!name) return;
    const close = `\\end{${name[1]}}`;
    const end = find(close, start);
    if (end > 0 && end - start < LONGEST) push(start, end + close.length, text.slice(start, end + close.length), true);
  }

  function balanced(text, open) {
    let depth = 0;
    const last = Math.min(text.length, open + 500);
    for (let at = open; at < last; at++) {
      if (text[at] === "\\") at++;
      else if (text[at] === "{") depth++;
      else if (text[at] === "}" && --depth === 0) return at + 1;
    }
    return -1;
  }

  function formula(piece) {
    const node = document.createElement("span");
    node.className = piece.display ? "maths display" : "maths";
    try {
      katex.render(piece.tex, node, options(piece.display));
      node.title = piece.raw;
    } catch (error) { // LaTeX that KaTeX refuses is shown as it was written; deep nesting is a RangeError
      node.textContent = piece.raw;
      node.className = "maths refused";
      node.title = error instanceof katex.ParseError ? error.message : "too deeply nested to be set";
    }
    return node;
  }

  // Fill `node` with the text as it stands.
  function fill(node, text) {
    node.textContent = text;
    if (!enabled || !(text.includes("$") || text.includes("\\"))) return;
    lazily(node, text);
  }

  const pending = new WeakMap();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      const text = pending.get(entry.target);
      if (text !== undefined) set(entry.target, text);
    }
  }, { rootMargin: "600px" });

  // Maths is set when it comes near the window: a trace of a thousand formulas opens at once.
  function lazily(node, text) {
    pending.set(node, text);
    observer.observe(node);
  }

  function set(node, text) {
    pending.delete(node);
    node.replaceChildren(...split(text).map((piece) => (piece.tex === undefined ? piece.text : formula(piece))));
  }

  return { fill, split, get enabled() { return enabled; }, toggle() { enabled = !enabled; } };
})();
