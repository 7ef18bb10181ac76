"""Preflight: rates of planted samples, the forecast, the command on a tiny local model; and the demo's pages."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from public_data import write_model

from tracekit.core.settings import SettingsError, load_settings
from tracekit.study.preflight import PreflightSettings, begin_chance, forecast, measure_rates, mixed_share
from tracekit.study.published import DEMO_PAGES, published_result, published_results

LADDER = {"half_way": 0.0, "low": -0.5, "high": 0.5, "runs": 30, "solved": 18}
PLAN = PreflightSettings(rounds=100, problems_per_round=16, group_size=8)


def completions(right: list[int], samples: int = 64) -> pl.DataFrame:
    """`right[i]` of `samples` completions of problem i are right; one in four of the others holds no answer."""
    rows = []
    for problem, count in enumerate(right):
        for sample in range(samples):
            correct = sample < count
            answered = correct or sample % 4
            rows.append(
                {
                    "problem_id": str(problem),
                    "outcome": "correct" if correct else "wrong" if answered else "no_answer",
                    "prediction": "1" if answered else None,
                    "token_count": 10 + sample,
                    "finish_reason": "length" if sample == 63 else "stop",
                }
            )
    return pl.DataFrame(rows)


def test_a_groups_chance_of_signal_is_the_share_of_all_groups_that_are_mixed() -> None:
    flags = [True] * 2 + [False] * 5
    groups = list(itertools.combinations(flags, 3))
    assert mixed_share(7, 2, 3) == pytest.approx(sum(any(g) and not all(g) for g in groups) / len(groups))
    assert mixed_share(64, 0, 8) == mixed_share(64, 64, 8) == 0.0


def test_rates_of_planted_samples() -> None:
    rates = measure_rates(completions([0, 16, 64]), 8)
    assert rates.pass_at[1] == pytest.approx((0 + 0.25 + 1) / 3)
    assert rates.pass_at[64] == pytest.approx(2 / 3)
    assert rates.reached == pytest.approx(2 / 3)
    assert rates.signal == pytest.approx(mixed_share(64, 16, 8) / 3)
    assert rates.cut == pytest.approx(1 / 64)
    assert rates.unknown == 0
    assert rates.low <= rates.pass_at[1] <= rates.high


def test_none_right_has_a_bound_and_says_so() -> None:
    rates = measure_rates(completions([0] * 10), 8)
    assert rates.low == 0
    assert 0.004 < rates.high < 0.005  # none of 640: the rule of three
    said = " ".join(forecast(rates, PLAN, LADDER))
    assert "Open" in said  # 12,800 rollouts could hold 60 right ones
    short = PLAN.model_copy(update={"rounds": 1, "problems_per_round": 1})
    assert "should not begin" in " ".join(forecast(rates, short, LADDER))


def test_a_base_that_succeeds_can_begin_and_the_forecast_names_what_it_rests_on() -> None:
    said = forecast(measure_rates(completions([16] * 10), 8), PLAN, LADDER)
    assert "GRPO alone should begin" in " ".join(said)
    assert "30 GRPO runs (18 solved)" in said[-1]
    assert begin_chance(1 / PLAN.rollouts, PLAN.rollouts, 0.0) == pytest.approx(0.5)  # half way at one right rollout


def test_more_is_right_more_begin() -> None:
    chances = [begin_chance(rate, 12_800, 0.2) for rate in (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)]
    assert chances == sorted(chances)
    assert chances[0] == 0
    assert chances[-1] > 0.99


def test_fewer_samples_than_a_group_are_refused() -> None:
    with pytest.raises(SettingsError):
        load_settings(PreflightSettings, None, ["samples=2"])


def test_the_published_study_has_the_curve_that_forecasts_rest_on() -> None:
    ladder = published_result("sealed")["ladder"]["grpo"]
    assert ladder["low"] < ladder["half_way"] < ladder["high"]
    assert 0 < ladder["solved"] < ladder["runs"]


def test_the_command_on_a_local_model(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    problems = tmp_path / "problems.jsonl"
    lines = [json.dumps({"problem": f"What is {n} + {n}?", "answer": str(2 * n)}) for n in range(3)]
    problems.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "tracekit.cli", "preflight", str(model), "--problems", str(problems)]
    command += ["--output", str(tmp_path / "out"), "samples=8", "max_tokens=8", "take=2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["rates"]["problems"] == 2
    assert found["rates"]["pass_at"]["1"] == 0
    assert "rests on" in found["forecast"][-1]


def test_the_demo_writes_and_names_the_published_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tracekit.cli", "demo", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = [name for _, name in DEMO_PAGES if (published_results("sealed") / name).exists()]
    assert there[0] == "report.html"
    for name in there:
        assert str(tmp_path / "demo" / name) in done.stdout
        page = (tmp_path / "demo" / name).read_text(encoding="utf-8")
        assert not re.findall(r'(?:src|href)="https?:', page)  # it fetches nothing
