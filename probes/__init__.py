"""Kernel SVMs on hidden states: does training change which reasoning features are linearly separable?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.protocol.run import run_protocol as run_protocol
    from probes.protocol.settings import ProtocolSettings as ProtocolSettings
    from probes.protocol.trace_sources import Source as Source
    from probes.report.report import write_report as write_report
    from probes.states.extract import Reading as Reading
    from probes.states.extract import States as States
    from probes.states.extract import extract_states as extract_states
    from probes.svm.svc import KernelLeastSquares as KernelLeastSquares
    from probes.svm.svc import KernelSVC as KernelSVC

#: Public name → the module that holds it. A module is imported when one of its names is first used.
_MODULES = {
    "run_protocol": "probes.protocol.run",
    "ProtocolSettings": "probes.protocol.settings",
    "Source": "probes.protocol.trace_sources",
    "write_report": "probes.report.report",
    "Reading": "probes.states.extract",
    "States": "probes.states.extract",
    "extract_states": "probes.states.extract",
    "KernelLeastSquares": "probes.svm.svc",
    "KernelSVC": "probes.svm.svc",
}

__all__ = [
    "KernelLeastSquares",
    "KernelSVC",
    "ProtocolSettings",
    "Reading",
    "Source",
    "States",
    "extract_states",
    "run_protocol",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # a module of the same name must not take its place later
    return value


def __dir__() -> list[str]:
    return __all__
