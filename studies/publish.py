"""Publish a finished study: its tables and text into studies/results/, its figure and claims into docs/results.md.

    python studies/publish.py runs/luffy runs/phase runs/axes runs/bound

The first folder is the study, the second its phase diagram, the others are further studies. Nothing is computed here:
what stands in a study's own `figures/*.parquet` is copied, and what its claims say is told.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import polars as pl

from tracekit.core.runs import write_text
from tracekit.core.settings import build_settings
from tracekit.study.analysis.claims import MEASURES, QUESTIONS
from tracekit.study.report import figures
from tracekit.study.settings import BASE, IN_DISTRIBUTION, StudySettings

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "studies" / "results"
BEGIN, END = "<!-- study -->", "<!-- /study -->"
SUMMARY = "summary.svg"

#: What stands at the head of the text of these studies, whose claims were not registered.
NOTICE = """\
> Exploratory, and partly withdrawn: the claims were changed after a first look, intervals of outcomes that are solved
> or not are too narrow, comparisons at temperature 1 mix sampling with learning, and "closer to the teacher" measures
> entropy. What was withdrawn and why: [docs/results.md](../../../docs/results.md). The registered study:
> [sealed](../sealed/report.md).
"""

#: Readable on a white page and on a black one: an image cannot take its page's ink.
FIXED_INK = "#7d8590"


def main(study: Path, phase: Path, *further: Path) -> None:
    """Write studies/results/ and the page's part between its two marks."""
    settings, tables = copied(study)
    diagram = pl.read_parquet(phase / "phase.parquet")
    for name in ("phase.parquet", "phase_claims.parquet", "phase.md"):
        copy(phase / name, RESULTS / "phase" / name)
    add_notice(RESULTS / "phase" / "phase.md")
    drawn = figures.summary_figure(tables["metrics"], tables["curves"], diagram, titles_of(settings))
    write_text(RESULTS / SUMMARY, drawn.replace("currentColor", FIXED_INK))
    readme = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    points = phase_table(pl.read_parquet(phase / "phase_claims.parquet"), phase)
    parts = [as_markdown(tables["claims"], settings, points)]
    parts += [further_part(folder, *copied(folder), known=settings) for folder in further]
    write_text(ROOT / "docs" / "results.md", f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}{after}")


def copied(study: Path) -> tuple[StudySettings, dict[str, pl.DataFrame]]:
    """A study's tables and text into studies/results/; its settings, and its tables by name."""
    result = json.loads((study / "result.json").read_text(encoding="utf-8"))
    for path in (*(study / "figures").glob("*.parquet"), study / "result.json", study / "report.md"):
        copy(path, RESULTS / study.name / path.name)
    add_notice(RESULTS / study.name / "report.md")
    tables = {path.stem: pl.read_parquet(path) for path in sorted((study / "figures").glob("*.parquet"))}
    return build_settings(StudySettings, result["settings"], str(study)), tables


def add_notice(path: Path) -> None:
    """Put the notice below the title of a page."""
    title, _, rest = path.read_text(encoding="utf-8").partition("\n\n")
    write_text(path, f"{title}\n\n{NOTICE}\n{rest}")


def titles_of(settings: StudySettings) -> dict[str, str]:
    """How each arm is called."""
    return {BASE: "base"} | {name: arm.title or name for name, arm in settings.arms.items()}


def copy(source: Path, target: Path) -> None:
    """Copy a file, its folder made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def as_markdown(claims: pl.DataFrame, settings: StudySettings, points: str) -> str:
    """The page's part: figure, headline claims by question, and the phase diagram."""
    seeds, arms = len(settings.seeds), len(settings.arms)
    verdicts = dict(claims["verdict"].value_counts().iter_rows())
    counts = ", ".join(f"{verdicts.get(v, 0)} {v}" for v in ("supported", "refuted", "inconclusive"))
    headlines = claims.filter("headline")
    parts = [
        f"![Accuracy, training and the phase diagram](../studies/results/{SUMMARY})",
        f"{arms} ways to train one base, {seeds} seeds, base seeds varied too; habit "
        f"{settings.world.habit:.1%}. Effects are the first less the second, with 95 % intervals over seeds and "
        f"problems; p by Holm within a question. Of {len(claims)} claims {counts}; these are the headlines, all stand "
        "in [the report](../studies/results/luffy/report.md).",
        *(
            f"**{number}. {question}**\n\n{table_of(headlines.filter(pl.col('question') == number))}"
            for number, question in QUESTIONS.items()
        ),
        "**Which method goes where, by the base's habit.** 60 rounds. A seed went where more than half of its sampled "
        "rows were right in the last five rounds. Differences of accuracy at temperature 1, in points; each line a "
        f"study with its own gates and correction.\n\n{points}",
    ]
    return "\n\n".join(parts)


#: What the page tells of each point of the phase diagram: column → claim.
COMPARED = {
    "GRPO - base": "zero-RL solves more than its base at one sample",
    "LUFFY - GRPO": "LUFFY beats zero-RL, at temperature 1",
    "LUFFY - SFT": "mixed-policy RL beats SFT on the same traces, at temperature 1",
}


def phase_table(claims: pl.DataFrame, phase: Path) -> str:
    """A row a point: which seeds went, and differences of accuracy at temperature 1."""
    key = claims.columns[0]
    columns = ("habit", *(f"{arm} went" for arm in WENT), *COMPARED)
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " --- |" * (len(columns) - 1)]
    for (value,), own in claims.group_by(key, maintain_order=True):
        found = {row["claim"]: row for row in own.iter_rows(named=True)}
        curves = pl.read_parquet(phase / f"{key.rpartition('.')[2]}-{value}" / "figures" / "curves.parquet")
        cells = [went(curves, arm) for arm in WENT.values()]
        cells += [f"{told_effect(found[claim])} {found[claim]['verdict']}" for claim in COMPARED.values()]
        lines.append(f"| {value:.1%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def further_part(study: Path, settings: StudySettings, tables: dict[str, pl.DataFrame], known: StudySettings) -> str:
    """A further study: its arms, and the claims that it was made for: of arms that `known` has not, of deep pass@k,
    and those that the phase diagram is told by."""
    own = list(set(settings.arms) - set(known.arms))
    compared = pl.col("estimand").str.split(": ").list.last().str.split(" - ")
    of_own_arms = compared.list.eval(pl.element().is_in(own)).list.any()
    deep = pl.col("estimand").str.starts_with(MEASURES["deep_pass"].estimand)
    claims = tables["claims"].filter(of_own_arms | deep | pl.col("claim").is_in(list(COMPARED.values())))
    world = settings.world
    lead = (
        f"**{settings.title}** · {len(settings.seeds)} seeds; habit {world.habit:.1%}, numbers modulo {world.modulus}. "
        f"All claims: [the report](../studies/results/{study.name}/report.md)."
    )
    return f"{lead}\n\n{arms_table(settings, tables)}\n\n{table_of(claims)}"


def arms_table(settings: StudySettings, tables: dict[str, pl.DataFrame]) -> str:
    """A row an arm: seeds that went, accuracy in distribution with intervals, and the deepest pass@k where sampled."""
    metrics, deep = tables["metrics"].filter(pl.col("split") == IN_DISTRIBUTION), tables.get("deep")
    shown = {"greedy": ("greedy", 1), "at temperature 1": ("pass", 1)}
    columns = ["arm", "went", *(f"{name}, %" for name in shown)]
    if deep is not None:
        most = deep["k"].max()
        columns.append(f"pass@{most:,}, %")
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " --- |" * (len(columns) - 1)]
    for arm, title in titles_of(settings).items():
        own = metrics.filter(pl.col("arm") == arm)
        cells = [title, went(tables["curves"], arm)]
        for metric, k in shown.values():
            cells.append(told_share(own.filter(pl.col("metric") == metric, pl.col("k") == k)))
        if deep is not None:
            cells.append(told_share(deep.filter(pl.col("arm") == arm, pl.col("k") == most)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def told_share(rows: pl.DataFrame) -> str:
    """The one row's value with its interval, in per cent; nothing where there is none."""
    return "".join(f"{100 * r['value']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}]" for r in rows.to_dicts())


#: Arms of which the page tells how many seeds went: title → name.
WENT = {"GRPO": "grpo", "LUFFY": "luffy", "without shaping": "luffy_plain"}


def went(curves: pl.DataFrame, arm: str) -> str:
    """Seeds of an arm whose sampled rows were mostly right in the last five rounds, of how many; "" without RL."""
    sampled = curves.filter(pl.col("arm") == arm).drop_nulls("reward_on_policy")
    last = sampled.filter(pl.col("step") > pl.col("step").max() - 5)
    means = last.group_by("seed").agg(pl.col("reward_on_policy").mean())
    return f"{int((means['reward_on_policy'] > 0.5).sum())} of {len(means)}" if len(means) else ""


def table_of(claims: pl.DataFrame) -> str:
    """Claims as a Markdown table."""
    lines = ["| claim | effect [95 %] | p | seeds | verdict | published |", "| --- | --- | --- | --- | --- | --- |"]
    for row in claims.iter_rows(named=True):
        p = "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
        verdict = f"{row['verdict']}: {row['why']}" if row["why"] else row["verdict"]
        cells = (row["claim"], told_effect(row), p, str(row["seeds"]), verdict, row["published"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def told_effect(row: dict[str, object]) -> str:
    """An effect with its interval and unit."""
    digits = {"points": 1, "AUC": 3, "×": 2}.get(str(row["unit"]), 2)
    sign = "" if row["unit"] == "×" else "+"
    effect, low, high = (f"{row[key]:{sign}.{digits}f}" for key in ("effect", "low", "high"))
    return f"{effect} [{low}, {high}] {row['unit']}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("phase", type=Path)
    parser.add_argument("further", type=Path, nargs="*")
    given = parser.parse_args()
    main(given.study, given.phase, *given.further)
