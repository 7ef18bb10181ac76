"""Decide whether a response's answer is right: a math verifier and reward library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evaluators.verdict import Outcome, Policy, Verdict
from evaluators.verify import verify

if TYPE_CHECKING:
    from evaluators.audit import audit_golds as audit_golds
    from evaluators.batch import verify_batch as verify_batch
    from evaluators.metrics import majority_at_k as majority_at_k
    from evaluators.metrics import pass_at_k as pass_at_k
    from evaluators.rewards import accuracy_reward as accuracy_reward
    from evaluators.rewards import combined_reward as combined_reward
    from evaluators.rewards import format_reward as format_reward
    from evaluators.rewards import length_reward as length_reward
    from evaluators.rewards import repetition_reward as repetition_reward
    from evaluators.service.judge import Judge as Judge

#: Public name → the module that holds it. A module is imported when one of its names is first used.
_MODULES = {
    "Judge": "evaluators.service.judge",
    "audit_golds": "evaluators.audit",
    "verify_batch": "evaluators.batch",
    "majority_at_k": "evaluators.metrics",
    "pass_at_k": "evaluators.metrics",
    "accuracy_reward": "evaluators.rewards",
    "combined_reward": "evaluators.rewards",
    "format_reward": "evaluators.rewards",
    "length_reward": "evaluators.rewards",
    "repetition_reward": "evaluators.rewards",
}

__all__ = [
    "Judge",
    "Outcome",
    "Policy",
    "Verdict",
    "accuracy_reward",
    "audit_golds",
    "combined_reward",
    "format_reward",
    "length_reward",
    "majority_at_k",
    "pass_at_k",
    "repetition_reward",
    "verify",
    "verify_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # a module of the same name must not take its place later
    return value


def __dir__() -> list[str]:
    return __all__
