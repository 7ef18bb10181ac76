"""Registration, and the conclusions drawn from planted records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracekit.core.runs import no_progress
from tracekit.core.settings import load_settings
from tracekit.core.tables import CURATED, read_table
from tracekit.study import preregistration
from tracekit.study.analysis.claim_sets import ClaimSet
from tracekit.study.analysis.registered import OPEN, OPPOSITE, SAME, YES, Records, conclude
from tracekit.study.analysis.sealed_claims import CLAIMS, LEAST_BASES
from tracekit.study.preregistration import (
    FILE,
    RegistrationError,
    begin_registered,
    read_registration,
    register,
    registration_of,
    standing,
)
from tracekit.study.report.rung_report import report_from
from tracekit.study.rungs import rung_jobs, runs_of
from tracekit.study.settings import BASE, ProblemCounts, StudySettings
from tracekit.study.steps.rung_runs import arm_settings, make_world

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = load_settings(StudySettings, ROOT / "studies" / "sealed.toml")
RATES = {"sealed": 1.3e-6, "low": 4e-5, "middle": 3e-3, "edge": 0.07}


def record(rung: str, arm: str, seed: int, **changed: Any) -> dict[str, Any]:
    """A run as its job leaves it: solved, but for GRPO in the sealed cell; LUFFY needs 50 rounds there."""
    solved = arm != BASE and not (arm == "grpo" and rung == "sealed") and arm != "gap_grpo"
    greedy = 0.95 + 0.004 * seed if solved else 0.0
    found: dict[str, Any] = {
        "run": f"{rung}.{arm}-{seed}", "rung": rung, "arm": arm, "seed": seed, "skill": 1.0, "greedy": greedy,
        "accuracy": {"0": greedy, "0.6": greedy, "1": 0.9 * greedy}, "vote": greedy,
    }  # fmt: skip
    if arm == BASE:
        found |= {"gates_passed": True, "pass_rate": {"total": RATES[rung]}}
    else:
        rounds = {"value": 50.0 + seed if rung == "sealed" else 8.0 + seed % 3, "solved": solved}
        found["rounds_to_solve"] = rounds if solved else {"value": 100.0, "solved": False}
        found |= {"kl": 0.1 + len(arm), "loss_reversed": 0.01 * (1 + len(arm)), "loss_logs": 0.01, "flops": 1.0}
    return found | changed


def planted(changes: dict[tuple[str, str], dict[str, Any]] | None = None, bases: int = 8) -> list[dict[str, Any]]:
    return [
        record(run.rung, run.arm, run.seed, **(changes or {}).get((run.rung, run.arm), {}))
        for run in runs_of(SETTINGS)
        if run.seed < bases
    ]


def conclusions(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in conclude(CLAIMS, Records(SETTINGS, records), LEAST_BASES)}


def test_what_is_planted_is_concluded() -> None:
    found = conclusions(planted())
    assert {found[name]["conclusion"] for name in ("P1", "P1b", "P3", "P4", "P7", "P7b", "P8", "P8b")} == {YES}
    assert found["P1"]["p"] == pytest.approx(1 / 6435, rel=1e-3)  # 8 of 8 against 0 of 8: 2 of 12,870 tables
    assert found["P3"]["low"] > 1
    assert found["P4"]["p"] == 2 / 256
    assert found["P10"]["conclusion"] == SAME  # no difference was planted
    assert found["P3b"]["conclusion"] == OPEN  # the same rounds: nothing to tell, and no margin was registered


def test_the_opposite_is_called_so() -> None:
    solved = {"greedy": 0.97, "rounds_to_solve": {"value": 5.0, "solved": True}}
    never = {"greedy": 0.0, "rounds_to_solve": {"value": 100.0, "solved": False}}
    found = conclusions(
        planted({("sealed", "grpo"): solved, ("sealed", "luffy"): never, ("sealed", "sft_grpo"): never})
    )
    assert found["P1b"]["conclusion"] == OPPOSITE
    assert found["P1"]["conclusion"] != YES
    worse = conclusions(planted({("sealed", "sft_grpo"): {"greedy": 0.5}}))
    assert worse["P8"]["conclusion"] == OPPOSITE


@pytest.mark.parametrize("bases", [0, 1, 3, 7])
def test_a_claim_is_open_until_every_base_is_finished(bases: int) -> None:
    found = conclusions(planted(bases=bases))
    assert {row["conclusion"] for row in found.values()} == {OPEN}


def test_a_base_whose_gate_failed_is_left_out_and_counted() -> None:
    records = planted()
    for one in records:
        if one["arm"] == BASE and one["rung"] == "sealed" and one["seed"] == 3:
            one["gates_passed"] = False
    found = conclusions(records)
    assert (found["P1"]["bases"], found["P1"]["excluded"], found["P1"]["conclusion"]) == (7, 1, YES)
    for one in records:
        if one["arm"] == BASE and one["rung"] == "sealed" and one["seed"] < 3:
            one["gates_passed"] = False
    assert conclusions(records)["P1"]["conclusion"] == OPEN  # four bases are too few


def test_the_published_registration_is_that_of_the_recipe_and_the_claims() -> None:
    published = read_registration(ROOT / "studies" / "prereg.json")
    assert published["hash"] == registration_of(SETTINGS)["hash"]


def with_registration(tmp_path: Path) -> StudySettings:
    settings = SETTINGS.model_copy(update={"registration": tmp_path / FILE, "output": tmp_path / "run"})
    register(settings, tmp_path / FILE)
    return settings


def test_a_run_is_registered_from_before_its_first_job(tmp_path: Path) -> None:
    settings = with_registration(tmp_path)
    begin_registered(settings, started=False)
    assert standing(settings)[0]
    assert not standing(settings.model_copy(update={"seeds": (0, 1)}))[0]


def test_a_run_with_jobs_done_before_is_exploratory(tmp_path: Path) -> None:
    settings = with_registration(tmp_path)
    begin_registered(settings, started=True)
    assert standing(settings) == (False, "Exploratory: nothing was registered before the first job.")


def test_a_changed_recipe_is_refused(tmp_path: Path) -> None:
    settings = with_registration(tmp_path)
    with pytest.raises(RegistrationError, match="registers another study"):
        begin_registered(settings.model_copy(update={"seed": 5}), started=False)
    with pytest.raises(RegistrationError, match="is not changed"):
        register(settings.model_copy(update={"seed": 5}), tmp_path / FILE)


def test_a_claim_that_is_changed_afterwards_is_exploratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_registration(tmp_path)
    begin_registered(settings, started=False)
    monkeypatch.setitem(preregistration.CLAIM_SETS, "sealed", ClaimSet(CLAIMS[:-1], LEAST_BASES))
    assert not standing(settings)[0]


def test_a_registration_that_was_edited_is_refused(tmp_path: Path) -> None:
    settings = with_registration(tmp_path)
    path = tmp_path / FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["bases"] = 5
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RegistrationError, match="was changed after"):
        begin_registered(settings, started=False)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(RegistrationError, match="damaged"):
        read_registration(path)


def test_every_job_comes_after_what_it_needs_and_the_core_comes_first() -> None:
    jobs = rung_jobs(SETTINGS)
    names = [job.name for job in jobs]
    assert len(names) == len(set(names)) == 209
    done: set[str] = set()
    for job in jobs:
        assert set(job.after) <= done, job.name
        done.add(job.name)
    core = {"run-sealed.luffy-7", "run-edge.grpo-7"}
    assert max(names.index(name) for name in core) < names.index("run-low-0")


@pytest.mark.parametrize("bases", [0, 2, 8])
def test_a_report_says_how_far_the_study_is(tmp_path: Path, bases: int) -> None:
    (tmp_path / "results").mkdir()
    for one in planted(bases=bases):
        (tmp_path / "results" / f"{one['run']}.json").write_text(json.dumps(one), encoding="utf-8")
    result = report_from(SETTINGS, tmp_path)
    assert result["bases"]["core"] == bases
    assert len(result["sentences"]) == 5
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"{bases} of 8 bases finished" in page
    assert "Exploratory" in page  # no registration lies beside these records
    assert (tmp_path / "solved.svg").exists() == (bases > 0)


def test_every_rl_arm_finds_traces_that_are_flagged_as_correct(tmp_path: Path) -> None:
    """An always wrong teacher's too: RL refuses a table without any, and verifies each trace itself."""
    settings = SETTINGS.model_copy(update={"output": tmp_path, "problems": ProblemCounts(train=12, test=4)})
    make_world(settings, no_progress)
    for run in runs_of(settings):
        if run.seed == 0 and run.arm != BASE and settings.arms[run.arm].recipe["method"] != "sft":
            curated = arm_settings(settings, run, tmp_path / "model").data.curated
            assert curated is not None
            assert read_table(curated, CURATED)["correct"].any(), run.name
    wrong = read_table(tmp_path / "world" / "traces-wrong-test.parquet", CURATED)
    assert not wrong["correct"].any()  # the table itself says what the answers say


def test_every_setting_of_a_study_says_what_it_is() -> None:
    from tracekit.study import settings as module

    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    bare = [f"{k.__name__}.{n}" for k in kinds for n, f in getattr(k, "model_fields", {}).items() if not f.description]
    assert bare == []
