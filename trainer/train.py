"""The door: settings in, trained model folder out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from tracekit.core.folders import lock_folder
from tracekit.core.runs import Progress, check_run_folder, no_progress
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
    """Run one recipe to its end.

    After a kill the same call continues from the newest whole checkpoint, and on a CPU ends with the same bytes. A
    finished run is returned as it stands. Stages run one after another in folders of their own.

    Parameters
    ----------
    settings : TrainSettings
        A recipe; `tracekit.load_settings` reads one.
    progress : callable, optional
        Called as progress(stage, done, total, note).

    Returns
    -------
    Path
        `<output>/final` of the last stage: a Hugging Face folder with its tokenizer.

    Raises
    ------
    RunError
        Where the output folder holds a run of other settings.
    SettingsError, TableError, ModelError, SequenceError
        All ValueErrors: an input cannot be used.

    Examples
    --------
    >>> from trainer import TrainSettings, train
    >>> data = {"curated": "runs/mine/curated.parquet"}
    >>> settings = TrainSettings(method="sft", model="model", output="runs/sft", data=data, steps=2)
    >>> train(settings).name  # doctest: +SKIP
    'final'
    """
    from trainer.distributed.ranks import rank, start_ranks  # here: `import trainer.objectives` stays light
    from trainer.loops.checkpoint import FINAL
    from trainer.loops.run_state import WRITES, finished, open_run, resolve_device

    if settings.stages:
        return [train(stage, progress=progress) for stage in settings.stage_settings()][-1]
    start_ranks(resolve_device(settings.device))
    if rank() == 0:
        check_run_folder(settings.output, WRITES)
    with lock_folder(settings.output, "train") if rank() == 0 else nullcontext():
        if rank() == 0:
            open_run(settings)
        if finished(settings):
            return settings.output / FINAL
        module, _, name = LOOPS[settings.method].partition(":")
        loop: Callable[[TrainSettings, Progress], Path] = getattr(importlib.import_module(module), name)
        return loop(settings, progress)
