"""The door: settings in, trained model folder out."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path

from tracekit.core.runs import Progress, no_progress
from trainer.settings import Method, TrainSettings

#: Where each method's loop is; imported when it is called.
LOOPS: dict[Method, str] = {
    "pretrain": "trainer.loops.supervised:run",
    "cpt": "trainer.loops.supervised:run",
    "sft": "trainer.loops.supervised:run",
    "dpo": "trainer.loops.supervised:run",
    "grpo": "trainer.loops.policy:run",
    "luffy": "trainer.loops.policy:run",
    "rl_sft": "trainer.loops.policy:run",
}


def train(settings: TrainSettings, *, progress: Progress = no_progress) -> Path:
    """Run one recipe to its end and return `<output>/final`, a Hugging Face folder with its tokenizer.

    Killed anywhere and called again with the same settings it goes on from the newest whole checkpoint, and
    on CPU ends with the same bytes. A finished run is returned as it stands. Stages run one after another in
    folders of their own; the last one's `final` is returned.

    Raises RunError where the output folder holds a run of other settings, and SettingsError, TableError,
    ModelError or SequenceError, all ValueErrors, where an input cannot be used.
    """
    from trainer.loops.checkpoint import FINAL, damage  # here: `import trainer.objectives` stays light
    from trainer.loops.run_state import open_run

    if settings.stages:
        return [train(stage, progress=progress) for stage in settings.stage_settings()][-1]
    open_run(settings)
    final = settings.output / FINAL
    if final.exists():
        fault = damage(final)
        if fault is None:
            return final
        warnings.warn(f"{final} is damaged and made again: {fault}", stacklevel=2)
    module, _, name = LOOPS[settings.method].partition(":")
    loop: Callable[[TrainSettings, Progress], Path] = getattr(importlib.import_module(module), name)
    return loop(settings, progress)
