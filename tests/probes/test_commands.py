"""The command as a user calls it: files in, report out; a mistake is told before any model is read."""

from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from probes.states.places import PositionError
from probes.svm.kernels import StatesError
from tests.probes.test_states import save_model
from tracekit.cli.probe import command_probe
from tracekit.core.settings import SettingsError
from tracekit.core.tables import COMPLETIONS, TableError
from tracekit.study.tasks.world import World, label_steps, make_problems, teach

WORLD = World(teacher_errors=0.5)
QUICK = (
    "fit=least_squares permutations=19 draws=20 repeats=1 outer_folds=3 inner_folds=2 gammas=[1.0] band=[2] "
    "least_blocks=2"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a teacher's traces with their steps, and completions of each model."""
    folder = tmp_path_factory.mktemp("files")
    problems = make_problems(WORLD, "train", 24, seed=3)
    for seed, name in enumerate(("base", "sft")):
        save_model(folder / name, seed=seed)
        rollouts = teach(WORLD, problems, seed=10 + seed).join(problems, on="problem_id")
        known = rollouts.with_columns(outcome=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("correct")))
        known = known.with_columns(pl.col("outcome").fill_null("wrong"))
        blank = [pl.lit(None, t).alias(c) for c, t in COMPLETIONS.items() if c not in known.columns]
        known.with_columns(blank).select(*COMPLETIONS).write_parquet(folder / f"{name}.parquet")
    written = teach(WORLD, problems, seed=3)
    label_steps(problems, written, WORLD).write_parquet(folder / "steps.parquet")
    traces = written.join(problems, on="problem_id").with_columns(correct=pl.int_range(pl.len()) % 2 == 0)
    traces.write_parquet(folder / "traces.parquet")
    return folder


def probe(files: Path, out: Path, *, traces: str = "traces.parquet", models: tuple[str, ...] = (), **rest) -> None:
    named = list(models) or [f"base={files / 'base'}", f"sft={files / 'sft'}"]
    command_probe(None, *QUICK.split(), model=named, traces=files / traces, output=out, untrained=False, **rest)


def test_every_model_reads_the_teachers_traces_and_everybodys_rollouts(files, tmp_path):
    sources = [f"{name}={files / name}.parquet" for name in ("base", "sft")]
    probe(files, tmp_path, feature=["final_correct"], source=sources)
    matrix = pl.read_parquet(tmp_path / "tables" / "sources.parquet")
    assert matrix.select("source", "model").rows() == [
        (source, model) for source in ("traces.parquet", "base", "sft") for model in ("base", "sft")
    ]
    assert matrix["auc"].null_count() == 0
    effects = pl.read_parquet(tmp_path / "tables" / "source_effects.parquet")
    assert effects["source"].to_list() == ["base", "sft", "own rollouts"]
    assert "own rollouts" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"models": ("base={files}/nowhere", "sft={files}/sft")}, StatesError, "nowhere is no checkpoint"),
        ({"models": ("base={files}/base", "../sft={files}/sft")}, SettingsError, "name of letters, digits"),
        ({"models": ("sft={files}/sft",)}, SettingsError, "no --model is named base"),
        ({"traces": "nulls.parquet"}, TableError, "response is null in 1 of 24 rows"),
        ({"traces": "twice.parquet"}, TableError, "trace_id repeats in 2 rows"),
        ({"traces": "junk.parquet"}, TableError, "not readable as Parquet"),
        ({"source": ["sft"]}, SettingsError, "--source 'sft'; expected NAME=FILE"),
        ({"source_steps": ["sft={files}/steps.parquet"]}, SettingsError, "no --source has this name"),
        ({"models": ("base={files}/base", "sft={files}/deep")}, StatesError, "models of different depth .3: .*; 4: "),
    ],
)
def test_a_mistake_is_told_before_any_state_is_read(files, tmp_path, change, error, message):
    traces = pl.read_parquet(files / "traces.parquet")
    none = pl.when(pl.int_range(pl.len()) == 4).then(None).otherwise(pl.col("response"))
    traces.with_columns(response=none).write_parquet(files / "nulls.parquet")
    pl.concat([traces, traces.head(1)]).write_parquet(files / "twice.parquet")
    (files / "junk.parquet").write_text("no Parquet")
    if not (files / "deep").is_dir():
        save_model(files / "deep", layers=4)
    filled = {
        k: v if isinstance(v, str) else type(v)(text.format(files=files) for text in v) for k, v in change.items()
    }
    with pytest.raises(error, match=message):
        probe(files, tmp_path / "out", feature=["final_correct"], **filled)
    assert not (tmp_path / "out").exists()


def test_a_model_without_its_tokenizer_is_named(files, tmp_path):
    bare = tmp_path / "bare"
    save_model(bare)
    for path in bare.glob("token*"):
        path.unlink()
    with pytest.raises(PositionError, match="bare has no tokenizer"):
        probe(files, tmp_path / "out", models=(f"base={bare}", f"sft={files / 'sft'}"), feature=["final_correct"])
