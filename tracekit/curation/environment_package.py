"""A `verifiers` environment package made of a curated set: problems, and the verifier of this package as its reward.

Written for verifiers 0.1 (`SingleTurnEnv`, `Rubric`, `load_environment`), which prime-rl and `vf-eval` load by name.
"""

from __future__ import annotations

import json
from typing import Any

from tracekit.curation.export_formats import Counts, ExportFormat, ExportSettings, Row

#: Name of the module, and with hyphens of the distribution.
MODULE = "tracekit_problems"

_PROJECT = """[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "tracekit-problems"
version = "0.1.0"
description = "Problems of a curated set, with the answers compared by reasoning-tracekit."
requires-python = ">=3.11"
dependencies = ["reasoning-tracekit", "verifiers>=0.1,<0.2", "datasets>=3"]
tags = ["math", "single-turn", "verifiable-reward"]

[tool.hatch.build]
include = ["tracekit_problems.py", "*.jsonl"]
"""

_MODULE_TEXT = '''"""Problems of a curated set; a response earns 1.0 if its final answer equals the gold, else 0.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import verifiers as vf
from datasets import Dataset

from evaluators.rewards import rubric_accuracy

FOLDER = Path(__file__).parent
SYSTEM_PROMPT: str | None = {system_prompt}


def problems(split: str) -> Dataset | None:
    """Return the problems of a split (question, answer, info), or None where the set has no such split."""
    path = FOLDER / f"{{split}}.jsonl"
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").split("\\n")
    return Dataset.from_list([json.loads(line) for line in lines if line])


def load_environment(train_split: str = "train", eval_split: str = "validation", **settings: Any) -> vf.Environment:
    """Return the environment; `settings` go to `verifiers.SingleTurnEnv`."""
    train, held_out = problems(train_split), problems(eval_split)
    return vf.SingleTurnEnv(
        dataset=train,
        eval_dataset=held_out if held_out is not None else train,
        system_prompt=settings.pop("system_prompt", SYSTEM_PROMPT),
        rubric=vf.Rubric(funcs=[rubric_accuracy], weights=[1.0]),
        **settings,
    )
'''


def _row(row: Row, index: int, settings: ExportSettings) -> Row:
    info: dict[str, Any] = {"problem_id": row["problem_id"], "source": row["source"]}
    return {"question": row["problem"], "answer": row["gold"], "info": info}


def _files(counts: Counts, settings: ExportSettings) -> dict[str, str]:
    rows = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    prompt = repr(settings.system_prompt or None)
    return {
        "pyproject.toml": _PROJECT,
        f"{MODULE}.py": _MODULE_TEXT.format(system_prompt=prompt),
        "README.md": (
            f"# tracekit-problems\n\nProblems: {rows}. `pip install .` here, then "
            f"`verifiers.load_environment({json.dumps(MODULE.replace('_', '-'))})`; in prime-rl that name is the id.\n"
        ),
    }


#: The format `verifiers`: JSON lines beside the module that reads them.
VERIFIERS = ExportFormat(_row, "problem", beside=_files)
