"""The settings of each training run, and how a run is started."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracekit.core.runs import Progress, write_text
from tracekit.core.settings import build_settings, lay_over
from tracekit.study.paths import corpus_file, curated_file, materials_folder, model_folder, pairs_folder, text_file
from tracekit.study.settings import BASE, GivenBase, StudySettings
from tracekit.study.tasks import task_of
from trainer.settings import TrainSettings


class LaunchError(ValueError):
    """A training run that was started as a process of its own ended badly: the message says where its log stands."""


def train_settings(settings: StudySettings, arm: str, seed: int, attempt: int = 0) -> TrainSettings:
    """The TrainSettings of an arm's run: the study's shared recipe, the arm's laid over it, the paths.

    attempt: of a base that is trained; each takes twice the steps, or epochs, of the one before.
    """
    pinned = task_of(settings).pinned
    paths: dict[str, Any] = {"output": model_folder(settings, arm, seed).parent, "seed": seed, **pinned}
    own: dict[str, Any]
    if arm == BASE:
        tokenizer = materials_folder(settings) / "tokenizer"
        own = {"new_model": {"tokenizer": tokenizer}, "data": {"curated": corpus_file(settings, seed)}}
        tree = lay_over(settings.base, own)
        if attempt:
            length = "steps" if "steps" in settings.base else "epochs"  # a recipe has one of them, or one epoch
            tree[length] = settings.base.get(length, 1) * 2**attempt
    else:
        tree = lay_over(settings.recipe, settings.arms[arm].recipe)
        start = settings.arms[arm].start
        own = {
            "model": str(model_folder(settings, start, seed)),
            "data": _tables(settings, str(tree.get("method")), start, seed),
        }
        tree = lay_over(tree, own)
    return build_settings(TrainSettings, tree | paths, f"arm {arm}")


def _tables(settings: StudySettings, method: str, start: str, seed: int) -> dict[str, Path]:
    """The tables that a method reads."""
    if method in ("pretrain", "cpt"):
        return {"text": text_file(settings)}
    if method == "dpo":
        return {"curated": pairs_folder(settings, start, seed) / "pairs.parquet"}
    return {
        "curated": curated_file(settings),
        "problems": materials_folder(settings) / "train" / "problems.parquet",
    }


def train_base(settings: StudySettings, seed: int, attempt: int, progress: Progress) -> None:
    """Train the base of a seed, with the length of its attempt."""
    from trainer.train import train

    train(train_settings(settings, BASE, seed, attempt), progress=progress)


def train_arm(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """Train an arm, in this process or by the study's launcher; lay a given model down."""
    from tracekit.study.tasks.public import lay_base
    from trainer.train import train

    given = settings.arms[arm]
    if given.model is not None:
        chosen = GivenBase(model=given.model, model_changes=given.model_changes)
        lay_base(chosen, model_folder(settings, arm, seed))
        return
    resolved = train_settings(settings, arm, seed)
    launch = settings.data.launch if settings.data is not None else ()
    if not launch:
        train(resolved, progress=progress)
        return
    progress("train", 0, 0, f"{launch[0]}; its log: jobs/train-{arm}-{seed}.log")
    launch_run(launch, resolved, settings.output / "jobs" / f"train-{arm}-{seed}")


def launch_run(launch: tuple[str, ...], resolved: TrainSettings, files: Path) -> None:
    """Run `tracekit train` on resolved settings by a launcher, to its end; `files`.toml and `files`.log are written.

    launch: a command that takes `-m MODULE`, as torchrun, accelerate launch and python do. Raises LaunchError.
    """
    recipe, log = files.with_suffix(".toml"), files.with_suffix(".log")
    write_text(recipe, as_toml(resolved.model_dump(mode="json", exclude_unset=True)))
    command = [*launch, "-m", "tracekit.cli", "train", str(recipe)]
    with log.open("ab") as written:
        try:
            code = subprocess.run(command, stdout=written, stderr=written).returncode
        except FileNotFoundError as error:
            raise LaunchError(f"data.launch starts {launch[0]}, which is no program here.") from error
    if code:
        raise LaunchError(f"`{' '.join(command)}` ended with code {code}; its last words: {log}")


def as_toml(tree: Mapping[str, Any]) -> str:
    """A tree of plain values as TOML, a line a key; None is left out, for TOML has none."""
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in tree.items() if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items() if one is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)  # strings, numbers and booleans are written alike
