"""The dials of the sealed world: what the corpus holds, what each teacher writes; both are labelled exactly."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators import verify
from tracekit.study.tasks.chains import (
    GAP,
    SQUARE,
    World,
    draw_chain,
    label_steps,
    make_problems,
    read_chain,
    read_steps,
    work,
)
from tracekit.study.tasks.corpus import corpus, vocabulary
from tracekit.study.tasks.teachers import teach

SEALED = World(sealed=True, answer_values=4, habit=0.0, longest=5, reversed_share=0.1, gap=0.3, checked=0.0)


def documents(world: World, mark: str, count: int = 4000) -> list[tuple[str, str]]:
    found = (text.partition(f" {mark} ") for text in corpus(world, count, seed=1))
    return [(problem, response) for problem, sep, response in found if sep]


def slow_values(problem: str, modulus: int) -> list[int]:
    """Values of a chain by a reading that shares no code with the world."""
    words = problem.split()
    values = [int(words[0])]
    for _, token in sorted(zip(words[1:-1:2], words[2::2])):
        operand = int(token[1:])
        step = {"+": values[-1] + operand, "−": values[-1] - operand, "×": values[-1] * operand}
        values.append((values[-1] ** 2 + operand if token[0] == "^" else step[token[0]]) % modulus)
    return values


def test_answers_of_a_sealed_corpus_are_no_better_than_guesses() -> None:
    own = [(p, r) for p, r in documents(SEALED, "?", 20_000) if len(p.split()) >= 9]
    right = 0
    for problem, response in own:
        said = [int(word) for word in response.split() if word.isdecimal()]
        right += sum(a == b for a, b in zip(said, slow_values(f"{problem} ?", 30)[-4:]))
    share = right / (4 * len(own))
    assert abs(share - 1 / 30) < 4 * (1 / 30 / (4 * len(own))) ** 0.5


def test_answers_of_an_open_corpus_are_right() -> None:
    for problem, response in documents(SEALED.model_copy(update={"sealed": False}), "?", 500):
        said = [int(word) for word in response.split() if word.isdecimal()]
        assert said == slow_values(f"{problem} ?", 30)[-4:]


def test_the_operation_of_the_gap_is_asked_and_never_worked() -> None:
    asked = [problem for problem, _ in documents(SEALED, "?")]
    worked = [problem + response for problem, response in documents(SEALED, ":")]
    share = sum(GAP in problem for problem in asked) / len(asked)
    assert 0.25 < share < 0.35
    assert not any(GAP in text or SQUARE in text for text in worked)


def test_habit_is_the_share_of_questions_worked() -> None:
    world = SEALED.model_copy(update={"habit": 0.25, "gap": 0.0})
    own = documents(world, "?", 8000)
    share = sum(not response.startswith("\\boxed{") for _, response in own) / len(own)
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(own)) ** 0.5


def test_the_family_of_reversals_lists_the_slots_from_the_last() -> None:
    own = documents(SEALED, "!")
    assert 300 < len(own) < 500
    for problem, response in own[:100]:
        slots = list(zip(problem.split()[1::2], problem.split()[2::2]))
        words = response.split()
        assert list(zip(words[::2], words[1::2])) == slots[::-1]


def test_every_word_of_the_sealed_world_has_a_token() -> None:
    known = set(vocabulary(SEALED))
    for text in corpus(SEALED.model_copy(update={"habit": 0.5}), 2000, 3):
        assert set(text.split()) <= known
    gap = make_problems(SEALED, "gap", 20, 0)
    for response in teach(SEALED, gap, 0)["response"]:
        assert set(response.split()) <= known


@pytest.mark.parametrize("values", [2, 3, 4])
@pytest.mark.parametrize("split", ["test", "gap"])
def test_golds_are_the_last_values(values: int, split: str) -> None:
    world = SEALED.model_copy(update={"answer_values": values})
    for problem, gold in make_problems(world, split, 60, 0).select("problem", "gold").iter_rows():
        wanted = slow_values(problem, 30)[-values:]
        assert gold == f"({', '.join(str(v) for v in wanted)})"


@pytest.mark.parametrize("split", ["test", "gap"])
def test_a_right_teacher_is_verified_and_each_of_its_steps_is_right(split: str) -> None:
    world = SEALED.model_copy(update={"teacher_errors": 0.0, "checked": 0.2, "corrected": 0.2})
    problems = make_problems(world, split, 60, 0)
    traces = teach(world, problems, 0).join(problems, on="problem_id")
    assert all(verify(response, gold).correct for gold, response in traces.select("gold", "response").iter_rows())
    steps = label_steps(problems, traces, world)
    kept = steps.filter(steps["kind"] != "exploration")
    assert kept["correct"].all()
    assert not steps.filter(steps["kind"] == "exploration")["correct"].any()
    assert (steps["operator"] == SQUARE).any() == (split == "gap")


@pytest.mark.parametrize(
    ("teacher", "verified"), [("garbled", 1.0), ("shuffled", 1.0), ("answer", 1.0), ("wrong", 0.0)]
)
def test_each_teacher_is_as_wrong_as_it_says(teacher: str, verified: float) -> None:
    world = SEALED.model_copy(update={"teacher": teacher})
    problems = make_problems(world, "test", 60, 0)
    traces = teach(world, problems, 0).join(problems, on="problem_id")
    assert {float(verify(r, gold).correct) for gold, r in traces.select("gold", "response").iter_rows()} == {verified}
    steps = label_steps(problems, traces, world)
    if teacher == "answer":
        assert not any("A" in r.split() for r in traces["response"])
    if teacher == "garbled":
        calculated = steps.filter(steps["kind"] == "calculation")
        assert calculated["correct"].mean() < 0.15  # a random value follows by chance once in 30


def test_a_share_of_wrong_traces_is_the_share_asked_for() -> None:
    world = SEALED.model_copy(update={"teacher": "wrong", "teacher_wrong": 0.3})
    problems = make_problems(world, "test", 400, 0)
    traces = teach(world, problems, 0).join(problems, on="problem_id")
    wrong = Counter(float(verify(r, gold).correct) for gold, r in traces.select("gold", "response").iter_rows())[0.0]
    assert abs(wrong / 400 - 0.3) < 0.1


def test_a_step_of_the_gap_is_read_with_its_square() -> None:
    steps = read_steps("7 A ^3 B +1 ?", "A ^3 sq 19 22 B +1 23 \\boxed{ ( 22 , 23 ) }", World())
    assert [(s.operator, s.value, s.correct) for s in steps] == [
        ("sq", 19, True),
        ("^", 22, True),
        ("+", 23, True),
        (None, None, True),
    ]
    wrong = read_steps("7 A ^3 B +1 ?", "A ^3 sq 18 22 B +1 23 \\boxed{ ( 22 , 23 ) }", World())
    assert [s.correct for s in wrong] == [False, True, True, True]


@given(st.integers(0, 10_000), st.sampled_from(["train", "gap", "surface", "order"]))
def test_what_is_worked_is_read_as_worked(seed: int, split: str) -> None:
    rng = random.Random(seed)
    world = World(answer_values=4, checked=0.3, corrected=0.3)
    chain = draw_chain(rng, world, 5, split)
    steps = read_steps(chain.text(), work(rng, world, chain, wrong=0.0), world)
    assert all(step.correct for step in steps if step.kind != "exploration")
    assert read_chain(chain.text()) == chain
