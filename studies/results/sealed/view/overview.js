"use strict";
// What the run holds, in numbers: the funnel, who was right, how long, how often.

const overview = (() => {
  const { el, number, percent } = dom;
  const OUTCOMES = ["correct", "wrong", "unknown", "none"];
  const TITLES = { correct: "correct", wrong: "wrong", unknown: "undecided", none: "not verified" };

  function build(index) {
    const { rows } = index;
    index.mixed = rows.teacher.includes(1) && rows.teacher.includes(0);
    const sections = [
      cards(index), funnel(index), authors(index),
      el("div", { class: "plots" }, lengths(index), passRates(index), rows.step ? rewards(index) : null),
      disagreements(index),
    ];
    return el("div", { class: "overview" }, sections);
  }

  const section = (title, note, ...content) =>
    el("section", { class: "block" }, el("h2", {}, title), note ? el("p", { class: "quiet" }, note) : null, content);

  function group(index, row) {
    const outcome = index.names.outcome[index.rows.outcome[row]];
    return outcome === "correct" || outcome === "wrong" ? outcome : outcome ? "unknown" : "none";
  }

  // Beside a student, its teacher's rows are there to be learnt from: rates are the student's.
  const counts = (index, row) => !index.mixed || !index.rows.teacher[row];

  function cards(index) {
    const { rows } = index;
    let kept = 0;
    let decided = 0;
    let right = 0;
    let judged = 0;
    for (let row = 0; row < rows.id.length; row++) {
      if (rows.status[row] >= 0) decided++;
      if (index.names.status[rows.status[row]] === "kept") kept++;
      if (!counts(index, row)) continue;
      const state = group(index, row);
      if (state !== "none") judged++;
      if (state === "correct") right++;
    }
    const card = (value, text) => el("div", { class: "card" }, el("strong", {}, value), el("span", {}, text));
    const shown = [card(number(rows.id.length), "traces"), card(number(index.problems.id.length), "problems"), card(number(index.names.author.length), index.names.author.length === 1 ? "author" : "authors")];
    if (judged) shown.push(card(percent(right, judged), index.mixed ? "of the student's verified correct" : "verified correct"));
    if (decided) shown.push(card(percent(kept, decided), `kept: ${number(kept)}`));
    return el("div", { class: "cards" }, shown);
  }

  function funnel(index) {
    const stages = index.funnel.funnel;
    if (!stages?.length) return null;
    const widest = Math.max(...stages.map((stage) => stage.traces), 1);
    const lines = stages.map((stage) => {
      const bar = el("span", { class: "funnel-bar" });
      bar.style.width = `${(100 * stage.traces) / widest}%`;
      return el("li", {},
        el("span", { class: "funnel-name" }, stage.stage),
        el("span", { class: "funnel-track" }, bar, el("span", { class: "funnel-count" }, `${dom.many(stage.traces, "trace")}, ${dom.many(stage.problems, "problem")}`)),
        el("span", { class: "funnel-dropped" }, stage.dropped ? `−${number(stage.dropped)}` : ""),
        el("span", { class: "funnel-reasons" }, Object.entries(stage.reasons || {}).sort((a, b) => b[1] - a[1]).map(([rule, count]) => reason(index, stage.stage, rule, count))));
    });
    return section("Funnel", "What each stage left. A trace can fail several rules; it is filed under the first, whose button opens it.", el("ol", { class: "funnel" }, lines));
  }

  function reason(index, stage, rule, count) {
    const code = index.names.drop.indexOf(`${stage}: ${rule}`);
    const text = `${dom.words(rule)} ${number(count)}`;
    if (code < 0) return el("span", { class: "reason" }, text);
    return el("button", { type: "button", class: "reason", onclick: () => page.filter("drop", code) }, text);
  }

  function authors(index) {
    const { rows, names } = index;
    const tally = names.author.map(() => ({ all: 0, correct: 0, wrong: 0, unknown: 0, kept: 0 }));
    for (let row = 0; row < rows.id.length; row++) {
      const of = tally[rows.author[row]];
      if (!of) continue;
      of.all++;
      const state = group(index, row);
      if (state !== "none") of[state]++;
      if (names.status[rows.status[row]] === "kept") of.kept++;
    }
    const decided = names.status.length > 0;
    const lines = tally.map((of, code) => [
      el("button", { type: "button", class: "link", onclick: () => page.filter("author", code) }, names.author[code]),
      number(of.all), share(of.correct, of.all), number(of.wrong), number(of.unknown), ...(decided ? [share(of.kept, of.all)] : [])]);
    return section("Authors", null, dom.table(["Author", "Traces", "Correct", "Wrong", "Undecided", ...(decided ? ["Kept"] : [])], lines, { class: "numbers" }));
  }

  function share(part, whole) {
    return [number(part), el("span", { class: "quiet" }, ` ${percent(part, whole)}`)];
  }

  function lengths(index) {
    const { rows } = index;
    const counted = rows.tokens.some((tokens) => tokens >= 0);
    const column = counted ? rows.tokens : rows.characters;
    const present = Array.from(column).filter((value) => value >= 0).sort((a, b) => a - b);
    if (!present.length) return null;
    // The longest hundredth would press the rest together: it shares the last bar.
    const high = Math.max(present[Math.floor(0.99 * (present.length - 1))], 1);
    const width = niceWidth(high / 28);
    const bins = Math.max(Math.ceil((high + 1) / width), 1);
    const groups = stacked(bins, (add) => column.forEach((value, row) => { if (value >= 0) add(group(index, row), Math.min(Math.floor(value / width), bins - 1)); }));
    const unit = counted ? "tokens" : "characters";
    const median = present[Math.floor(present.length / 2)];
    return section("Length", `Median ${number(median)} ${unit}, longest ${number(present.at(-1))}. The last bar holds all longer ones.`,
      plots.histogram({ label: `Histogram of response lengths in ${unit}`, xLabel: unit, edges: Array.from({ length: bins + 1 }, (_, bin) => bin * width), groups }));
  }

  function niceWidth(rough) {
    const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
    return Math.max(1, [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough) || 1);
  }

  function stacked(bins, visit) {
    const columns = Object.fromEntries(OUTCOMES.map((name) => [name, new Array(bins).fill(0)]));
    visit((name, bin) => columns[name][bin]++);
    return OUTCOMES.filter((name) => columns[name].some(Boolean)).map((name) => ({ name: TITLES[name], class: `outcome-${name}`, counts: columns[name] }));
  }

  function passRates(index) {
    const { rows, problems } = index;
    const right = new Int32Array(problems.id.length);
    const judged = new Int32Array(problems.id.length);
    for (let row = 0; row < rows.id.length; row++) {
      if (!counts(index, row)) continue;
      const state = group(index, row);
      if (state !== "correct" && state !== "wrong" && index.names.outcome[rows.outcome[row]] !== "no_answer") continue;
      judged[rows.problem[row]]++;
      if (state === "correct") right[rows.problem[row]]++;
    }
    const bins = 10;
    const shares = new Array(bins).fill(0);
    let never = 0;
    let always = 0;
    let several = 0;
    judged.forEach((count, place) => {
      if (!count) return;
      if (count > 1) several++;
      if (!right[place]) never++;
      if (right[place] === count) always++;
      shares[Math.min(Math.floor((bins * right[place]) / count), bins - 1)]++;
    });
    if (!several) return null; // a rate over one sample is the verdict again
    return section("Pass rate", `Problems by their share of correct traces: ${number(never)} never solved, ${number(always)} always.`,
      plots.histogram({ label: "Histogram of pass rates over problems", xLabel: "share of correct traces", edges: Array.from({ length: bins + 1 }, (_, bin) => bin / bins),
        edgeLabel: (value) => `${Math.round(100 * value)} %`, groups: [{ name: "problems", class: "neutral", counts: shares }] }));
  }

  function rewards(index) {
    const { rows } = index;
    const sums = new Map(); // teacher → step → [sum, count]
    for (let row = 0; row < rows.id.length; row++) {
      const reward = rows.reward?.[row];
      if (rows.step[row] === null || reward === null || reward === undefined) continue;
      const steps = sums.get(rows.teacher[row]) || new Map();
      sums.set(rows.teacher[row], steps);
      const [sum, count] = steps.get(rows.step[row]) || [0, 0];
      steps.set(rows.step[row], [sum + reward, count + 1]);
    }
    const series = [...sums].map(([teacher, steps]) => ({
      name: teacher ? "teacher" : "student", class: teacher ? "teacher" : "student",
      points: [...steps].sort((a, b) => a[0] - b[0]).map(([step, [sum, count]]) => [step, sum / count]) }));
    if (!series.length) return null;
    return section("Reward", "Mean over the rollouts of each optimizer step.", plots.lines({ label: "Mean reward by optimizer step", xLabel: "optimizer step", series }));
  }

  function disagreements(index) {
    if (!index.disagreements.length) return null;
    const lines = index.disagreements.map((one) => [one.other, dom.outcomeChip(one.ours), dom.outcomeChip(one.other_says), number(one.count)]);
    return section("Disagreements", "Where another verifier, or the data set's own flag, says otherwise.", dom.table(["Other", "Ours says", "Other says", "Traces"], lines),
      el("p", {}, el("button", { type: "button", class: "link", onclick: () => page.filter("flags", 4) }, "Read them")));
  }

  return { build };
})();
