"""The report of a study with rungs: five sentences, a figure a question, the registered claims, then the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.pages.html_page import Page
from tracekit.core.runs import versions, write_text
from tracekit.core.tables import write_table
from tracekit.study.analysis.claim_sets import CLAIM_SETS
from tracekit.study.analysis.exact import clopper_pearson
from tracekit.study.analysis.ladder import half_way
from tracekit.study.analysis.registered import SOLVED, Records, conclude, read_records
from tracekit.study.preregistration import standing
from tracekit.study.report import rung_figures
from tracekit.study.report.answers import SENTENCES, conclusion_of, decision_card
from tracekit.study.report.cost_frontier import frontier_figure, frontier_sentences, read_curves
from tracekit.study.report.latex import latex_table
from tracekit.study.settings import BASE, StudySettings

#: What a set's study is run with, as a word of the command line.
RECIPES = {"sealed": "studies/sealed.toml", "quick": "", "hybrids": "studies/hybrids.toml"}

FIGURE = "solved.svg"
SVG_INK = "#7d8590"  # readable on a white page and on a black one


def write_rung_report(settings: StudySettings, jobs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write report.html, report.md, claims.tex, result.json and the runs as a table; returns what result.json holds.

    A study that is not finished has a report too: its claims are open, and the page says how far it is.
    """
    records = read_records(settings, settings.output / "results")
    runs = runs_table(records)
    registered, note = standing(settings)
    chosen = CLAIM_SETS[settings.claims]
    claims = conclude(chosen.claims, records, chosen.least_bases)
    counts = solved_counts(runs)
    result = {
        "registered": registered,
        "registration": note,
        "bases": bases_done(settings, runs),
        "sentences": SENTENCES[settings.claims]({row["id"]: row for row in claims}, counts),
        "claims": claims,
        "solved": counts.to_dicts(),
        "ladder": ladders(settings, records),
        "gates": gates(settings, records),
        "command": f"tracekit study {RECIPES[settings.claims]}".strip(),
        "seconds": round(sum(float(job["seconds"]) for job in jobs.values()), 1),
        "versions": versions(),
        "commits": sorted({str(job["commit"]) for job in jobs.values() if job.get("commit")}),
    }
    write_text(settings.output / "result.json", json.dumps(_plain(result), indent=1, ensure_ascii=False))
    write_table(runs, settings.output / "figures" / "runs.parquet")
    page = _page(settings, runs, counts, claims, result)
    write_text(settings.output / "report.html", page.render())
    write_text(settings.output / "report.md", page.render_markdown())
    write_text(settings.output / "claims.tex", latex_table(claims, f"{settings.title} {note}"))
    titles, rungs = _titles(settings)
    if not runs.is_empty():
        drawn = rung_figures.solved_figure(_main(runs), titles, rungs)
        write_text(settings.output / FIGURE, drawn.replace("currentColor", SVG_INK))
    return result


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null and ±1e308 stand for them."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and abs(value) == float("inf"):
        return 1e308 if value > 0 else -1e308
    return value


# ---------------------------------------------------------------- tables


def runs_table(records: Records) -> pl.DataFrame:
    """One row a run: rung, arm, seed, pass_rate of its base, accuracies, rounds to solve, skill, KL and losses."""
    rows = []
    for (rung, arm, seed), record in records.by_run.items():
        base, rounds = records.by_run.get((rung, BASE, seed), {}), record.get("rounds_to_solve") or {}
        rows.append(
            {
                "rung": rung,
                "arm": arm,
                "seed": seed,
                "pass_rate": base.get("pass_rate", {}).get("total"),
                "gates_passed": base.get("gates_passed"),
                "greedy": record["greedy"],
                "warm": record["accuracy"]["0.6"],
                "hot": record["accuracy"]["1"],
                "vote": record["vote"],
                "rounds": rounds.get("value"),
                "solved_rl": rounds.get("solved"),
                "skill": record["skill"],
                "flops": _whole_cost(records, rung, arm, seed),
                "probe_auc": (record.get("probe") or {}).get("auc"),
                "text_auc": (record.get("probe") or {}).get("text_auc"),
                "kl": record.get("kl"),
                "loss_reversed": record.get("loss_reversed"),
                "loss_logs": record.get("loss_logs"),
                "seconds": record.get("seconds"),
            }
        )
    schema = {
        "rung": pl.String, "arm": pl.String, "seed": pl.Int64, "gates_passed": pl.Boolean, "solved_rl": pl.Boolean,
    }  # fmt: skip
    numbers = ("pass_rate", "greedy", "warm", "hot", "vote", "rounds", "skill", "flops", "kl", "loss_reversed")
    full = schema | dict.fromkeys((*numbers, "loss_logs", "probe_auc", "text_auc", "seconds"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=full, schema=None if rows else full).sort("rung", "arm", "seed")


def _whole_cost(records: Records, rung: str, arm: str, seed: int) -> float | None:
    """FLOPs of a run and of the runs that it starts from; None where one of them is not known."""
    total = 0.0
    while arm != BASE:
        spent = records.by_run.get((rung, arm, seed), {}).get("flops")
        if spent is None:
            return None
        total, arm = total + float(spent), records.settings.arms[arm].start
    return total


def solved_counts(runs: pl.DataFrame) -> pl.DataFrame:
    """Rung and arm → runs, solved, and the exact 95 % interval of the share solved; bases whose gates held alone."""
    kept = runs.filter(pl.col("gates_passed"))
    counted = kept.group_by("rung", "arm", maintain_order=True).agg(
        pl.len().alias("runs"), (pl.col("greedy") >= SOLVED).sum().alias("solved")
    )
    bounds = [clopper_pearson(solved, n) for n, solved in counted.select("runs", "solved").iter_rows()]
    return counted.with_columns(
        pl.Series("low", [low for low, _ in bounds], dtype=pl.Float64),
        pl.Series("high", [high for _, high in bounds], dtype=pl.Float64),
    )


def bases_done(settings: StudySettings, runs: pl.DataFrame) -> dict[str, int]:
    """How many bases have every run of the first phase, and how many are planned."""
    from tracekit.study.rungs import phase_of, runs_of

    finished = set(runs.select("rung", "arm", "seed").iter_rows())
    first = [run for run in runs_of(settings) if phase_of(settings, run) == 0]
    done = {s for s in settings.seeds if all((r.rung, r.arm, r.seed) in finished for r in first if r.seed == s)}
    return {
        "core": len(done),
        "planned": len(settings.seeds),
        "runs": len(finished),
        "all_runs": len([*runs_of(settings)]),
    }


def gates(settings: StudySettings, records: Records) -> list[dict[str, Any]]:
    """The gates of each rung: the worst base's skill, and the highest pass rate where one is bounded."""
    rows: list[dict[str, Any]] = []
    for name, rung in settings.rungs.items():
        bases = [r for (at, arm, _), r in records.by_run.items() if at == name and arm == BASE]
        if not bases:
            continue
        skill, rate = min(r["skill"] for r in bases), max(r["pass_rate"]["total"] for r in bases)
        rows.append(_gate(f"skill on logs, {name}", skill, ">=", settings.gates.skill, skill >= settings.gates.skill))
        if rung.pass_rate < 1:
            rows.append(_gate(f"pass rate, {name}", rate, "<=", rung.pass_rate, rate <= rung.pass_rate))
    return rows


def ladders(settings: StudySettings, records: Records) -> dict[str, Any]:
    """Arm → log10 of the right rollouts at which half of its runs are solved, with its 95 % interval, over all rungs.

    Only arms that were run at more than one rung, from the right teacher, on the study's own problems.
    """
    found = {}
    for name, arm in settings.arms.items():
        places = [(rung, seed) for rung, at, seed in records.by_run if at == name and _gates_held(records, rung, seed)]
        if len({rung for rung, _ in places}) < 2 or arm.split != "test" or arm.teacher != "right":
            continue
        if "rollout" not in settings.recipe or arm.recipe.get("method") in ("sft", "cpt", "dpo"):
            continue
        cells = [cell for rung, seed in places for cell in records.cells(name, [rung], [seed])]
        half = half_way(cells)
        solved = sum(cell.solved for cell in cells)
        found[name] = {
            "half_way": half.value, "low": half.low, "high": half.high, "runs": len(cells), "solved": solved,
        }  # fmt: skip
    return found


def _gates_held(records: Records, rung: str, seed: int) -> bool:
    return bool(records.by_run.get((rung, BASE, seed), {}).get("gates_passed"))


def _gate(name: str, value: float, needs: str, threshold: float, passed: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "needs": needs, "threshold": threshold, "passed": passed}


# ---------------------------------------------------------------- the page


def _titles(settings: StudySettings) -> tuple[dict[str, str], dict[str, str]]:
    titles = {BASE: "base"} | {name: arm.title or name for name, arm in settings.arms.items()}
    order = sorted(settings.rungs, key=lambda name: settings.rungs[name].habit * (settings.rungs[name].first is None))
    return titles, {name: settings.rungs[name].title or name for name in order}


def _main(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs whose teacher and problems are the study's own."""
    return runs.filter(pl.col("arm").is_in(["base", "sft", "grpo", "luffy", "sft_grpo", "luffy_plain", "rl_sft"]))


def _page(
    settings: StudySettings,
    runs: pl.DataFrame,
    counts: pl.DataFrame,
    claims: list[dict[str, Any]],
    result: dict[str, Any],
) -> Page:
    bases = result["bases"]
    state = f"{bases['core']} of {bases['planned']} bases finished, {bases['runs']} of {bases['all_runs']} runs."
    page = Page(settings.title, f"{state} {result['registration']}")
    for sentence in result["sentences"]:
        page.text(sentence)
    card = decision_card(settings.claims, {row["id"]: row for row in claims})
    if not card.is_empty():
        page.section("What to do")
        page.table(card, kind="card")
    if not runs.is_empty():
        _figures(page, settings, runs, counts)
    _claims(page, settings, claims, result["registered"])
    page.section("Tables")
    page.text("Whatever is read from these beyond the claims above is exploratory.")
    page.folded("Gates", pl.DataFrame(result["gates"], infer_schema_length=None))
    page.folded("Solved, by cell and method", counts)
    page.folded("Every run", runs)
    page.section("How to run it again")
    page.text("The same command goes on where it was stopped; finished runs are never repeated.")
    page.code(result["command"])
    kept = ("registration", "seconds", "versions", "commits")
    page.code(json.dumps({k: result[k] for k in kept}, indent=1))
    return page


def _figures(page: Page, settings: StudySettings, runs: pl.DataFrame, counts: pl.DataFrame) -> None:
    """A figure for each question; every run is a dot or a line."""
    titles, rungs = _titles(settings)
    data, main = "figures/runs.parquet", _main(runs)
    page.section("What does each method solve?")
    page.figure(
        "Every run a dot; a run is solved right of the dotted line.",
        data, rung_figures.solved_figure, main, titles, rungs,
    )  # fmt: skip
    if runs["pass_rate"].n_unique() > 1:
        page.section("How does that depend on the base's pass rate?")
        page.figure("Every run a dot.", data, rung_figures.ladder_figure, main, titles)
    page.section("How long does it take?")
    page.figure("Hollow: not solved in the budget.", data, rung_figures.time_figure, main, titles, rungs)
    page.section("What does it cost?")
    curves = read_curves(settings)
    page.figure(
        "A line: a run of RL, its on-policy reward after each round, mean of five. A dot: where a run ends, accuracy "
        "at temperature 1 on test problems. FLOPs by formula, with those of the run it starts from.",
        data, frontier_figure, curves, main, titles, rungs,
    )  # fmt: skip
    for sentence in frontier_sentences(main, titles, rungs):
        page.text(sentence)
    page.section("Is it learning or sampling?")
    page.figure(
        "Accuracy by temperature; every run a line.", data, rung_figures.temperature_figure, main, titles, rungs
    )
    page.section("What is forgotten?")
    page.figure("Every run a dot.", data, rung_figures.forgetting_figure, main, titles)
    if runs["probe_auc"].drop_nulls().len():
        page.section("What can be read inside before it is written?")
        page.figure(
            "AUC of a probe of the last layer, one token before a step's result, on held-out problems; every run a "
            "dot. Dashed: a probe of the last token and the value before it.",
            data, rung_figures.probe_figure, runs, titles,
        )  # fmt: skip


def _claims(page: Page, settings: StudySettings, claims: list[dict[str, Any]], registered: bool) -> None:
    page.section("Registered claims" if registered else "Claims, exploratory")
    page.text(
        "Four conclusions: yes; no: the opposite; no difference within the margin; open, with the number n of bases "
        "that would decide an effect of this size at 80 % power. p is exact, or of the ladder's likelihood; p_holm is "
        "after Holm's correction within a question. A claim stays open until every base is finished."
    )
    if CLAIM_SETS[settings.claims].pairing:
        page.text(CLAIM_SETS[settings.claims].pairing)
    page.table(claims_table(claims), kind="claims")


def claims_table(claims: list[dict[str, Any]]) -> pl.DataFrame:
    """The table of claims as it is printed: the conclusion in words, estimate and interval in one column."""
    rows = [
        {
            "claim": f"{row['id']}. {row['claim']}",
            "conclusion": conclusion_of(row),
            "estimate [95 %]": interval_of(row),
            "p_holm": "< .001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}",
            "bases": row["bases"],
            "test": row["test"],
            "note": row["note"],
        }
        for row in claims
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def interval_of(row: Mapping[str, Any]) -> str:
    """Estimate, interval and unit as words; a dash where no run is finished."""
    if row["estimate"] != row["estimate"]:
        return "–"
    return f"{row['estimate']:.3g} [{row['low']:.3g}, {row['high']:.3g}] {row['unit']}"


def report_from(settings: StudySettings, published: Path) -> dict[str, Any]:
    """The report of published records, in their folder: results/ and prereg.json stand there."""
    return write_rung_report(settings.model_copy(update={"output": published}), {})
