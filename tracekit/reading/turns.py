"""Turns of a conversation in the spellings of many tools: role, text, thought, tool calls.

A thought that stands apart (`reasoning_content`, `reasoning`, `thinking`, a content block, a harmony channel) goes
before the answer in a think block, as open models write it themselves. Tool calls and their results stay in the text,
in the tags of Hermes and Qwen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from evaluators.extraction.thinking import split_thinking

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
}
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
_TEXT_KEYS = ("content", "value", "text", "output_text", "parts")

#: Channels of gpt-oss that hold thoughts, where a message names its channel.
_THOUGHT_CHANNELS = ("analysis", "commentary")

#: A trace of Sky-T1's prompt, also in OpenThoughts-114k and Bespoke-Stratos.
_SKY = re.compile(
    r"\s*<\|begin_of_thought\|>(?P<thought>.*?)<\|end_of_thought\|>\s*"
    r"(?:<\|begin_of_solution\|>(?P<answer>.*?)(?:<\|end_of_solution\|>\s*)?)?\Z",
    re.DOTALL,
)

#: A message of gpt-oss's harmony format: <|channel|>analysis<|message|>2 + 2 is 4.<|end|>
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(?P<name>\w+)[^<]*<\|message\|>(?P<text>.*?)(?=<\|end\|>|<\|return\|>|<\|call\|>|<\|start\|>|\Z)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Turn:
    """One turn. gold: a reference answer that some data sets keep in the turn that asks."""

    role: str
    text: str
    thought: str = ""
    gold: Any = None


def join_thought(thought: str, answer: str) -> str:
    """Put a thought before its answer in a think block; the block stays open where there is no answer.

    An answer that repeats the thought in a think block of its own is left as it is.

    >>> join_thought("I add.", "4")
    '<think>\\nI add.\\n</think>\\n\\n4'
    """
    if not thought.strip():
        return answer
    if split_thinking(answer).thought is not None and " ".join(thought.split()) in " ".join(answer.split()):
        return answer
    return f"<think>\n{thought}\n</think>\n\n{answer}" if answer.strip() else f"<think>\n{thought}"


def written(turn: Turn) -> str:
    """What a turn adds to a response: thought and text; a tool's result in its tags."""
    if turn.role == "tool":
        return f"<tool_response>\n{turn.text}\n</tool_response>"
    return join_thought(turn.thought, turn.text)


def without_channels(text: str) -> str:
    """Text with control tokens around its parts as thought and answer: harmony's channels, Sky-T1's two parts."""
    if (parted := _SKY.match(text)) is not None:
        return join_thought(parted["thought"].strip(), (parted["answer"] or "").strip())
    if "<|channel|>" not in text:
        return text
    parts = [(found["name"], found["text"].strip()) for found in _CHANNEL.finditer(text)]
    if not parts:
        return text
    thought = "\n\n".join(part for name, part in parts if name != "final" and part)
    return join_thought(thought, "\n\n".join(part for name, part in parts if name == "final" and part))


def read_turn(turn: Mapping[str, Any]) -> Turn:
    """Read one turn; an unknown role counts as its own and is left out later."""
    name = next((turn[key] for key in ("role", "from", "speaker", "author") if isinstance(turn.get(key), str)), "")
    role = ROLES.get(name.lower(), name.lower())
    value: Any = next((turn[key] for key in _TEXT_KEYS if turn.get(key) is not None), "")
    if role == "user" and _is_tool_result(value):
        role, value = "tool", [_content(block.get("content") or "")[0] for block in list(value)]
    text, thought = _content(value)
    info: Any = turn.get("info")
    info = info if isinstance(info, Mapping) else {}
    apart = _thought_apart(turn) or thought
    if not text and not apart:  # AM-DeepSeek keeps both parts beside the turn
        text, apart = str(info.get("answer_content") or ""), str(info.get("think_content") or "")
    if role == "assistant" and turn.get("channel") in _THOUGHT_CHANNELS:
        text, apart = "", "\n\n".join(part for part in (apart, text) if part)
    if name.lower() in ("function_call", "tool_call"):
        text = f"<tool_call>\n{text}\n</tool_call>"
    legacy = turn.get("function_call")
    calls = _calls(turn.get("tool_calls")) + _calls([legacy] if isinstance(legacy, Mapping) else [])
    joined = "\n".join(part for part in (text, *calls) if part)
    return Turn(role, joined, apart, _gold_beside(turn, info))


def _gold_beside(turn: Mapping[str, Any], info: Mapping[str, Any]) -> Any:
    """A gold that stands in a turn: AM-DeepSeek's info.reference_answer, Light-R1's and Open-Reasoner-Zero's truth."""
    names = ("reference_answer", "ground_truth", "expected_answer", "gold")
    return next(
        (place[name] for place in (info, turn) for name in names if place.get(name) not in (None, "", [])), None
    )


def merged(turns: Sequence[Turn]) -> list[Turn]:
    """Turns of the assistant that follow each other as one: a thought alone belongs to the text after it."""
    found: list[Turn] = []
    for turn in turns:
        last = found[-1] if found else None
        # A text without a thought closes what is open before it; a thought after a text begins a block of its own.
        if last is not None and last.role == turn.role == "assistant" and not last.text:
            thought = "\n\n".join(part for part in (last.thought, turn.thought) if part)
            found[-1] = Turn(turn.role, turn.text, thought, turn.gold)
        else:
            found.append(turn)
    return found


def _thought_apart(turn: Mapping[str, Any]) -> str:
    """The thought in a field of its own: text, blocks, or OpenRouter's `reasoning_details`."""
    for key in (*_THOUGHT_KEYS, "reasoning_details", "thinking_blocks"):
        value = turn.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and value:
            blocks = [block for block in value if isinstance(block, str | Mapping)]
            texts = [block if isinstance(block, str) else _block_thought(block) for block in blocks]
            if any(texts):
                return "\n\n".join(text for text in texts if text)
    return ""


def _block_thought(block: Mapping[str, Any]) -> str:
    """The text of one block of thought; an encrypted one has none."""
    found = next((block[key] for key in ("thinking", "reasoning", "text", "content") if block.get(key)), None)
    inner = found if found is not None else block.get("summary")
    return inner if isinstance(inner, str) else _content(_as_texts(inner))[0]


def _is_tool_result(value: Any) -> bool:
    """Whether a user's content is what tools gave back, as Anthropic's blocks say it."""
    kinds = [block.get("type") for block in value if isinstance(block, Mapping)] if isinstance(value, list) else []
    return bool(kinds) and all(kind == "tool_result" for kind in kinds)


def _content(value: Any) -> tuple[str, str]:
    """Text and thought of a content: text, or a list of blocks."""
    if isinstance(value, str):
        return value, ""
    if isinstance(value, Mapping):
        value = [value]
    texts: list[str] = []
    thoughts: list[str] = []
    for block in value if isinstance(value, list) else []:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, Mapping):
            _read_block(block, texts, thoughts)
    return "\n\n".join(texts), "\n\n".join(thoughts)


def _read_block(block: Mapping[str, Any], texts: list[str], thoughts: list[str]) -> None:
    kind = str(block.get("type") or "text")
    thoughts_are = ("thinking", "reasoning", "redacted_thinking", "reasoning_text", "summary_text")
    if kind in thoughts_are or block.get("thought") is True:  # Gemini marks the parts of a thought
        thoughts.append(_block_thought(block))
    elif kind in ("tool_use", "function_call", "tool_call"):
        texts += _calls([block])
    elif kind == "tool_result":
        texts.append(f"<tool_response>\n{_content(block.get('content', ''))[0]}\n</tool_response>")
    else:
        found = next((block[key] for key in ("text", "output_text", "content", "value") if block.get(key)), "")
        texts.append(found if isinstance(found, str) else _content(found)[0])


def _as_texts(blocks: Any) -> Any:
    """Blocks of a thought read as text: their types say thinking, and would be put aside again."""
    if not isinstance(blocks, list):
        return blocks or ""
    return [{**block, "type": "text"} if isinstance(block, Mapping) else block for block in blocks]


def _calls(calls: Any) -> list[str]:
    """Tool calls as text: their name and arguments as JSON in a tag."""
    found = []
    for call in calls if isinstance(calls, list) else []:
        if not isinstance(call, Mapping):
            continue
        inner = call.get("function")
        function = inner if isinstance(inner, Mapping) else call
        arguments: Any = next((function[key] for key in ("arguments", "input") if function.get(key) is not None), {})
        if isinstance(arguments, str):
            with suppress(ValueError):  # kept as the text it is
                arguments = json.loads(arguments)
        record = {"name": function.get("name", ""), "arguments": arguments}
        found.append(f"<tool_call>\n{json.dumps(record, ensure_ascii=False)}\n</tool_call>")
    return found
