"""Probe the sealed cell of a registered study and lay its rollouts into the trace viewer: studies/results/NAME/.

    python studies/probe_registered.py studies/sealed.toml runs/sealed

Exploratory: neither is part of the registration. Every model reads the same right traces of fresh problems; the parity
of each step's result is probed one token before it is written. The viewer shows the answers of the first base's arms.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from probes.protocol.run import Source, run_protocol
from probes.protocol.settings import ProtocolSettings
from probes.report.report import write_report
from probes.states.extract import Reading, extract_states
from tracekit.core.progress import draw_progress
from tracekit.core.settings import load_settings
from tracekit.study.published import VIEWER_DATA
from tracekit.study.rungs import Run
from tracekit.study.settings import BASE, StudySettings
from tracekit.study.steps.rung_probing import read_traces
from tracekit.study.steps.rung_runs import model_of, record_file
from tracekit.viewer.build import build_view

RESULTS = Path(__file__).resolve().parent / "results"
RUNG, ARMS, FEATURE = "sealed", (BASE, "sft", "grpo", "luffy"), "result_parity"
PROTOCOL = {"fit": "least_squares", "max_rows": 800, "permutations": 99, "draws": 50, "repeats": 1}


def main(recipe: Path, run: Path, problems: int, bases: int) -> None:
    """Write probe/ and view/ beside the published report of the run."""
    settings = load_settings(StudySettings, recipe, [f"problems.probe={problems}"])
    settings = settings.model_copy(update={"output": run, "seeds": settings.seeds[:bases]})
    folder = RESULTS / run.name
    with draw_progress() as progress, tempfile.TemporaryDirectory() as scratch:
        shown = [run / "measures" / Run(RUNG, arm, settings.seeds[0]).name for arm in ARMS]
        page = build_view(*shown, out=Path(scratch) / "view", progress=progress)
        shutil.copytree(page.parent / "data", folder / VIEWER_DATA, dirs_exist_ok=True)  # the page is the product's
        source = read_source(settings, Path(scratch))
        protocol = ProtocolSettings(base=BASE, features=(FEATURE,), **PROTOCOL)  # type: ignore[arg-type]
        write_report(run_protocol(source, protocol, progress=progress), Path(scratch) / "probe")
        (folder / "probe").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(scratch) / "probe" / "report.html", folder / "probe" / "report.html")
    print(folder / "probe" / "report.html", folder / VIEWER_DATA, sep="\n")


def read_source(settings: StudySettings, scratch: Path) -> Source:
    """Every arm's states on the same traces, on the bases whose gates held."""
    traces, steps = read_traces(settings)
    states: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    for seed in settings.seeds:
        base = json.loads(record_file(settings, Run(RUNG, BASE, seed).name).read_text(encoding="utf-8"))
        if not base["gates_passed"]:
            continue
        for arm in ARMS:
            one = Run(RUNG, arm, seed)
            states[arm].append(scratch / one.name)
            reading = Reading(positions=("before_result",), layers=(1, 2, 3))
            extract_states(model_of(settings, one), traces, steps, scratch / one.name, reading)
    return Source("the world", traces, steps, states)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--bases", type=int, default=8)
    given = parser.parse_args()
    main(given.recipe, given.run, given.problems, given.bases)
