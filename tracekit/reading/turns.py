"""Turns of a conversation in the spellings of many tools: role, text, thought, tool calls.

A thought that stands apart (`reasoning_content`, `reasoning`, `thinking`, a content block, a harmony channel) goes
before the answer in a think block, as open models write it themselves. Tool calls and their results stay in the text,
in the tags of Hermes and Qwen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
_TEXT_KEYS = ("content", "value", "text", "output_text")

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

    An answer that has a think block of its own is left as it is.

    >>> join_thought("I add.", "4")
    '<think>\\nI add.\\n</think>\\n\\n4'
    """
    if not thought.strip() or split_thinking(answer).thought is not None:
        return answer
    return f"<think>\n{thought}\n</think>\n\n{answer}" if answer.strip() else f"<think>\n{thought}"


def written(turn: Turn) -> str:
    """What a turn adds to a response: thought and text; a tool's result in its tags."""
    if turn.role == "tool":
        return f"<tool_response>\n{turn.text}\n</tool_response>"
    return join_thought(turn.thought, turn.text)


def without_channels(text: str) -> str:
    """Harmony text as thought and answer: analysis and commentary in a think block, the final channel behind it."""
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
    text, thought = _content(next((turn[key] for key in _TEXT_KEYS if turn.get(key) is not None), ""))
    apart = next((turn[key] for key in _THOUGHT_KEYS if isinstance(turn.get(key), str) and turn[key]), "")
    calls = _calls(turn.get("tool_calls"))
    info = turn.get("info")
    gold = info.get("reference_answer") if isinstance(info, Mapping) else None
    return Turn(role, "\n".join(part for part in (text, *calls) if part), apart or thought, gold)


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
    if kind in ("thinking", "reasoning", "redacted_thinking", "reasoning_text", "summary_text"):
        found = next((block[key] for key in ("thinking", "reasoning", "text", "content") if block.get(key)), None)
        inner = found if found is not None else block.get("summary")
        thoughts.append(inner if isinstance(inner, str) else _content(_as_texts(inner))[0])
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
