"""The study: its graph, its board, its statistics, its page; and a small study, run, killed and resumed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from evaluators import verify
from tracekit.core.pages.html_page import Page
from tracekit.core.runs import no_progress
from tracekit.core.settings import SettingsError, build_settings, load_settings
from tracekit.core.tables import COMPLETIONS, CURATED, read_table
from tracekit.study.analysis.claims import Evidence, claims_table
from tracekit.study.analysis.results import STAGES, Gate, crossings, deep_unsolved
from tracekit.study.analysis.statistics import difference, difference_of_runs, upper_bound_of_none
from tracekit.study.grid import run_grid
from tracekit.study.jobs import Board, Job, JobError, work
from tracekit.study.paths import curated
from tracekit.study.pipeline import jobs_of
from tracekit.study.run import QUICK, _keep_what_it_grew_from
from tracekit.study.settings import StudySettings
from tracekit.study.steps.exploration import path_metrics, path_table
from tracekit.study.steps.training import train_settings
from tracekit.study.tasks.embedded import EmbeddedWorld, text_of
from tracekit.study.tasks.world import box

ROOT = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small_study.toml")
RECIPES = [QUICK, SMALL, *sorted((ROOT / "studies").glob("*.toml"))]


# ---------------------------------------------------------------- settings and graph


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.name)
def test_every_study_that_we_ship_can_be_planned(recipe: Path) -> None:
    settings = load_settings(StudySettings, recipe)
    jobs = jobs_of(settings)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    done: set[str] = set()
    waiting = list(jobs)
    while waiting:
        ready = [job for job in waiting if set(job.after) <= done]
        assert ready, f"{[job.name for job in waiting]} wait for one another"
        done |= {job.name for job in ready}
        waiting = [job for job in waiting if job.name not in done]
    for arm, seed in settings.runs():
        given = settings.data is not None if arm == "base" else settings.arms[arm].model is not None
        if not given:
            train_settings(settings, arm, seed)


def test_arms_that_start_from_one_another_in_a_circle_are_refused() -> None:
    arms = {"a": {"recipe": {"method": "sft"}, "start": "b"}, "b": {"recipe": {"method": "sft"}, "start": "a"}}
    with pytest.raises(ValueError, match="circle"):
        build_settings(StudySettings, {"arms": arms}, "test").runs()


def test_an_arm_that_starts_from_nothing_known_is_refused() -> None:
    with pytest.raises(SettingsError, match="known: base"):
        build_settings(StudySettings, {"arms": {"a": {"recipe": {"method": "grpo"}, "start": "elsewhere"}}}, "test")


def _study(**changes: object) -> StudySettings:
    arms = {"sft": {"recipe": {"method": "sft"}, "seeds": 1}, "grpo": {"recipe": {"method": "grpo"}}}
    return build_settings(StudySettings, {"arms": arms, "seeds": [3, 1]} | changes, "test")


def test_a_study_grows_by_seeds_and_arms_and_by_nothing_else() -> None:
    small = _study()
    assert _study(seeds=[3, 1, 2]).grows(small)
    more = {name: {"recipe": {"method": name}} for name in ("sft", "grpo", "luffy")}
    assert _study(arms=more).grows(small)
    assert not small.grows(_study(arms=more))
    assert not _study(seeds=[1, 3, 2]).grows(small)  # "the first seed" means another one there
    assert not _study(seeds=[3, 1, 2], seed=1).grows(small)
    changed = {"sft": {"recipe": {"method": "sft", "steps": 9}, "seeds": 2}, "grpo": {"recipe": {"method": "grpo"}}}
    assert not _study(arms=changed).grows(small)


# ---------------------------------------------------------------- the board


def test_jobs_are_done_in_the_order_of_their_needs(tmp_path: Path) -> None:
    jobs = [Job("c", "s", ("a", "b")), Job("a", "s"), Job("b", "s", ("a",))]
    seen: list[str] = []
    work(Board(tmp_path, jobs), lambda job, progress: seen.append(job.name))
    assert seen == ["a", "b", "c"]


def test_a_done_job_is_never_done_again(tmp_path: Path) -> None:
    jobs = [Job("a", "s"), Job("b", "s")]
    seen: list[str] = []
    work(Board(tmp_path, jobs), lambda job, progress: seen.append(job.name))
    work(Board(tmp_path, jobs), lambda job, progress: seen.append(job.name))
    assert seen == ["a", "b"]


def test_a_job_that_now_rests_on_more_is_done_again(tmp_path: Path) -> None:
    seen: list[str] = []
    jobs = [Job("a", "s"), Job("probe", "s", ("a",))]
    work(Board(tmp_path, jobs), lambda job, progress: seen.append(job.name))
    grown = Board(tmp_path, [Job("a", "s"), Job("b", "s"), Job("probe", "s", ("a", "b"))])
    grown.reopen_outgrown()
    work(grown, lambda job, progress: seen.append(job.name))
    assert seen == ["a", "probe", "b", "probe"]


def test_a_failed_job_is_told_with_its_trace_and_tried_again_on_the_next_start(tmp_path: Path) -> None:
    board = Board(tmp_path, [Job("a", "s"), Job("b", "s", ("a",))])

    def fails(job: Job, progress: object) -> None:
        raise ValueError("the disk is made of cheese")

    work(board, fails)
    assert "a failed" in str(board.failure())
    assert "made of cheese" in str(board.failure())
    board.clear_failures()
    work(board, lambda job, progress: None)
    assert board.all_done()


# ---------------------------------------------------------------- statistics


def test_the_interval_of_a_difference_covers_the_truth_over_seeds_and_problems() -> None:
    """Simulated: a true difference of 0.1 with seed noise and problem noise, five seeds."""
    rng = np.random.default_rng(0)
    covered, runs = 0, 200
    for _ in range(runs):
        problem, seed = rng.normal(0, 0.3, 60), rng.normal(0, 0.05, 5)
        a = {s: {str(p): 0.1 + problem[p] + seed[s] + rng.normal(0, 0.2) for p in range(60)} for s in range(5)}
        b = {s: {str(p): 0.0 for p in range(60)} for s in range(5)}
        found = difference(a, b)
        covered += found.low <= 0.1 <= found.high
    assert covered / runs >= 0.92


def test_one_run_a_seed_is_compared_by_t_over_seeds() -> None:
    from scipy import stats

    a, b = {0: 1.0, 1: 1.2, 2: 0.9}, {0: 0.8, 1: 0.7, 2: 0.9}
    expected = stats.ttest_rel([1.0, 1.2, 0.9], [0.8, 0.7, 0.9])
    found = difference_of_runs(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_values_that_never_differ_leave_what_so_many_problems_could_have_missed() -> None:
    def arm(value: float, problems: int) -> dict[int, dict[str, float]]:
        return {seed: {str(p): value for p in range(problems)} for seed in range(5)}

    from scipy import stats

    same = difference(arm(1.0, 60), arm(1.0, 60))
    share = stats.binomtest(0, 60).proportion_ci(method="exact").high
    assert (same.estimate, same.low, same.high, same.p) == (0.0, pytest.approx(-share), pytest.approx(share), 1.0)
    assert same.p_equivalent(0.02) == pytest.approx(0.98**60)
    assert difference(arm(1.0, 600), arm(1.0, 600)).p_equivalent(0.02) < 1e-5
    apart = difference(arm(1.0, 60), arm(0.0, 60))
    assert apart.low == pytest.approx(1 - 2 * share)
    assert 0 < apart.p < 1e-15
    assert apart.p_equivalent(0.02) == 1.0


def test_runs_that_all_agree_have_no_interval() -> None:
    found = difference_of_runs({s: 2.0 for s in range(5)}, {s: 1.0 for s in range(5)})
    assert (found.estimate, found.p) == (1.0, 0.0625)
    assert np.isnan([found.low, found.high]).all()
    assert difference_of_runs({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}).p == 1.0


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(difference_of_runs({0: 1.0}, {0: 0.5}).low)


def test_none_of_a_thousand_leaves_three_in_a_thousand_possible() -> None:
    assert upper_bound_of_none(1024) == pytest.approx(3 / 1024, rel=0.03)  # the rule of three


# ---------------------------------------------------------------- exploration


def test_a_path_is_what_is_done_and_not_what_comes_out() -> None:
    problem, path_of = "1 A +1 B ×2 ?", EmbeddedWorld(StudySettings()).path_of
    one = path_of(problem, f"A +1 2 B ×2 4 {box([2, 4])}")
    assert one == path_of(problem, f"A +1 3 B ×2 6 {box([3, 6])}")
    assert one != path_of(problem, f"A +1 2 check A +1 2 B ×2 4 {box([2, 4])}")


def test_path_metrics_on_a_case_worked_by_hand() -> None:
    path_of, problem = EmbeddedWorld(StudySettings()).path_of, "1 A +1 B ×2 ?"
    plain, checked, direct = (
        f"A +1 2 B ×2 4 {box([2, 4])}",
        f"A +1 2 check A +1 2 B ×2 4 {box([2, 4])}",
        box([2, 4]),
    )

    def table(responses: list[tuple[str, str, float]]) -> pl.DataFrame:
        rows = [
            {"problem_id": p, "problem": problem, "sample": i, "response": r, "reward": w}
            for i, (p, r, w) in enumerate(responses)
        ]
        return path_table(pl.DataFrame(rows), path_of)

    own = table([("p", plain, 1.0), ("p", checked, 1.0), ("q", plain, 1.0), ("q", direct, 0.0)])
    base = table([("p", direct, 1.0), ("q", direct, 0.0)])
    teacher = table([("p", plain, 1.0), ("q", plain, 1.0)])
    found = path_metrics(own, base, teacher)
    assert found["paths"] == pytest.approx(1.5)  # two of p, one of q
    assert found["off_teacher"] == pytest.approx(1 / 3)
    assert found["off_base"] == 1.0
    assert (found["kept"], found["gained"]) == (1.0, 1.0)
    assert found["worked"] == 0.75
    assert found["verification"] == 0.25


# ---------------------------------------------------------------- the page


def test_what_models_wrote_stays_text_on_the_page() -> None:
    page = Page("<b>title</b>", "lead & more")
    page.section("</h2><script>alert(1)</script>")
    page.table(pl.DataFrame({"<i>": ["<img src=x onerror=alert(1)>"], "n": [0.5]}))
    page.code("</pre><script>alert(2)</script>")
    text = page.render()
    assert text.count("<script>") == 1  # the page's own
    assert "<img" not in text
    assert "<i>" not in text
    assert "default-src 'none'" in text


def test_a_failed_gate_withholds_every_claim(finished: Path) -> None:
    settings = tiny(finished)
    tables = {path.stem: pl.read_parquet(path) for path in (finished / "figures").glob("*.parquet")}
    evidence = Evidence(settings, tables["curves"], tables["exploration"], tables["costs"],
                        tables["teacher_tokens"], tables["effects"])  # fmt: skip
    claims = claims_table(evidence, [Gate("skill", 0.1, "at least", 0.95)])
    assert set(claims["verdict"]) == {"withheld"}
    passed = claims_table(evidence, [Gate("skill", 0.99, "at least", 0.95)])
    assert set(passed["verdict"]) == {"inconclusive"}  # one seed: nothing is called different


# ---------------------------------------------------------------- a whole study, small

TINY = [
    "problems={train=24, test=12, length=8, order=8, surface=8, probe=60}",
    "corpus=400",
    "base.steps=6",
    "base_attempts=2",
    "recipe.steps=2",
    "recipe.rollout={prompts=4, mini_batch_prompts=4, group_size=4}",
    "arms.sft.recipe.steps=2",
    "evaluation.samples=3",
    "evaluation.max_tokens=24",
    "probing.protocol={permutations=19, draws=20, repeats=1, costs=[1.0], gammas=[1.0], outer_folds=3}",
    "probing.features=['step_correct']",
    "world.habit=0.5",
    "probing.own_rollouts=['base']",
    "evaluation.deep_samples=8",
    "evaluation.deep_problems=4",
    "evaluation.temperatures=[0.0, 1.0]",
    "arms.dpo={recipe={method='dpo', steps=2, batch={rows=4}}}",
    "arms.cpt={recipe={method='cpt', steps=2}}",
]


def tiny(folder: Path) -> StudySettings:
    return load_settings(StudySettings, SMALL, [f"output={folder}", *TINY])


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracekit.cli", "study", str(SMALL), f"output={folder}", *TINY, *overrides]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "run"
    done = run(folder)
    assert done.returncode == 3, done.stdout + done.stderr  # so small a base cannot pass its gates
    assert "FAILED" in done.stdout
    return folder


def without_times(folder: Path) -> dict[str, object]:
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {key: value for key, value in result.items() if key not in ("seconds", "commit", "commits")}


def test_a_study_leaves_its_report_and_its_result(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
    assert {g["name"] for g in result["gates"] if not g["passed"]}
    assert set(result["arms"]) == {"base", "sft", "grpo", "luffy", "dpo", "cpt"}
    assert set(result["arms"]["luffy"]) == {"test", "length", "order", "surface"}
    assert result["probes"]
    assert result["seconds"]["stages"]["train"] > 0
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "withheld" in page
    assert page.count("<svg") >= 5
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert (finished / "report.md").read_text(encoding="utf-8").startswith("# ")


def test_a_base_without_the_skill_is_trained_anew_and_twice_as_long(finished: Path) -> None:
    """So small a study never forms the skill: every attempt is made, and the last one stands."""
    lengths = [
        json.loads((finished / "models" / name / "run.json").read_text(encoding="utf-8"))["settings"]["steps"]
        for name in ("base-0-failed-1", "base-0")
    ]
    assert lengths == [6, 12]


@pytest.mark.parametrize(("base", "length", "expected"), [("steps=6", "steps", 24), ("epochs=3", "epochs", 12)])
def test_an_attempt_doubles_what_the_recipe_counts_in(tmp_path: Path, base: str, length: str, expected: int) -> None:
    key, _, value = base.partition("=")
    settings = load_settings(StudySettings, SMALL, [f"output={tmp_path}"])
    kept = {name: part for name, part in settings.base.items() if name != "steps"}
    settings = settings.model_copy(update={"base": {**kept, key: int(value)}})
    assert getattr(train_settings(settings, "base", 0, attempt=2), length) == expected


def test_dpo_is_given_the_right_traces_and_the_wrong_answers_of_its_start(finished: Path) -> None:
    settings = tiny(finished)
    pairs = read_table(finished / "pairs" / "base-0" / "pairs.parquet", CURATED)
    right, wrong = pairs.filter("correct"), pairs.filter(~pl.col("correct"))
    assert set(right["trace_id"]) == set(curated(settings)["trace_id"])
    assert set(wrong["author"]) == {"base"}
    for response, gold in wrong.select("response", "gold").iter_rows():
        assert not verify(response, gold).correct


def test_the_text_of_cpt_has_the_words_and_not_the_form() -> None:
    rows = pl.DataFrame({"problem": ["1 A +1 ?"], "response": ["A +1 2 \\boxed{ ( 1 , 2 ) }"]})
    assert text_of(rows)["text"].to_list() == ["1 A +1 A +1 2 \\boxed{ ( 1 , 2 ) }"]


def test_every_model_reads_its_arm_and_the_other_sources(finished: Path) -> None:
    sources = pl.read_parquet(finished / "figures" / "sources.parquet")
    assert set(sources["source"]) == {"world", "base"}
    assert set(sources.filter(pl.col("source") == "base")["model"]) == {"base", "sft", "grpo", "luffy", "dpo", "cpt"}
    own = sources.filter(pl.col("source") == "base")
    assert (own["auc"].is_not_null() | (own["why_not"] != "")).all()


def test_the_teacher_stands_beside_the_arms_as_what_departing_from_itself_means(finished: Path) -> None:
    explored = pl.read_parquet(finished / "figures" / "exploration.parquet")
    teacher = explored.filter(pl.col("arm") == "teacher")
    assert len(teacher) == 1
    assert 0 < teacher["off_teacher"][0] < 1  # another trace of its hand takes another way now and then
    assert teacher["worked"][0] == 1.0


def test_problems_that_only_some_solve_are_counted(finished: Path) -> None:
    settings = tiny(finished)
    counted = deep_unsolved(settings)
    assert counted is not None
    for row in counted.iter_rows(named=True):
        own, base = (
            read_table(finished / "measures" / f"{arm}-0" / "deep" / "completions.parquet", COMPLETIONS)
            for arm in (row["arm"], "base")
        )
        solved = {p for p, reward in own.select("problem_id", "reward").iter_rows() if reward == 1}
        known = {p for p, reward in base.select("problem_id", "reward").iter_rows() if reward == 1}
        assert row["unsolved_by_base"] == 4 - len(known)
        assert row["of_these_solved"] == len(solved - known)
        assert row["lost"] == len(known - solved)


def test_a_ratio_of_costs_is_told_as_a_ratio(finished: Path) -> None:
    settings = tiny(finished)
    costs = pl.DataFrame({"arm": ["luffy", "sft"], "seed": [0, 0], "flops": [6.0, 2.0]})
    tables = {path.stem: pl.read_parquet(path) for path in (finished / "figures").glob("*.parquet")}
    evidence = Evidence(settings, tables["curves"], tables["exploration"], costs, tables["teacher_tokens"])
    claims = claims_table(evidence, [])
    assert claims.filter(pl.col("unit") == "×")["effect"].to_list() == pytest.approx([3.0])


def test_seconds_are_what_the_loops_logged(finished: Path) -> None:
    costs = pl.read_parquet(finished / "figures" / "costs.parquet").filter(seed=0)
    spent = dict(costs.select("arm", "seconds").iter_rows())
    for arm, stages in (("sft", ["seconds"]), ("grpo", [f"seconds_{stage}" for stage in STAGES])):
        logged = pl.read_parquet(finished / "models" / f"{arm}-0" / "metrics.parquet").select(stages)
        assert spent[arm] == pytest.approx(logged.sum().sum_horizontal().item())
        assert spent[arm] > 0


def test_methods_that_change_places_over_the_temperatures_are_found() -> None:
    def value(arm: str, temperature: float, seed: int) -> float:
        at_zero, slope, noise = {"a": (0.9, 0.5, 0.001), "b": (0.7, 0.1, 0.0), "c": (0.2, 0.1, 0.0)}[arm]
        return at_zero - slope * temperature + noise * seed

    grid = [(a, t, s) for a in "abc" for t in (0.2, 0.5, 1.0) for s in range(3)]
    rows = [
        {"arm": a, "temperature": t, "seed": s, "metric": "pass", "k": 1, "value": value(a, t, s)} for a, t, s in grid
    ]
    found = crossings(pl.DataFrame(rows), ["a", "b", "c"])
    assert found.rows() == [("pass", 1, "a", "b", "0.2", "1.0")]  # they meet at 0.5, where neither is better


def test_a_study_that_probes_nothing_plans_no_states(tmp_path: Path) -> None:
    settings = load_settings(StudySettings, SMALL, [f"output={tmp_path}", "probing.features=[]"])
    assert {job.stage for job in jobs_of(settings)}.isdisjoint({"states", "probe", "rollouts"})


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_with_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tracekit.cli", "study", str(SMALL), f"output={folder}", *TINY]
    for seconds in (6, 9, 12, 15, 18):
        victim = subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            victim.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
    assert run(folder).returncode == 3
    assert without_times(folder) == without_times(finished)


def test_a_finished_study_grows_by_a_seed_and_repeats_nothing(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "jobs").glob("*.done")}
    assert run(folder, "seeds=[0, 1]").returncode == 3
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "jobs").glob("*.done")}
    assert {name for name in before if after[name] != before[name]} == {"probe.done"}
    assert {"train-base-1.done", "train-luffy-1.done"} <= after.keys()
    was, now = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("run-1.json", "run.json"))
    assert (was["settings"]["seeds"], now["settings"]["seeds"]) == ([0], [0, 1])
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["arms"]["luffy"]["test"]["greedy"]["seeds"] == 2


def test_the_record_of_an_older_release_is_the_same_study(tmp_path: Path) -> None:
    settings = tiny(tmp_path / "run")
    recorded = settings.model_copy(update={"workers": 1, "output": Path()})
    path = tmp_path / "run" / "run.json"
    path.parent.mkdir()
    record = {"settings": recorded.model_dump(mode="json")}
    path.write_text(json.dumps(record), encoding="utf-8")
    _keep_what_it_grew_from(path, recorded)
    assert path.exists()
    del record["settings"]["problems"]["traces"]  # a setting that came later
    path.write_text(json.dumps(record), encoding="utf-8")
    _keep_what_it_grew_from(path, recorded)
    assert not path.exists()
    assert path.with_name("run-1.json").exists()


def test_a_folder_of_another_study_is_refused(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracekit.cli", "study", str(SMALL), f"output={finished}", *TINY, "world.habit=0.25"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "world.habit" in done.stderr


def test_a_worker_that_cannot_work_is_told(tmp_path: Path) -> None:
    from tracekit.study.jobs import lead

    board = Board(tmp_path, [Job("a", "s")])
    with pytest.raises(JobError, match=r"workers\.log"):
        lead(tmp_path, board, 1, {}, no_progress)  # no run.json: the worker dies at once


def test_a_finished_study_and_a_phase_diagram_are_published(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = tmp_path / "phase"
    shutil.copytree(finished, phase / "habit-0.5", copy_function=shutil.copy2)
    run_grid(SMALL, [f"output={phase}", *TINY], {"world.habit": [0.5]})  # the point is finished: it is told alone
    spec = importlib.util.spec_from_file_location("publish", ROOT / "studies" / "publish.py")
    assert spec is not None
    assert spec.loader is not None
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "results")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(
        "before\n<!-- study -->\nold\n<!-- /study -->\nafter\n", encoding="utf-8"
    )
    publish.main(finished, phase)
    told = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    assert told.startswith("before\n<!-- study -->")
    assert told.endswith("<!-- /study -->\nafter\n")
    assert "old" not in told
    assert "zero-RL solves more than its base at one sample" in told
    assert "| 50.0% | 0 of 1 | 0 of 1 |" in told
    assert (tmp_path / "results" / finished.name / "result.json").read_bytes() == (
        finished / "result.json"
    ).read_bytes()
    drawn = (tmp_path / "results" / "summary.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "currentColor" not in drawn
    claims = pl.read_parquet(tmp_path / "results" / "phase" / "phase_claims.parquet")
    assert claims["world.habit"].unique().to_list() == [0.5]
