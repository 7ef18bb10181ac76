"""Two ways to work a chain: slot after slot, or with neighbouring additions and subtractions merged into one step.

    27 A ×2 B −4 C +7 D +1 ?     forward:  A ×2 24 B −4 20 C +7 27 D +1 28 …
                                 merged:   A ×2 24 B +3 27 D +1 28 …

A merged step has the first slot's label and the sum of the slots. Only slots whose own results are not asked for are
merged, and only where the sum is an operation of the world (±1 … ±7), so that no word is new. Merged is shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tracekit.study.tasks.chains import ADDENDS, BOX_OPEN, Chain, Operation, World, read_chain

Strategy = Literal["forward", "merged", "other"]


def merge(chain: Chain, world: World) -> Chain:
    """The chain with neighbouring slots merged from left to right, two at a time; as it is where none can be."""
    last = len(chain.operations) - world.answer_values  # the last slot whose result need not be written
    merged: list[Operation] = []
    slot = 0
    while slot < len(chain.operations):
        pair = chain.operations[slot : slot + 2]
        both = _sum_of(pair) if len(pair) == 2 and slot + 1 <= last else None
        if both is not None:
            merged.append(both)
            slot += 2
        else:
            merged.append(chain.operations[slot])
            slot += 1
    return Chain(chain.start, tuple(merged), tuple(range(len(merged))))


def _sum_of(slots: Sequence[Operation]) -> Operation | None:
    """One operation that does what the slots do; None where they are not all + and −, or the sum is none."""
    if any(slot.sign not in "+−" for slot in slots):
        return None
    total = sum(slot.operand if slot.sign == "+" else -slot.operand for slot in slots)
    return Operation(slots[0].label, "+" if total > 0 else "−", abs(total)) if abs(total) in ADDENDS else None


def strategy_of(problem: str, response: str) -> Strategy:
    """How a response works its problem: every slot by itself, some merged in pairs, or otherwise."""
    slots = read_chain(problem).operations
    words = response.partition(BOX_OPEN)[0].split()
    if len(words) % 3:
        return "other"
    at, merged = 0, False
    for label, token in zip(words[::3], words[1::3]):
        if at == len(slots) or label != slots[at].label:
            return "other"
        if token == slots[at].token:
            at += 1
            continue
        both = _sum_of(slots[at : at + 2]) if at + 2 <= len(slots) else None
        if both is None or token != both.token:
            return "other"
        at, merged = at + 2, True
    if at < len(slots):
        return "other"
    return "merged" if merged else "forward"
