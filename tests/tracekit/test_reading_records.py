"""Layouts that tools write, each as three rows of one exchange: what they become, or the sentence that refuses them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tracekit.reading.formats import LayoutError
from tracekit.reading.mapping import values_at
from tracekit.reading.readers import Part, SourceError, SourceSettings, read_source

SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases" / "layouts"
PROBLEM, THOUGHT, ANSWER = "What is 8 × 7?", "Eight sevens are 56.", "It is \\boxed{56}."
JOINED = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
INLINE = f"<think>{THOUGHT}</think>{ANSWER}"


def user(text: Any = PROBLEM) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any = ANSWER, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


#: Name → a row, its gold, its responses.
LAYOUTS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "reasoning_content": ({"messages": [user(), assistant(reasoning_content=THOUGHT)], "answer": "56"}, "56", [JOINED]),
    "ollama": ({"messages": [user(), assistant(thinking=THOUGHT)], "answer": 56}, "56", [JOINED]),
    "null content, cut off": ({"messages": [user(), assistant(None, reasoning=THOUGHT)]}, "", [f"<think>\n{THOUGHT}"]),
    "blocks": (
        {"messages": [user([{"type": "text", "text": PROBLEM}]),
                      assistant([{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": ANSWER}])]},
        "", [JOINED],
    ),
    "system and two exchanges": (
        {"messages": [{"role": "system", "content": "s"}, user("hi"), assistant("Hello!"), user(), assistant()]},
        "", [ANSWER],
    ),
    "trailing question": ({"messages": [user(), assistant(), user("Thanks?")]}, "", [ANSWER]),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": PROBLEM}, {"from": "gpt", "value": INLINE}]}, "", [INLINE]
    ),
    "sharegpt with role": ({"conversations": [user(), assistant(INLINE)]}, "", [INLINE]),
    "bespoke": (
        {"system": "s", "conversations": [{"from": "user", "value": PROBLEM}, {"from": "assistant", "value": INLINE}]},
        "", [INLINE],
    ),
    "mixture of thoughts": ({"messages": [user(), assistant(INLINE)], "num_tokens": 9, "source": "x"}, "", [INLINE]),
    "harmony": (
        {"prompt": PROBLEM, "completion": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
                                          f"<|channel|>final<|message|>{ANSWER}<|return|>"},
        "", [JOINED],
    ),
    "harmony, cut off": (
        {"prompt": PROBLEM, "completion": f"<|channel|>analysis<|message|>{THOUGHT}"}, "", [f"<think>\n{THOUGHT}"]
    ),
    "openai with its request": (
        {"request": {"messages": [user()], "model": "m"},
         "response": {"choices": [{"message": assistant(reasoning_content=THOUGHT)}]}},
        "", [JOINED],
    ),
    "openai batch result beside its problem": (
        {"custom_id": "1", "problem": PROBLEM,
         "response": {"status_code": 200,
                      "body": {"choices": [{"message": assistant()}, {"message": assistant("56")}]}}},
        "", [ANSWER, "56"],
    ),
    "openai responses": (
        {"object": "response", "input": PROBLEM,
         "output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]},
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]}]},
        "", [JOINED],
    ),
    "batch request": ({"custom_id": "1", "body": {"model": "m", "messages": [user()]}}, "", []),
    "inspect": (
        {"id": 1, "input": PROBLEM, "target": "56",
         "output": {"model": "m", "choices": [{"message": assistant([{"type": "reasoning", "reasoning": THOUGHT},
                                                                     {"type": "text", "text": ANSWER}])}]}},
        "56", [JOINED],
    ),
    "lm-eval": (
        {"doc_id": 0, "doc": {"problem": PROBLEM, "answer": "56"}, "target": "56", "resps": [[ANSWER, "57"]],
         "arguments": {"gen_args_0": {"arg_0": PROBLEM}}},
        "56", [ANSWER, "57"],
    ),
    "vllm": (
        {"prompt": PROBLEM,
         "outputs": [{"text": ANSWER, "finish_reason": "stop"}, {"text": "5", "finish_reason": "length"}]},
        "", [ANSWER, "5"],
    ),
    "alpaca": ({"instruction": "Multiply.", "input": PROBLEM, "output": ANSWER}, "", [ANSWER]),
    "openmathreasoning": (
        {"problem": PROBLEM, "expected_answer": "56", "generated_solution": INLINE, "generation_model": "R1"},
        "56", [INLINE],
    ),
    "nemotron": (
        {"input": [user()], "output": INLINE, "reasoning": "on", "generator": "R1", "system_prompt": "on"}, "", [INLINE]
    ),
    "am-deepseek": (
        {"messages": [{**user(), "info": {"reference_answer": "56"}}, assistant(INLINE)]}, "56", [INLINE]
    ),
    "qwen evaluation": (
        {"idx": 0, "question": PROBLEM, "gt": "56", "answer": "56", "solution": "worked", "code": [ANSWER, "5"],
         "score": [True, False]},
        "56", [ANSWER, "5"],
    ),
    "thought and solution": (
        {"question": PROBLEM, "reasoning": THOUGHT, "response": ANSWER, "answer": "56"}, "56", [JOINED]
    ),
    "capitals": ({"Problem": PROBLEM, "Answer": "56", "Response": ANSWER}, "56", [ANSWER]),
    "benchmark": ({"question": PROBLEM, "answer": "56"}, "56", []),
    "benchmark of numbers": ({"problem": PROBLEM, "answer": 56, "url": "u"}, "56", []),
    "benchmark of lists": ({"question": PROBLEM, "final_answer": ["56"], "solution": ["worked"]}, "56", ["worked"]),
    "several golds": ({"question": PROBLEM, "answer": ["56", "56.0"]}, '["56", "56.0"]', []),
    "dapo": (
        {"data_source": "d", "prompt": [user()], "reward_model": {"ground_truth": "56"}, "extra_info": {"index": 1}},
        "56", [],
    ),
    "preference": ({"prompt": PROBLEM, "chosen": ANSWER, "rejected": "57"}, "", [ANSWER, "57"]),
    "preference of conversations": (
        {"chosen": [user(), assistant()], "rejected": [user(), assistant("57")]}, "", [ANSWER, "57"]
    ),
    "llama-factory preference": (
        {"conversations": [{"from": "human", "value": PROBLEM}], "chosen": {"from": "gpt", "value": ANSWER},
         "rejected": {"from": "gpt", "value": "57"}},
        "", [ANSWER, "57"],
    ),
}  # fmt: skip


def written(rows: list[dict[str, Any]], folder: Path, name: str = "data.jsonl") -> SourceSettings:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceSettings(path=str(folder / name))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_right(layout: str, tmp_path: Path) -> None:
    row, gold, responses = LAYOUTS[layout]
    found = read_source(written([row], tmp_path))
    assert found.problems["problem"].to_list() == [f"Multiply.\n\n{PROBLEM}" if layout == "alpaca" else PROBLEM]
    assert found.problems["gold"].to_list() == [gold]
    assert found.traces["response"].to_list() == responses
    assert found.lost.is_empty()


def test_tool_calls_stay_in_the_text(tmp_path: Path) -> None:
    call = {"id": "1", "function": {"name": "python", "arguments": '{"code": "8*7"}'}}
    turns = [user(), assistant(None, tool_calls=[call]), {"role": "tool", "content": "56"}, assistant()]
    (response,) = read_source(written([{"messages": turns}], tmp_path)).traces["response"]
    assert '"arguments": {"code": "8*7"}' in response
    assert "<tool_response>\n56\n</tool_response>" in response
    assert response.endswith(ANSWER)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [user(), assistant(None)], "answer": "56"}, "the response is empty"),
        ({"messages": [assistant()]}, "the problem is empty"),
        ({"choices": [{"message": assistant()}]}, "the problem is empty"),
        ({"question": PROBLEM, "answer": {"a": 1}}, "the gold is an object"),
    ],
)
def test_a_row_that_is_lost_is_counted(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    found = read_source(written([LAYOUTS["capitals"][0], row], tmp_path))
    assert found.traces.height == 1
    assert reason in found.lost["reason"].to_list()[0]


def test_a_source_of_which_no_row_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no problem; no row can be read.*--map problem="):
        read_source(written([{"object": "chat.completion", "choices": [{"message": assistant()}]}], tmp_path))


def test_a_loose_match_with_another_column_of_text_asks(tmp_path: Path) -> None:
    rows = [{"question": f"{n}: {PROBLEM}", "answer": "56", "worked": f"{n} {THOUGHT} {ANSWER} " * 3} for n in range(3)]
    with pytest.raises(
        LayoutError, match=r"without worked\?.*--map response=worked.*--map problem=question gold=answer"
    ):
        read_source(written(rows, tmp_path))
    settings = written(rows, tmp_path).model_copy(update={"map": {"response": "worked"}})
    found = read_source(settings)
    assert (found.problems["gold"].to_list(), found.traces.height) == (["56"] * 3, 3)


def test_gsm8k_is_known_by_its_marks(tmp_path: Path) -> None:
    worked = read_source(written([{"question": PROBLEM, "answer": "8 × 7 = 56\n#### 56"}], tmp_path))
    assert worked.problems["gold"].to_list() == ["56"]
    assert worked.traces["author"].to_list() == ["human"]


def test_golds_of_mixed_types_and_conversations_of_mixed_contents_are_read(tmp_path: Path) -> None:
    rows = [
        {"messages": [user(), assistant()], "answer": 56},
        {"messages": [user([{"type": "text", "text": "2 + 2?"}]), assistant(None, reasoning="4")], "answer": "4"},
    ]
    found = read_source(written(rows, tmp_path))
    assert found.problems["gold"].to_list() == ["56", "4"]
    assert found.traces.height == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + json.dumps(LAYOUTS["capitals"][0]).encode()),
        ("nan.jsonl", b'{"problem": "%s", "response": "x", "level": NaN}' % PROBLEM.encode()),
        ("pretty.json", json.dumps([LAYOUTS["capitals"][0]], indent=2).encode()),
        ("one.json", json.dumps(LAYOUTS["capitals"][0], indent=2).encode()),
        ("log.json", json.dumps({"eval": {}, "samples": [LAYOUTS["inspect"][0]]}).encode()),
        ("rows.csv.gz", gzip.compress(b'problem,answer,response\n"What is 8 \xc3\x97 7?",56,x\n', mtime=0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_is_read_in_any_spelling(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_source(SourceSettings(path=str(tmp_path / name))).problems["problem"].to_list() == [PROBLEM]


def test_globs_empty_shards_and_notes_beside_the_data(tmp_path: Path) -> None:
    for number in range(2):
        written([LAYOUTS["capitals"][0] | {"Problem": f"P{number}"}], tmp_path, f"part-{number}.jsonl")
    (tmp_path / "part-2.jsonl").touch()
    (tmp_path / "dataset_infos.json").write_text("{}")
    for path in (tmp_path, tmp_path / "part-*.jsonl"):
        found = read_source(SourceSettings(path=str(path)))
        assert found.problems.height == 2
        assert found.lost["reason"].to_list() == ["the file is empty"]


def test_a_local_clone_honours_its_cards_configurations(tmp_path: Path) -> None:
    for name in ("data", "extended"):
        (tmp_path / name).mkdir()
        written([LAYOUTS["capitals"][0] | {"Problem": name}], tmp_path, f"{name}/train-0.jsonl")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "- config_name: extended\n  data_files: extended/*.jsonl\n---\n# A card\n"
    )
    assert read_source(SourceSettings(path=str(tmp_path))).problems["problem"].to_list() == ["data"]
    extended = SourceSettings(path=str(tmp_path), config="extended")
    assert read_source(extended).problems["problem"].to_list() == ["extended"]
    with pytest.raises(SourceError, match="no configuration all; it has default, extended"):
        read_source(SourceSettings(path=str(tmp_path), config="all"))


def test_a_bomb_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracekit.reading.files.MAX_UNPACKED_BYTES", 1_000_000)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 50_000_000))
    with pytest.raises(SourceError, match=r"bomb\.jsonl\.gz unpacks from"):
        read_source(SourceSettings(path=str(tmp_path / "bomb.jsonl.gz")))


def test_paths_go_into_nested_values() -> None:
    row = {"a": {"b": [{"c": "x"}, {"c": "y"}]}, "t": [user("q"), assistant("r")], "a.b": "whole"}
    assert values_at(row, "a.b") == ["whole"]
    assert values_at(row, "a.b[1].c") == ["y"]
    assert values_at(row, "a.b[*].c") == ["x", "y"]
    assert values_at(row, "t[assistant]") == ["r"]
    assert values_at(row, "a.nothing[0]") == []


def test_columns_are_joined_and_lists_mapped_by_hand(tmp_path: Path) -> None:
    row = {"q": {"text": PROBLEM}, "hint": "Multiply.", "out": ["a", "b"], "gold": [56]}
    columns = {"problem": "q.text + hint", "response": "out[*]", "gold": "gold[0]"}
    found = read_source(written([row], tmp_path).model_copy(update={"map": columns}))
    assert found.problems.select("problem", "gold").row(0) == (f"{PROBLEM}\n\nMultiply.", "56")
    assert found.traces["response"].to_list() == ["a", "b"]


def counts(found: Part) -> tuple[int, int]:
    return found.problems.height, found.traces.height


#: Layout → (problems, traces); what stands here no test may guess, it is the right reading of the shared rows.
RIGHT = {"16": (3, 0), "20": (3, 9), "27": (3, 0), "29": (3, 6)}
NO_GOLD = ("12", "19", "24", "29")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared layouts")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_shared_layouts_are_read_right(path: Path) -> None:
    number = path.name[:2]
    if number == "06":
        with pytest.raises(LayoutError, match="no problem"):
            read_source(SourceSettings(path=str(path)))
        return
    found = read_source(SourceSettings(path=str(path)))
    assert counts(found) == RIGHT.get(number, (3, 3))
    golds = ["", "", ""] if number in NO_GOLD else ["42", "43", "44"]
    assert found.problems["gold"].to_list() == golds
    assert found.lost.is_empty()
    assert not any("<|channel|>" in response for response in found.traces["response"])
    if number in ("01", "02", "04", "05", "17"):
        assert all(r.startswith("<think>\nI add") and "</think>\n\nThe answer" in r for r in found.traces["response"])
