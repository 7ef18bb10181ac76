"""Decide whether a response's answer is right: a math verifier and reward library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluators.verdict import Outcome, Policy, Verdict
from evaluators.verify import verify

if TYPE_CHECKING:
    from evaluators.batch import verify_batch

__all__ = ["Outcome", "Policy", "Verdict", "verify", "verify_batch"]


def __getattr__(name: str) -> Any:
    """`verify_batch` is loaded when first asked for: its pool and progress bar cost an import."""
    if name == "verify_batch":
        from evaluators.batch import verify_batch

        return verify_batch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
