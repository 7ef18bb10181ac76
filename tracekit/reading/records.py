"""One row of a foreign data set → one record: problem, gold, and the samples written for it.

Chat logs, API objects, evaluation logs and plain columns all end in the same record. A column is read by a name that
is used for one thing alone; where a row could be read in two ways, nothing is guessed. Thoughts that stand apart from
the answer are put before it in a think block.

Of a conversation with several exchanges the last one is read: the last question that was answered, and all that the
assistant and its tools wrote after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from evaluators.extraction.thinking import split_thinking
from tracekit.reading.names import (
    AUTHOR,
    CONVERSATION,
    FLAG,
    GOLD,
    GOLD_HOLDERS,
    HELD_GOLD,
    KIND,
    LEVEL,
    LONG_TEXT,
    METADATA,
    NAMES_A_CONTEXT,
    NAMES_A_GOLD,
    NAMES_A_RESPONSE,
    NAMES_A_THOUGHT,
    NAMES_AN_ID,
    OPTIONS,
    PROBLEM,
    RESPONSE,
    SAMPLES,
    THOUGHT,
)
from tracekit.reading.replies import (
    Unreadable,
    choice_text,
    endings,
    flat,
    last_question,
    object_texts,
    refuse_log_likelihoods,
    reply,
    reply_of,
    text_in,
)
from tracekit.reading.transcripts import turns_of
from tracekit.reading.turns import Turn, join_thought, read_turn, without_channels

Row = Mapping[str, Any]

#: An answer of more characters is no gold: the longest of MATH's and OlympiadBench's have about 150.
WORKED = 200


@dataclass(frozen=True)
class Sample:
    """One response. flagged: the data set's own verdict, None without one. ended: why it ended, as its engine says."""

    response: str
    author: str = ""
    flagged: bool | None = None
    ended: str = ""


@dataclass(frozen=True)
class Record:
    """One problem with its samples. read: what was read from where, as "problem" → "messages (last user turn)"."""

    problem: str
    gold: str
    samples: tuple[Sample, ...]
    kind: str = ""
    level: float | None = None
    system: str = ""
    read: Mapping[str, str] = field(default_factory=dict)


def read_record(row: Row) -> Record:
    """Read one row.

    Raises
    ------
    Unreadable
        If the row has no problem, an empty conversation, or a response of a type that is no text.

    Examples
    --------
    >>> record = read_record({"question": "2 + 2?", "reasoning": "I add two and two.", "response": "4", "answer": "4"})
    >>> record.samples[0].response
    '<think>\\nI add two and two.\\n</think>\\n\\n4'
    """
    found = _Finder(_unwrapped(row))
    conversation = found.conversation()
    samples = list(found.samples(conversation))
    problem = found.problem(conversation)
    if not problem.strip():
        raise Unreadable("the problem is empty" if found.names.keys() & {*PROBLEM, *CONVERSATION} else "no problem")
    gold = found.gold(conversation)
    if len(problem) >= LONG_TEXT and gold.startswith(problem[: min(LONG_TEXT, len(problem) * 2 // 5)]):
        raise Unreadable(f"the gold repeats the problem: {found.read['gold']} seems to hold labels of its steps")
    kind, level = found.text(KIND), found.number(LEVEL)
    return Record(problem, gold, tuple(samples), kind, level, found.system(conversation), found.read)


def without_responses(row: Row) -> Row:
    """The row without the columns that responses are read from, for one whose response is mapped by hand."""
    names = {*RESPONSE, *SAMPLES, *THOUGHT, "solution", "chosen", "rejected"} - {*PROBLEM}
    return {name: value for name, value in row.items() if name.lower() not in names}


def unread_texts(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    """Columns with text that no record was read from, and that may hold what a user wants.

    Where no response was read, any such column counts, also lists and objects; short text only where no gold was
    read either. Where responses were read, a column counts whose name says that it holds a thought or a gold.
    """
    used = {name for record in records for source in record.read.values() for name in source.split(" + ")}
    used |= {re.split(r"[ .]", source)[0] for record in records for source in record.read.values()}
    answered = any(record.samples for record in records)
    golds = any(record.gold for record in records)
    thoughts = any(split_thinking(sample.response).thought for record in records for sample in record.samples)
    problems = [record.problem for record in records]

    def is_context(name: str) -> bool:
        """Whether a column belongs to the question; objects under such a name are wrappers of APIs."""
        values = [row.get(name) for row in rows]
        return bool(NAMES_A_CONTEXT.search(name)) and any(isinstance(value, str | list) and value for value in values)

    def least_of(name: str) -> int | None:
        """Characters from which on a column counts; None where it never does."""
        if is_context(name):
            return 1
        if not answered:
            return LONG_TEXT if golds and not NAMES_A_RESPONSE.search(name) else 1
        if not thoughts and NAMES_A_THOUGHT.search(name):
            return LONG_TEXT
        return 1 if not golds and NAMES_A_GOLD.search(name) else None

    def counts(name: str) -> bool:
        texts = [text for row in rows if (text := text_in(row.get(name)))]
        longest, least = max(map(len, texts), default=0), least_of(name)
        if not texts or least is None or longest < least:
            return False
        if name.lower() in PROBLEM and all(problem in text for problem, text in zip(problems, texts)):
            return False  # the problem with an instruction around it
        return len(set(texts)) > 1 or len(rows) == 1 or longest >= LONG_TEXT or bool(NAMES_A_RESPONSE.search(name))

    names = dict.fromkeys(name for row in rows for name in row)
    return [
        name
        for name in names
        if name not in used and (name.lower() not in METADATA or is_context(name)) and not NAMES_AN_ID.search(name)
        if counts(name)
    ]


def worked_golds(records: Sequence[Record]) -> str:
    """The column whose golds look like worked solutions, where no response was read; "" where there is none."""
    golds = [record.gold for record in records if record.gold]
    if not golds or any(record.samples for record in records):
        return ""
    long = sum(len(gold) > WORKED or ("\\boxed" in gold and len(gold) > LONG_TEXT) for gold in golds)
    column = next((record.read["gold"] for record in records if record.gold), "")
    return column if long > len(golds) / 2 else ""


def _unwrapped(row: Row) -> Row:
    """The object within the wrappers that APIs put around it."""
    body = row.get("body")  # a request of OpenAI's batch API
    if isinstance(body, Mapping) and "messages" in body:
        return body
    for name in ("response", "result", "output"):  # of the batch APIs; a stored request and its response
        answer = row.get(name)
        if isinstance(answer, Mapping):
            request = row.get("request")
            asked = request if isinstance(request, Mapping) else {}
            rest = {key: value for key, value in row.items() if key != name}
            return {**rest, **asked, **{key: one for key, one in _answered(name, answer).items() if one is not None}}
    if isinstance(row.get("message"), Mapping):  # a chat response of Ollama
        return {**row, "choices": [{"message": row["message"]}]}
    if isinstance(row.get("content"), list) and row.get("role", "assistant") == "assistant":  # a response of Anthropic
        return {**row, "choices": [{"message": {"role": "assistant", "content": row["content"]}}]}
    return row


def _answered(name: str, answer: Row) -> Row:
    """An API's response as an object with choices or output items. Raises Unreadable where it is an error."""
    inner = next((answer[key] for key in ("body", "message") if isinstance(answer.get(key), Mapping)), answer)
    if inner.get("choices") or inner.get("output"):
        return inner
    if fault := inner.get("error") or answer.get("error"):
        raise Unreadable(f"the response is an error: {text_in(fault)[:200] or fault}")
    if not text_in([inner.get(key) for key in ("content", "text", "value", "reasoning_content", "reasoning")]):
        raise Unreadable(f"{name} is an object with {', '.join(map(str, inner))}, and none of them a response")
    return {"choices": [{"message": {**inner, "role": "assistant"}}], "model": inner.get("model")}


class _Finder:
    """Looks for the parts of one row, and keeps which column each was read from."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.names = {name.lower(): name for name in row}
        self.read: dict[str, str] = {}
        self.apart = False  # whether the response stands apart from the conversation

    def column(self, names: Sequence[str], *types: type) -> str | None:
        """The first of these columns whose value is of one of the types and not empty."""
        for name in names:
            own = self.names.get(name)
            value = None if own is None else self.row[own]
            if own is not None and isinstance(value, types) and value not in ("", [], {}):
                return own
        return None

    def text(self, names: Sequence[str]) -> str:
        own = self.column(names, str)
        return "" if own is None else str(self.row[own])

    def number(self, names: Sequence[str]) -> float | None:
        own = self.column(names, int, float)
        return None if own is None or isinstance(self.row[own], bool) else float(self.row[own])

    # ---- conversation --------------------------------------------------------------------------------------------

    def conversation(self) -> list[Turn]:
        for name in (*CONVERSATION, "prompt", "input", "prompts"):
            own = self.column((name,), list)
            if own is not None and all(isinstance(turn, Mapping) for turn in self.row[own]):
                turns = [read_turn(turn) for turn in self.row[own]]
                if any(turn.role in ("user", "assistant") for turn in turns):
                    self.read["problem"] = f"{own} (last user turn)"
                    return turns
        for name in ("prompt", "text", "input"):  # a whole conversation in one text
            own = self.column((name,), str)
            turns = [read_turn(turn) for turn in turns_of(str(self.row[own]))] if own is not None else []
            if turns:
                self.read["problem"] = f"{own} (last user turn)"
                return turns
        return []

    def system(self, conversation: Sequence[Turn]) -> str:
        """The system prompt: the turns of that role, or a column."""
        turns = "\n\n".join(turn.text for turn in conversation if turn.role == "system" and turn.text)
        return turns or self.text(("system", "system_prompt"))

    def problem(self, conversation: Sequence[Turn]) -> str:
        if conversation:
            asked = last_question(conversation, self.apart)
            return conversation[asked].text if asked is not None else ""
        doc = self.row.get("doc")
        if isinstance(doc, Mapping):  # a sample of lm-eval
            inner = _Finder(doc)
            own = inner.column(PROBLEM, str)
            if own is not None:
                self.read["problem"] = f"doc.{own}"
                return str(doc[own])
            return self._argument()
        chosen = self.column(("chosen",), list)
        if chosen is not None and self.column(PROBLEM, str) is None:
            turns = [read_turn(turn) for turn in self.row[chosen]]
            asked = last_question(turns)
            self.read["problem"] = f"{chosen} (last user turn)"
            return turns[asked].text if asked is not None else ""
        own = self.column(PROBLEM, str)
        if own is None:
            return ""
        self.read["problem"] = own
        if own.lower() == "instruction":  # Alpaca's `input` is the instruction's context
            context = self.column(("input",), str)
            if context is not None:
                self.read["problem"] = f"{own} + {context}"
                return f"{self.row[own]}\n\n{self.row[context]}"
        return str(self.row[own])

    def _argument(self) -> str:
        """What lm-eval asked the model, where its document names no question."""
        arguments = self.row.get("arguments")
        first = next(iter(arguments.values() if isinstance(arguments, Mapping) else arguments or ()), None)
        text = first.get("arg_0") if isinstance(first, Mapping) else first[0] if isinstance(first, list) else first
        if not isinstance(text, str):
            return ""
        self.read["problem"] = "arguments"
        turns = [read_turn(turn) for turn in turns_of(text)]
        asked = last_question(turns, True)
        return text if asked is None else turns[asked].text

    # ---- samples -------------------------------------------------------------------------------------------------

    def samples(self, conversation: Sequence[Turn]) -> Iterator[Sample]:
        """The responses; an empty one is kept as "", so that it is counted."""
        author = self._author()
        texts = self._texts(conversation)
        within = self.read.get("response", "").endswith("(what follows it)")
        self.apart = bool(conversation) and conversation[-1].role == "user" and bool(texts) and not within
        flags = self._flags(len(texts))
        for (text, of), flag, ended in zip(texts, flags, endings(self.row, len(texts)), strict=True):
            by = f"{author} ({of})" if of and author else of or author
            yield Sample(without_channels(text) if text.strip() else "", by, flag, ended)

    def _author(self) -> str:
        output = self.row.get("output")  # an evaluation log of inspect_ai names the model there
        return self.text(AUTHOR) or (_Finder(output).text(AUTHOR) if isinstance(output, Mapping) else "")

    def _texts(self, conversation: Sequence[Turn]) -> list[tuple[str, str]]:
        """Every response with what tells it from its neighbours ("chosen", "rejected"; "" alone)."""
        pair = [name for name in ("chosen", "rejected") if self.column((name,), str, list, Mapping) is not None]
        if pair:
            self.read["response"] = " + ".join(pair)
            return [(reply_of(self.row[self.names[name]]), name) for name in pair]
        own = self.column((*SAMPLES, "solutions", "solution"), list)
        complete = conversation and conversation[-1].role == "assistant"
        if own is not None and own.lower() in OPTIONS and self._are_options(own):
            raise Unreadable(
                f"{own} holds the options of a multiple-choice question and no responses; write them into the problem, "
                f"or map the problem alone: --map problem={self.read.get('problem') or self.column(PROBLEM, str)}"
            )
        if own is not None and not (complete and own.lower() in ("choices", "outputs") and len(self.row[own]) == 1):
            self.read["response"] = f"{own} (× {len(self.row[own])})"
            refuse_log_likelihoods(own, self.row[own])
            return [(choice_text(one, self._thought()), "") for one in flat(self.row[own])]
        completion = self.column(("completion", "output", "response"), list, Mapping)
        if completion is not None and not complete:
            self.read["response"] = completion
            return [(text, "") for text in object_texts(self.row[completion])]
        own = self._response_column(conversation)
        if own is None or complete:
            wrote = reply(conversation)
            if wrote is not None:
                self.read["response"] = f"{self.read['problem'].partition(' ')[0]} (what follows it)"
                return [(wrote, "")]
        if own is not None:
            thought = self._thought()
            self.read["response"] = own if not thought else f"{self.read['thought']} + {own}"
            return [(join_thought(thought, str(self.row[own])), "")]
        return self._thought_and_answer()

    def _are_options(self, own: str) -> bool:
        """Whether a list of texts is what a question offers: its gold is a place in it, a letter, or one of them."""
        values = list(self.row[own])
        if not all(isinstance(value, str | int | float) for value in values):
            return False
        golds = [self.row[name] for name in map(self.names.get, (*GOLD, "answerkey", "answer_index")) if name]
        letters = [chr(ord("A") + place) for place in range(len(values))]
        texts = {str(value).strip() for value in values}
        return any(
            (isinstance(gold, int) and 0 <= gold < len(values)) or str(gold).strip() in (*letters, *texts)
            for gold in golds
            if gold is not None
        )

    def _response_column(self, conversation: Sequence[Turn]) -> str | None:
        """The column of a response in plain text. A `solution` that is the gold itself is none."""
        asked = self.read.get("problem", "").partition(" ")[0] if conversation else self.column(PROBLEM, str)
        own = next((own for name in RESPONSE if (own := self.column((name,), str)) and own != asked), None)
        if own is not None:
            return own
        own = self.column(("solution",), str)
        if own is not None and str(self.row[own]).strip() != _Finder(self.row).gold(()):
            return own
        own = self.column(("answer",), str)  # with a thought in it, beside a gold: what a model answered
        thinks = own is not None and split_thinking(str(self.row[own])).thought is not None
        return own if thinks and self.column([name for name in GOLD if name != "answer"], str, int, float) else None

    def _thought_and_answer(self) -> list[tuple[str, str]]:
        """A thought without a response beside it: `answer` is its end where it has a box, and else in doubt."""
        thought = self._thought()
        answer = self.column(("answer", "final", "attempt"), str)
        if thought and answer is not None:
            others = [name for name in GOLD if name != answer.lower()]
            if "\\boxed" not in str(self.row[answer]) and self.column(others, str, int, float) is None:
                raise Unreadable(
                    f"columns {self.read['thought']}, {answer}: is {answer} the end of the response or the gold? Say "
                    f"--map thought={self.read['thought']} response={answer}, or --map response={self.read['thought']} "
                    f"gold={answer}"
                )
            self.read["response"] = f"{self.read['thought']} + {answer}"
            return [(join_thought(thought, str(self.row[answer])), "")]
        if thought:  # a thought that was cut off before its answer
            self.read["response"] = self.read["thought"]
            return [(join_thought(thought, ""), "")]
        return []

    def _thought(self) -> str:
        """The thought in a column of its own; columns such as `reasoning: on` say how the model was run."""
        own = self.column(THOUGHT, str)
        if own is None or str(self.row[own]).strip().lower() in ("on", "off", "true", "false"):
            return ""
        self.read["thought"] = own
        return str(self.row[own])

    def _flags(self, count: int) -> list[bool | None]:
        """The data set's own flags; unknown where there are not as many as responses, never shifted."""
        own = self.column(FLAG, list, bool)
        if own is None:
            return [None] * count
        values = self.row[own] if isinstance(self.row[own], list) else [self.row[own]] * count
        if len(values) != count or not all(isinstance(value, bool) for value in values):
            return [None] * count
        return list(values)

    # ---- gold ----------------------------------------------------------------------------------------------------

    def gold(self, conversation: Sequence[Turn]) -> str:
        held = self._held_gold("reward_model")
        if held:
            return held
        for turn in conversation:
            if turn.gold is not None:
                self.read["gold"] = "reference_answer of a turn"
                return gold_text(turn.gold)
        used = set(self.read.get("response", "").split(" + ")) | {self.read.get("problem", "")}
        for name in GOLD:
            own = self.names.get(name)
            if own is None or own in used or self.row[own] in (None, "", []):
                continue
            if name == "label" and isinstance(self.row[own], bool):  # KTO's: whether the response is wanted
                continue
            self.read["gold"] = own
            return gold_text(self.row[own])
        doc = self.row.get("doc")
        if isinstance(doc, Mapping):
            return _Finder(doc).gold(())
        return next((held for name in GOLD_HOLDERS[1:] if (held := self._held_gold(name))), "")

    def _held_gold(self, name: str) -> str:
        """The gold within an object, or within a text that is a JSON object."""
        value: Any = self.row.get(name)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            with suppress(ValueError, RecursionError):  # text that only looks like JSON holds no gold
                value = json.loads(value)
        if not isinstance(value, Mapping):
            return ""
        for key in (*HELD_GOLD, *(("answer",) if name == "verification_info" else ())):
            if value.get(key) not in (None, "", []):
                self.read["gold"] = f"{name}.{key}"
                return gold_text(value[key])
        return ""


def gold_text(value: Any) -> str:
    """A gold as text: a number as it is written, one of several as itself, several as a JSON list.

    GSM8K's solutions hold theirs behind `####`.
    """
    if isinstance(value, list):
        return gold_text(value[0]) if len(value) == 1 else json.dumps([gold_text(one) for one in value])
    if isinstance(value, Mapping):
        inner = next((value[name] for name in ("answer", "value", "text", "ground_truth") if name in value), None)
        if inner is None:
            raise Unreadable(f"the gold is an object with {', '.join(map(str, value))}")
        return gold_text(inner)
    text = str(value).strip()
    if text.startswith('["') and text.endswith('"]'):  # Skywork-OR1's golds: ["56"]
        with suppress(ValueError):
            listed = json.loads(text)
            return str(listed[0]).strip() if len(listed) == 1 else text
    return text.rpartition("####")[2].strip() if "####" in text else text
