"""The teachers of the embedded world: right, wrong, garbled, shuffled, or answer only."""

from __future__ import annotations

import random

import polars as pl

from tracekit.core.ids import trace_id
from tracekit.core.tables import TRACES, check
from tracekit.study.tasks.chains import GAP, SQUARE, Chain, World, asked_of, box, read_chain, work

TEACHER = "world-teacher"


def teach(world: World, problems: pl.DataFrame, seed: int, traces_each: int = 1) -> pl.DataFrame:
    """The teacher's traces as TRACES.

    A right teacher works in full; `teacher_errors` of its traces hold one wrong step. Of the other kinds
    (`World.teacher`) every trace is as the kind says.
    """
    rng = random.Random(f"teacher/{seed}")
    rows = []
    for row in problems.iter_rows(named=True):
        chain = read_chain(row["problem"])
        written: set[str] = set()
        for _ in range(traces_each):
            response = write_trace(rng, world, chain)
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


def write_trace(rng: random.Random, world: World, chain: Chain) -> str:
    """One trace of the world's teacher."""
    if world.teacher == "answer":
        return _answer(world, chain)
    if world.teacher == "garbled":
        return f"{_steps(chain, [rng.randrange(world.modulus) for _ in chain.operations])} {_answer(world, chain)}"
    if world.teacher == "shuffled":
        return f"{_shuffled(rng, world, chain)} {_answer(world, chain)}"
    if world.teacher == "wrong":
        return _wrong(rng, world, chain) if rng.random() < world.teacher_wrong else work(rng, world, chain, wrong=0.0)
    wrong = 1 / len(chain.operations) if rng.random() < world.teacher_errors else 0.0
    shown = not any(o.sign == GAP for o in chain.operations) or rng.random() < world.gap_shown
    return work(rng, world, chain, wrong=wrong, sub_steps=shown)


def _answer(world: World, chain: Chain) -> str:
    return box(asked_of(world, chain.values(world.modulus)))


def _steps(chain: Chain, results: list[int]) -> str:
    return " ".join(f"{o.label} {o.token} {result}" for o, result in zip(chain.operations, results))


def _shuffled(rng: random.Random, world: World, chain: Chain) -> str:
    """The right steps, sub-steps included, in an order that is not that of the chain."""
    values = chain.values(world.modulus)
    steps = [
        f"{o.label} {o.token} " + (f"{SQUARE} {before**2 % world.modulus} " if o.sign == GAP else "") + str(after)
        for o, before, after in zip(chain.operations, values, values[1:])
    ]
    shuffled = list(steps)
    while len(steps) > 1 and shuffled == steps:
        rng.shuffle(shuffled)
    return " ".join(shuffled)


def _wrong(rng: random.Random, world: World, chain: Chain) -> str:
    """A worked trace whose answer is wrong: one of its steps is wrong, and the steps after it follow from that."""
    right = _answer(world, chain)
    while True:
        response = work(rng, world, chain, wrong=1 / len(chain.operations))
        if not response.endswith(right):
            return response
