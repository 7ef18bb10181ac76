"""Kernel SVMs on hidden states: does training change which reasoning features are linearly separable?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.svm.svc import KernelLeastSquares as KernelLeastSquares
    from probes.svm.svc import KernelSVC as KernelSVC

#: Exported name → module; imported when first asked for, so that `import probes` stays light.
_LAZY = {"KernelSVC": "probes.svm.svc", "KernelLeastSquares": "probes.svm.svc"}

__all__ = ["KernelLeastSquares", "KernelSVC"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'probes' has no attribute {name!r}; it exports {', '.join(sorted(_LAZY))}.")
    return getattr(import_module(_LAZY[name]), name)
