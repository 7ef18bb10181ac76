"use strict";
// What the page knows: the index, and shards of text loaded as scripts when they are needed.

const tracekit = (() => {
  const KEPT_SHARDS = 24; // about 24 MB of text: enough for going to and fro
  const waiting = new Map(); // name → {promise, resolve}
  const shards = new Map(); // name → value, least recently used first
  const ready = [];
  let index = null;

  // Under require-trusted-types-for no other string can become a script's address.
  const address = window.trustedTypes
    ? trustedTypes.createPolicy("shards", { createScriptURL: checked })
    : { createScriptURL: checked };

  function checked(url) {
    if (!/^data\/(traces|pairs)-\d+\.js$/.test(url)) throw new TypeError(`${url} is no shard`);
    return url;
  }

  function receive(name, value) {
    if (name === "index") {
      index = value;
      ready.splice(0).forEach((call) => call(index));
      return;
    }
    waiting.get(name)?.resolve(value);
  }

  function load(name, keep = true) {
    if (shards.has(name)) {
      const value = shards.get(name);
      shards.delete(name);
      shards.set(name, value);
      return Promise.resolve(value);
    }
    if (waiting.has(name)) return waiting.get(name).promise;
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      entry.resolve = (value) => {
        script.remove();
        waiting.delete(name);
        if (keep) {
          shards.set(name, value);
          if (shards.size > KEPT_SHARDS) shards.delete(shards.keys().next().value);
        }
        resolve(value);
      };
      script.onerror = () => {
        script.remove();
        waiting.delete(name);
        reject(new Error(`data/${name}.js is missing or damaged; write the page again with tracekit view.`));
      };
      script.src = address.createScriptURL(`data/${name}.js`);
      waiting.set(name, entry);
      document.head.append(script);
    });
    return entry.promise;
  }

  function shardOf(row) {
    const starts = index.shards;
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // {text, think, answer, steps, verdicts, decisions, problem} of a row.
  async function trace(row) {
    const number = shardOf(row);
    const shard = await load(`traces-${number}`);
    const problem = shard.problems[index.problems.id[index.rows.problem[row]]];
    return { ...shard.traces[row - index.shards[number]], problem };
  }

  async function pair(number) {
    const size = index.pairs.shard;
    const shard = await load(`pairs-${Math.floor(number / size)}`);
    const [kind, label, score, leftId, rightId, left, right, ngram] = shard[number % size];
    return { kind, label, score, leftId, rightId, left, right, ngram };
  }

  // Every text, shard by shard; `visit(row, text)`. Ends early when `stop()` is true.
  async function scan(visit, progress, stop) {
    for (let number = 0; number < index.shards.length && !stop(); number++) {
      const shard = await load(`traces-${number}`, false);
      shard.traces.forEach((one, place) => visit(index.shards[number] + place, one.text));
      progress(number + 1, index.shards.length);
    }
  }

  function whenReady(call) {
    if (index) call(index);
    else ready.push(call);
  }

  return { receive, whenReady, trace, pair, scan, get index() { return index; } };
})();
