"""Which claims a study has: the sets that a recipe's `claims` names."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.study.analysis import hybrid_claims, quick_claims, sealed_claims
from tracekit.study.analysis.registered import Claim


@dataclass(frozen=True, slots=True)
class ClaimSet:
    """Claims that are registered together.

    least_bases: with fewer bases whose gates held a claim stays open. pairing: a sentence on what the tests assume.
    """

    claims: tuple[Claim, ...]
    least_bases: int
    pairing: str = ""


CLAIM_SETS = {
    "sealed": ClaimSet(sealed_claims.CLAIMS, sealed_claims.LEAST_BASES),
    "quick": ClaimSet(quick_claims.CLAIMS, quick_claims.LEAST_BASES, quick_claims.PAIRING),
    "hybrids": ClaimSet(hybrid_claims.CLAIMS, hybrid_claims.LEAST_BASES),
}
