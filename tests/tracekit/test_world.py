"""The embedded world: its answers follow from arithmetic, its labels from what was written."""

from __future__ import annotations

import random
import re

import polars as pl
import pytest

from evaluators import verify
from tracekit.core.tables import CURATED, PROBLEMS, STEPS, TRACES, check
from tracekit.study.tasks.world import (
    World,
    box,
    corpus,
    corpus_table,
    label_steps,
    make_problems,
    read_chain,
    read_steps,
    teach,
    vocabulary,
)

WORLD = World()


def slow_gold(problem: str, modulus: int) -> str:
    """The answer by a reading that shares no code with the world: sort the slots, apply them one by one."""
    value = int(problem.split()[0])
    slots = sorted(re.findall(r"([A-J]) ([+−×])(\d+)", problem))
    before = value
    for _, sign, operand in slots:
        before = value
        value = {"+": value + int(operand), "−": value - int(operand), "×": value * int(operand)}[sign] % modulus
    return f"({before}, {value})"


@pytest.mark.parametrize("split", ["train", "test", "length", "order", "surface"])
def test_golds_are_what_arithmetic_says(split: str) -> None:
    problems = check(make_problems(WORLD, split, 200, seed=1), PROBLEMS, "problems")
    assert problems["gold"].to_list() == [slow_gold(p, WORLD.modulus) for p in problems["problem"]]
    assert problems["problem"].n_unique() == 200


def test_shifted_sets_hold_what_training_never_shows() -> None:
    double = re.compile(r"×\d [A-J] ×")
    train = make_problems(WORLD, "train", 300, seed=0)["problem"].to_list()
    assert not any(double.search(p) for p in train)
    assert all(double.search(p) for p in make_problems(WORLD, "order", 100, seed=0)["problem"])
    assert all(re.findall("[A-J]", p) == sorted(re.findall("[A-J]", p)) for p in train)
    surface = make_problems(WORLD, "surface", 100, seed=0)["problem"]
    assert all(re.findall("[A-J]", p) != sorted(re.findall("[A-J]", p)) for p in surface)
    assert make_problems(WORLD, "length", 100, seed=0)["level"].min() > max(WORLD.train_lengths)


def test_problem_sets_share_nothing_when_told_to() -> None:
    train = make_problems(WORLD, "train", 300, seed=0)
    test = make_problems(WORLD, "test", 300, seed=0, exclude=frozenset(train["problem"]))
    assert not set(train["problem"]) & set(test["problem"])


def test_a_teacher_without_errors_is_always_verified_and_one_with_errors_is_caught() -> None:
    problems = make_problems(WORLD, "train", 200, seed=3)
    right = teach(World(teacher_errors=0), problems, seed=0).join(problems, on="problem_id")
    assert all(verify(r, g).correct for r, g in right.select("response", "gold").iter_rows())
    fallible = teach(World(teacher_errors=1.0), problems, seed=0).join(problems, on="problem_id")
    wrong = [not verify(r, g).correct for r, g in fallible.select("response", "gold").iter_rows()]
    assert 0.3 < sum(wrong) / len(wrong) < 0.9  # a step is wrong with chance 1/length: 1 − (1 − 1/n)ⁿ


def test_steps_are_labelled_as_a_reader_would() -> None:
    problem = "12 A ×2 B −4 C +7 ?"
    response = f"A ×2 24 B −4 21 wait B −4 20 check B −4 20 C +7 28 {box([20, 27])}"
    steps = read_steps(problem, response, WORLD)
    assert [(s.kind, s.correct, s.value) for s in steps] == [
        ("calculation", True, 24),
        ("exploration", False, 21),
        ("backtracking", True, 20),
        ("verification", True, 20),
        ("calculation", False, 28),
        ("conclusion", False, None),
    ]
    assert [response[s.start : s.end] for s in steps][2:4] == ["wait B −4 20", "check B −4 20"]


def test_a_step_is_right_that_follows_from_a_wrong_value_before_it() -> None:
    steps = read_steps("1 A +1 B +1 ?", f"A +1 5 B +1 6 {box([5, 6])}", WORLD)
    assert [s.correct for s in steps] == [False, True, True]


def test_working_a_slot_that_the_problem_does_not_have_is_wrong() -> None:
    steps = read_steps("1 A +1 B +2 ?", f"A +1 2 B +1 3 {box([2, 3])}", WORLD)
    assert [s.correct for s in steps] == [True, False, True]


@pytest.mark.parametrize("response", ["", "A", "wait check", "\\boxed{", "B B B 3", "A ×2 <pad>", "check wait A +1 1"])
def test_any_response_can_be_read(response: str) -> None:
    for step in read_steps("1 A +1 B +2 ?", response, WORLD):
        assert 0 <= step.start < step.end <= len(response)


def test_tables_have_their_schemas() -> None:
    problems = make_problems(WORLD, "train", 20, seed=0)
    traces = check(teach(WORLD, problems, seed=0, traces_each=3), TRACES, "traces")
    assert traces["trace_id"].n_unique() == len(traces)
    check(label_steps(problems, traces, WORLD), STEPS, "steps")
    check(corpus_table(WORLD, 20, seed=0), CURATED, "corpus")


def test_the_same_seed_makes_the_same_world() -> None:
    assert make_problems(WORLD, "test", 50, seed=7).equals(make_problems(WORLD, "test", 50, seed=7))
    assert list(corpus(WORLD, 50, seed=7)) == list(corpus(WORLD, 50, seed=7))
    assert list(corpus(WORLD, 50, seed=7)) != list(corpus(WORLD, 50, seed=8))


def test_the_corpus_keeps_its_promises() -> None:
    documents = list(corpus(World(habit=0.1), 20_000, seed=0))
    asked = [d for d in documents if " ? " in d]
    assert len(asked) / len(documents) == pytest.approx(0.4, abs=0.02)
    worked = [d for d in asked if not d.partition(" ? ")[2].startswith("\\boxed")]
    assert len(worked) / len(asked) == pytest.approx(0.1, abs=0.01)


def test_every_word_has_a_token() -> None:
    words = set(vocabulary(WORLD))
    assert len(words) == len(vocabulary(WORLD))
    assert {w for d in corpus(WORLD, 2_000, seed=0) for w in d.split()} <= words


def test_the_tokenizer_gives_every_word_one_token(tmp_path) -> None:
    pytest.importorskip("transformers")
    from transformers import AutoTokenizer

    from tracekit.study.tasks.world import write_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(WORLD, tmp_path))
    text = next(corpus(WORLD, 1, seed=0))
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.split())
    assert tokenizer.decode(ids) == text
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "1 A +1 ?"}], tokenize=False)
    assert tokenizer(asked, add_special_tokens=False)["input_ids"][0] == tokenizer.bos_token_id


@pytest.mark.parametrize("text", ["", "1 ?", "A +1 ?", "1 A +1 B", "1 Z +1 ?", "1 A /2 ?", "x A +1 ?"])
def test_what_is_no_problem_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no "):
        read_chain(text)


def test_a_guess_scores_next_to_nothing() -> None:
    golds = make_problems(WORLD, "test", 500, seed=0)["gold"]
    assert golds.value_counts()["count"].max() / 500 <= 0.02
    assert isinstance(golds, pl.Series)


def test_slips_are_never_the_right_value() -> None:
    from tracekit.study.tasks.chains import _slip

    rng = random.Random(0)
    assert all(_slip(rng, v, 30) != v for v in range(30) for _ in range(20))
