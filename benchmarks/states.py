"""Hidden states: `extract_states` against the usual padded loop with `output_hidden_states=True`.

    python benchmarks/states.py [--traces 64] [--repeats 3] [--write]

Both read the last token of every step in every layer, float32, on identical token ids, the model already in the
page cache. Each run is a process of its own; its memory is the peak of resident memory above what the process
holds with the model loaded.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from tracekit.core.tables import STEPS

RESULTS = Path(__file__).parent / "results" / "states.md"
HIDDEN, LAYERS, WORDS = 256, 8, 32_000
BATCH = 16  # of the usual loop


def make_input(folder: Path, traces: int) -> None:
    """A Qwen2 with random weights and a word tokenizer; traces of 40 to 600 words, a step every 30."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w0").save_pretrained(folder)
    rng = random.Random(0)
    rows, steps = [], []
    for i in range(traces):
        count = min(600, int(40 * np.exp(abs(rng.gauss(0, 1.1)))))
        said = [f"w{rng.randrange(1, WORDS)}" for _ in range(count)]
        rows.append((f"p{i}", f"t{i}", "w1 w2 w3 w4 w5 w6 w7 w8", " ".join(said)))
        starts = [0, *np.cumsum([len(w) + 1 for w in said]).tolist()]
        for step, first in enumerate(range(0, count, 30)):
            end = starts[min(first + 30, count)] - 1
            steps.append((f"t{i}", step, starts[first], end, "calculation", None, None, None))
    names = ["problem_id", "trace_id", "problem", "response"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(folder / "traces.parquet")
    pl.DataFrame(steps, schema=STEPS, orient="row").write_parquet(folder / "steps.parquet")


def usual_loop(folder: Path, traces: pl.DataFrame, steps: pl.DataFrame) -> dict[int, np.ndarray]:
    """Layer → (rows, hidden) as most probing code reads them; the last layer after the final norm."""
    import torch
    from transformers import AutoModelForCausalLM

    from probes.states.places import place
    from probes.states.positions import load_tokenizer, tokenise

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    sequences = tokenise(load_tokenizer(folder), traces)
    places = place(sequences, traces, steps, ["step_end"])
    reset_peak()
    of_trace: dict[int, list[int]] = {}
    for row, p in enumerate(places):
        of_trace.setdefault(p.sequence, []).append(row)
    found = {layer: np.empty((len(places), HIDDEN), np.float32) for layer in range(LAYERS + 1)}
    for first in range(0, len(sequences), BATCH):
        batch = sequences[first : first + BATCH]
        length = max(len(s.token_ids) for s in batch)
        ids, seen = torch.zeros(len(batch), length, dtype=torch.long), torch.zeros(len(batch), length, dtype=torch.long)
        for row, s in enumerate(batch):
            ids[row, : len(s.token_ids)] = torch.tensor(s.token_ids)
            seen[row, : len(s.token_ids)] = 1
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=seen, output_hidden_states=True).hidden_states
        for k in range(len(batch)):
            for row in of_trace.get(first + k, []):
                for layer in found:
                    found[layer][row] = hidden[layer][k, places[row].last].numpy()
    return found


def ours(
    folder: Path, traces: pl.DataFrame, steps: pl.DataFrame, layers: tuple[int, ...] | None
) -> dict[int, np.ndarray]:
    """The same rows by extract_states, its writing to disk included."""
    from probes.states import extract as states
    from probes.states.extract import Reading, extract_states

    load = states._load

    def load_then_reset(*arguments):
        loaded = load(*arguments)
        reset_peak()
        return loaded

    states._load = load_then_reset
    reading = Reading(positions=("step_end",), layers=layers, token_budget=2048)
    with tempfile.TemporaryDirectory() as out:
        found = extract_states(folder, traces, steps, out, reading)
        return {layer: np.array(found.layer(layer)) for layer in found.layers}


# ---------------------------------------------------------------- measuring

_STARTED = {"rss": 0, "at": 0.0}


def reset_peak() -> None:
    """From here on time and peak memory count: the model is loaded."""
    Path("/proc/self/clear_refs").write_text("5")
    _STARTED.update(rss=memory("VmRSS"), at=time.perf_counter())


def memory(field: str) -> int:
    """Bytes of /proc/self/status."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def child(method: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    traces, steps = (pl.read_parquet(folder / f"{n}.parquet") for n in ("traces", "steps"))
    if method == "usual":
        found = usual_loop(folder, traces, steps)
    else:
        found = ours(folder, traces, steps, None if method == "ours" else tuple(range(LAYERS // 2 + 1)))
    record = {"seconds": time.perf_counter() - _STARTED["at"], "bytes": memory("VmHWM") - _STARTED["rss"]}
    np.savez(folder / f"{method}.npz", **{str(layer): x for layer, x in found.items()})
    print(json.dumps(record))


def measure(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved repeats."""
    records: dict[str, list[dict[str, float]]] = {"usual": [], "ours": [], "half": []}
    for _ in range(repeats):
        for method, found in records.items():
            command = [sys.executable, __file__, "--child", method, "--folder", str(folder)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found.append(json.loads(said.splitlines()[-1]))
    return {m: {k: median(r[k] for r in found) for k in ("seconds", "bytes")} for m, found in records.items()}


def largest_difference(folder: Path) -> float:
    """Over all layers that both give before the final norm."""
    a, b = (np.load(folder / f"{m}.npz") for m in ("usual", "ours"))
    return max(float(np.abs(a[str(layer)] - b[str(layer)]).max()) for layer in range(LAYERS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/states.md")
    parser.add_argument("--child", choices=("usual", "ours", "half"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_input(folder, arguments.traces)
        found = measure(folder, arguments.repeats)
        difference = largest_difference(folder)
    text = report(found, difference, arguments)
    print(text)
    if arguments.write:
        RESULTS.write_text(text, encoding="utf-8")


def report(found: dict[str, dict[str, float]], difference: float, arguments: argparse.Namespace) -> str:
    import torch
    import transformers

    names = {
        "usual": "padded loop, `output_hidden_states=True`",
        "ours": "`extract_states`",
        "half": "the same, lower half of the layers",
    }
    usual = found["usual"]
    lines = [
        "# Hidden states",
        "",
        f"Qwen2, {LAYERS} layers of {HIDDEN}, {WORDS:,} words, random weights; {arguments.traces} traces of 48 to 608 "
        f"tokens; last token of each step; float32, one thread. Median of {arguments.repeats} interleaved processes.",
        "",
        "| | seconds | peak memory above the model, MiB | speed | memory |",
        "|---|---|---|---|---|",
    ]
    for method, name in names.items():
        one = found[method]
        speed, share = usual["seconds"] / one["seconds"], usual["bytes"] / one["bytes"]
        lines.append(f"| {name} | {one['seconds']:.2f} | {one['bytes'] / 2**20:.0f} | {speed:.1f} × | 1/{share:.1f} |")
    lines += [
        "",
        f"Largest difference of a value, layers before the final norm: {difference:.1e}. Goal: ≥ 2.5 ×, ≤ 1/6, 1e-5.",
        "",
        f"`python benchmarks/states.py --traces {arguments.traces} --repeats {arguments.repeats} --write`, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
