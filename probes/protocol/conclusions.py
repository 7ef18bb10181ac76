"""What may be said of a contrast, in this order: can it be judged, is the feature there, did it change.

1. refused: a fit's strength lies at an end of its path while AUC still rises: it measures the grid.
2. open: too few swappable blocks.
3. not decodable: in neither model does the band's AUC exceed that of permuted blocks. There is no contrast.
4. equivalent: two one-sided tests inside the margin. A difference smaller than the margin is never called a change.
5. changed: gained or lost. An arm that lost a feature is judged however high the base stands.
6. saturated: neither of the two, and the side that would have to rise cannot: its AUC is at the ceiling.
7. open: with the number of problems that would answer, where a number would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from probes.protocol.cells import Cell, Probed
from probes.protocol.settings import ProtocolSettings
from probes.statistics.equivalence import Effect
from probes.statistics.permutation import permutation_p
from probes.statistics.power import problems_needed

Verdict = Literal["changed", "equivalent", "open", "saturated", "not decodable", "refused"]
VERDICTS: tuple[Verdict, ...] = ("changed", "equivalent", "open", "saturated", "not decodable", "refused")


@dataclass(frozen=True)
class Contrast:
    """A feature's two sides in the band. auc_a, auc_b: mean over seeds and layers. p_a, p_b: decodability."""

    a: str
    b: str
    auc_a: float
    auc_b: float
    p_a: float
    p_b: float
    swappable: int
    cells: tuple[Cell, ...]

    @classmethod
    def of(cls, one: Probed, a: str, b: str, band: tuple[int, ...]) -> Contrast:
        """Read off the cells."""
        of_a, of_b = band_cells(one, a, band), band_cells(one, b, band)
        return cls(
            a,
            b,
            float(np.mean([c.auc for c in of_a])),
            float(np.mean([c.auc for c in of_b])),
            decodable_p(of_a),
            decodable_p(of_b),
            one.plan.swappable,
            (*of_a, *of_b),
        )

    def decodable(self, alpha: float) -> bool:
        """Whether either side is above what position in the trace alone gives. Unknown counts as yes."""
        return not min(self.p_a, self.p_b) > alpha

    def ceiling(self, saturated: float) -> str | None:
        """Which sides cannot rise: "a", "b", "both"."""
        high = [name for name, auc in (("a", self.auc_a), ("b", self.auc_b)) if auc > saturated]
        return {0: None, 1: high[0] if high else None, 2: "both"}[len(high)]

    def obstacle(self, settings: ProtocolSettings) -> tuple[Verdict, str] | None:
        """What stands before any test, with the reason; None where the contrast is tested."""
        wanted = [c for c in self.cells if c.edge > 0]
        if wanted:
            low = min(c.wanted[0] if c.wanted else c.tried[0] for c in wanted)
            high = max(c.wanted[1] if c.wanted else c.tried[1] for c in wanted)
            return "refused", (
                f"held-out AUC still rises at an end of the path in {len(wanted)} of {len(self.cells)} cells (path "
                f"{wanted[0].tried[0]:g} … {wanted[0].tried[1]:g}); set limits=[{low:g},{high:g}]"
            )
        if self.swappable < settings.least_blocks:
            return "open", f"{self.swappable} swappable blocks, {settings.least_blocks} needed"
        if not self.decodable(settings.alpha):
            return "not decodable", (
                f"AUC {self.auc_a:.3f} and {self.auc_b:.3f} are not above permuted blocks in {self.a} "
                f"(p = {self.p_a:.2g}) nor in {self.b} (p = {self.p_b:.2g})"
            )
        return None


@dataclass(frozen=True)
class Conclusion:
    """verdict, the reason in words, the direction of a change, and the problems that would answer an open one."""

    verdict: Verdict
    why: str
    direction: Literal["gained", "lost"] | None = None
    problems_needed: int | None = None


def band_cells(one: Probed, model: str, band: tuple[int, ...]) -> list[Cell]:
    """All seeds' cells of a model in the band."""
    return [c for (name, _, layer), c in one.cells.items() if name == model and layer in band]


def decodable_p(cells: list[Cell]) -> float:
    """p of "the band's mean AUC is that of permuted blocks"; the same permutations in every cell.

    Blocks keep the order of their rows, so the null includes what position in the trace alone gives. NaN where
    nothing was permuted.
    """
    if any(not len(c.permuted) for c in cells):
        return float("nan")
    observed = float(np.mean([c.least_squares_auc for c in cells]))
    return permutation_p(observed, np.mean([c.permuted for c in cells], axis=0))


def conclude(
    contrast: Contrast, effect: Effect, p: tuple[float, float], family: int, settings: ProtocolSettings
) -> Conclusion:
    """The conclusion of one contrast. p: of no difference and of one beyond the margin, both by Holm over `family`."""
    if (obstacle := contrast.obstacle(settings)) is not None:
        return Conclusion(*obstacle)
    ceiling = contrast.ceiling(settings.saturated)
    note = f"; AUC of {_sides(contrast, ceiling)} is above {settings.saturated}: a gain could not show, see bits"
    if p[1] < settings.alpha:
        text = f"inside ±{settings.margin} (TOST, Holm p = {p[1]:.2g})"
        return Conclusion("equivalent", text + (note if ceiling in ("b", "both") else ""))
    if p[0] < settings.alpha:
        direction: Literal["gained", "lost"] = "gained" if effect.estimate > 0 else "lost"
        return Conclusion("changed", f"{direction}: differs from 0 (Holm p = {p[0]:.2g})", direction)
    neither = f"neither different from 0 (Holm p = {p[0]:.2g}) nor inside ±{settings.margin} (Holm p = {p[1]:.2g})"
    if effect.estimate >= 0 and ceiling in ("b", "both"):
        return Conclusion("saturated", f"{neither}{note}")
    needed = problems_needed(effect, settings.margin, settings.alpha / max(family, 1), settings.power)
    more = "" if needed is None else f"; about {needed} problems would answer, were the estimate the truth"
    return Conclusion("open", neither + more, problems_needed=needed)


def _sides(contrast: Contrast, ceiling: str | None) -> str:
    return {"a": contrast.a, "b": contrast.b, "both": f"{contrast.a} and {contrast.b}", None: ""}[ceiling]
