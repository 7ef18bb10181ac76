"""The quick study: its exact one-sided tests, its conclusions from planted records, and a tiny run of it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tracekit.core.settings import load_settings
from tracekit.study.analysis.exact import discordant, fisher, rank_ratio, rank_sum
from tracekit.study.analysis.few_bases import same_within
from tracekit.study.analysis.quick_claims import CLAIMS, LEAST_BASES
from tracekit.study.analysis.registered import OPEN, OPPOSITE, SAME, YES, Records, conclude
from tracekit.study.preregistration import read_registration, registration_of
from tracekit.study.report.answers import CARD, SENTENCES
from tracekit.study.run import QUICK, QUICK_REGISTRATION
from tracekit.study.rungs import runs_of
from tracekit.study.settings import BASE, StudySettings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = load_settings(StudySettings, QUICK)
PROBLEMS = 256


# ---------------------------------------------------------------- exact tests


@pytest.mark.parametrize("seed", range(5))
def test_the_rank_sum_is_scipys_exact_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.5, 1, 5), rng.normal(0, 1, 4)
    assert rank_sum(a, b) == pytest.approx(stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue)


def test_four_above_four_is_one_of_seventy_tables() -> None:
    assert rank_sum([9, 8, 7, 6], [4, 3, 2, 1]) == pytest.approx(1 / 70)
    assert fisher((4, 4), (0, 4), "greater") == pytest.approx(1 / 70)
    assert rank_sum([5, 5, 5, 5], [5, 5, 5, 5]) == 1.0


def test_a_ratio_by_ranks_holds_the_true_one_and_moves_with_the_unit() -> None:
    found = rank_ratio([20, 22, 30, 26], [10, 11, 15, 13])
    assert found.value == pytest.approx(2.0, rel=0.1)
    assert found.low < 2.0 < found.high
    assert rank_ratio([40, 44, 60, 52], [10, 11, 15, 13]).value == pytest.approx(2 * found.value)
    assert rank_ratio([2.0], [1.0]).high == float("inf")  # one against one rejects nothing


def test_mcnemars_one_sided_p_is_a_binomial_tail() -> None:
    a, b = [True] * 9 + [False] * 3, [False] * 8 + [True] * 2 + [False] * 2
    assert discordant(a, b) == pytest.approx(stats.binomtest(8, 9, alternative="greater").pvalue)
    assert discordant(b, b) == 1.0


def test_no_difference_needs_problems_enough() -> None:
    rng = np.random.default_rng(0)
    even = rng.choice([-1.0, 0.0, 1.0], 4_000, p=[0.01, 0.98, 0.01])
    assert same_within(even - even.mean(), 0.02) < 0.01
    assert same_within(np.full(256, 0.05) + rng.normal(0, 0.1, 256), 0.02) > 0.9
    assert same_within(np.zeros(20), 0.02) > 0.5  # none of 20 says little


@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
def test_sharing_bases_makes_the_tests_conservative(spread: float) -> None:
    """Without a difference between arms, whatever the bases do to both alike, at most 5 % say yes."""
    rng = np.random.default_rng(1)
    said = {"solved": 0, "rounds": 0}
    for _ in range(600):
        base = rng.normal(0, spread, 4)
        chance = 1 / (1 + np.exp(-2 * base))
        solved = [int((rng.random(4) < chance).sum()) for _ in range(2)]
        times = [np.exp(3 + base + rng.normal(0, 0.3, 4)) for _ in range(2)]
        said["solved"] += fisher((solved[0], 4), (solved[1], 4), "greater") <= 0.05
        said["rounds"] += rank_sum(*times) <= 0.05
    assert said["solved"] <= 0.05 * 600
    assert said["rounds"] <= 0.065 * 600  # size 3/70 and less, and the error of 600 draws


# ---------------------------------------------------------------- conclusions


def flags(share: float) -> str:
    return "1" * round(share * PROBLEMS) + "0" * (PROBLEMS - round(share * PROBLEMS))


def record(rung: str, arm: str, seed: int, **changed: Any) -> dict[str, Any]:
    solved = arm != BASE and (rung, arm) != ("sealed", "grpo")
    greedy = 0.95 if solved else 0.0
    read = 1.0 if arm == "sft" else 0.85
    found: dict[str, Any] = {
        "run": f"{rung}.{arm}-{seed}", "rung": rung, "arm": arm, "seed": seed, "skill": 1.0, "greedy": greedy,
        "accuracy": {"0": greedy, "0.6": greedy, "1": 0.9 * greedy}, "vote": greedy,
        "probe": {"right": flags(read), "text_right": flags(0.6), "auc": read, "text_auc": 0.6},
    }  # fmt: skip
    if arm == BASE:
        found |= {"gates_passed": True, "pass_rate": {"total": 6e-6 if rung == "sealed" else 0.1}}
    else:
        rounds = {"value": 30.0 + seed if rung == "sealed" else 6.0, "solved": solved}
        found["rounds_to_solve"] = rounds if solved else {"value": 60.0, "solved": False}
    return found | changed


def conclusions(changes: dict[tuple[str, str], dict[str, Any]] | None = None, bases: int = 4) -> dict[str, str]:
    records = [
        record(run.rung, run.arm, run.seed, **(changes or {}).get((run.rung, run.arm), {}))
        for run in runs_of(SETTINGS)
        if run.seed in SETTINGS.seeds[:bases]
    ]
    rows = conclude(CLAIMS, Records(SETTINGS, records), LEAST_BASES)
    return {row["id"]: row["conclusion"] for row in rows}


def test_four_of_four_against_none_is_decided() -> None:
    found = conclusions()
    assert {found[name] for name in ("Q1", "Q2", "Q3", "Q4", "Q5", "Q6")} == {YES}
    assert found["Q7"] == SAME  # GRPO left the model as it was


def test_the_opposite_and_too_few_are_called_so() -> None:
    solved = {"greedy": 0.97, "rounds_to_solve": {"value": 5.0, "solved": True}}
    never = {"greedy": 0.0, "rounds_to_solve": {"value": 60.0, "solved": False}}
    found = conclusions({("sealed", "grpo"): solved, ("sealed", "sft"): never})
    assert found["Q1"] == OPPOSITE
    assert found["Q2"] == OPEN
    assert set(conclusions(bases=2).values()) == {OPEN}


def test_a_probing_claim_holds_on_every_base_or_on_none() -> None:
    records = [record(run.rung, run.arm, run.seed) for run in runs_of(SETTINGS)]
    for one in records:
        if one["seed"] == SETTINGS.seeds[2] and one["arm"] == BASE:
            one["probe"]["right"] = flags(0.6)  # as well as from the text
    rows = conclude(CLAIMS, Records(SETTINGS, records), LEAST_BASES)
    assert {row["id"]: row["conclusion"] for row in rows}["Q5"] == OPEN


def test_every_set_of_claims_has_sentences_and_a_card_about_claims_it_has() -> None:
    from tracekit.study.analysis.claim_sets import CLAIM_SETS

    assert set(CLAIM_SETS) == set(SENTENCES) == set(CARD)
    for name, chosen in CLAIM_SETS.items():
        assert {claim for _, claim, _ in CARD[name]} <= {claim.id for claim in chosen.claims}


def test_the_quick_study_is_registered_as_it_is() -> None:
    assert read_registration(QUICK_REGISTRATION)["hash"] == registration_of(SETTINGS)["hash"]


def test_the_claims_are_a_latex_table_with_every_sign_escaped() -> None:
    from tracekit.study.report.latex import escape, latex_table

    assert escape("50 % of a_b & KL(x ‖ y) → ±1") == r"50 \% of a\_b \& KL(x $\Vert$ y) $\to$ $\pm$1"
    records = [record(run.rung, run.arm, run.seed) for run in runs_of(SETTINGS)]
    rows = conclude(CLAIMS, Records(SETTINGS, records), LEAST_BASES)
    table = latex_table(rows, "50 % & more")
    body = [line for line in table.splitlines() if line.startswith("Q")]
    assert len(body) == len(CLAIMS)
    assert all(line.replace("\\&", "").count("&") == 5 and line.endswith(r" \\") for line in body)
    assert table.isascii()


# ---------------------------------------------------------------- a tiny run

TINY = [
    "seeds=[11]",
    "corpus=200",
    "base.steps=4",
    "base_attempts=1",
    "problems={train=16, test=8, probe=40}",
    "rungs.sealed.steps=4",
    "rungs.edge.steps=2",
    "recipe.steps=2",
    "recipe.rollout={prompts=4, mini_batch_prompts=4, group_size=4}",
    "arms.sft.recipe.steps=2",
    "evaluation.samples=3",
    "evaluation.pass_samples=32",
    "evaluation.max_tokens=16",
]


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tracekit.cli", "study", f"output={folder}", *TINY]


def without_times(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {key: value for key, value in result.items() if key not in ("seconds", "commits")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick") / "run"
    done = subprocess.run(command(folder), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stdout + done.stderr  # so small a base cannot pass its gates
    assert "FAILED" in done.stdout
    assert "open" in done.stdout
    return folder


def test_a_changed_quick_study_is_exploratory(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
    assert not result["registered"]
    assert "xploratory" in (finished / "report.md").read_text(encoding="utf-8")


def test_what_is_probed_stands_in_the_records(finished: Path) -> None:
    found = json.loads((finished / "results" / "sealed.sft-11.json").read_text(encoding="utf-8"))["probe"]
    assert found["feature"] == "result_parity"
    assert found["position"] == "before_result"
    assert len(found["right"]) == len(found["text_right"]) == found["problems"] == 20
    assert 0 <= found["auc"] <= 1
    assert "probe" not in json.loads((finished / "results" / "edge.sft-11.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_study_killed_five_times_ends_with_the_same_result(finished: Path, tmp_path: Path) -> None:
    folder, rng = tmp_path / "run", random.Random(5)
    for _ in range(5):
        process = subprocess.Popen(
            command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
        )
        time.sleep(rng.uniform(6, 25))
        process.send_signal(signal.SIGKILL)  # its workers notice, and end
        process.wait()
    done = subprocess.run(command(folder), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stdout + done.stderr
    assert without_times(folder) == without_times(finished)
