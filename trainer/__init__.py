"""LUFFY and what it is compared with: pre-training, SFT, DPO, GRPO and mixed-policy RL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainer.train import train

if TYPE_CHECKING:
    from trainer.evaluate import EvaluateSettings as EvaluateSettings
    from trainer.evaluate import evaluate_model as evaluate_model
    from trainer.objectives import advantage as advantage
    from trainer.objectives import losses as losses
    from trainer.settings import TrainSettings as TrainSettings

#: Public name → the module that holds it. A module is imported when one of its names is first used.
_MODULES = {
    "EvaluateSettings": "trainer.evaluate",
    "evaluate_model": "trainer.evaluate",
    "TrainSettings": "trainer.settings",
}

__all__ = [
    "EvaluateSettings",
    "TrainSettings",
    "advantage",
    "evaluate_model",
    "losses",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in ("advantage", "losses"):
        return import_module(f"trainer.objectives.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # a module of the same name must not take its place later
    return value


def __dir__() -> list[str]:
    return __all__
