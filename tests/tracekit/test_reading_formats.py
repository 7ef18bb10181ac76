"""Formats of APIs, engines and data sets that a careless reader loses something of, and formats of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tracekit.cli.collect import command_collect
from tracekit.collection.collect import Collected, CollectSettings
from tracekit.reading import formats
from tracekit.reading.formats import LayoutError, source_format
from tracekit.reading.readers import Part, SourceSettings, read_problems, read_source
from tracekit.reading.turns import join_thought

PROBLEM, THOUGHT, ANSWER = "What is 6 + 6?", "Six and six are twelve.", "It is \\boxed{12}."
JOINED = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
CALL = '<tool_call>\n{"name": "py", "arguments": {"code": "6+6"}}\n</tool_call>'
RESULT = "<tool_response>\n12\n</tool_response>"
SKY = (
    f"<|begin_of_thought|>\n\n{THOUGHT}\n\n<|end_of_thought|>\n\n"
    f"<|begin_of_solution|>\n\n{ANSWER}\n\n<|end_of_solution|>"
)
CHANNELS = (
    f"<|start|>user<|message|>{PROBLEM}<|end|><|start|>assistant<|channel|>analysis<|message|>{THOUGHT}<|end|>"
    f"<|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>"
)
THINKING_BLOCKS = [{"type": "thinking", "thinking": THOUGHT, "signature": "s"}, {"type": "text", "text": ANSWER}]
VERL = {"data_source": "m", "ability": "MATH", "extra_info": {"index": 1}}


def user(text: Any = PROBLEM, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def assistant(text: Any = ANSWER, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


#: Name → a row, its gold, its responses.
FORMATS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "openr1, all its columns": (
        {"problem": PROBLEM, "solution": "w", "answer": "12", "problem_type": "Algebra", "question_type": "q",
         "generations": [JOINED, "13"], "correctness_math_verify": [True, False], "messages": [user(), assistant()]},
        "12", [JOINED, "13"],
    ),
    "verl with responses": (
        {**VERL, "prompt": [user()], "reward_model": {"ground_truth": "12"}, "responses": [ANSWER, "13"]},
        "12", [ANSWER, "13"],
    ),
    "verl, several exchanges": (
        {**VERL, "prompt": [user("hi"), assistant("Hello!"), user()], "reward_model": {"ground_truth": "12"}}, "12", []
    ),
    "skywork": ({**VERL, "prompt": [user()], "reward_model": {"ground_truth": '["12"]'}}, "12", []),
    "dapo, processed": (
        {"prompt": PROBLEM, "solution": "12", "reward_model": {"ground_truth": "12"}, "data_source": "d"}, "12", []
    ),
    "bespoke": (
        {"system": "s", "conversations": [{"from": "user", "value": PROBLEM}, {"from": "assistant", "value": SKY}]},
        "", [JOINED],
    ),
    "nemotron, several exchanges": (
        {"input": [user("hi"), assistant("Hello!"), user()], "output": JOINED, "reasoning": "on"}, "", [JOINED]
    ),
    "nemotron 2": (
        {"messages": [user(), assistant(JOINED)], "metadata": '{"expected_answer": "12"}', "reasoning": "on"},
        "12", [JOINED],
    ),
    "am-deepseek, parts apart": (
        {"messages": [user(info={"reference_answer": "12"}),
                      assistant("", info={"think_content": THOUGHT, "answer_content": ANSWER})]}, "12", [JOINED],
    ),
    "openai completion beside its request": (
        {"messages": [user()], "choices": [{"message": assistant(reasoning_content=THOUGHT)}], "answer": "12"},
        "12", [JOINED],
    ),
    "anthropic response": (
        {"problem": PROBLEM, "answer": "12", "response": {"type": "message", "role": "assistant", "model": "m",
                                                          "content": THINKING_BLOCKS}}, "12", [JOINED],
    ),
    "anthropic response, its request beside it": (
        {"messages": [user()], "role": "assistant", "content": THINKING_BLOCKS, "model": "m"}, "", [JOINED]
    ),
    "anthropic batch": (
        {"custom_id": "1", "problem": PROBLEM,
         "result": {"type": "succeeded", "message": {"type": "message", "role": "assistant",
                                                     "content": THINKING_BLOCKS}}}, "", [JOINED],
    ),
    "anthropic tools": (
        {"messages": [
            user(), assistant([{"type": "tool_use", "id": "t", "name": "py", "input": {"code": "6+6"}}]),
            user([{"type": "tool_result", "tool_use_id": "t", "content": "12"}]), assistant(ANSWER),
        ]}, "", [f"{CALL}\n\n{RESULT}\n\n{ANSWER}"],
    ),
    "old function calls": (
        {"messages": [user(), assistant(None, function_call={"name": "py", "arguments": '{"code": "6+6"}'}),
                      {"role": "function", "name": "py", "content": "12"}, assistant()]},
        "", [f"{CALL}\n\n{RESULT}\n\n{ANSWER}"],
    ),
    "ollama": ({"model": "m", "messages": [user()], "message": assistant(thinking=THOUGHT)}, "", [JOINED]),
    "openrouter": (
        {"messages": [user(), assistant(reasoning_details=[{"type": "reasoning.text", "text": THOUGHT}])]}, "", [JOINED]
    ),
    "gemini": (
        {"contents": [{"role": "user", "parts": [{"text": PROBLEM}]},
                      {"role": "model", "parts": [{"text": THOUGHT, "thought": True}, {"text": ANSWER}]}]},
        "", [JOINED],
    ),
    "harmony messages": (
        {"messages": [user(), assistant(THOUGHT, channel="analysis"), assistant(channel="final")]}, "", [JOINED]
    ),
    "harmony transcript": ({"text": CHANNELS}, "", [JOINED]),
    "chatml transcript": (
        {"text": f"<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n{ANSWER}<|im_end|>"}, "", [ANSWER]
    ),
    "vllm, the prompt in its template": (
        {"prompt": f"<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n", "outputs": [{"text": ANSWER}]},
        "", [ANSWER],
    ),
    "lm-eval, arguments as a list": (
        {"doc_id": 0, "doc": {"q": "x"}, "target": 12, "arguments": [[PROBLEM, {"until": []}]], "resps": [[ANSWER]]},
        "12", [ANSWER],
    ),
    "inspect with tools": (
        {"input": PROBLEM, "target": "12", "messages": [
            user(), assistant(None, tool_calls=[{"function": {"name": "py", "arguments": {"code": "6+6"}}}]),
            {"role": "tool", "content": "12"}, assistant(),
        ], "output": {"model": "m", "choices": [{"message": assistant()}]}},
        "12", [f"{CALL}\n\n{RESULT}\n\n{ANSWER}"],
    ),
    "responses that are objects": (
        {"question": PROBLEM, "reference_answer": "12", "responses": [{"response_model": "m", "response": ANSWER}]},
        "12", [ANSWER],
    ),
    "a thought and its end": ({"question": PROBLEM, "reasoning": THOUGHT, "answer": ANSWER}, "", [JOINED]),
    "synthetic": (
        {"prompt": PROBLEM, "verification_info": '{"ground_truth": "12"}', "messages": [user(), assistant(JOINED)]},
        "12", [JOINED],
    ),
    "preference, several exchanges": (
        {"prompt": [user("hi"), assistant("Hello!"), user()], "chosen": [assistant()], "rejected": [assistant("13")]},
        "", [ANSWER, "13"],
    ),
}  # fmt: skip


def read(rows: list[dict[str, Any]], folder: Path, **settings: Any) -> Part:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_source(SourceSettings(path=str(folder / "data.jsonl"), **settings))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read_whole(name: str, tmp_path: Path) -> None:
    row, gold, responses = FORMATS[name]
    found = read([row], tmp_path)
    assert found.problems.select("problem", "gold").rows() == [(PROBLEM, gold)]
    assert found.traces["response"].to_list() == responses
    assert found.lost.is_empty()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": PROBLEM, "response": {"body": {"error": {"message": "rate limit"}}}}, "an error: rate limit"),
        ({"problem": PROBLEM, "response": {"status": 1, "note": "x"}}, "none of them a response"),
        ({"doc_id": 0, "doc": {"question": PROBLEM}, "target": "1", "resps": [[[-1.2, False]], [[-0.2, True]]]},
         "log-likelihoods"),
        ({"question": PROBLEM, "thinking": THOUGHT, "answer": "12"}, "--map thought=thinking response=answer"),
        ({"question": PROBLEM, "answer": "12", "model_responses": ["a", "b"]}, "--map response=model_responses"),
        ({"question": PROBLEM, "answer": "12", "reply": {"text": ANSWER * 3}}, "--map response=reply"),
        ({"problem": PROBLEM, "answer": "12", "response": ANSWER, "r1_thinking": THOUGHT * 3}, "--map thought=r1_thi"),
        ({"problem": PROBLEM, "response": ANSWER, "gold_value": "12"}, "--map gold=gold_value"),
    ],
)  # fmt: skip
def test_what_would_be_lost_or_guessed_is_refused_with_the_way_out(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(LayoutError) as fault:
        read([row], tmp_path)
    assert message in str(fault.value)


def test_a_preference_label_is_a_flag_and_no_gold(tmp_path: Path) -> None:
    found = read([{"prompt": PROBLEM, "completion": ANSWER, "label": False}], tmp_path)
    assert found.problems["gold"].to_list() == [""]
    assert found.traces["flagged_correct"].to_list() == [False]


def test_a_document_scored_by_two_filters_is_read_once_and_the_copy_counted(tmp_path: Path) -> None:
    row = {"doc_id": 0, "doc": {"question": PROBLEM}, "target": "12", "resps": [[ANSWER]], "filter": "strict"}
    other = {**row, "doc": {"question": "2 + 2?"}}  # another task, whose numbers begin again
    found = read([row, {**row, "filter": "flexible"}, other], tmp_path)
    assert found.traces.height == 2
    assert found.lost.rows() == [("data.jsonl:2", "the same responses as above, scored by the filter flexible")]


@pytest.mark.parametrize(
    "rows",
    [
        [{"problem": "P", "gold": "1", "response": "a"}, {"problem": "Q", "gold": "1", "response": None}],
        [{"problem": "P", "answer": "1", "generations": ["a"]}, {"problem": "Q", "answer": "1", "generations": []}],
        [{"question": "P", "output": "a"}, {"question": "Q", "output": ""}],
    ],
)
def test_an_empty_response_among_others_is_counted_and_its_problem_stays(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = read(rows, tmp_path)
    assert found.problems["problem"].to_list() == ["P", "Q"]
    assert found.lost.rows() == [("data.jsonl:2", "the response is empty")]


def test_an_empty_sample_among_others_is_counted(tmp_path: Path) -> None:
    found = read([{"problem": "P", "answer": "1", "responses": ["a", "", None]}], tmp_path)
    assert found.traces["response"].to_list() == ["a"]
    assert found.lost["reason"].to_list() == ["2 of 3 responses are empty"]


def test_problems_are_collected_from_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[pl.DataFrame] = []

    def collected(settings: CollectSettings, problems: pl.DataFrame, **_: Any) -> Collected:
        asked.append(problems)
        return Collected(settings.output, 0, 0, 0, 0, 0, 0, 0, 0.0)

    monkeypatch.setattr("tracekit.cli.collect.collect", collected)
    source = tmp_path / "problems.jsonl"
    source.write_text(json.dumps({"question": PROBLEM, "answer": "12"}) + "\n", encoding="utf-8")
    read_problems(source).write_parquet(tmp_path / "problems.parquet")
    for words in ((source,), (None, f"problems={source}"), (None, f"problems={tmp_path / 'problems.parquet'}")):
        command_collect(*words, output=tmp_path / "run")
    assert [problems.select("problem", "gold").rows() for problems in asked] == [[(PROBLEM, "12")]] * 3


@pytest.mark.parametrize(
    ("answer", "joined"),
    [
        (f"<think>{THOUGHT}</think>{ANSWER}", f"<think>{THOUGHT}</think>{ANSWER}"),
        ("<think>else</think>12", f"<think>\n{THOUGHT}\n</think>\n\n<think>else</think>12"),
        ("", f"<think>\n{THOUGHT}"),
    ],
)
def test_a_thought_is_joined_once_and_never_lost(answer: str, joined: str) -> None:
    assert join_thought(THOUGHT, answer) == joined


def test_a_part_is_mapped_and_the_rest_read_by_name(tmp_path: Path) -> None:
    row = {"question": PROBLEM, "answer": "12", "why": THOUGHT, "said": [ANSWER, "13"]}
    found = read([row], tmp_path, map={"response": "said[*]", "thought": "why"})
    assert found.problems.select("problem", "gold").rows() == [(PROBLEM, "12")]
    assert found.traces["response"].to_list() == [JOINED, f"<think>\n{THOUGHT}\n</think>\n\n13"]


def test_a_null_that_is_mapped_is_an_empty_response_and_no_text(tmp_path: Path) -> None:
    rows = [{"question": "P", "answer": "1", "said": "a"}, {"question": "Q", "answer": None, "said": None}]
    found = read(rows, tmp_path, map={"response": "said", "gold": "answer"})
    assert found.traces["response"].to_list() == ["a"]
    assert found.problems["gold"].to_list() == ["1", ""]
    assert found.lost.rows() == [("data.jsonl:2", "the response is empty")]


@pytest.fixture
def registered() -> Iterator[None]:
    before = list(formats.LAYOUTS)
    yield
    formats.LAYOUTS[:] = before


@pytest.mark.usefixtures("registered")
def test_a_format_of_ones_own_is_registered_and_preferred(tmp_path: Path) -> None:
    @source_format("quiz", "question", "answer", author="pupils")
    def read_quiz(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.select(problem="question", response="answer")

    found = read([{"question": PROBLEM, "answer": ANSWER}], tmp_path)
    assert found.traces.select("author", "response").rows() == [("pupils", ANSWER)]
    with pytest.raises(LayoutError, match="'quiz' already"):
        source_format("quiz", "question")(lambda frame: frame)
