"""Tiny inputs of every command, and for every command the words that run it on them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import tiny_inputs

from tracekit.cli.app import main
from tracekit.core.tables import CURATED, PROBLEMS, TRACES
from tracekit.study.tasks.world import World, label_steps, make_problems, teach

WORLD = World(teacher_errors=0.5)
QUICK_PROBE = [
    *("fit=least_squares", "permutations=19", "draws=20", "repeats=1", "outer_folds=3", "inner_folds=2"),
    *("gammas=[1.0]", "least_blocks=2", "band=[1]"),
]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def tracekit(words: Sequence[object], cwd: Path | None = None, stdin: bytes = b"") -> Done:
    """Run a command in this process, as its script does."""
    out, err = io.StringIO(), io.StringIO()
    source = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    argv = ["tracekit", *map(str, words)]
    with (
        contextlib.chdir(cwd or Path.cwd()),
        patch.multiple(sys, argv=argv, stdin=source),
        patch.dict(os.environ, {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def make_materials(folder: Path) -> Path:
    """Problems, traces, steps, a curated set and a model of the embedded world, and the same traces as JSONL."""
    problems = make_problems(WORLD, "train", 24, seed=3)
    traces = teach(WORLD, problems, seed=3)
    joined = traces.join(problems, on="problem_id").with_columns(correct=pl.int_range(pl.len()) % 2 == 0)
    (folder / "world").mkdir(parents=True)
    problems.select(*PROBLEMS).write_parquet(folder / "problems.parquet")
    problems.select(*PROBLEMS).write_parquet(folder / "world" / "problems.parquet")
    traces.select(*TRACES).write_parquet(folder / "world" / "traces.parquet")
    steps = label_steps(problems, traces, WORLD)
    steps.write_parquet(folder / "steps.parquet")
    joined.select(*CURATED).write_parquet(folder / "traces.parquet")
    joined.select("problem", "gold", "response", "author").write_ndjson(folder / "rows.jsonl")
    joined.select("problem", "gold").unique("problem", maintain_order=True).write_ndjson(folder / "asked.jsonl")
    tiny_inputs.write_model(folder / "model")
    for name, words in PREPARED.items():
        done = tracekit(words(folder, folder / name))
        assert done.code == 0, (name, done.err)
    return folder


def _evaluate(m: Path, out: Path) -> list[object]:
    few = ["temperatures=[0]", "max_tokens=4", "threads=1"]
    return ["evaluate", m / "model", "--problems", m / "problems.parquet", "--output", out, *few]


def _preflight(m: Path, out: Path) -> list[object]:
    few = ["take=2", "group_size=2", "samples=8", "max_tokens=4", "threads=1"]
    return ["preflight", m / "model", "--problems", m / "problems.parquet", "--output", out, *few]


def _train(m: Path, out: Path) -> list[object]:
    small = ["steps=2", "data.response_tokens=128", "data.prompt_tokens=64", "checkpoint={every=1,keep=1}"]
    given = [f"model={m / 'model'}", f"data.curated={m / 'traces.parquet'}", f"output={out}", "threads=1"]
    return ["train", "method=sft", *given, *small, "batch={rows=4}"]


def _probe(m: Path, out: Path) -> list[object]:
    models = ["--model", f"base={m / 'model'}", "--model", f"sft={m / 'trained' / 'final'}", "--no-untrained"]
    return [
        "probe",
        *QUICK_PROBE,
        *models,
        "--traces",
        m / "traces.parquet",
        "--feature",
        "final_correct",
        "--output",
        out,
    ]


def _fit(m: Path, out: Path) -> list[object]:
    given = ["--model", m / "model", "--traces", m / "traces.parquet", "--feature", "final_correct"]
    quick = [word for word in QUICK_PROBE if not word.startswith("band")]
    return ["probe", "fit", *quick, *given, "--output", out]


def _used(command: str, last: str) -> Callable[[Path, Path], list[object]]:
    def words(m: Path, out: Path) -> list[object]:
        more = ["--new-tokens", "4"] if last == "problems" else []
        given = ["--model", m / "model", f"--{last}", m / f"{last}.parquet", *more]
        return ["probe", command, m / "fit", *given, "--output", out]

    return words


def _collect(m: Path, out: Path) -> list[object]:
    question = ["question.model=tiny", "question.max_tokens=6", "samples=1", "teacher.engine=embedded"]
    return ["collect", f"problems={m / 'problems.parquet'}", f"teacher.model={m / 'model'}", f"output={out}", *question]


def _curate(m: Path, out: Path) -> list[object]:
    return ["curate", m / "rows.jsonl", "--output", out, "workers=1"]


#: Commands that write into a folder of their own → the words that run them, given the materials and the folder.
FOLDER_COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "curate": _curate,
    "segment": lambda m, out: ["segment", m / "rows.jsonl", "--output", out],
    "collect": _collect,
    "train": _train,
    "evaluate": _evaluate,
    "probe": _probe,
    "probe fit": _fit,
    "probe apply": _used("apply", "traces"),
    "probe early": _used("early", "traces"),
    "probe erase": _used("erase", "problems"),
    "probe steer": _used("steer", "problems"),
    "view": lambda m, out: ["view", m / "curated", "--output", out],
    "demo": lambda m, out: ["demo", out],
    "preflight": _preflight,
}

#: Commands that write one file → the words, and the ending of the file.
FILE_COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "verify": lambda m, out: ["verify", m / "rows.jsonl", "--output", out],
    "audit-gold": lambda m, out: ["audit-gold", m / "rows.jsonl", "--output", out],
    "attack-reward": lambda m, out: ["attack-reward", m / "asked.jsonl", "--output", out],
    "duplicates": lambda m, out: ["duplicates", m / "rows.jsonl", "--output", out, "--of", "response"],
    "contamination": lambda m, out: ["contamination", m / "rows.jsonl", m / "asked.jsonl", "--output", out],
}

#: Commands that write nothing of their own, or within a finished run.
OTHER_COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "why": lambda m, out: ["why", m / "curated", first_trace(m / "curated")],
    "diff": lambda m, out: ["diff", m / "curated", m / "curated"],
    "restore": lambda m, out: ["restore", m / "curated", first_trace(m / "curated"), "--reason", "a test"],
    "export": lambda m, out: ["export", m / "curated", "trl-sft"],
    "init": lambda m, out: ["init", m / "rows.jsonl"],
    "recipes": lambda m, out: ["recipes"],
    "recipe": lambda m, out: ["recipe", "luffy"],
    "study": lambda m, out: ["study", "--dry-run", f"output={out}"],
}

#: Commands that do not end by themselves, or that need a server: tests of their own.
SERVERS = ("serve-verifier", "push")

ALL_COMMANDS = {**FOLDER_COMMANDS, **FILE_COMMANDS, **OTHER_COMMANDS}

#: What later commands read: folder → the words that make it.
PREPARED = {"curated": _curate, "trained": _train, "fit": _fit}


def first_trace(run: Path) -> str:
    """An id of a curation."""
    return pl.read_parquet(run / "traces.parquet")["trace_id"][0]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> Iterator[Path]:
    """What stands directly in a folder, locks and markers left out."""
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith(".tracekit"))
