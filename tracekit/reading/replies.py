"""Responses within conversations, choices, outputs and items: what an assistant wrote, as one text each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tracekit.reading.names import FINISH, METADATA, RESPONSE, SAMPLES
from tracekit.reading.turns import Turn, join_thought, merged, read_turn, written


class Unreadable(ValueError):
    """A row that holds no record; the message is the reason that the ledger keeps."""


def last_question(turns: Sequence[Turn], apart: bool = False) -> int | None:
    """The last user turn that something follows; the very last where the answer stands apart, or none is answered."""
    asked = [place for place, turn in enumerate(turns) if turn.role == "user"]
    answered = [place for place in asked if any(turn.role == "assistant" for turn in turns[place + 1 :])]
    return answered[-1] if answered and not apart else asked[-1] if asked else None


def reply(turns: Sequence[Turn]) -> str | None:
    """All that the assistant and its tools wrote after the last question; None where they wrote nothing."""
    asked = last_question(turns)
    after = list(turns[asked + 1 :] if asked is not None else turns)
    end = next((place for place, turn in enumerate(after) if turn.role == "user"), len(after))
    wrote = merged([turn for turn in after[:end] if turn.role in ("assistant", "tool")])
    parts = [text for turn in wrote if (text := written(turn)).strip()]
    if wrote and not any(turn.text.strip() or turn.thought.strip() for turn in wrote if turn.role == "assistant"):
        raise Unreadable("the response is empty: neither content nor reasoning")
    return "\n\n".join(parts) if parts else None


def reply_of(value: Any) -> str:
    """A preferred or rejected response: text, a turn, or a whole conversation."""
    if isinstance(value, str):
        return value
    turns = [read_turn(turn) for turn in (value if isinstance(value, list) else [value])]
    return reply(turns) or ""


def flat(values: Sequence[Any]) -> Iterator[Any]:
    """The leaves of nested lists; a list of turns is a leaf."""
    for value in values:
        if isinstance(value, list) and not (value and isinstance(value[0], Mapping)):
            yield from flat(value)
        else:
            yield value


def choice_text(value: Any, thought: str = "") -> str:
    """One sample: text, a choice with a message, an output with a text, a list of turns."""
    if value is None:
        return ""
    if isinstance(value, str):
        return join_thought(thought, value)
    if isinstance(value, list):
        return reply_of(value)
    if not isinstance(value, Mapping):
        raise Unreadable(f"a response is {type(value).__name__}, not text")
    message = value.get("message")
    if isinstance(message, Mapping):
        return written(read_turn({"role": "assistant", **message}))
    named = next((value[name] for name in RESPONSE if isinstance(value.get(name), str)), None)
    fields = {key: one for key, one in value.items() if key != "role"}
    text = written(read_turn({"role": "assistant", **fields, **({} if named is None else {"content": named})}))
    if not text and text_in({key: one for key, one in fields.items() if key not in ("finish_reason", "stop_reason")}):
        raise Unreadable(f"a response is an object with {', '.join(map(str, value))}; name its text with --map")
    return text


def object_texts(value: Any) -> list[str]:
    """Responses in an output that is an object or a list: choices, items of OpenAI's Responses API, turns."""
    if isinstance(value, Mapping):
        choices = value.get("choices")
        return [choice_text(one) for one in choices] if isinstance(choices, list) else [choice_text(value)]
    if value and all(_is_item(item) for item in value):
        return [written(read_turn({"role": "assistant", "content": _items(value)}))]
    if value and isinstance(value[0], Mapping) and ({"role", "from"} & value[0].keys()):
        return [reply_of(value)]
    return [choice_text(one) for one in flat(value)]


def _is_item(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("type") in ("message", "reasoning", "function_call")


def _items(items: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The content blocks of the items of a Responses object."""
    blocks: list[Any] = []
    for item in items:
        if item.get("type") == "message" and isinstance(item.get("content"), list):
            blocks += item["content"]
        else:
            blocks.append(item)
    return blocks


def endings(row: Mapping[str, Any], count: int) -> list[str]:
    """Why each of `count` responses ended; "" where the row does not say it of as many.

    It stands beside the responses, or in each choice.
    """
    own = next((row[name] for name in FINISH if isinstance(row.get(name), str | list)), None)
    if own is None:
        output = row.get("output")
        places = [row.get(name) for name in SAMPLES] + [output.get("choices") if isinstance(output, Mapping) else None]
        choices = next((place for place in places if isinstance(place, list) and place), [])
        own = [_ending(one) for one in flat(choices)]
    values = [own] * count if isinstance(own, str) else own
    return [value or "" for value in values] if len(values) == count and _are_names(values) else [""] * count


def _ending(choice: Any) -> str:
    return next((choice[name] for name in FINISH if choice.get(name)), "") if isinstance(choice, Mapping) else ""


def _are_names(values: Sequence[Any]) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


def refuse_log_likelihoods(name: str, values: Any) -> None:
    """Multiple choice of lm-eval stores pairs such as [-1.2, false] in place of generated text."""
    leaves = list(flat(values))
    if len(leaves) > 1 and all(str(leaf).lower() in ("true", "false") for leaf in leaves[1::2]):
        raise Unreadable(f"{name} holds log-likelihoods of given choices, no generated text")


def text_in(value: Any) -> str:
    """The text in a value, however deep; "" where there is none, as in lists of numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "".join(text_in(one) for name, one in value.items() if str(name).lower() not in METADATA)
    return "".join(map(text_in, value)) if isinstance(value, list) else ""
