"""The protocol as one record: everything that was decided before a state was looked at."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from probes.states.places import Position, parse_position
from tracekit.core.settings import Settings


class ProtocolSettings(Settings):
    """The probing protocol. Written into the report as it stands.

    Attributes
    ----------
    features, position
        What is probed and where; FEATURE@POSITION in `features` says it of one.
    band, contrasts, estimand, margin, alpha
        What is judged: the layers, the pairs of models, the registered estimand (`probes.protocol.estimands`), the AUC
        difference that counts as none, and the level.
    fit, costs, limits, gammas, device
        How probes are fitted: "hinge" or "least_squares", and the path of C (or of the ridge).
    outer_folds, inner_folds, repeats, permutations, draws, max_rows, seed
        How much is drawn. docs/settings.md has the range of every field.

    Raises
    ------
    SettingsError
        From `build_settings` or `load_settings`, where a key is unknown or a value out of range.

    Examples
    --------
    >>> from probes import ProtocolSettings
    >>> ProtocolSettings(features=("result_parity",), band=(2, 3)).fit
    'hinge'
    """

    base: str = Field("base", description="the model that the arms are compared with")
    untrained: str = Field("untrained", description="name of the untrained control, where it is among the models")
    features: tuple[str, ...] = Field(("step_correct",), min_length=1, description="features, or columns of your own")
    position: Position | None = Field(None, description="where features are probed; each one's own where not given")

    @field_validator("position")
    @classmethod
    def _known_position(cls, value: str | None) -> str | None:
        if value is not None:
            parse_position(value)
        return value

    band: tuple[int, ...] | None = Field(
        None, description="layers of the primary estimand; not given: from half to three quarters of the depth"
    )
    contrasts: tuple[tuple[str, str], ...] = Field(
        (), description="pairs (A, B) for AUC(A) - AUC(B); not given: every arm against base, and every two arms"
    )
    fit: Literal["hinge", "least_squares"] = Field("hinge", description="the headline fits")
    outer_folds: int = Field(5, ge=2, description="folds that hold problems out")
    inner_folds: int = Field(3, ge=2, description="folds that choose C and gamma")
    repeats: int = Field(3, ge=1, description="fold seeds")
    costs: tuple[float, ...] = Field(
        (0.01, 0.1, 1.0, 10.0), min_length=1, description="C where the path of a hinge SVM begins"
    )
    limits: tuple[float, float] = Field(
        (1e-4, 1e4), description="how far the path of C or of the ridge is followed while held-out AUC rises"
    )
    estimand: str = Field("delta", description="the registered estimand that gets verdicts; the others describe")
    estimands: tuple[str, ...] | None = Field(
        None, description="estimands that are computed beside the registered one; not given: every one"
    )
    gammas: tuple[float, ...] = Field((0.25, 1.0, 4.0), min_length=1, description="widths of the RBF kernel")
    permutations: int = Field(999, ge=19, description="block permutations")
    draws: int = Field(200, ge=20, description="bootstrap draws over problems, refitted")
    max_rows: int = Field(1500, ge=20, description="rows a feature at most; whole problems are left out at random")
    margin: float = Field(0.02, gt=0, lt=0.5, description="AUC differences within ± this count as no change")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="level of every test")
    power: float = Field(0.8, gt=0, lt=1, description="power of the power analysis")
    saturated: float = Field(0.98, gt=0.5, le=1, description="AUC above which a gain can no longer show")
    controls: tuple[float, ...] = Field(
        (0.1, 0.2, 0.5), description="standard deviations of the direction that the positive controls add; (): none"
    )
    device: str | None = Field(None, description="torch's name of an accelerator for the hinge fits; None: the CPU")
    least_blocks: int = Field(20, ge=2, description="swappable blocks below which a cell is inconclusive")
    seed: int = Field(0, ge=0, description="of folds, permutations and draws")
