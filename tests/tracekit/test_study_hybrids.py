"""The second registered study: its strategies, its registration, and each of its arms on a tiny scale."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from evaluators import verify
from tracekit.core.settings import SettingsError, load_settings
from tracekit.study.preregistration import read_registration, registration_of
from tracekit.study.rungs import rung_jobs, runs_of
from tracekit.study.settings import StudySettings
from tracekit.study.tasks.chains import World, draw_chain, work
from tracekit.study.tasks.corpus import corpus, vocabulary
from tracekit.study.tasks.strategies import merge, strategy_of

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "studies" / "hybrids.toml"
WORLD = World(sealed=True, answer_values=4, longest=6, checked=0.0, corrected=0.0)


@given(st.integers(0, 10**6))
def test_merged_steps_give_the_same_answer_in_fewer_words(seed: int) -> None:
    rng = random.Random(seed)
    chain = draw_chain(rng, WORLD, 6)
    shorter = merge(chain, WORLD)
    forward, merged = (work(rng, WORLD, way, wrong=0.0) for way in (chain, shorter))
    gold = f"\\boxed{{{chain.gold(WORLD)}}}"
    assert verify(merged, gold).correct
    assert strategy_of(chain.text(), forward) == "forward"
    if shorter.operations == chain.operations:
        assert merged == forward
    else:
        assert len(merged.split()) < len(forward.split())
        assert strategy_of(chain.text(), merged) == "merged"
        assert set(merged.split()) <= set(vocabulary(WORLD))


def test_a_merged_trace_worked_by_hand() -> None:
    problem = "27 A ×2 B −4 C +7 D +1 E ×3 F −2 ?"
    assert strategy_of(problem, "A ×2 24 B +3 27 D +1 28 E ×3 24 F −2 22 \\boxed{ ( 27 , 28 , 24 , 22 ) }") == "merged"
    assert strategy_of(problem, "A ×2 24 B +2 26 D +1 28 E ×3 24 F −2 22 \\boxed{ ( 27 , 28 , 24 , 22 ) }") == "other"
    assert strategy_of(problem, "\\boxed{ ( 27 , 28 , 24 , 22 ) }") == "other"  # no step at all


def test_the_share_of_merged_logs_is_the_dial() -> None:
    logs = WORLD.model_copy(update={"worked_share": 1.0})
    world = logs.model_copy(update={"merged": 0.5})
    longest = [text.partition(" : ") for text in corpus(world, 4_000, seed=3)]
    ways = [strategy_of(f"{p} ?", r) for p, _, r in longest if p.count(" ") == 12 and " ^" not in p]
    could = sum(way == "merged" for way in ways) / len(ways)
    assert 0.15 < could < 0.5  # half of those in which a pair can be merged
    assert not any(
        strategy_of(f"{p} ?", r) == "merged" for p, _, r in (t.partition(" : ") for t in corpus(logs, 500, 3))
    )


def test_the_registration_is_that_of_the_recipe_and_the_claims() -> None:
    settings = load_settings(StudySettings, RECIPE)
    published = read_registration(ROOT / "studies" / "prereg-hybrids.json")
    assert published["hash"] == registration_of(settings)["hash"]
    runs = {(run.rung, run.arm) for run in runs_of(settings)}
    for claim in published["claims"]:
        assert {tuple(run) for run in claim["runs"]} <= runs


def test_a_distilled_arm_comes_after_its_teacher() -> None:
    settings = load_settings(StudySettings, RECIPE)
    jobs = {job.name: job for job in rung_jobs(settings)}
    assert set(jobs["run-sealed.distill-20"].after) == {"run-sealed-20", "run-sealed.sft-20"}
    with pytest.raises(SettingsError, match="distils from"):
        load_settings(StudySettings, RECIPE, ["arms.distill.distill_from='nobody'"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_arm_runs_to_its_record(tmp_path: Path) -> None:
    words = [
        f"output={tmp_path}", "seeds=[20]", "corpus=200", "base.steps=4", "base_attempts=1",
        "problems={train=16, test=8, probe=40}", "rungs.sealed.steps=4", "rungs.edge.steps=2", "recipe.steps=2",
        "recipe.rollout={prompts=4, mini_batch_prompts=4, group_size=4}", "evaluation.samples=3",
        "evaluation.pass_samples=32",
        *(f"arms.{arm}.recipe.steps=2" for arm in ("sft", "sft_compute", "gap_sft")),
    ]  # fmt: skip
    settings = load_settings(StudySettings, RECIPE, words)
    command = [sys.executable, "-m", "tracekit.cli", "study", str(RECIPE), "registration=none.json", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2  # a registration that is not there is told at once
    without = tmp_path / "exploratory.toml"
    lines = [line for line in RECIPE.read_text(encoding="utf-8").splitlines() if not line.startswith("registration")]
    without.write_text("\n".join(lines), encoding="utf-8")
    command[4:6] = [str(without)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stdout + done.stderr  # so small a base fails its gates
    for run in runs_of(settings):
        found = json.loads((tmp_path / "results" / f"{run.name}.json").read_text(encoding="utf-8"))
        assert 0 <= found["merged"] <= 1
        assert ("probe" in found) == (run.rung == "edge" and run.arm in ("base", "gap_sft", "gap_grpo"))
