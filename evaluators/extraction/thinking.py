"""Think blocks: the one list of their tags, and the split of a response into thought and answer.

Every part of the product that asks where a response thinks uses this module: the verifier, the segmenter, the text
features, the filters and the prompt renderer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class ThinkBlock(NamedTuple):
    """One notation of a think block.

    openings, closings: the tags as models write them. The first of each is the usual one. gpt-oss's harmony channels
        lose their control tokens where a decoder skips them: "analysisAdd 2.assistantfinal42".
    """

    openings: tuple[str, ...]
    closings: tuple[str, ...]


#: Every notation we know, with the models that use it.
THINK_BLOCKS = (
    ThinkBlock(("<think>",), ("</think>",)),  # DeepSeek-R1, QwQ, Qwen3
    ThinkBlock(("<thinking>",), ("</thinking>",)),  # Claude-style prompts
    ThinkBlock(("<thought>",), ("</thought>",)),  # Reflection, Gemini-style prompts
    ThinkBlock(("<reasoning>",), ("</reasoning>",)),  # GSM8K recipes for GRPO
    ThinkBlock(("<seed:think>",), ("</seed:think>",)),  # Seed-OSS
    ThinkBlock(("[THINK]",), ("[/THINK]",)),  # Magistral
    ThinkBlock(("◁think▷",), ("◁/think▷",)),  # Kimi
    ThinkBlock(("<|begin_of_thought|>",), ("<|end_of_thought|>", "<|begin_of_solution|>")),  # Sky-T1, OpenThoughts
    ThinkBlock(("<|channel|>analysis", "<|channel|>commentary"), ("<|channel|>final", "assistantfinal")),  # gpt-oss
    ThinkBlock(("<|channel>thought",), ("<channel|>",)),  # Gemma
)
OPENING_TAGS = tuple(tag for block in THINK_BLOCKS for tag in block.openings)
CLOSING_TAGS = tuple(tag for block in THINK_BLOCKS for tag in block.closings)


#: Characters at the end of a response in which every tag is looked at.
MAX_SCAN = 1_000_000


class Split(NamedTuple):
    """Where a response thinks and where it answers; spans are (start, end) in characters.

    thought: from the first think block to the end of the last; None where the response has none.
    answer: what follows the last think block, without the control tokens around it; the whole response where it has
        no block; empty where a block never closes.
    closed: False where a block opens and does not close.
    """

    thought: tuple[int, int] | None
    answer: tuple[int, int]
    closed: bool


_MESSAGE = r"(?:<\|message\|>)?"  # behind the name of a harmony channel
_HEADER = r"(?:<\|end\|>)?(?:<\|start\|>assistant)?"  # before it
_BLOCK_OF_TAG = {tag: block for block in THINK_BLOCKS for tag in (*block.openings, *block.closings)}
_TAG = re.compile(
    rf"{_HEADER}(?P<harmony><\|channel\|>(?:analysis|commentary|final))(?:[^<\n]{{0,80}}<\|message\|>)?|"
    r"(?P<solution><\|end_of_thought\|>)\s*<\|begin_of_solution\|>|"
    rf"(?P<plain>{'|'.join(re.escape(tag) for tag in _BLOCK_OF_TAG if not tag.startswith('<|channel|>'))})"
)
#: Tags whose span takes in what stands around them: they need the pattern.
_WITH_SURROUNDINGS = ("<|channel|>", "<|end_of_thought|>", "<|start|>assistant", "<|end|>")
_ANSWER_END = re.compile(r"\s{0,99}(?:<\|end_of_solution\|>|<\|return\|>|<\|end\|>)")
_OPENED_AT_END = re.compile(
    rf"(?:{'|'.join(re.escape(tag) for tag in OPENING_TAGS)}){_MESSAGE}\s{{0,9}}\Z"  # `<think>\n`
)


class Tag(NamedTuple):
    """A tag in a response: its notation, whether it opens or closes a block, and its span."""

    block: ThinkBlock
    opens: bool
    start: int
    end: int


def find_tags(response: str) -> list[Tag]:
    """Return the think tags of a response in order."""
    if not any(token in response for token in _WITH_SURROUNDINGS):
        return _plain_tags(response)
    tags = []
    for found in _TAG.finditer(response):
        name = found["plain"] or found["harmony"] or found["solution"]
        block = _BLOCK_OF_TAG[name]
        tags.append(Tag(block, name in block.openings, *found.span()))
    return tags


def _plain_tags(response: str) -> list[Tag]:
    """The tags of a response without harmony channels: found by their text, many times as fast as by pattern."""
    tags = []
    for name, block in _BLOCK_OF_TAG.items():
        start = response.find(name)
        while start >= 0:
            tags.append(Tag(block, name in block.openings, start, start + len(name)))
            start = response.find(name, start + len(name))
    return sorted(tags, key=lambda tag: tag.start)


_ANGLE = re.compile(r"<[/|｜A-Za-z]")  # where a tag or control token begins; the `<<` of a calculation is none


def may_have_tags(text: str) -> bool:
    """Whether a part of a think tag, or of a control token that ends a turn, may stand in a text.

    Asked of every response, so it has as few searches as it can.
    """
    if ("<" in text and _ANGLE.search(text) is not None) or "assistantfinal" in text:
        return True
    return ("]" in text and ("THINK]" in text or "INST]" in text)) or (not text.isascii() and "◁" in text)


def split_thinking(response: str, opened: bool = False) -> Split:
    """Find a response's think blocks of any notation.

    opened: whether the prompt opened a block, as templates that end in `<think>` do. The response then thinks from
        its first character until the block's closing tag.

    A block ends with a closing tag of its own notation. A closing tag without an opening one ends a block that the
    prompt opened, whether or not `opened` says so. Unclosed blocks have no answer.

    >>> split_thinking("2 + 2 is 4.</think>It is 4.").answer
    (19, 27)
    """
    whole = (0, len(response))
    if len(response) > MAX_SCAN:
        return _split_long(response, opened)
    if not may_have_tags(response):
        return Split(whole, (len(response),) * 2, False) if opened else Split(None, whole, True)
    start: int | None = 0 if opened else None  # of the thought
    end: int | None = None
    answer, lead = 0, len(response) - len(response.lstrip())
    inside: ThinkBlock | None = None
    is_open = opened
    for tag in find_tags(response):
        if tag.opens:
            if not is_open or (inside is None and tag.start <= lead):
                start = tag.end if start is None or is_open else start
                inside, is_open = tag.block, True
        elif not is_open or inside is None or inside is tag.block:
            start, end = start or 0, tag.start
            inside, is_open, answer = None, False, tag.end
    if is_open:
        return Split((start or 0, len(response)), (len(response),) * 2, False)
    return Split(None if end is None else (start or 0, end), (answer, _answer_end(response, answer)), True)


def _split_long(response: str, opened: bool) -> Split:
    """Split a response of megabytes: of its head only whether it ends inside a block."""
    head = len(response) - MAX_SCAN
    last_opening = max(response.rfind(tag, 0, head) for tag in OPENING_TAGS)
    last_closing = max(response.rfind(tag, 0, head) for tag in CLOSING_TAGS)
    inside = last_opening > last_closing or (opened and last_closing < 0)
    thought, answer, closed = split_thinking(response[head:], inside)
    start = (0, thought[1] + head) if thought else (0, last_closing) if last_closing >= 0 else None
    return Split(start, (answer[0] + head, answer[1] + head), closed)


def _answer_end(response: str, start: int) -> int:
    """The end of an answer before the control token that closes it, such as `<|return|>`."""
    found = _ANSWER_END.search(response, start) if "<|" in response[start:] else None
    return found.start() if found else len(response)


def thought_and_answer(response: str, opened: bool = False) -> tuple[str | None, str, bool]:
    """Return a response's thought (None without one), its answer and whether its think block is closed."""
    parts = split_thinking(response, opened)
    thought = None if parts.thought is None else response[slice(*parts.thought)]
    return thought, response[slice(*parts.answer)], parts.closed


@lru_cache(maxsize=4096)
def opens_thinking(prompt: str) -> bool:
    r"""Whether a prompt ends inside a think block that it opened: its template ends in `<think>\n`, say."""
    return _OPENED_AT_END.search(prompt, max(0, len(prompt) - 100)) is not None
