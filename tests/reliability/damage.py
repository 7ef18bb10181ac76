"""Kinds of damage to a file, and the commands that read each kind of file."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import zstandard

from tests.reliability.materials import ALL_COMMANDS, first_trace

Change = Callable[[bytes], bytes]


def _flip(place: float) -> Change:
    def flip(raw: bytes) -> bytes:
        at = min(len(raw) - 1, int(place * len(raw)))
        return raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :] if raw else raw

    return flip


def _zeroed(raw: bytes) -> bytes:
    third = len(raw) // 3
    return raw[:third] + bytes(third) + raw[2 * third :]


#: Damage to any file: name → what it makes of the bytes.
ANY: dict[str, Change] = {
    "empty": lambda raw: b"",
    "one byte": lambda raw: raw[:1],
    "cut in half": lambda raw: raw[: len(raw) // 2],
    "last byte cut": lambda raw: raw[:-1],
    "first byte cut": lambda raw: raw[1:],
    "head flipped": _flip(0),
    "flipped at a quarter": _flip(0.25),
    "flipped in the middle": _flip(0.5),
    "flipped near the end": _flip(0.97),
    "last byte flipped": _flip(1),
    "a third zeroed": _zeroed,
    "random bytes": lambda raw: bytes((i * 7919 + i // 251) % 256 for i in range(4096)),
    "a web page": lambda raw: b"<!DOCTYPE html><html><body>404</body></html>",
    "a pointer of Git LFS": lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "utf-16": lambda raw: raw.decode("utf-8", "replace").encode("utf-16"),
    "latin-1": lambda raw: "caf\u00e9 ".encode("latin-1") + raw,
    "NUL bytes": lambda raw: b"\0" * 64 + raw,
    "gzip under a plain name": gzip.compress,
    "zstd under a plain name": lambda raw: zstandard.compress(raw),
}

#: Damage to JSON that leaves it JSON, or nearly.
JSON: dict[str, Change] = {
    "null": lambda raw: b"null\n",
    "a list of numbers": lambda raw: b"[1, 2]\n",
    "a string": lambda raw: b'"text"\n',
    "an empty object": lambda raw: b"{}\n",
    "an empty list": lambda raw: b"[]\n",
    "deep nesting": lambda raw: b'{"problem": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "a huge number": lambda raw: b'{"problem": 1' + b"0" * 5_000 + b', "settings": 1e999}\n',
    "a huge line": lambda raw: b'{"problem": "' + b"x" * 3_000_000 + b'"}\n',
    "NaN": lambda raw: b'{"problem": NaN, "gold": Infinity, "response": -Infinity, "settings": NaN, "step": NaN}\n',
    "wrong types": lambda raw: b'{"problem": {"a": 1}, "gold": [1, {"b": 2}], "response": true, "settings": 3}\n',
    "keys twice": lambda raw: b'{"problem": "a", "problem": 3, "settings": {}, "settings": []}\n' + raw,
    "a lone surrogate": lambda raw: b'{"problem": "\\ud800", "gold": "1", "response": "\\udfff 1"}\n',
    "single quotes": lambda raw: raw.replace(b'"', b"'"),
    "trailing comma": lambda raw: raw.rstrip()[:-1] + b",}\n",
}

TOML: dict[str, Change] = {
    "an unknown key": lambda raw: b"filtres = 1\n" + raw,
    "a table twice": lambda raw: raw + b"\n[filters]\n[filters]\n",
    "a wrong type": lambda raw: b'seed = "many"\nworkers = []\noutput = 3\nsteps = {}\n',
    "extends itself": lambda raw: b'extends = "recipe"\n' + raw,
    "infinite numbers": lambda raw: b"seed = inf\nvalidation = nan\nsteps = nan\n",
}

CSV: dict[str, Change] = {
    "an open quote": lambda raw: b'problem,gold,response\n"a,b,c\n',
    "more cells than columns": lambda raw: b"problem,gold,response\na,b,c,d,e\n",
    "no header": lambda raw: b"1,2,3\n4,5,6\n",
    "columns twice": lambda raw: b"problem,problem,gold\na,b,c\n",
}


def _frames(path: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Whole Parquet files that are not the table that they stand for."""
    frame = pl.read_parquet(path)
    yield "no rows", frame.clear()
    yield "no columns", pl.DataFrame()
    yield "first column absent", frame.drop(frame.columns[0])
    yield "half of the columns absent", frame.select(frame.columns[::2])
    yield "other column names", frame.rename({name: f"x_{name}" for name in frame.columns})
    yield "every column a number", frame.select(pl.lit(1).alias(name) for name in frame.columns)
    yield "every value null", frame.select(pl.lit(None).cast(t).alias(n) for n, t in frame.schema.items())
    yield "rows twice", pl.concat([frame, frame])
    yield "every column a struct", frame.select(pl.struct(pl.lit(1).alias("a")).alias(name) for name in frame.columns)
    numbers = [name for name, kind in frame.schema.items() if kind.is_float()]
    if numbers:
        yield "NaN", frame.with_columns(pl.lit(float("nan")).cast(frame.schema[n]).alias(n) for n in numbers)


@dataclass(frozen=True)
class Pair:
    """A damaged file and a command that reads it; `damage` changes the copy of the materials."""

    name: str
    damage: Callable[[Path], None]
    words: Callable[[Path, Path], list[object]]


def _changed(file: str, change: Change) -> Callable[[Path], None]:
    return lambda folder: _rewrite(folder / file, change)


def _rewrite(path: Path, change: Change) -> None:
    raw = change(path.read_bytes())
    path.unlink()  # a second name of the same file stays whole
    path.write_bytes(raw)


def _replaced(file: str, kind: str) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        frame = dict(_frames(folder / file))[kind]
        (folder / file).unlink()
        frame.write_parquet(folder / file)

    return replace


def _gone(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def _a_folder(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return change


def prepare(materials: Path) -> None:
    """Add to the materials the further formats, a recipe, an unfinished training and a study."""
    rows = pl.read_ndjson(materials / "rows.jsonl")
    rows.write_csv(materials / "rows.csv")
    (materials / "rows.json").write_text(json.dumps(rows.to_dicts()))
    rows.write_parquet(materials / "rows.parquet")
    raw = (materials / "rows.jsonl").read_bytes()
    (materials / "rows.jsonl.gz").write_bytes(gzip.compress(raw))
    (materials / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    source = json.dumps(str(materials / "rows.jsonl"))
    (materials / "recipe.toml").write_text(f"workers = 1\n[[sources]]\npath = {source}\n[filters]\n")
    (materials / "problems.jsonl").write_bytes((materials / "asked.jsonl").read_bytes())
    shutil.rmtree(materials / "trained" / "final" / "unused", ignore_errors=True)


def _train_further(m: Path, out: Path) -> list[object]:
    """The finished run, to be extended: run.json, metrics and the checkpoint are read."""
    words = ALL_COMMANDS["train"](m, m / "trained")
    return [word if word != "steps=2" else "steps=3" for word in words]


def _on(name: str, file: str, original: str) -> Callable[[Path, Path], list[object]]:
    """The command of that name, reading `file` in place of `original`."""

    def words(m: Path, out: Path) -> list[object]:
        return [_renamed(word, m / original, m / file) for word in ALL_COMMANDS[name](m, out)]

    return words


def _renamed(word: object, original: Path, file: Path) -> object:
    return file if word == original else str(word).replace(str(original), str(file)) if isinstance(word, str) else word


def _curated(*words: str) -> Callable[[Path, Path], list[object]]:
    return lambda m, out: [words[0], m / "curated", *words[1:]]


def _why(m: Path, out: Path) -> list[object]:
    return ["why", m / "curated", first_trace(m / "curated")]


def _probe_dry(m: Path, out: Path) -> list[object]:
    return [*ALL_COMMANDS["probe"](m, out), "--dry-run"]


def _by_recipe(name: str) -> Callable[[Path, Path], list[object]]:
    dry = [] if name == "collect" else ["--dry-run"]
    return lambda m, out: [name, m / "recipe.toml", f"output={out}", *dry]


SOURCES = ("curate", "segment", "duplicates", "contamination", "verify", "audit-gold", "init")
FORMATS = ("rows.jsonl", "rows.csv", "rows.json", "rows.parquet", "rows.jsonl.gz", "rows.jsonl.zst")
KINDS = {".csv": CSV, ".toml": TOML}

#: A file of the materials → the commands that read it.
READERS: dict[str, list[tuple[str, Callable[[Path, Path], list[object]]]]] = {
    **{file: [(name, _on(name, file, "rows.jsonl")) for name in SOURCES] for file in FORMATS},
    "asked.jsonl": [("attack-reward", ALL_COMMANDS["attack-reward"])],
    "problems.parquet": [(name, ALL_COMMANDS[name]) for name in ("collect", "evaluate", "probe erase")],
    "problems.jsonl": [(name, _on(name, "problems.jsonl", "problems.parquet")) for name in ("collect", "evaluate")],
    "traces.parquet": [
        ("train", ALL_COMMANDS["train"]),
        ("probe", _probe_dry),
        ("probe apply", ALL_COMMANDS["probe apply"]),
        ("probe fit", ALL_COMMANDS["probe fit"]),
    ],
    "steps.parquet": [("probe", _probe_dry)],
    "recipe.toml": [(name, _by_recipe(name)) for name in ("curate", "train", "study", "collect")],
    **{
        f"model/{file}": [(name, ALL_COMMANDS[name]) for name in ("train", "evaluate", "collect", "probe apply")]
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    },
    **{
        f"curated/{file}": [("why", _why), ("diff", ALL_COMMANDS["diff"]), ("export", _curated("export", "trl-sft"))]
        for file in ("run.json", "funnel.json", "curated.parquet", "ledger.parquet", "traces.parquet", "pairs.parquet")
    },
    **{
        f"curated/{file}": [("view", ALL_COMMANDS["view"])]
        for file in ("steps.parquet", "verdicts.parquet", "problems.parquet", "contamination.parquet", "lost.parquet")
    },
    **{
        f"trained/{file}": [("train", _train_further)]
        for file in (
            *("run.json", "metrics.parquet", "final/manifest.json", "final/state.json"),
            *(f"checkpoints/step-000002/{name}" for name in ("manifest.json", "state.json", "optimizer.safetensors")),
        )
    },
    **{
        f"fit/{file}": [(name, ALL_COMMANDS[name]) for name in ("probe apply", "probe erase")]
        for file in ("probe.json", "probe.safetensors", "labels.parquet", "states/states.json", "states/index.parquet")
    },
}


def pairs(materials: Path) -> Iterator[Pair]:
    """Every damage of every file with every command that reads it."""
    for file, readers in READERS.items():
        if not (materials / file).is_file():
            raise FileNotFoundError(materials / file)
        ending = Path(file).suffix
        changes = dict(ANY)
        changes |= JSON if ".json" in Path(file).name else KINDS.get(ending, {})
        damages = {name: _changed(file, change) for name, change in changes.items()}
        if ending == ".parquet":
            damages |= {name: _replaced(file, name) for name, _ in _frames(materials / file)}
        damages |= {"absent": _gone(file), "a folder in its place": _a_folder(file)}
        for command, words in readers:
            for name, damage in damages.items():
                yield Pair(f"{command}, {file}: {name}", damage, words)
