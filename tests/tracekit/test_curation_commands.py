import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tracekit.cli import curate as commands
from tracekit.cli import stages as stage_commands
from tracekit.reading.formats import LayoutError


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [
        {
            "question": f"{n}: how much is {n} and {n}?",
            "key": str(2 * n),
            "text": f"{n} + {n} = {2 * n}\n\\boxed{{{m}}}",
        }
        for n in range(3)
        for m in (2 * n, 99)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    path = tmp_path / "recipe.toml"
    path.write_text(f'data = "{tmp_path}"\nsources = ["traces.jsonl"]\noutput = "{tmp_path / "run"}"\nworkers = 1\n')
    return path


MAP = ("problem=question", "gold=key", "response=text")


def test_the_commands_of_curation_tell_what_they_did(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recipe.parent / "run"
    with pytest.raises(LayoutError, match="--map"):
        commands.command_curate(recipe)
    commands.command_curate(recipe, map=MAP, dry_run=True)
    assert "to do" in capsys.readouterr().out
    assert not run.exists()
    commands.command_curate(recipe, map=MAP)
    assert "outcomes 3" in capsys.readouterr().out
    wrong = pl.read_parquet(run / "traces.parquet")["trace_id"][1]
    commands.command_why(run, wrong[:9])
    told = capsys.readouterr().out
    assert "outcomes" in told
    assert "\\boxed{99}" in told
    commands.command_restore(run, wrong[:9], reason="by eye")
    assert "restore" in capsys.readouterr().out
    commands.command_curate(recipe, f"output={run.with_name('other')}", map=MAP)
    capsys.readouterr()
    commands.command_diff(run, run.with_name("other"))
    assert "1 traces differ" in capsys.readouterr().out


def test_model_text_is_shown_and_never_obeyed_on_the_console() -> None:
    assert commands.map_text("\x1b[2J[red]ok") == "\\x1b[2J[red]ok"


def test_a_stage_works_alone(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recipe.parent / "run"
    commands.command_curate(recipe, map=MAP)
    stage_commands.command_export(run, "trl-sft")
    assert [p.name for p in (run / "export").iterdir() if p.is_dir()] == ["trl-sft"]
    own = str(run)  # a run folder holds problems.parquet and traces.parquet: it is a source itself
    stage_commands.command_segment(own, output=recipe.parent / "steps")
    assert pl.read_parquet(recipe.parent / "steps" / "steps.parquet").height == 12
    stage_commands.command_duplicates(own, output=recipe.parent / "pairs.parquet", of="problem", threshold=0.7)
    assert pl.read_parquet(recipe.parent / "pairs.parquet").height == 0
    stage_commands.command_contamination(own, own, output=recipe.parent / "matches.parquet", n=6)
    matches = pl.read_parquet(recipe.parent / "matches.parquet")
    assert matches.filter(pl.col("problem") == pl.col("benchmark")).height == 3
    assert "3 of 3 problems share 6 words" in capsys.readouterr().out


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracekit.cli", "curate", *map(str, arguments)], capture_output=True, text=True
    )


def test_an_empty_result_ends_with_code_3_and_says_what_to_do(tmp_path: Path) -> None:
    rows = [{"problem": f"{n}: why?", "gold": "", "response": f"Because of {n}."} for n in range(3)]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'data = "{tmp_path}"\nsources = ["traces.jsonl"]\noutput = "{tmp_path / "run"}"\n')
    empty = command(recipe)
    assert empty.returncode == 3
    last = empty.stderr.strip().splitlines()[-1]
    assert last.startswith("tracekit: the curated set is empty: stage gold dropped the last traces (verifiable 3).")
    assert "audit_golds=off filters.outcomes=off" in last
    kept = command(recipe, "audit_golds=off", "filters.outcomes=off")
    assert kept.returncode == 0, kept.stderr
    assert pl.read_parquet(tmp_path / "run" / "curated.parquet").height == 3


def test_a_rule_that_drops_many_correct_traces_is_told_with_examples(recipe: Path) -> None:
    rows = [{"question": f"{n}: and?", "key": "7", "text": f"{'so ' * n}\\boxed{{7}}"} for n in range(1, 11)]
    pl.DataFrame(rows).write_ndjson(recipe.parent / "traces.jsonl")
    told = command(recipe, "filters.max_tokens=5", "--map", *MAP)
    (line,) = [line for line in told.stderr.splitlines() if line.startswith("warning:")]
    assert "filters.max_tokens = 5 drops 6 of 10 correct traces (60%)" in line
    traces = pl.read_parquet(recipe.parent / "run" / "traces.parquet")["trace_id"]
    assert sum(name in line for name in traces) == 3
    assert "warning" not in command(recipe, "filters.max_tokens=9", "--map", *MAP).stderr
