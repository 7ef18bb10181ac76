"""Conversations in one text, between the control tokens of a chat template → turns.

Offline engines and evaluation logs keep prompts as the model read them, and some data sets keep whole conversations so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

#: The header of a turn, with an example of each template that it was made for.
_HEADERS = (
    # gpt-oss: <|start|>assistant<|channel|>analysis<|message|>2 + 2 is 4.<|end|>
    re.compile(r"<\|start\|>(?P<role>\w+)[^<]*(?:<\|channel\|>\s*(?P<channel>\w+)[^<]*)?(?:<\|constrain\|>[^<]*)?<\|message\|>"),
    # ChatML (Qwen): <|im_start|>user\n2 + 2?<|im_end|>
    re.compile(r"<\|im_start\|>(?P<role>\w+)\n"),
    # Llama 3: <|start_header_id|>user<|end_header_id|>\n\n2 + 2?<|eot_id|>
    re.compile(r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\n*"),
    # DeepSeek: <｜User｜>2 + 2?<｜Assistant｜>
    re.compile(r"<｜(?P<role>User|Assistant)｜>"),
)  # fmt: skip
_END = re.compile(
    r"\s{0,99}(?:<\|end\|>|<\|return\|>|<\|call\|>|<\|im_end\|>|<\|eot_id\|>|<\|end_of_text\|>|<｜end▁of▁sentence｜>)\s*\Z"
)


def turns_of(text: str) -> list[dict[str, Any]]:
    """The turns of a text in a known chat template; none where the text is no transcript.

    >>> turns_of("<|im_start|>user\\n2 + 2?<|im_end|>\\n<|im_start|>assistant\\n4<|im_end|>")
    [{'role': 'user', 'content': '2 + 2?'}, {'role': 'assistant', 'content': '4'}]
    """
    for header in _HEADERS:
        turns = list(_turns(text, header))
        if any(turn["role"] == "user" for turn in turns):
            return turns
    return []


def _turns(text: str, header: re.Pattern[str]) -> Iterator[dict[str, Any]]:
    found = list(header.finditer(text))
    for place, start in enumerate(found):
        end = found[place + 1].start() if place + 1 < len(found) else len(text)
        content = _END.sub("", text[start.end() : end])
        channel = start.groupdict().get("channel")
        if content.strip():  # a header without a text opens the turn that was sampled
            turn = {"role": start["role"].lower(), "content": content}
            yield turn | ({"channel": channel} if channel else {})
