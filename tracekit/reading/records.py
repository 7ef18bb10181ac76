"""One row of a foreign data set → one record: problem, gold, and the samples written for it.

Chat logs, API objects, evaluation logs and plain columns all end in the same record. A column is read by a name that
is used for one thing alone; where a row could be read in two ways, nothing is guessed. Thoughts that stand apart from
the answer are put before it in a think block.

Of a conversation with several exchanges the last one is read: the last question that was answered, and all that the
assistant and its tools wrote after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracekit.reading.turns import Turn, join_thought, read_turn, without_channels, written

Row = Mapping[str, Any]

#: Names of columns, lower-cased, in the order in which they are looked for.
PROBLEM = ("problem", "question", "prompt", "instruction", "query", "user_prompt", "input", "user")
RESPONSE = (
    *("response", "completion", "output", "generation", "generated_solution", "generated_text", "model_output"),
    *("model_response", "generated_response", "assistant", "deepseek_solution", "r1_solution_1"),
)
SAMPLES = ("generations", "responses", "completions", "outputs", "samples", "choices", "resps", "candidates", "code")
THOUGHT = (
    *("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "thought_process", "chain_of_thought"),
    *("cot", "complex_cot", "reasoning_trace", "thinking_trajectory", "deepseek_reasoning"),
)
GOLD = (
    *("gold", "gold_answer", "ground_truth", "expected_answer", "reference_answer", "correct_answer", "final_answer"),
    *("answer", "target", "label"),
)
CONVERSATION = ("messages", "conversations", "conversation", "dialogue", "turns")
AUTHOR = ("author", "model", "generator", "generation_model", "model_name", "teacher")
FLAG = ("flagged_correct", "is_correct", "correct", "correctness", "score", "scores", "exact_match")
KIND = ("kind", "subject", "problem_type", "category", "domain")
LEVEL = ("level", "difficulty")

#: Columns that are no response, whatever their text.
METADATA = {
    *("id", "uuid", "idx", "index", "problem_id", "unique_id", "url", "source", "split", "license", "licence"),
    *("system", "system_prompt", "solution", "dataset", "data_source", "year", "topic", "question_type", "custom_id"),
    *KIND,
    *LEVEL,
    *AUTHOR,
}

#: A text column of this mean length that nothing was read from may hold what a user wants: he is asked.
LONG_TEXT = 40


class Unreadable(ValueError):
    """A row that holds no record; the message is the reason that the ledger keeps."""


@dataclass(frozen=True)
class Sample:
    """One response. flagged: the data set's own verdict, None without one."""

    response: str
    author: str = ""
    flagged: bool | None = None


@dataclass(frozen=True)
class Record:
    """One problem with its samples. read: what was read from where, as "problem" → "messages (last user turn)"."""

    problem: str
    gold: str
    samples: tuple[Sample, ...]
    kind: str = ""
    level: float | None = None
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
    gold = found.gold(conversation, bool(samples))
    kind, level = found.text(KIND), found.number(LEVEL)
    return Record(problem, gold, tuple(samples), kind, level, found.read)


def unread_texts(rows: Sequence[Row], records: Sequence[Record]) -> list[str]:
    """Columns of text that no record was read from; short ones count where no gold was found either."""
    used = {name for record in records for source in record.read.values() for name in source.split(" + ")}
    used |= {source.partition(" ")[0] for record in records for source in record.read.values()}
    least = LONG_TEXT if any(record.gold for record in records) else 1
    found = []
    for name in dict.fromkeys(name for row in rows for name in row):
        if name.partition(".")[0] in used or name.lower() in METADATA:
            continue
        texts = [row[name] for row in rows if isinstance(row.get(name), str)]
        if texts and sum(map(len, texts)) / len(texts) >= least and len(set(texts)) > 1:
            found.append(name)
    return found


def _unwrapped(row: Row) -> Row:
    """The object within the wrappers that APIs put around it."""
    body = row.get("body")  # a request of OpenAI's batch API
    if isinstance(body, Mapping) and "messages" in body:
        return body
    answer = row.get("response")
    if isinstance(answer, Mapping):  # a result of the batch API; a stored request and its response
        result = answer.get("body")
        inner: Row = result if isinstance(result, Mapping) else answer
        request = row.get("request")
        asked = request if isinstance(request, Mapping) else {}
        return {**{name: value for name, value in row.items() if name != "response"}, **asked, **inner}
    return row


class _Finder:
    """Looks for the parts of one row, and keeps which column each was read from."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.names = {name.lower(): name for name in row}
        self.read: dict[str, str] = {}

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
        return []

    def problem(self, conversation: Sequence[Turn]) -> str:
        if conversation:
            asked = _last_question(conversation)
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
            asked = _last_question(turns)
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
        first = next(iter(arguments.values()), None) if isinstance(arguments, Mapping) else None
        text = first.get("arg_0") if isinstance(first, Mapping) else None
        self.read["problem"] = "arguments"
        return text if isinstance(text, str) else ""

    # ---- samples -------------------------------------------------------------------------------------------------

    def samples(self, conversation: Sequence[Turn]) -> Iterator[Sample]:
        author = self._author()
        texts = self._texts(conversation)
        flags = self._flags(len(texts))
        for (text, of), flag in zip(texts, flags, strict=True):
            if text.strip():
                yield Sample(without_channels(text), f"{author} ({of})" if of else author, flag)

    def _author(self) -> str:
        output = self.row.get("output")  # an evaluation log of inspect_ai names the model there
        return self.text(AUTHOR) or (_Finder(output).text(AUTHOR) if isinstance(output, Mapping) else "")

    def _texts(self, conversation: Sequence[Turn]) -> list[tuple[str, str]]:
        """Every response with what tells it from its neighbours ("chosen", "rejected"; "" alone)."""
        pair = [name for name in ("chosen", "rejected") if self.column((name,), str, list, Mapping) is not None]
        if pair:
            self.read["response"] = " + ".join(pair)
            return [(_reply_of(self.row[self.names[name]]), name) for name in pair]
        own = self.column(SAMPLES, list)
        if own is not None and not (own.lower() == "code" and self.column(("code",), str)):
            self.read["response"] = f"{own} (× {len(self.row[own])})"
            return [(_choice(one, self._thought()), "") for one in _flat(self.row[own])]
        completion = self.column(("completion", "output", "response"), list, Mapping)
        if completion is not None:
            self.read["response"] = completion
            return [(text, "") for text in _objects(self.row[completion])]
        reply = _reply(conversation)
        if reply is not None:
            self.read["response"] = f"{self.read['problem'].partition(' ')[0]} (what follows it)"
            return [(reply, "")]
        own = self.column(RESPONSE, str) or self.column(("solution",), str)
        if own is not None and own != self.read.get("problem"):
            thought = self._thought()
            self.read["response"] = own if not thought else f"{self.read['thought']} + {own}"
            return [(join_thought(thought, str(self.row[own])), "")]
        thought = self._thought()
        if thought:  # a thought that was cut off before its answer
            self.read["response"] = self.read["thought"]
            return [(join_thought(thought, ""), "")]
        return []

    def _thought(self) -> str:
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

    def gold(self, conversation: Sequence[Turn], answered: bool) -> str:
        reward = self.row.get("reward_model")
        if isinstance(reward, Mapping) and reward.get("ground_truth") is not None:
            self.read["gold"] = "reward_model.ground_truth"
            return gold_text(reward["ground_truth"])
        for turn in conversation:
            if turn.gold is not None:
                self.read["gold"] = "reference_answer of a turn"
                return gold_text(turn.gold)
        used = set(self.read.get("response", "").split(" + ")) | {self.read.get("problem", "")}
        for name in GOLD:
            own = self.names.get(name)
            if own is None or own in used or self.row[own] in (None, "", []):
                continue
            self.read["gold"] = own
            return gold_text(self.row[own])
        doc = self.row.get("doc")
        if isinstance(doc, Mapping):
            return _Finder(doc).gold((), answered)
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
    return text.rpartition("####")[2].strip() if "####" in text else text


def _last_question(turns: Sequence[Turn]) -> int | None:
    """The last user turn that something follows; else the last one."""
    asked = [place for place, turn in enumerate(turns) if turn.role == "user"]
    answered = [place for place in asked if any(turn.role == "assistant" for turn in turns[place + 1 :])]
    return answered[-1] if answered else asked[-1] if asked else None


def _reply(turns: Sequence[Turn]) -> str | None:
    """All that the assistant and its tools wrote after the last question; None where they wrote nothing."""
    asked = _last_question(turns)
    after = list(turns[asked + 1 :] if asked is not None else turns)
    end = next((place for place, turn in enumerate(after) if turn.role == "user"), len(after))
    parts = [text for turn in after[:end] if turn.role in ("assistant", "tool") and (text := written(turn)).strip()]
    if not parts and any(turn.role == "assistant" for turn in after[:end]):
        raise Unreadable("the response is empty: neither content nor reasoning")
    return "\n\n".join(parts) if parts else None


def _reply_of(value: Any) -> str:
    """A preferred or rejected response: text, a turn, or a whole conversation."""
    if isinstance(value, str):
        return value
    turns = [read_turn(turn) for turn in (value if isinstance(value, list) else [value])]
    return _reply(turns) or ""


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list) and not (value and isinstance(value[0], Mapping)):
            yield from _flat(value)
        else:
            yield value


def _choice(value: Any, thought: str = "") -> str:
    """One sample: text, a choice with a message, an output with a text, a list of turns."""
    if value is None:
        return ""
    if isinstance(value, str):
        return join_thought(thought, value)
    if isinstance(value, list):
        return _reply_of(value)
    if not isinstance(value, Mapping):
        raise Unreadable(f"a response is {type(value).__name__}, not text")
    message = value.get("message")
    if isinstance(message, Mapping):
        return written(read_turn({"role": "assistant", **message}))
    return written(read_turn({"role": "assistant", **{key: v for key, v in value.items() if key != "role"}}))


def _objects(value: Any) -> list[str]:
    """Responses in an output that is an object or a list: choices, items of OpenAI's Responses API, turns."""
    if isinstance(value, Mapping):
        choices = value.get("choices")
        return [_choice(one) for one in choices] if isinstance(choices, list) else [_choice(value)]
    if value and all(_is_item(item) for item in value):
        return [written(read_turn({"role": "assistant", "content": _items(value)}))]
    if value and isinstance(value[0], Mapping) and ({"role", "from"} & value[0].keys()):
        return [_reply_of(value)]
    return [_choice(one) for one in _flat(value)]


def _is_item(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("type") in ("message", "reasoning", "function_call")


def _items(items: Sequence[Row]) -> list[Any]:
    """The content blocks of the items of a Responses object."""
    blocks: list[Any] = []
    for item in items:
        if item.get("type") == "message" and isinstance(item.get("content"), list):
            blocks += item["content"]
        else:
            blocks.append(item)
    return blocks
