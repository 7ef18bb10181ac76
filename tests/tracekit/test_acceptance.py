"""What the default recipe does to real traces: it keeps nearly all that are correct and finds planted faults."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import polars as pl
import pytest
from real_traces import NAMES, SHARED, real_traces

from tracekit.core.settings import build_settings, load_settings
from tracekit.core.tables import LEDGER, read_table
from tracekit.curation.curate import curate
from tracekit.curation.settings import CurateSettings

pytestmark = pytest.mark.skipif(
    not all((SHARED / name).is_dir() for name in NAMES), reason="needs the real traces of the shared data folder"
)

#: Largest share of the verified-correct traces that one default rule may drop, and all of them together.
ONE_RULE, ALL_RULES = 0.02, 0.04


def curated(folder: Path, sources: dict[str, list[dict]], **settings: object) -> Path:
    for name, rows in sources.items():
        pl.DataFrame(rows).write_ndjson(folder / f"{name}.jsonl")
    tree = {"data": folder, "output": folder / "run", "sources": [f"{name}.jsonl" for name in sources], **settings}
    return curate(build_settings(CurateSettings, tree, "acceptance"))


@cache
def run_of(*names: str) -> Path:
    """The default recipe over these sets together."""
    return curated(Path(mkdtemp()), {name: real_traces(name) for name in names})


def verdicts(run: Path) -> pl.DataFrame:
    """trace_id, problem_id, response, correct, kept."""
    frame = pl.read_parquet(run / "traces.parquet", columns=["trace_id", "problem_id", "author", "response"])
    outcomes = pl.read_parquet(run / "verdicts.parquet", columns=["trace_id", "outcome"])
    kept = pl.read_parquet(run / "curated.parquet", columns=["trace_id"])["trace_id"]
    frame = frame.join(outcomes, on="trace_id", how="left", maintain_order="left")
    return frame.with_columns(correct=pl.col("outcome") == "correct", kept=pl.col("trace_id").is_in(kept.implode()))


@pytest.mark.parametrize("names", [*((name,) for name in NAMES), ("r1_traces", "qwen_math")])
def test_the_default_recipe_keeps_nearly_every_correct_trace_and_one_of_each_problem(names: tuple[str, ...]) -> None:
    correct = verdicts(run_of(*names)).filter("correct")
    assert correct["kept"].mean() >= 1 - ALL_RULES
    assert correct.filter("kept")["problem_id"].n_unique() == correct["problem_id"].n_unique()


@pytest.mark.parametrize("name", NAMES)
def test_no_default_rule_drops_more_than_a_few_of_the_correct_traces(name: str) -> None:
    run = run_of(name)
    correct = verdicts(run).filter("correct")["trace_id"]
    ledger = read_table(run / "ledger.parquet", LEDGER)
    drops = ledger.filter(pl.col("verdict") == "drop", pl.col("row_id").is_in(correct.implode()))
    counts = dict(drops.group_by("rule").len().iter_rows())
    assert {rule: count for rule, count in counts.items() if count > ONE_RULE * len(correct)} == {}


def plant_loop(text: str, draw: random.Random) -> str:
    """A stretch of the text, of a sentence to a page, said over and over until the token limit."""
    start = draw.randrange(len(text) // 4, len(text) // 2)
    period = text[start : start + draw.randrange(40, 900)]
    return text[:start] + period * draw.randrange(4, 12) + period[: draw.randrange(len(period))]


def plant_cut(text: str, draw: random.Random) -> str:
    return text[: int(len(text) * draw.uniform(0.2, 0.7))]


def plant_open_block(text: str, draw: random.Random) -> str:
    return text.replace("</think>", "")


def plant_second_block(text: str, draw: random.Random) -> str:
    return text + "\n<think>\nWait, once more.\n</think>\nDone."


def plant_wrong_tag(text: str, draw: random.Random) -> str:
    return "<think>\n" + text.removeprefix("<think>").replace("</think>", "</thinking>")


def plant_no_answer(text: str, draw: random.Random) -> str:
    thought, closing, _ = text.partition("</think>")
    return f"{thought}\nSo it is.{closing}\n"


LOOPS_AND_CUTS = (plant_loop, plant_cut)
TAG_FAULTS = (plant_open_block, plant_second_block, plant_wrong_tag, plant_no_answer)


@pytest.mark.parametrize("name", ["r1_traces", "qwen_math"])
@pytest.mark.parametrize("plant", [*LOOPS_AND_CUTS, *TAG_FAULTS])
def test_planted_faults_are_dropped(plant, name: str, tmp_path: Path) -> None:
    if plant in TAG_FAULTS and name != "r1_traces":
        pytest.skip("these traces have no think block")
    whole = verdicts(run_of(name)).filter("kept").select("problem_id", "author", "response")
    problems = pl.read_parquet(run_of(name) / "problems.parquet", columns=["problem_id", "problem", "gold"])
    rows = whole.join(problems, on="problem_id").drop("problem_id").unique("response", maintain_order=True).head(120)
    draw = random.Random(plant.__name__)
    # Beside the faulty ones stands every whole trace, as in a set where some samples failed.
    faulty = [{**row, "response": plant(row["response"], draw)} for row in rows.to_dicts()]
    got = verdicts(curated(tmp_path, {"whole": rows.to_dicts(), "faulty": faulty}))
    planted = got.filter(pl.col("response").is_in([row["response"] for row in faulty]))
    assert planted.height >= 0.9 * len(faulty)
    assert planted["kept"].mean() <= 0.02
    assert got.filter(~pl.col("response").is_in([row["response"] for row in faulty]))["kept"].mean() >= 0.96


def test_the_openr1_recipe_drops_nothing_but_what_does_not_verify(tmp_path: Path) -> None:
    """Rows in the layout of the published set, one trace a problem, each verified correct beforehand."""
    correct = verdicts(run_of("qwen_math")).filter("correct")
    problems = pl.read_parquet(run_of("qwen_math") / "problems.parquet", columns=["problem_id", "problem", "gold"])
    rows = [
        {
            "data_source": "openr1",
            "prompt": [{"content": row["problem"], "role": "user"}],
            "target": [{"content": row["response"], "role": "assistant"}],
            "ability": "math",
            "reward_model": {"ground_truth": row["gold"], "style": "rule"},
            "extra_info": {"index": index, "split": "train"},
        }
        for index, row in enumerate(correct.join(problems, on="problem_id", maintain_order="left").to_dicts())
    ]
    source = tmp_path / "Elliott" / "Openr1-Math-46k-8192"
    source.mkdir(parents=True)
    pl.DataFrame(rows).write_parquet(source / "train.parquet")
    recipe = Path(curate.__code__.co_filename).parents[1] / "recipes" / "openr1.toml"
    overrides = [f"data={tmp_path}", f"output={tmp_path / 'run'}", "select.policy=all"]
    run = curate(load_settings(CurateSettings, recipe, overrides))
    assert pl.read_parquet(run / "curated.parquet").height == len(rows)
