"""Losses, advantages and roles of tokens, usable inside any trainer: this package imports torch and pydantic alone.

from trainer.objectives import losses
token_loss = losses.mixed(on_policy_loss, -losses.over_gamma(log_prob, 0.1) * advantage, off_policy_mask)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "Batch": "trainer.objectives.batch",
    "Role": "trainer.objectives.batch",
    "PolicyLoss": "trainer.objectives.loss_from_settings",
    "Totals": "trainer.objectives.loss_from_settings",
    "policy_loss": "trainer.objectives.loss_from_settings",
}

__all__ = ["Batch", "PolicyLoss", "Role", "Totals", "advantage", "losses", "policy_loss"]


def __getattr__(name: str) -> Any:
    if name in ("advantage", "losses"):
        return import_module(f"trainer.objectives.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
