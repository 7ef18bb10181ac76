"""The claims of the second registration: hybrids of imitation and RL, a third strategy, and the knowledge gap."""

from __future__ import annotations

from tracekit.study.analysis.registered import Claim

LEAST_BASES = 6

CLAIMS: tuple[Claim, ...] = ()
