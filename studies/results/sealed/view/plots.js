"use strict";
// Small plots in SVG. Each says in words what it shows, and each bar says its own count.

const plots = (() => {
  const { el, number } = dom;
  const WIDTH = 560;
  const HEIGHT = 200;
  const LEFT = 44;
  const RIGHT = 18;
  const BOTTOM = 34;
  const TOP = 10;

  function frame(label, xLabel, highest) {
    const svg = el("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, class: "plot" });
    const ticks = niceTicks(highest);
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * value) / (ticks.at(-1) || 1);
    for (const tick of ticks) {
      svg.append(el("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }),
        el("text", { x: LEFT - 6, y: y(tick) + 3.5, class: "tick end" }, short(tick)));
    }
    svg.append(el("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 3, class: "tick middle" }, xLabel));
    return { svg, y };
  }

  function niceTicks(highest) {
    if (!(highest > 0)) return [0, 1];
    const rough = highest / 3;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
    const ticks = [];
    for (let value = 0; value < highest + step * 0.999; value += step) ticks.push(Number(value.toPrecision(6)));
    return ticks;
  }

  const short = (value) =>
    Math.abs(value) >= 1e6 ? `${number(value / 1e6)}M` : Math.abs(value) >= 1e4 ? `${number(value / 1e3)}k` : number(value);

  // groups: [{name, class, counts}], stacked; edges: bins + 1 values.
  function histogram({ label, xLabel, edges, groups, edgeLabel = short }) {
    const bins = edges.length - 1;
    const totals = Array.from({ length: bins }, (_, bin) => groups.reduce((sum, group) => sum + group.counts[bin], 0));
    const { svg, y } = frame(label, xLabel, Math.max(...totals));
    const width = (WIDTH - RIGHT - LEFT) / bins;
    for (let bin = 0; bin < bins; bin++) {
      const bar = el("g", {}, el("title", {},
        `${edgeLabel(edges[bin])} – ${edgeLabel(edges[bin + 1])}: ` +
        groups.filter((group) => group.counts[bin]).map((group) => `${group.name} ${number(group.counts[bin])}`).join(", ")));
      let base = 0;
      for (const group of groups) {
        const count = group.counts[bin];
        if (!count) continue;
        const top = y(base + count);
        bar.append(el("rect", { x: LEFT + bin * width + 0.75, width: Math.max(width - 1.5, 0.5), y: top,
          height: Math.max(y(base) - top, 0.5), class: `fill ${group.class}` }));
        base += count;
      }
      svg.append(bar);
    }
    const every = Math.ceil(bins / 6);
    for (let edge = 0; edge <= bins; edge += every) {
      svg.append(el("text", { x: LEFT + edge * width, y: HEIGHT - BOTTOM + 14, class: "tick middle" }, edgeLabel(edges[edge])));
    }
    return figure(svg, groups);
  }

  // lines: [{name, class, points: [[x, y], …]}]
  function lines({ label, xLabel, series }) {
    const points = series.flatMap((one) => one.points);
    const xs = points.map((point) => point[0]);
    const [low, high] = [Math.min(...xs), Math.max(...xs)];
    const { svg, y } = frame(label, xLabel, Math.max(...points.map((point) => point[1])));
    const x = (value) => LEFT + 8 + ((WIDTH - LEFT - 24) * (value - low)) / (high - low || 1);
    for (const one of series) {
      const path = one.points.map(([a, b], place) => `${place ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
      svg.append(el("path", { d: path, class: `stroke ${one.class}` }));
      for (const [a, b] of one.points) {
        svg.append(el("circle", { cx: x(a), cy: y(b), r: 3, class: `fill ${one.class}` },
          el("title", {}, `${one.name}, ${number(a)}: ${number(b)}`)));
      }
    }
    for (const value of low === high ? [low] : [low, (low + high) / 2, high]) {
      svg.append(el("text", { x: x(value), y: HEIGHT - BOTTOM + 14, class: "tick middle" }, number(Math.round(value))));
    }
    return figure(svg, series);
  }

  function figure(svg, groups) {
    const legend = groups.length > 1
      ? el("ul", { class: "legend" }, groups.map((group) => el("li", {}, el("span", { class: `swatch ${group.class}` }), group.name)))
      : null;
    return el("div", { class: "figure" }, svg, legend);
  }

  return { histogram, lines };
})();
