"""The report of a study with rungs: five sentences, a figure a question, the registered claims, then the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.runs import versions, write_text
from tracekit.core.tables import write_table
from tracekit.study.analysis.exact import clopper_pearson
from tracekit.study.analysis.registered import OPEN, OPPOSITE, SAME, SOLVED, YES, Records, conclude, read_records
from tracekit.study.analysis.sealed_claims import CLAIMS
from tracekit.study.preregistration import standing
from tracekit.study.report import rung_figures
from tracekit.study.report.html_page import Page
from tracekit.study.settings import BASE, StudySettings

FIGURE = "solved.svg"
SVG_INK = "#7d8590"  # readable on a white page and on a black one


def write_rung_report(settings: StudySettings, jobs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write report.html, report.md, result.json, the claims and runs as tables; returns what result.json holds.

    A study that is not finished has a report too: its claims are open, and the page says how far it is.
    """
    records = read_records(settings, settings.output / "results")
    runs = runs_table(records)
    registered, note = standing(settings)
    claims = conclude(CLAIMS, records)
    counts = solved_counts(runs)
    result = {
        "registered": registered,
        "registration": note,
        "bases": bases_done(settings, runs),
        "sentences": sentences(claims, counts),
        "claims": claims,
        "solved": counts.to_dicts(),
        "gates": gates(settings, records),
        "seconds": round(sum(float(job["seconds"]) for job in jobs.values()), 1),
        "versions": versions(),
        "commits": sorted({str(job["commit"]) for job in jobs.values() if job.get("commit")}),
    }
    write_text(settings.output / "result.json", json.dumps(_plain(result), indent=1, ensure_ascii=False))
    write_table(runs, settings.output / "figures" / "runs.parquet")
    page = _page(settings, runs, counts, claims, result)
    write_text(settings.output / "report.html", page.render())
    write_text(settings.output / "report.md", page.render_markdown())
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
                "flops": record.get("flops"),
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
    full = schema | dict.fromkeys((*numbers, "loss_logs", "seconds"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=full, schema=None if rows else full).sort("rung", "arm", "seed")


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


def _gate(name: str, value: float, needs: str, threshold: float, passed: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "needs": needs, "threshold": threshold, "passed": passed}


# ---------------------------------------------------------------- the five sentences


def sentences(claims: list[dict[str, Any]], counts: pl.DataFrame) -> list[str]:
    """The answers in five sentences, made from the conclusions: what is open is called open."""
    found = {row["id"]: row for row in claims}
    return [
        f"Is zero-RL bounded by its base? {_said(found['P1'])} "
        f"In the sealed cell {_solved(counts, 'sealed', ('sft', 'grpo', 'luffy'))}.",
        f"Where a base succeeds now and then (the edge), {_solved(counts, 'edge', ('grpo', 'luffy', 'sft'))}; "
        f"does GRPO take more rounds than LUFFY there? {_said(found['P3b'])}",
        f"Is LUFFY bounded too (more rounds where the teacher's first token is rarer)? {_said(found['P4'])}",
        f"Is SFT then GRPO at least as accurate as LUFFY, within 2 points? {_said(found['P8'])}",
        f"Is LUFFY ahead of SFT at temperature 1, as in the first study? {_said(found['P10'])}",
    ]


def _said(row: dict[str, Any]) -> str:
    if row["conclusion"] == OPEN:
        done = row["bases"] + row["excluded"]
        state = (
            f"{done} of {row['planned']} bases are finished" if done < row["planned"] else f"p = {row['p_holm']:.2g}"
        )
        return f"Open ({row['id']}; {state})."
    words = {YES: "Yes", OPPOSITE: "No: the opposite", SAME: "No difference within the margin"}[row["conclusion"]]
    return f"{words} ({row['id']}; p = {row['p_holm']:.2g})."


def _solved(counts: pl.DataFrame, rung: str, arms: tuple[str, ...]) -> str:
    parts = []
    for arm in arms:
        own = counts.filter((pl.col("rung") == rung) & (pl.col("arm") == arm))
        for row in own.iter_rows(named=True):
            interval = f"[{100 * row['low']:.0f}, {100 * row['high']:.0f}] %"
            parts.append(f"{_NAMES.get(arm, arm)} solved {row['solved']} of {row['runs']} {interval}")
    return ", ".join(parts) if parts else "no run is finished"


_NAMES = {"sft": "SFT", "grpo": "GRPO", "luffy": "LUFFY"}


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
    titles, rungs = _titles(settings)
    data = "figures/runs.parquet"
    if not runs.is_empty():
        main = _main(runs)
        page.section("What each method solves")
        page.figure(
            "Every run a dot; a run is solved right of the line.", data, rung_figures.solved_figure, main, titles, rungs
        )
        page.table(counts)
        page.section("Against the base's pass rate")
        page.figure("Every run a dot.", data, rung_figures.ladder_figure, main, titles)
        page.section("How long it takes")
        page.figure("Hollow: not solved in the budget.", data, rung_figures.time_figure, main, titles, rungs)
        page.section("Temperature")
        page.figure("Every run a line.", data, rung_figures.temperature_figure, main, titles, rungs)
        page.section("Forgetting")
        page.figure("Every run a dot.", data, rung_figures.forgetting_figure, main, titles)
    page.section("Registered claims" if result["registered"] else "Claims, exploratory")
    page.text(
        "Four conclusions: yes; no: the opposite; no difference (within the margin); open. p is exact, or of the "
        "ladder's likelihood; p_holm after Holm's correction within a question. A claim stays open until every base "
        "is finished."
    )
    shown = ("id", "claim", "conclusion", "estimate", "low", "high", "unit", "p", "p_holm", "bases", "note")
    page.table(pl.DataFrame([{k: row[k] for k in shown} for row in claims], infer_schema_length=None), kind="claims")
    page.section("Gates")
    page.table(pl.DataFrame(result["gates"], infer_schema_length=None))
    page.section("Every run")
    page.text("Whatever is read from these beyond the registered claims is exploratory.")
    page.table(runs)
    page.section("To run it again")
    page.text("The same command goes on where it was stopped; finished runs are never repeated.")
    page.code(json.dumps({k: result[k] for k in ("registration", "seconds", "versions", "commits")}, indent=1))
    return page


def report_from(settings: StudySettings, published: Path) -> dict[str, Any]:
    """The report of published records, in their folder: results/ and prereg.json stand there."""
    return write_rung_report(settings.model_copy(update={"output": published}), {})
