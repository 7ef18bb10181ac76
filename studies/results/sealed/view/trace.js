"use strict";
// One trace, from problem to decisions. Model text enters as text alone.

const traceView = (() => {
  const { el, chip, outcomeChip, number, table, words } = dom;

  async function render(row, { heading = null } = {}) {
    const { index } = tracekit;
    const trace = await tracekit.trace(row);
    const { rows } = index;
    return el("article", { class: "trace", "aria-label": `Trace ${rows.id[row]}`, "data-row": row },
      el("header", { class: "trace-head" },
        heading ? el("p", { class: "eyebrow" }, heading) : null,
        el("div", { class: "chips" }, facts(row)),
        el("p", { class: "id" }, rows.id[row])),
      verdicts(trace),
      body(trace, index.stepKinds),
      decisions(trace));
  }

  function facts(row) {
    const { rows, names } = tracekit.index;
    const said = [outcomeChip(names.outcome[rows.outcome[row]])];
    const status = names.status[rows.status[row]];
    if (status === "kept") said.push(chip("kept", "good"));
    if (status === "rejected side") said.push(chip("kept as the rejected side of a pair", "unknown"));
    if (status === "dropped") said.push(chip(`dropped by ${names.drop[rows.drop[row]] || "?"}`, "bad"));
    said.push(chip(names.author[rows.author[row]] ?? "unknown author"));
    said.push(chip(length(row)));
    if (rows.step && rows.step[row] !== null) said.push(chip(`step ${rows.step[row]}`));
    if (rows.reward && rows.reward[row] !== null) said.push(chip(`reward ${number(rows.reward[row])}`));
    if (rows.advantage && rows.advantage[row] !== null) said.push(chip(`advantage ${number(rows.advantage[row])}`));
    for (const [bit, name] of FLAGS) if (rows.flags[row] & bit) said.push(chip(name, "unknown"));
    return said;
  }

  function length(row) {
    const { tokens, characters } = tracekit.index.rows;
    return tokens[row] >= 0 ? dom.many(tokens[row], "token") : dom.many(characters[row], "character");
  }

  // The problem with its gold; [problem, gold, kind, level, decisions].
  function problem(trace, row) {
    const { problems, rows } = tracekit.index;
    const place = rows.problem[row];
    const [text, , kind, level, told] = trace.problem || [problems.preview[place], "", "", null, []];
    const body = el("div", { class: "prose" });
    maths.fill(body, text || "");
    return el("section", { class: "problem", "aria-label": "Problem" },
      el("div", { class: "problem-head" }, el("h2", {}, "Problem"),
        el("span", { class: "quiet" }, [problems.sources[problems.source[place]], kind, level === null ? "" : `level ${number(level)}`].filter(Boolean).join(" · "))),
      body,
      told.some((one) => one[4] === "drop") ? decided("Decisions about the problem", told) : null);
  }

  function verdicts(trace) {
    const gold = trace.problem?.[1] ?? "";
    const rows = trace.verdicts.map(([verifier, version, outcome, prediction, , method, reason, seconds]) => [
      [verifier, version ? el("span", { class: "quiet" }, ` ${version}`) : null], outcomeChip(outcome), answer(prediction),
      !method ? "" : [method, seconds ? el("span", { class: "quiet" }, ` ${seconds < 0.001 ? "<1" : number(Math.round(seconds * 1000))} ms`) : null], reason]);
    return el("section", { class: "verdicts", "aria-label": "Answer" },
      el("dl", { class: "answers" },
        el("div", {}, el("dt", {}, "Gold"), el("dd", {}, answer(gold))),
        el("div", {}, el("dt", {}, "Extracted"), el("dd", {}, answer(trace.verdicts[0]?.[3])))),
      rows.length ? table(["Verifier", "Verdict", "Read as", "Method", "Reason"], rows) : el("p", { class: "quiet" }, "No verifier has judged this trace."));
  }

  // As written, and set where it is LaTeX.
  function answer(text) {
    if (text === null || text === undefined) return el("span", { class: "quiet" }, "none");
    if (text === "") return el("span", { class: "quiet" }, "empty");
    const code = el("code", {}, text);
    if (!/[\\^_{]/.test(text) || text.length > 300) return code;
    const set = el("span", { class: "set" });
    maths.fill(set, `\\(${text.replace(/^\$+|\$+$/g, "")}\\)`);
    return el("span", { class: "answer-both" }, set, code);
  }

  function body(trace, kinds) {
    const pieces = slicer(trace.text);
    const steps = unflat(trace.steps);
    const parts = [];
    if (trace.think) {
      const closed = trace.answer[0] < trace.answer[1] || trace.text.length > trace.think[1];
      const inside = steps.filter((step) => step.start < trace.think[1]);
      parts.push(el("details", { class: "part think", open: true },
        el("summary", {}, el("h3", {}, "Think"), el("span", { class: "quiet" }, `${dom.many(inside.length, "step")}${closed ? "" : " · never closed"}`)),
        flow(pieces, inside, trace.think, kinds)));
    }
    const [from, to] = trace.answer;
    const rest = steps.filter((step) => !trace.think || step.start >= trace.think[1]);
    if (to > from) {
      parts.push(el("section", { class: "part answer" },
        el("div", { class: "part-head" }, el("h3", {}, trace.think ? "Answer" : "Response"), el("span", { class: "quiet" }, dom.many(rest.length, "step"))),
        flow(pieces, rest, trace.answer, kinds)));
    }
    if (!parts.length) parts.push(el("p", { class: "empty" }, "The response is empty."));
    return el("div", { class: "response" }, steps.length > 1 ? strip(steps, kinds) : null, parts);
  }

  // Offsets count code points; JavaScript counts UTF-16 units.
  function slicer(text) {
    if (!/[\ud800-\udbff]/.test(text)) return (start, end) => text.slice(start, end);
    const points = Array.from(text);
    return (start, end) => points.slice(start, end).join("");
  }

  function unflat(flat) {
    const steps = [];
    for (let at = 0; at < flat.length; at += 4) {
      steps.push({ number: at / 4, start: flat[at], end: flat[at + 1], kind: flat[at + 2], correct: flat[at + 3] });
    }
    return steps;
  }

  // Steps in order; what stands between them and is not white space is shown too.
  function flow(pieces, steps, [from, to], kinds) {
    const nodes = [];
    let at = from;
    const between = (start, end) => {
      const text = pieces(start, end).trim();
      if (text) nodes.push(plain(text));
    };
    for (const step of steps) {
      between(at, step.start);
      nodes.push(stepNode(step, pieces(step.start, step.end), kinds[step.kind]));
      at = Math.max(at, step.end);
    }
    between(at, to);
    return el("div", { class: "steps" }, nodes);
  }

  function plain(text) {
    const node = el("div", { class: "prose" });
    maths.fill(node, text);
    return el("div", { class: "step unread" }, el("div", { class: "gutter" }), node);
  }

  function stepNode(step, text, kind) {
    const prose = el("div", { class: "prose" });
    maths.fill(prose, text);
    return el("div", { class: `step ${kind}${step.correct === 0 ? " faulty" : ""}`, "data-step": step.number },
      el("div", { class: "gutter" }, el("span", { class: "kind" }, kind),
        step.correct === 0 ? el("span", { class: "fault" }, "✗ arithmetic") : null),
      prose);
  }

  // The whole trace at a glance: each step as wide as its text, in its kind's colour.
  function strip(steps, kinds) {
    const bars = steps.map((step) => {
      const bar = el("button", { type: "button", class: `bar-step ${kinds[step.kind]}${step.correct === 0 ? " faulty" : ""}`, tabindex: "-1",
        title: `Step ${step.number + 1}: ${kinds[step.kind]}${step.correct === 0 ? ", wrong arithmetic" : ""}`,
        onclick: (event) => event.target.closest(".trace").querySelector(`[data-step="${step.number}"]`)?.scrollIntoView({ block: "center" }) });
      bar.style.flexGrow = String(step.end - step.start);
      return bar;
    });
    const present = [...new Set(steps.map((step) => step.kind))].sort((a, b) => a - b);
    return el("div", { class: "strip" },
      el("div", { class: "strip-bars", role: "img", "aria-label": `${dom.many(steps.length, "step")} in proportion to their length` }, bars),
      el("ul", { class: "legend" }, present.map((kind) => el("li", {}, el("span", { class: `swatch ${kinds[kind]}` }),
        `${kinds[kind]} ${steps.filter((step) => step.kind === kind).length}`))));
  }

  function decisions(trace) {
    return trace.decisions.length ? decided("Decisions", trace.decisions) : null;
  }

  // [stage, rule, measured, threshold, verdict, reason]
  function decided(title, told) {
    const rows = told.map(([stage, rule, measured, threshold, verdict, reason]) => [
      stage, words(rule), measured, threshold, chip(verdict === "keep" ? "✓ keep" : "✗ drop", verdict === "keep" ? "good" : "bad"), reason]);
    return el("section", { class: "decisions" }, el("h3", {}, title), table(["Stage", "Rule", "Measured", "Threshold", "Verdict", "Reason"], rows));
  }

  return { render, problem, length };
})();
