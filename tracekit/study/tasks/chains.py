"""The embedded world: problems whose worked traces are computed, so that every step's label is exact.

A problem is a chain of labelled operations on a number, all modulo `modulus`:

    27 A ×2 B −4 C +7 ?

and asks for the last two values, so that a guess scores one in `modulus`². A worked response takes one
slot after the other, repeating label and operation before each result:

    A ×2 4 B −4 0 C +7 7 \\boxed{ ( 0 , 7 ) }

A slot may be followed by a verification (`check C +7 7`), and a wrong result by its correction
(`B −4 1 wait B −4 0`). Slots are worked in the order of their labels, however the problem lists them.

What a base is pre-trained on stands in `corpus.py`, what a teacher writes in `teachers.py`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
from pydantic import Field

from tracekit.core.ids import problem_id
from tracekit.core.settings import Settings
from tracekit.core.tables import PROBLEMS, STEPS, check

LABELS = ("A", "B", "C", "D", "E", "F", "G", "H", "I", "J")
ADDENDS = tuple(range(1, 8))
FACTORS = (2, 3)
TIMES_SHARE = 0.25  # of operations that multiply; the rest add or subtract

CHECK, WAIT, SQUARE = "check", "wait", "sq"
QUESTION, LOG, REVERSE = "?", ":", "!"
MARKS = (QUESTION, LOG, REVERSE)
GAP = "^"  # the operation of the knowledge gap: value² + operand, worked as `A ^3 sq 16 19`
GAP_OPERANDS = (1, 2, 3)
BOX_OPEN, BOX_CLOSE = "\\boxed{", "}"
SOURCE = "tracekit-world"

Split = Literal["train", "test", "length", "order", "surface", "gap"]

#: right: worked in full. wrong: a share of traces with a wrong step. garbled: random results, the right box, which
#: outcome verification accepts. shuffled: the right steps in another order. answer: no step.
Teacher = Literal["right", "wrong", "garbled", "shuffled", "answer"]


class World(Settings):
    """What the world is made of. Shares and probabilities are in [0, 1]."""

    modulus: int = Field(30, ge=10, le=100, description="numbers are 0 … modulus - 1")
    habit: float = Field(0.02, ge=0, le=1, description="share of the corpus's questions answered in steps")
    sloppiness: float = Field(0.12, ge=0, le=1, description="chance that such a step is wrong")
    worked_share: float = Field(0.6, ge=0, le=1, description="share of the corpus that is worked logs")
    longest: int = Field(8, ge=1, le=len(LABELS), description="longest chain of the corpus")
    train_lengths: tuple[int, ...] = Field((4, 5), description="chain lengths of training problems")
    long_lengths: tuple[int, ...] = Field((6, 7), description="chain lengths of the split `length`")
    checked: float = Field(0.1, ge=0, le=1, description="chance that a step is followed by a verification")
    corrected: float = Field(0.05, ge=0, le=1, description="chance that a step is first wrong, then corrected")
    teacher_errors: float = Field(0.05, ge=0, le=1, description="share of teacher traces with an uncorrected error")
    sealed: bool = Field(False, description="whether the corpus's direct answers are random values")
    answer_values: int = Field(2, ge=2, le=4, description="how many of the last values a problem asks for")
    reversed_share: float = Field(0.0, ge=0, le=1, description="share of the corpus of the unrelated family `!`")
    gap: float = Field(0.0, ge=0, le=1, description="share of the corpus's questions with the operation ^")
    merged: float = Field(0.0, ge=0, le=1, description="share of the corpus's logs worked with slots merged")
    teacher: Teacher = Field("right", description="what the teacher's traces are like")
    teacher_wrong: float = Field(1.0, ge=0, le=1, description="share of traces that a teacher `wrong` spoils")
    gap_shown: float = Field(1.0, ge=0, le=1, description="share of traces of ^ that show its sub-step")


@dataclass(frozen=True, slots=True)
class Operation:
    """One labelled slot: sign "+", "−", "×" or "^" and its operand."""

    label: str
    sign: str
    operand: int

    @property
    def token(self) -> str:
        """The operation as one word."""
        return f"{self.sign}{self.operand}"

    def apply(self, value: int, modulus: int) -> int:
        """The value after this operation, in [0, modulus)."""
        if self.sign == "×":
            return value * self.operand % modulus
        if self.sign == GAP:
            return (value * value + self.operand) % modulus
        return (value + (self.operand if self.sign == "+" else -self.operand)) % modulus


@dataclass(frozen=True, slots=True)
class Chain:
    """A problem: a start value and slots in the order in which they are worked (that of their labels)."""

    start: int
    operations: tuple[Operation, ...]
    listed: tuple[int, ...]  # the order in which the text lists them

    def text(self, mark: str = QUESTION) -> str:
        """The problem as words."""
        slots = (f"{self.operations[i].label} {self.operations[i].token}" for i in self.listed)
        return f"{self.start} {' '.join(slots)} {mark}"

    def values(self, modulus: int) -> list[int]:
        """The start value and the value after each slot: length + 1 numbers."""
        values = [self.start]
        for operation in self.operations:
            values.append(operation.apply(values[-1], modulus))
        return values

    def gold(self, world: World) -> str:
        """The values that are asked for, the last ones, as a tuple."""
        return f"({', '.join(str(value) for value in self.values(world.modulus)[-world.answer_values :])})"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a worked response. Offsets count characters.

    correct: the operation is the slot's own and its result follows from the value before it.
    """

    start: int
    end: int
    kind: str  # one of tables.STEP_KINDS
    correct: bool
    operator: str | None = None
    value: int | None = None


# ---------------------------------------------------------------- problems


def draw_chain(rng: random.Random, world: World, length: int, split: Split = "train") -> Chain:
    """Draw a chain. Two × in a row come in the split `order` alone, a shuffled listing in `surface`, a ^ in `gap`."""
    while True:
        operations = tuple(_draw_operation(rng, label) for label in LABELS[:length])
        twice = any(a.sign == b.sign == "×" for a, b in itertools.pairwise(operations))
        if length == 1 or twice == (split == "order"):
            break
    if split == "gap":
        slot = rng.randrange(length)
        gap = Operation(LABELS[slot], GAP, rng.choice(GAP_OPERANDS))
        operations = (*operations[:slot], gap, *operations[slot + 1 :])
    listed = list(range(length))
    while split == "surface" and length > 1 and listed == sorted(listed):
        rng.shuffle(listed)
    return Chain(rng.randrange(world.modulus), operations, tuple(listed))


def _draw_operation(rng: random.Random, label: str) -> Operation:
    if rng.random() < TIMES_SHARE:
        return Operation(label, "×", rng.choice(FACTORS))
    return Operation(label, rng.choice("+−"), rng.choice(ADDENDS))


def make_problems(
    world: World, split: Split, count: int, seed: int, exclude: frozenset[str] = frozenset()
) -> pl.DataFrame:
    """`count` distinct problems of a split as PROBLEMS; none of them has a text in `exclude`."""
    rng = random.Random(f"problems/{split}/{seed}")
    lengths = world.long_lengths if split == "length" else world.train_lengths
    seen: set[str] = set(exclude)
    rows: list[dict[str, object]] = []
    while len(rows) < count:
        chain = draw_chain(rng, world, rng.choice(lengths), split)
        text = chain.text()
        if text in seen:
            continue
        seen.add(text)
        gold = chain.gold(world)
        rows.append(
            {
                "problem_id": problem_id(SOURCE, text, gold),
                "problem": text,
                "gold": gold,
                "source": SOURCE,
                "split": split,
                "kind": "chain",
                "level": float(len(chain.operations)),
            }
        )
    return check(pl.DataFrame(rows, schema=PROBLEMS), PROBLEMS, "problems")


def read_chain(problem: str) -> Chain:
    """The chain that a problem's text describes. Raises ValueError where it describes none."""
    words = problem.split()
    if len(words) < 4 or len(words) % 2 or not words[0].isdecimal() or words[-1] not in MARKS:
        raise ValueError(f"{problem!r} is no problem of the embedded world; expected START A ×2 B −4 … ?")
    slots = []
    for label, token in zip(words[1:-1:2], words[2:-1:2]):
        if label not in LABELS or token[:1] not in ("+", "−", "×", GAP) or not token[1:].isdecimal():
            raise ValueError(f"{problem!r}: {label} {token} is no labelled operation")
        slots.append(Operation(label, token[0], int(token[1:])))
    order = sorted(range(len(slots)), key=lambda i: slots[i].label)
    rank = {slot: place for place, slot in enumerate(order)}
    return Chain(int(words[0]), tuple(slots[i] for i in order), tuple(rank[i] for i in range(len(slots))))


# ---------------------------------------------------------------- responses


def box(values: Sequence[int]) -> str:
    """The final answer: a tuple of values."""
    return f"{BOX_OPEN} ( {' , '.join(str(value) for value in values)} ) {BOX_CLOSE}"


def asked_of(world: World, values: Sequence[int]) -> Sequence[int]:
    """The values that are asked for: the last ones of a chain's (all of them where there are fewer)."""
    return values[-world.answer_values :]


def work(rng: random.Random, world: World, chain: Chain, *, wrong: float, sub_steps: bool = True) -> str:
    """A worked response. `wrong` is the chance that a step's result is wrong and stays so.

    sub_steps: whether the square within the operation ^ is written.
    """
    words: list[str] = []
    values = [chain.start]
    for operation in chain.operations:
        right = operation.apply(values[-1], world.modulus)
        said = _slip(rng, right, world.modulus) if rng.random() < wrong else right
        head = [operation.label, operation.token]
        if operation.sign == GAP and sub_steps:
            head += [SQUARE, str(values[-1] ** 2 % world.modulus)]
        if rng.random() < world.corrected:
            words += [*head, str(_slip(rng, said, world.modulus)), WAIT]
        words += [*head, str(said)]
        if rng.random() < world.checked:
            words += [CHECK, *head, str(said)]
        values.append(said)
    return " ".join([*words, box(asked_of(world, values))])


def _slip(rng: random.Random, value: int, modulus: int) -> int:
    return (value + rng.choice((-3, -2, -1, 1, 2, 3))) % modulus


def read_steps(problem: str, response: str, world: World) -> list[Step]:
    """The steps of any response to a problem, each judged against the chain.

    Words that are no step (a sampled response may hold anything) are passed over. A result at once taken
    back by `wait` is an exploration, the one that replaces it a backtracking. The square written within an
    operation ^ is a step of its own, whose operator is `sq`.
    """
    chain = read_chain(problem)
    slots = {operation.label: operation for operation in chain.operations}
    words = _words(response)
    steps: list[Step] = []
    values = [chain.start]  # the running values: one more than slots are worked
    i, kind, mark = 0, "calculation", 0
    while i < len(words):
        word, start, _ = words[i]
        if word in (CHECK, WAIT):
            kind = "verification" if word == CHECK else "backtracking"
            mark = start
            i += 1
            continue
        if word == BOX_OPEN:
            answer = box(asked_of(world, values)).split()
            length = 2 * min(world.answer_values, len(chain.operations) + 1) + 3
            end = words[min(i + length, len(words)) - 1][2]
            said = [w for w, _, _ in words[i : i + length]]
            steps.append(Step(start, end, "conclusion", said == answer))
            i += length
            continue
        squared = len(words) > i + 4 and words[i + 2][0] == SQUARE and words[i + 3][0].isdecimal()
        at = i + 4 if squared else i + 2  # of the result
        if word in slots and at < len(words) and words[at][0].isdecimal():
            operation, said_value = slots[word], int(words[at][0])
            again = kind in ("verification", "backtracking")
            base, slot = values[-2:][0] if again else values[-1], len(values) - (2 if again else 1)
            own = 0 <= slot < len(chain.operations) and operation == chain.operations[slot]
            own = own and words[i + 1][0] == operation.token
            right = own and said_value == operation.apply(base, world.modulus)
            first = mark if again else start
            sign = words[i + 1][0][0]
            if squared:
                root = own and sign == GAP and int(words[i + 3][0]) == base * base % world.modulus
                steps.append(Step(first, words[i + 3][2], kind, root, SQUARE, int(words[i + 3][0])))
                first = words[at][1]
            taken_back = not again and at + 1 < len(words) and words[at + 1][0] == WAIT
            shown = "exploration" if taken_back else kind
            steps.append(Step(first, words[at][2], shown, right, sign, said_value))
            if kind != "verification":
                values = [*values[: slot + 1], said_value]
            i, kind = at + 1, "calculation"
            continue
        i, kind = i + 1, "calculation"
    return steps


def _words(text: str) -> list[tuple[str, int, int]]:
    found, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        found.append((word, start, at))
    return found


def label_steps(problems: pl.DataFrame, traces: pl.DataFrame, world: World) -> pl.DataFrame:
    """Exact STEPS of traces over the world's problems."""
    asked = dict(problems.select("problem_id", "problem").iter_rows())
    rows = [
        {
            "trace_id": trace,
            "step": number,
            "start": step.start,
            "end": step.end,
            "kind": step.kind,
            "correct": step.correct,
            "operator": step.operator,
            "value": None if step.value is None else float(step.value),
        }
        for trace, problem, response in traces.select("trace_id", "problem_id", "response").iter_rows()
        for number, step in enumerate(read_steps(asked[problem], response, world))
    ]
    return check(pl.DataFrame(rows, schema=STEPS), STEPS, "steps")
