"""The tiers of a comparison, and the state that its parts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluators.comparison.numeric import fresh_budget
from evaluators.parsing.tree import Node, TooLarge
from evaluators.verdict import Policy

Witness = str | Callable[[], str]
TIERS = ("text", "rational", "structure", "numeric", "symbolic")
MAX_STEPS = 2000  # pairs of parts looked at in one comparison


class Ladder:
    """One comparison of two trees; `tier` is the most expensive tier it came to.

    All symbolic parts of it share one budget of CPU time, of which `seconds_left` is left.
    """

    __slots__ = (
        "policy",
        "question",
        "relating",
        "seconds_left",
        "set_comparisons",
        "steps",
        "tier",
        "too_large",
        "witness",
    )

    def __init__(self, policy: Policy, question: frozenset[str] = frozenset()) -> None:
        self.policy = policy
        self.question = question  # words of the gold and of the question: what may be counted
        self.witness: Witness | None = None  # why the two sides differ, of the last difference that was proved
        self.tier = 0
        self.steps = 0
        self.relating = 0
        self.set_comparisons = 0
        self.too_large: TooLarge | None = None  # why no point could be computed
        self.seconds_left = policy.deadline_seconds
        fresh_budget()

    @property
    def method(self) -> str:
        """Name of the most expensive tier."""
        return TIERS[self.tier]

    def reach(self, tier: int) -> None:
        """Note that a tier was needed."""
        self.tier = max(self.tier, tier)

    def differ(self, witness: Witness) -> bool:
        """Return False, and keep the witness: a point or two values that show the difference.

        A witness that takes work to write is a function, called when somebody reads the verdict's reason.
        """
        self.witness = witness
        return False

    def decided(self, same: bool | None, witness: Witness) -> bool | None:
        """Return a finding, and keep the witness where it is False."""
        return self.differ(witness) if same is False else same

    def all(self, pairs: Sequence[tuple[Node, Node]]) -> bool | None:
        """Whether every pair is equal; False decides before None."""
        found: bool | None = True
        for a, b in pairs:
            same = self.equal(a, b)
            if same is False:
                return False
            if same is None:
                found = None
        return found

    # What the parts of the comparison call in each other; `evaluators.comparison.compare.Comparison` joins them.

    def equal(self, a: Node, b: Node) -> bool | None:
        """`Comparison.equal`."""
        raise NotImplementedError

    def classes(self, a: Node, b: Node) -> bool | None:
        """`Measures.classes`."""
        raise NotImplementedError

    def expressions(self, a: Node, b: Node) -> bool | None:
        """`Scalars.expressions`."""
        raise NotImplementedError

    def regions(self, a: Node, b: Node) -> bool | None:
        """`Collected.regions`."""
        raise NotImplementedError

    def unordered(self, a: Sequence[Node], b: Sequence[Node], distinct: bool) -> bool | None:
        """`Collected.unordered`."""
        raise NotImplementedError

    def in_order(self, a: Sequence[Node], b: Sequence[Node]) -> bool | None:
        """`Collected.in_order`."""
        raise NotImplementedError
