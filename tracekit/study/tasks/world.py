"""The embedded world: problems whose worked traces are computed, so that every step's label is exact.

A problem is a chain of labelled operations on a number, all modulo `modulus`:

    27 A ×2 B −4 C +7 ?

and asks for the last two values, so that a guess scores one in `modulus`². A worked response takes one
slot after the other, repeating label and operation before each result:

    A ×2 4 B −4 0 C +7 7 \\boxed{ ( 0 , 7 ) }

A slot may be followed by a verification (`check C +7 7`), and a wrong result by its correction
(`B −4 1 wait B −4 0`). Slots are worked in the order of their labels, however the problem lists them.

The corpus that a base is pre-trained on holds worked logs, marked by `:` in place of the `?`, and under
the `?` mostly direct answers: the base has the skill of a step and seldom the habit. Two settings decide
what training has to do: `habit`, how often the corpus takes steps under the question, and `sloppiness`,
how often such a step is wrong.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from tracekit.core.ids import problem_id, trace_id
from tracekit.core.settings import Settings
from tracekit.core.tables import CURATED, PROBLEMS, STEPS, TRACES, check, conform

LABELS = ("A", "B", "C", "D", "E", "F", "G", "H", "I", "J")
ADDENDS = tuple(range(1, 8))
FACTORS = (2, 3)
TIMES_SHARE = 0.25  # of operations that multiply; the rest add or subtract

CHECK, WAIT = "check", "wait"
QUESTION, LOG = "?", ":"
BOX_OPEN, BOX_CLOSE = "\\boxed{", "}"
BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"

SOURCE = "tracekit-world"
TEACHER = "world-teacher"

Split = Literal["train", "test", "length", "order", "surface"]


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


@dataclass(frozen=True, slots=True)
class Operation:
    """One labelled slot: sign "+", "−" or "×" and its operand."""

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

    def gold(self, modulus: int) -> str:
        """The last two values as a tuple."""
        before, last = self.values(modulus)[-2:]
        return f"({before}, {last})"


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
    """A random chain. Two × in a row come in the split `order` alone, a shuffled listing in `surface` alone."""
    while True:
        operations = tuple(_draw_operation(rng, label) for label in LABELS[:length])
        twice = any(a.sign == b.sign == "×" for a, b in itertools.pairwise(operations))
        if length == 1 or twice == (split == "order"):
            break
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
        gold = chain.gold(world.modulus)
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
    if len(words) < 4 or len(words) % 2 or not words[0].isdecimal() or words[-1] not in (QUESTION, LOG):
        raise ValueError(f"{problem!r} is no problem of the embedded world; expected START A ×2 B −4 … ?")
    slots = []
    for label, token in zip(words[1:-1:2], words[2:-1:2]):
        if label not in LABELS or token[:1] not in ("+", "−", "×") or not token[1:].isdecimal():
            raise ValueError(f"{problem!r}: {label} {token} is no labelled operation")
        slots.append(Operation(label, token[0], int(token[1:])))
    order = sorted(range(len(slots)), key=lambda i: slots[i].label)
    rank = {slot: place for place, slot in enumerate(order)}
    return Chain(int(words[0]), tuple(slots[i] for i in order), tuple(rank[i] for i in range(len(slots))))


# ---------------------------------------------------------------- responses


def box(values: list[int]) -> str:
    """The final answer: the last two of `values`."""
    return f"{BOX_OPEN} ( {values[-2]} , {values[-1]} ) {BOX_CLOSE}"


def work(rng: random.Random, world: World, chain: Chain, *, wrong: float) -> str:
    """A worked response. `wrong` is the chance that a step's result is wrong and stays so."""
    words: list[str] = []
    values = [chain.start]
    for operation in chain.operations:
        right = operation.apply(values[-1], world.modulus)
        said = _slip(rng, right, world.modulus) if rng.random() < wrong else right
        if rng.random() < world.corrected:
            words += [operation.label, operation.token, str(_slip(rng, said, world.modulus)), WAIT]
        words += [operation.label, operation.token, str(said)]
        if rng.random() < world.checked:
            words += [CHECK, operation.label, operation.token, str(said)]
        values.append(said)
    return " ".join([*words, box(values)])


def _slip(rng: random.Random, value: int, modulus: int) -> int:
    return (value + rng.choice((-3, -2, -1, 1, 2, 3))) % modulus


def teach(world: World, problems: pl.DataFrame, seed: int, traces_each: int = 1) -> pl.DataFrame:
    """The teacher's traces as TRACES: worked in full; `teacher_errors` of them hold one wrong step."""
    rng = random.Random(f"teacher/{seed}")
    rows = []
    for row in problems.iter_rows(named=True):
        chain = read_chain(row["problem"])
        written: set[str] = set()
        for _ in range(traces_each):
            wrong = 1 / len(chain.operations) if rng.random() < world.teacher_errors else 0.0
            response = work(rng, world, chain, wrong=wrong)
            if response in written:
                continue
            written.add(response)
            rows.append(
                {
                    "trace_id": trace_id(row["problem_id"], TEACHER, response),
                    "problem_id": row["problem_id"],
                    "author": TEACHER,
                    "response": response,
                    "token_count": len(response.split()),
                    "token_log_probs": None,
                    "flagged_correct": None,
                }
            )
    return check(pl.DataFrame(rows, schema=TRACES), TRACES, "traces")


def read_steps(problem: str, response: str, world: World) -> list[Step]:
    """The steps of any response to a problem, each judged against the chain.

    Words that are no step (a sampled response may hold anything) are passed over. A result at once taken
    back by `wait` is an exploration, the one that replaces it a backtracking.
    """
    chain = read_chain(problem)
    slots = {operation.label: operation for operation in chain.operations}
    words = _words(response)
    steps: list[Step] = []
    value, before = chain.start, chain.start  # the running value, and the one before the latest slot
    expected = 0  # how many slots are worked
    i, kind = 0, "calculation"
    while i < len(words):
        word, start, _ = words[i]
        if word in (CHECK, WAIT):
            kind = "verification" if word == CHECK else "backtracking"
            mark = start
            i += 1
            continue
        if word == BOX_OPEN:
            end = words[min(i + 6, len(words) - 1)][2]
            said = [w for w, _, _ in words[i : i + 7]]
            right = said == box([before, value]).split()
            steps.append(Step(start, end, "conclusion", right))
            i += 7
            continue
        triple = words[i : i + 3]
        if word in slots and len(triple) == 3 and triple[2][0].isdecimal():
            operation, said_value = slots[word], int(triple[2][0])
            again = kind in ("verification", "backtracking")
            base = before if again else value
            slot = expected - 1 if again else expected
            own = 0 <= slot < len(chain.operations) and operation == chain.operations[slot]
            right = own and triple[1][0] == operation.token and said_value == operation.apply(base, world.modulus)
            taken_back = not again and i + 3 < len(words) and words[i + 3][0] == WAIT
            shown = "exploration" if taken_back else kind
            steps.append(Step(mark if again else start, triple[2][2], shown, right, triple[1][0][0], said_value))
            if kind != "verification":
                before, value = base, said_value
                expected = slot + 1
            i, kind = i + 3, "calculation"
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


# ---------------------------------------------------------------- corpus and tokenizer


def corpus(world: World, count: int, seed: int) -> Iterator[str]:
    """Documents that a base is pre-trained on; each is a problem and a response, without BOS and EOS."""
    rng = random.Random(f"corpus/{seed}")
    for _ in range(count):
        length = rng.randint(1, world.longest)
        if rng.random() < world.worked_share:
            split: Split = rng.choice(("train", "train", "order", "surface")) if length > 1 else "train"
            chain = draw_chain(rng, world, length, split)
            yield f"{chain.text(LOG)} {work(rng, world, chain, wrong=0.0)}"
            continue
        chain = draw_chain(rng, world, length)
        if rng.random() < world.habit:
            yield f"{chain.text()} {work(rng, world, chain, wrong=world.sloppiness)}"
        else:
            yield f"{chain.text()} {box(chain.values(world.modulus))}"


def corpus_table(world: World, count: int, seed: int) -> pl.DataFrame:
    """The corpus as CURATED rows: what comes before the mark and the mark as the problem, the rest as the response.

    The numbers of a problem are drawn at random and cannot be learnt: a base trained on responses alone has
    the skill in a third of the steps that language modelling over whole documents takes.
    """
    rows = []
    for number, document in enumerate(corpus(world, count, seed)):
        mark = LOG if f" {LOG} " in document else QUESTION
        problem, _, response = document.partition(f" {mark} ")
        rows.append((f"document-{seed}-{number}", f"{problem} {mark}", response, len(response.split())))
    frame = pl.DataFrame(rows, schema=["trace_id", "problem", "response", "token_count"], orient="row")
    frame = frame.with_columns(
        problem_id=pl.col("trace_id"),
        gold=pl.lit(""),
        source=pl.lit(SOURCE),
        split=pl.lit("corpus"),
        author=pl.lit("corpus"),
        correct=pl.lit(True),
    )
    return conform(frame, CURATED, "corpus")


def vocabulary(world: World) -> list[str]:
    """Every word of the world, special tokens first."""
    operations = [f"{sign}{n}" for sign in "+−" for n in ADDENDS] + [f"×{n}" for n in FACTORS]
    numbers = [str(n) for n in range(world.modulus)]
    marks = [QUESTION, LOG, CHECK, WAIT, BOX_OPEN, BOX_CLOSE, "(", ",", ")"]
    return [PAD, BOS, EOS, *marks, *LABELS, *operations, *numbers]


def write_tokenizer(world: World, folder: str | Path) -> Path:
    """A word-level tokenizer in Hugging Face format: one token a word; its chat template is BOS and the question."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = vocabulary(world)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        chat_template="{{ bos_token }} {% for m in messages %}{{ m['content'] }} {% endfor %}",
    )
    folder = Path(folder)
    fast.save_pretrained(folder)
    return folder
