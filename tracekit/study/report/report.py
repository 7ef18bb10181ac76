"""The study's report: result.json, report.html and report.md, and each figure's data as Parquet."""

from __future__ import annotations

import json
import math
from typing import Any

import polars as pl

from tracekit.core.pages.html_page import Page
from tracekit.core.runs import Progress, commit, versions, write_text
from tracekit.core.tables import write_table
from tracekit.study.analysis.claims import ONE_SEED, QUESTIONS, Evidence, claims_table
from tracekit.study.analysis.results import (
    Gate,
    arm_metrics,
    cost_summary,
    cost_table,
    crossings,
    deep_curves,
    deep_unsolved,
    exploration_table,
    gates_of,
    read_probe,
    teacher_tokens,
    temperature_curves,
    training_curves,
)
from tracekit.study.analysis.statistics import upper_bound_of_none
from tracekit.study.paths import VIEWS, model_folder, view_of
from tracekit.study.report import figures
from tracekit.study.settings import BASE, TEACHER, VOTERS, StudySettings
from tracekit.study.tasks import task_of

REPORT, REPORT_MARKDOWN, RESULT = "report.html", "report.md", "result.json"
DATA = "figures"  # folder of the figures' tables


def write_study_report(
    settings: StudySettings, jobs: dict[str, dict[str, Any]], install_seconds: float | None
) -> dict[str, Any]:
    """Read every measurement, write the three files, and return what result.json holds."""
    folder = settings.output
    curves = training_curves(settings)
    tables = {
        "metrics": arm_metrics(settings),
        "curves": curves,
        "costs": cost_table(settings, curves, jobs),
        "exploration": exploration_table(settings),
        "teacher_tokens": teacher_tokens(settings),
    }
    if settings.probed():
        tables |= {name: read_probe(folder, name) for name in ("effects", "cells", "sources")}
    optional = {
        "skill": task_of(settings).skill(),
        "deep": deep_curves(settings),
        "unsolved": deep_unsolved(settings),
        "sweep": temperature_curves(settings),
    }
    tables |= {name: found for name, found in optional.items() if found is not None}
    gates = gates_of(settings)
    tables["claims"] = claims_table(
        Evidence(
            settings, curves, tables["exploration"], tables["costs"], tables["teacher_tokens"], tables.get("effects")
        ),
        gates,
    )
    for name, table in tables.items():
        write_table(table, folder / DATA / f"{name}.parquet")
    result = _result(settings, gates, tables, jobs, install_seconds)
    write_text(folder / RESULT, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    page = _page(settings, gates, tables, result)
    write_text(folder / REPORT, page.render())
    write_text(folder / REPORT_MARKDOWN, page.render_markdown())
    return result


def write_views(settings: StudySettings, progress: Progress) -> None:
    """The trace viewer's page of each RL arm's first seed, beside the report."""
    from tracekit.viewer.build import build_view

    for arm in settings.arms:
        run = model_folder(settings, arm, settings.seeds_of(arm)[0]).parent
        if (run / "completions").is_dir() and not view_of(settings, arm).exists():
            build_view(run, out=view_of(settings, arm).parent, progress=progress)


def _result(
    settings: StudySettings,
    gates: list[Gate],
    tables: dict[str, pl.DataFrame],
    jobs: dict[str, dict[str, Any]],
    install_seconds: float | None,
) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    for name, record in jobs.items():
        stage = name.partition("-")[0]
        seconds[stage] = round(seconds.get(stage, 0.0) + record["seconds"], 1)
    arms: dict[str, Any] = {}
    for row in tables["metrics"].iter_rows(named=True):
        key = row["metric"] if row["metric"] == "greedy" else f"{row['metric']}@{row['k']}"
        measured = {name: _plain(row[name]) for name in ("value", "low", "high", "seeds")}
        arms.setdefault(row["arm"], {}).setdefault(row["split"], {})[key] = measured
    return {
        "gates": [
            {"name": g.name, "value": g.value, "needs": g.needs, "threshold": g.threshold, "passed": g.passed}
            for g in gates
        ],
        "arms": arms,
        "probes": _records(tables.get("effects")),
        "claims": _records(tables["claims"]),
        "seconds": {"stages": seconds, "installation": install_seconds},
        "settings": settings.model_dump(
            mode="json", exclude={"output", "workers"} | ({"data"} if settings.data is None else set())
        ),
        "versions": versions(),
        "commit": commit(),
        # of the code that did the jobs: more than one where a study was gone on with, or grew, under another
        "commits": sorted({record["commit"] for record in jobs.values() if record.get("commit")}),
    }


def _records(table: pl.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else [{k: _plain(v) for k, v in row.items()} for row in table.iter_rows(named=True)]


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------- the page


def _page(settings: StudySettings, gates: list[Gate], tables: dict[str, pl.DataFrame], result: dict[str, Any]) -> Page:
    titles = {BASE: "base"} | {name: arm.title or name for name, arm in settings.arms.items()}
    page = Page(settings.title, _lead(settings, gates, tables))
    _write_gates(page, gates, settings)
    if "skill" in tables:
        _write_skill(page, tables)
    _write_claims(page, tables, settings)
    _write_accuracy(page, tables, titles, settings)
    _write_exploration(page, tables, titles, settings)
    _write_costs(page, tables, titles)
    if settings.probed():
        _write_probes(page, tables, titles, settings)
    _write_rollouts(page, settings, titles)
    _write_protocol(page, settings, result)
    return page


def _lead(settings: StudySettings, gates: list[Gate], tables: dict[str, pl.DataFrame]) -> str:
    runs, seeds = len(settings.runs()), len(settings.seeds)
    scale = f"{len(settings.arms)} ways to train one base, {seeds} seed{'s' * (seeds > 1)}, {runs} checkpoints."
    failed = [gate.name for gate in gates if not gate.passed]
    if failed:
        return f"{scale} FAILED gates: {', '.join(failed)}. The conclusions are withheld."
    verdicts = tables["claims"]["verdict"].value_counts()
    counts = dict(verdicts.iter_rows()) if len(verdicts) else {}
    told = ", ".join(f"{counts.get(v, 0)} {v}" for v in ("supported", "refuted", "inconclusive"))
    replicates = " One seed speaks of these checkpoints only: no method is called better." if seeds < 2 else ""
    return f"{scale} Claims: {told}.{replicates}"


def _write_gates(page: Page, gates: list[Gate], settings: StudySettings) -> None:
    page.section("Gates")
    page.text("What must hold before anything is concluded; the worst seed counts.")
    if "sft" in settings.arms and not settings.gates.imitation:
        page.text("How well SFT must take its traces up was not fixed beforehand: imitation has no gate here.")
    page.table(
        pl.DataFrame(
            {
                "gate": [g.name for g in gates],
                "value": [g.value for g in gates],
                "needs": [f"{g.needs} {g.threshold:g}" for g in gates],
                "passed": [g.passed for g in gates],
            }
        )
    )


def _write_skill(page: Page, tables: dict[str, pl.DataFrame]) -> None:
    page.text(
        "The base's skill is its forced-step accuracy on worked logs, worst length (least). What it does under a "
        "question, where it has seen few steps, belongs to its habit (elicited); training may move it."
    )
    page.table(tables["skill"])


def _write_claims(page: Page, tables: dict[str, pl.DataFrame], settings: StudySettings) -> None:
    claims, left_out = tables["claims"], task_of(settings).words.left_out
    page.section("What was asked, and what came out")
    page.text(
        "Each claim with its effect, the 95 % interval over seeds and problems (crossed random effects), and p after "
        "Holm's correction within its question; p_table is that over all questions at once. Accuracies within ±2 "
        "points of one another count as the same. Published figures are those of arXiv 2504.14945, at its scale."
    )
    if left_out:
        page.text(left_out)
    for number, question in QUESTIONS.items():
        own = claims.filter(pl.col("question") == number) if len(claims) else claims
        if own.is_empty():
            continue
        page.subsection(f"{number}. {question}")
        page.text(_told(own))
        page.table(_readable(own), kind="claims")
    if not claims.is_empty() and claims["seeds"].max() > 1:  # type: ignore[operator]
        page.figure("Claims in percentage points.", f"{DATA}/claims.parquet", figures.claims_figure, claims)


def _readable(claims: pl.DataFrame) -> pl.DataFrame:
    """Claims as a reader takes them in; a column that says nothing is left out."""
    interval = pl.when(pl.col("low").is_not_nan()).then(
        pl.format("{} … {}", *(pl.col(bound).map_elements(_short, pl.String) for bound in ("low", "high")))
    )
    published = pl.when(pl.col("published") == "").then(pl.lit("")).otherwise(pl.format(" (paper: {})", "published"))
    shown = claims.select(
        pl.concat_str("claim", published).alias("claim"), "effect", interval.alias("95 % interval"), "unit", "p",
        "p_table", "seeds", "verdict", "why", pl.col("estimand").alias("measured as"),
    )  # fmt: skip
    told_once = ("", ONE_SEED, None)
    silent = [c for c in ("why", "p_table") if shown[c].n_unique() == 1 and shown[c][0] in told_once]
    return shown.drop(silent)


def _short(value: float) -> str:
    """Three digits that say something: 21.6, 0.045."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _told(claims: pl.DataFrame) -> str:
    """The verdicts of a question's claims in one sentence each."""
    if (claims["why"] == ONE_SEED).all():
        return f"Nothing is concluded: {ONE_SEED}."
    parts = []
    for verdict in ("supported", "refuted", "inconclusive", "withheld"):
        own = claims.filter(pl.col("verdict") == verdict)["claim"].to_list()
        if own:
            parts.append(f"{verdict.capitalize()}: {'; '.join(own)}.")
    return " ".join(parts)


def _write_accuracy(
    page: Page, tables: dict[str, pl.DataFrame], titles: dict[str, str], settings: StudySettings
) -> None:
    metrics = tables["metrics"]
    page.section("Accuracy")
    page.text(task_of(settings).words.splits)
    page.figure("Greedy accuracy, 95 % intervals.", f"{DATA}/metrics.parquet", figures.accuracy_figure, metrics, titles)
    warm = f"temperature {settings.temperature:g}"
    shifted = [split for split in settings.shifted if settings.samples_of(split) >= VOTERS]
    page.figure(
        f"pass@k at {warm}, unbiased estimator.",
        f"{DATA}/metrics.parquet",
        figures.pass_figure,
        metrics,
        titles,
        (*settings.repeated, *shifted[:1])[:3],
    )
    if "deep" in tables:
        _write_deep(page, tables["deep"], titles)
    if "unsolved" in tables:
        page.text(
            "Of these problems, counted over the seeds: those that the base never solved, those of them that an arm "
            "solved, and those that the base solved and the arm never did."
        )
        counted = ("problems", "unsolved_by_base", "of_these_solved", "lost")
        page.table(
            tables["unsolved"].group_by("arm", maintain_order=True).agg(pl.len().alias("seeds"), pl.col(counted).sum())
        )
    if "sweep" in tables:
        page.figure(
            "One sample, pass@k and majority vote over temperatures, in distribution.",
            f"{DATA}/sweep.parquet",
            figures.temperature_figure,
            tables["sweep"],
            titles,
        )
        found = crossings(tables["sweep"], list(titles))
        page.text(
            "Where the methods cross: pairs of which one is better at some temperature and the other at another, each "
            "by a 95 % interval over seeds, uncorrected."
            if len(found)
            else "No two methods cross: none is better at one temperature and worse at another, by 95 % intervals."
        )
        if len(found):
            page.table(found)
    wide = metrics.with_columns(
        pl.when(pl.col("metric") == "greedy")
        .then(pl.lit("greedy"))
        .otherwise(pl.format("{}@{}", "metric", "k"))
        .alias("of")
    )
    most = sorted({settings.samples_of(split) for split in settings.splits} - {1})
    shown = ["greedy", "pass@1", *(f"{metric}@{k}" for k in most for metric in ("pass", "majority"))]
    page.table(wide.filter(pl.col("of").is_in(shown)).pivot("of", index=("split", "arm"), values="value"))


def _write_deep(page: Page, deep: pl.DataFrame, titles: dict[str, str]) -> None:
    most = int(deep["k"].max())  # type: ignore[arg-type]
    as_metrics = deep.with_columns(pl.lit("pass").alias("metric"), pl.lit("fixed problems").alias("split"))
    page.figure(
        f"pass@k to {most} on problems fixed beforehand; 0 right of {most}: p < {upper_bound_of_none(most):.1%}.",
        f"{DATA}/deep.parquet",
        figures.pass_figure,
        as_metrics,
        titles,
        ("fixed problems",),
    )


def _write_exploration(
    page: Page, tables: dict[str, pl.DataFrame], titles: dict[str, str], settings: StudySettings
) -> None:
    explored, teacher = tables["exploration"], TEACHER in tables["exploration"]["arm"]
    page.section("Exploration")
    page.text(task_of(settings).words.path + (_OFF_TEACHER if teacher else _OFF_BASE) + (_OWN_HAND if teacher else ""))
    page.figure(
        "Reward and entropy over training by RL (running mean of five rounds).",
        f"{DATA}/curves.parquet",
        figures.training_figure,
        tables["curves"],
        titles,
    )
    page.figure(
        "Probability given to the teacher's tokens, by the base's rank of them.",
        f"{DATA}/teacher_tokens.parquet",
        figures.teacher_token_figure,
        tables["teacher_tokens"],
        titles,
    )
    shown = [c for c in explored.columns if c not in ("arm", "seed") and explored[c].is_not_null().any()]
    own = explored.filter((pl.col("arm") != BASE) | pl.col("seed").is_in(settings.run_seeds(BASE)))
    page.table(own.group_by("arm", maintain_order=True).agg(pl.len().alias("seeds"), pl.col(shown).mean()))


_OFF_TEACHER = (
    " off_teacher and off_base: share of right samples whose path is not the teacher's, or none of the base's right "
    "ones. kept and gained: problems solved among those that the base solved, or did not."
)
_OFF_BASE = (
    " off_base: share of right samples whose path is none of the base's right ones. kept and gained: problems solved "
    "among those that the base solved, or did not."
)
_OWN_HAND = " The row `teacher` is other traces of the teacher's own hand: what departing from one trace of it means."


def _write_costs(page: Page, tables: dict[str, pl.DataFrame], titles: dict[str, str]) -> None:
    page.section("Cost")
    page.text(
        "Training after the base; what an arm's start has cost is in it. FLOPs by formula (weights and attention, "
        "backward twice the forward)."
    )
    page.figure(
        "Accuracy against compute.",
        f"{DATA}/costs.parquet",
        figures.cost_figure,
        tables["metrics"],
        tables["costs"],
        titles,
    )
    page.figure(
        "Reward at equal compute: on-policy rows against the operations spent.",
        f"{DATA}/curves.parquet",
        figures.compute_figure,
        tables["curves"],
        titles,
    )
    page.table(cost_summary(tables["costs"], tables["metrics"]))


def _write_probes(page: Page, tables: dict[str, pl.DataFrame], titles: dict[str, str], settings: StudySettings) -> None:
    page.section("What is linearly separable")
    page.text(
        "Held-out AUC of linear SVMs on hidden states, every checkpoint reading identical traces; folds hold whole "
        "problems out. Controls, geometry, decision slices and the protocol stand in the full probing report."
    )
    page.links("Read on:", [("the probing report", "probe/report.html")])
    page.figure(
        "Held-out AUC by layer.",
        f"{DATA}/cells.parquet",
        figures.layer_figure,
        tables["cells"],
        titles,
        tables["cells"]["feature"].unique(maintain_order=True).to_list(),
    )
    if tables["sources"]["source"].n_unique() > 1:
        page.figure(
            f"Arm × source: the same models on {task_of(settings).words.read} and on arms' own rollouts, matched in "
            "prevalence. A dash: the rollouts do not hold both classes.",
            f"{DATA}/sources.parquet",
            figures.source_figure,
            tables["sources"],
            titles,
        )
    page.table(tables["effects"].filter(pl.col("estimand") == "delta").select(_EFFECTS))


#: Columns of the probing effects that the study's page shows; all of them stand in figures/effects.parquet.
_EFFECTS = (
    "feature",
    "a",
    "b",
    "effect",
    "low",
    "high",
    "p_holm",
    "p_equivalent_holm",
    "verdict",
    "auc_a",
    "auc_b",
    "why",
)


def _write_rollouts(page: Page, settings: StudySettings, titles: dict[str, str]) -> None:
    views = [(titles[arm], f"{VIEWS}/{arm}/index.html") for arm in settings.arms if view_of(settings, arm).exists()]
    if views:
        page.section("Rollouts")
        page.links("What the first seed's policies wrote while they were trained, verdict by verdict:", views)


def _write_protocol(page: Page, settings: StudySettings, result: dict[str, Any]) -> None:
    page.section("To run it again")
    page.text("Settings, seeds and versions. The same seed on CPU gives the same result.json but for times.")
    page.code(json.dumps(result["settings"], indent=1, ensure_ascii=False))
    page.code(
        json.dumps(
            {
                "versions": result["versions"],
                "commit": result["commit"],
                "commits": result["commits"],
                **result["seconds"],
            },
            indent=1,
        )
    )
