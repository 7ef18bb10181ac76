"""A study's probes: features are read where they are not written yet, at several places, by either loss."""

from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("torch")

from tests.probes.test_states import save_model
from tracekit.core.runs import no_progress
from tracekit.core.settings import SettingsError, load_settings
from tracekit.study.paths import model_folder, states_folder
from tracekit.study.settings import StudySettings
from tracekit.study.steps.probing import extract_run_states, probe_runs
from tracekit.study.tasks import task_of

PROBING = (
    "problems={train=2, test=2, length=2, order=2, surface=2, probe=40}",
    "arms.sft.recipe={method='sft'}",
    "probing.features=['result_parity', 'step_correct', 'step_kind@step_start-1', 'next_operator']",
    "probing.protocol={permutations=19, draws=20, repeats=1, outer_folds=3, inner_folds=2, band=[2], max_rows=200, "
    "estimands=['least_squares'], controls=[]}",
)


def settings_in(folder: Path, *further: str) -> StudySettings:
    return load_settings(StudySettings, None, [f"output={folder}", *PROBING, *further])


def test_every_feature_is_read_at_its_own_place_and_least_squares_stands_beside_hinge(tmp_path: Path):
    settings = settings_in(tmp_path)
    task_of(settings).make_problems(no_progress)
    for number, arm in enumerate(("base", "sft")):
        save_model(model_folder(settings, arm, 0), seed=number)
        extract_run_states(settings, arm, 0, no_progress)
    index = pl.read_parquet(states_folder(settings, "world", "sft", 0) / "index.parquet")
    assert set(index["position"]) == {"before_result", "step_end", "step_start-1"}
    probe_runs(settings, no_progress)
    effects = pl.read_parquet(tmp_path / "probe" / "tables" / "effects.parquet")
    assert set(effects["feature"]) == set(settings.probing.features)
    assert effects["estimand"].unique(maintain_order=True).to_list() == ["delta", "least_squares"]
    assert (tmp_path / "probe" / "report.html").is_file()


def test_the_token_before_a_result_is_the_operation_of_the_step(tmp_path: Path):
    settings = settings_in(tmp_path)
    task_of(settings).make_problems(no_progress)
    save_model(model_folder(settings, "base", 0))
    extract_run_states(settings, "base", 0, no_progress)
    states = pl.read_parquet(states_folder(settings, "world", "base", 0) / "index.parquet")
    traces = pl.read_parquet(tmp_path / "world" / "probe" / "traces.parquet").select("trace_id", "response")
    before = states.filter(position="before_result").join(traces, on="trace_id")
    last = [r[:c].split()[-1] for r, c in before.select("response", "character").iter_rows()]
    assert all(word[0] in "+−×" for word in last)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("probing.position=step_ends", "unknown position 'step_ends'"),
        ("probing.features=['result_parity@before']", "unknown position 'before'"),
        ("probing.protocol={fit='ridge'}", "probing.protocol"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(tmp_path: Path, changed: str, message: str):
    with pytest.raises(SettingsError, match=message):
        settings_in(tmp_path, changed)


def test_a_study_probes_six_hundred_problems_unless_it_says_otherwise():
    assert StudySettings().problems.probe == 600
