"""Public data set layouts: which columns tell one, and how its rows become one row a trace.

A layout turns a frame into the long form: one row a (problem, trace) with the columns of LONG; a problem
without a trace has a null response. Lists that run in parallel are exploded together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from evaluators.extraction.boxes import last_box
from tracekit.reading.columns import SCALAR, Wanted, misfit, typed
from tracekit.reading.mapping import is_path, mapped_record
from tracekit.reading.records import (
    CONVERSATION,
    RESPONSE,
    SAMPLES,
    THOUGHT,
    Sample,
    Unreadable,
    read_record,
    unread_texts,
)
from tracekit.reading.turns import without_channels

#: The long form; `problem` alone is required of a row.
LONG: dict[str, pl.DataType | type[pl.DataType]] = {
    "problem": pl.String,
    "gold": pl.String,
    "response": pl.String,
    "author": pl.String,
    "flagged_correct": pl.Boolean,
    "kind": pl.String,
    "level": pl.Float32,
}

Reader = Callable[[pl.DataFrame], pl.DataFrame]


class LayoutError(ValueError):
    """A table is in no layout we know: the message lists its columns, ours, and how to map by hand."""


@dataclass(frozen=True)
class Layout:
    """A known layout.

    columns: all must be there for the layout to be recognised; more columns make it the better match.
    fields: long column → the layout's column, taken as it is.
    author: who wrote the traces, where no column says so.
    read: for what is nested; frame → some of the columns of LONG. `fields` adds to it.
    by_record: rows are read one by one, by `tracekit.reading.records`.
    types: of the columns that `read` goes into, where they are there.
    accepts: what else must hold of the frame, beside its column names.
    """

    name: str
    columns: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    author: str = ""
    read: Reader | None = None
    by_record: bool = False
    types: Mapping[str, Wanted] = field(default_factory=dict)
    accepts: Callable[[pl.DataFrame], bool] = lambda frame: True


@dataclass(frozen=True)
class Long:
    """A table in the long form, the rows that were lost on the way, and what was read from where."""

    rows: pl.DataFrame
    lost: tuple[tuple[int, str], ...] = ()
    read: Mapping[str, str] = field(default_factory=dict)


def detect(frame: pl.DataFrame, where: str) -> Layout:
    """The layout of most matching columns; rows of an unknown one are read one by one, by their columns' names."""
    plain = {name for name, dtype in frame.schema.items() if dtype != pl.Object}  # objects: values of mixed types
    found = [layout for layout in LAYOUTS if set(layout.columns) <= plain and layout.accepts(frame)]
    return max(found, key=lambda layout: len(layout.columns)) if found else ROW_BY_ROW


def named(name: str) -> Layout:
    """The layout of that name. Raises LayoutError."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise LayoutError(f"no layout is called {name!r}; known: {', '.join(layout.name for layout in LAYOUTS)}, tracekit.")


def by_hand(columns: Mapping[str, str]) -> Layout:
    """A layout from `--map ours=theirs`. Raises LayoutError on a name that is not of the long form."""
    unknown = [name for name in columns if name not in LONG]
    if unknown or "problem" not in columns:
        fault = f"{unknown[0]} is no column of ours" if unknown else "problem is not mapped"
        raise LayoutError(f"--map: {fault}; ours are {', '.join(LONG)}, and problem is required.")
    if any(is_path(column) for column in columns.values()):
        return Layout("by hand", (), columns, by_record=True)
    return Layout("by hand", tuple(columns.values()), columns)


def to_long(frame: pl.DataFrame, layout: Layout, where: str) -> Long:
    """Rows in the long form, and the rows that were lost.

    Raises LayoutError naming the column that cannot be read and its first bad row.
    """
    absent = [column for column in layout.columns if column not in frame.columns]
    if absent:
        raise LayoutError(
            f"{where} has no column {absent[0]}, which the layout {layout.name} needs; "
            f"it has {', '.join(frame.columns)}."
        )
    fault = misfit(frame, layout.types)
    if fault:
        raise LayoutError(
            f"{where}, {fault} in the layout {layout.name}. Name another layout, or map by hand with --map."
        )
    frame = typed(frame, layout.types)
    if layout.read is None and layout.by_record:
        return _by_record(frame, layout, where)
    taken = {ours: frame[theirs] for ours, theirs in layout.fields.items() if theirs in frame.columns}
    long = layout.read(frame).with_columns(**taken) if layout.read else pl.DataFrame(taken)
    if "row" not in long.columns:  # a reader that makes several rows of one says which row each came from
        long = long.with_row_index("row")
    columns = [_typed(long, name, dtype, where) for name, dtype in LONG.items()]
    read = {ours: theirs for ours, theirs in layout.fields.items() if theirs in frame.columns}
    return _checked(long.select("row", *columns), layout, where, (), read or {"layout": layout.name})


def _checked(
    long: pl.DataFrame, layout: Layout, where: str, lost: Sequence[tuple[int, str]], read: Mapping[str, str]
) -> Long:
    """Fill what may be missing, and set aside the rows without a problem."""
    long = long.with_columns(
        pl.col("author").replace("", None).fill_null(layout.author or "unknown"),
        pl.col("gold").fill_null(""),
        pl.col("kind").fill_null(""),
    )
    if long.select(pl.col("response").str.contains("<|channel|>", literal=True).any()).item():
        long = long.with_columns(pl.col("response").map_elements(without_channels, return_dtype=pl.String))
    blank = pl.col("problem").is_null() | (pl.col("problem").str.strip_chars() == "")
    empty = [(int(row), "the problem is empty") for row in long.filter(blank)["row"].unique(maintain_order=True)]
    long = long.filter(~blank)
    if not long.height and (lost or empty):
        row, reason = (*lost, *empty)[0]
        raise LayoutError(f"{where}, row {row + 1}: {reason}; no row can be read. Map by hand: --map problem=COLUMN.")
    return Long(long.drop("row"), (*lost, *empty), read)


def _by_record(frame: pl.DataFrame, layout: Layout, where: str) -> Long:
    """Read row by row. Raises LayoutError where long text would be left out of rows that seem to have no response."""
    rows = frame.to_dicts()
    records, lost = [], []
    for number, row in enumerate(rows):
        try:
            records.append(
                (number, mapped_record(row, layout.fields) if "problem" in layout.fields else read_record(row))
            )
        except Unreadable as error:
            lost.append((number, str(error)))
    if not records:
        known = ", ".join(one.name for one in LAYOUTS)
        raise LayoutError(
            f"{where}, row {lost[0][0] + 1}: {lost[0][1]}; no row can be read. It has the columns "
            f"{', '.join(frame.columns)}, which are in no known layout ({known}), and none is a problem. "
            "Map by hand: --map problem=COLUMN gold=COLUMN response=COLUMN."
        )
    found = [record for _, record in records]
    read = {ours: theirs for record in reversed(found) for ours, theirs in record.read.items()}
    if not any(record.samples for record in found) and (left := unread_texts(rows[:1000], found[:1000])):
        shown = ", ".join(f"{ours} ← {theirs}" for ours, theirs in read.items())
        raise LayoutError(
            f"{where}: columns {', '.join(frame.columns)} would be read as {shown}, without {', '.join(left)}. "
            f"If it is the response, write --map response={left[0]} problem={read['problem'].partition(' ')[0]}"
            + (f" gold={read['gold']}" if "gold" in read else "")
            + "."
        )
    long = [
        (number, record.problem, record.gold, sample.response, sample.author, sample.flagged, record.kind, record.level)
        for number, record in records
        for sample in record.samples or (Sample("", "", None),)
    ]
    schema = {"row": pl.UInt32, **LONG}
    table = pl.DataFrame(long, schema=schema, orient="row")
    return _checked(table.with_columns(pl.col("response").replace("", None)), layout, where, lost, read)


def _typed(long: pl.DataFrame, name: str, dtype: pl.DataType | type[pl.DataType], where: str) -> pl.Expr:
    if name not in long.columns or long.schema[name] == pl.Null:
        return pl.lit(None, dtype=dtype).alias(name)
    found = long.schema[name]
    if found == dtype:
        return pl.col(name)
    # Golds, levels and flags come as numbers too; a problem or a response that is no text is a fault.
    castable = found.is_numeric() or found == pl.Boolean or (found == pl.String and dtype == pl.Float32)
    if name in ("problem", "response") or not castable:
        row = long.filter(pl.col(name).is_not_null())["row"]
        first = f", row {row[0] + 1}" if len(row) else ""
        raise LayoutError(f"{where}{first}: {name} is {found}; expected {dtype}. Map another column or convert it.")
    if found == pl.String:
        return pl.col(name).str.extract(r"(\d+(?:\.\d+)?)").cast(dtype)
    return pl.col(name).cast(dtype)


def _prompt_is_a_conversation(frame: pl.DataFrame) -> bool:
    return isinstance(frame.schema["prompt"], pl.List)


def _nothing_else_answers(frame: pl.DataFrame) -> bool:
    """Whether no other column holds responses or thoughts, so that a loose match takes all there is."""
    others = {*RESPONSE, *SAMPLES, *THOUGHT, *CONVERSATION, "chosen", "rejected"}
    return not any(name.lower() in others for name in frame.columns)


def _answers_are_worked(frame: pl.DataFrame) -> bool:
    """Whether GSM8K's solutions stand in `answer`: each ends in `#### ` and its number."""
    return (
        frame.schema["answer"] == pl.String
        and _nothing_else_answers(frame)
        and bool(frame.select(pl.col("answer").str.contains("####", literal=True).mean().fill_null(0) > 0.5).item())
    )


def _turns(role: str, content: str) -> pl.DataType:
    return pl.List(pl.Struct({role: pl.String, content: pl.String}))


_MESSAGES = _turns("role", "content")
_VERL_TYPES: dict[str, Wanted] = {
    "prompt": _MESSAGES,
    "target": _MESSAGES,
    "reward_model": pl.Struct({"ground_truth": SCALAR}),
    "data_source": SCALAR,
}


# ---- readers of nested layouts -------------------------------------------------------------------------------------


def _turn(column: str, roles: tuple[str, ...], role: str, content: str) -> pl.Expr:
    """The first message of one of `roles`. Multi-turn rows give their first exchange."""
    message = pl.element().filter(pl.element().struct.field(role).is_in(roles)).struct.field(content)
    return pl.col(column).list.eval(message).list.first()


_USER = ("user", "human")
_ASSISTANT = ("assistant", "gpt", "model")
_GOLD_COLUMNS = ("gold", "answer", "ground_truth", "expected_answer", "final_answer")


def _gold(frame: pl.DataFrame) -> pl.Expr:
    return next((pl.col(c) for c in _GOLD_COLUMNS if c in frame.columns), pl.lit(None, dtype=pl.String)).alias("gold")


def _verl(frame: pl.DataFrame) -> pl.DataFrame:
    columns = [
        _turn("prompt", _USER, "role", "content").alias("problem"),
        pl.col("reward_model").struct.field("ground_truth").cast(pl.String).alias("gold"),
        pl.col("data_source").alias("kind"),
    ]
    if "target" in frame.columns:
        columns.append(_turn("target", _ASSISTANT, "role", "content").alias("response"))
    return frame.select(columns)


def _openr1(frame: pl.DataFrame) -> pl.DataFrame:
    flags = next((c for c in ("correctness_math_verify", "correctness") if c in frame.columns), None)
    aligned = pl.lit(None, dtype=pl.List(pl.Boolean))
    if flags is not None:
        # Flags of another length belong to other generations: the row's flags are unknown, not shifted.
        aligned = pl.when(pl.col(flags).list.len() == pl.col("generations").list.len()).then(pl.col(flags))
    kind = pl.col("problem_type") if "problem_type" in frame.columns else pl.lit("")
    frame = frame.with_row_index("row")
    long = frame.select(
        "row", "problem", _gold(frame), kind.alias("kind"), "generations", aligned.alias("flagged_correct")
    )
    unknown = pl.col("generations").list.eval(pl.lit(None, dtype=pl.Boolean).repeat_by(pl.len()).explode())
    long = long.with_columns(pl.col("flagged_correct").fill_null(unknown))
    # Null, since polars drops a row whose list is empty: a problem that nobody tried stays a problem.
    tried = pl.col("generations").list.len() > 0
    long = long.with_columns(pl.when(tried).then(pl.col("generations", "flagged_correct")))
    return long.explode("generations", "flagged_correct").rename({"generations": "response"})


def _gsm8k(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(problem="question", response="answer", gold=_after("answer", "####"))


def _after(column: str, mark: str) -> pl.Expr:
    return pl.col(column).str.extract(rf"(?m)^{mark}\s*([^\n]*?)\s*$")


def _solution_columns(frame: pl.DataFrame) -> list[str]:
    return [
        name
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.Struct) and {"is_correct", "solution"} <= {f.name for f in dtype.fields}
    ]


def _gsm8k_models(frame: pl.DataFrame) -> pl.DataFrame:
    per_model = [
        frame.select(
            pl.int_range(pl.len()).alias("row"),
            problem="question",
            gold=_after("ground_truth", "A:"),
            response=pl.col(model).struct.field("solution"),
            flagged_correct=pl.col(model).struct.field("is_correct"),
            author=pl.lit(model),
        )
        for model in _solution_columns(frame)
    ]
    return pl.concat(per_model).sort("row", maintain_order=True)


def _math(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        "problem",
        response="solution",
        gold=pl.col("solution").map_elements(last_box, return_dtype=pl.String),
        kind="type",
        level="level",
    )


def _s1k(frame: pl.DataFrame) -> pl.DataFrame:
    """Thought and attempt stand apart; they are put together as their teacher wrote them, in think tags."""
    pairs = [
        ("Gemini Thinking", "thinking_trajectories", "attempt"),
        ("Gemini Thinking", "gemini_thinking_trajectory", "gemini_attempt"),
        ("DeepSeek-R1", "deepseek_thinking_trajectory", "deepseek_attempt"),
    ]
    parts = []
    for author, thought, attempt in pairs:
        if thought not in frame.columns or attempt not in frame.columns:
            continue
        text = pl.col(thought).list.join("\n\n") if isinstance(frame.schema[thought], pl.List) else pl.col(thought)
        response = _in_think_tags(text, pl.col(attempt))
        parts.append(
            frame.select(
                pl.int_range(pl.len()).alias("row"),
                problem="question",
                gold="solution",
                response=response,
                author=pl.lit(author),
            )
        )
    return pl.concat(parts)


def _in_think_tags(thought: pl.Expr, answer: pl.Expr) -> pl.Expr:
    return pl.format("<think>\n{}\n</think>\n\n{}", thought, answer)


def _openthoughts_metadata(frame: pl.DataFrame) -> pl.DataFrame:
    response = _in_think_tags(pl.col("deepseek_reasoning"), pl.col("deepseek_solution"))
    boxed_gold = pl.col("ground_truth_solution").map_elements(last_box, return_dtype=pl.String)
    gold = pl.coalesce(boxed_gold, "ground_truth_solution")
    return frame.select("problem", response=response, gold=gold, kind="domain")


#: Every layout we know. Columns from the data sets' own cards and files.
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "openr1-math-220k",
        ("problem", "answer", "generations"),
        author="DeepSeek-R1",
        read=_openr1,
        types={
            "generations": pl.List(pl.String),
            "correctness_math_verify": pl.List(pl.Boolean),
            "correctness": pl.List(pl.Boolean),
        },
    ),
    Layout(
        "openthoughts-114k-metadata",
        ("problem", "deepseek_reasoning", "deepseek_solution", "ground_truth_solution", "domain"),
        author="DeepSeek-R1",
        read=_openthoughts_metadata,
        types=dict.fromkeys(("deepseek_reasoning", "deepseek_solution", "ground_truth_solution"), pl.String()),
    ),
    Layout(
        "openthoughts-114k",
        ("system", "conversations"),
        author="DeepSeek-R1",
        by_record=True,
    ),
    Layout(
        "openthoughts3",
        ("difficulty", "source", "domain", "conversations"),
        author="QwQ-32B",
        by_record=True,
    ),
    Layout(
        "luffy",
        ("data_source", "prompt", "target", "reward_model", "extra_info"),
        author="DeepSeek-R1",
        read=_verl,
        types=_VERL_TYPES,
        accepts=_prompt_is_a_conversation,
    ),
    Layout(
        "verl",
        ("data_source", "prompt", "reward_model", "extra_info"),
        read=_verl,
        types=_VERL_TYPES,
        accepts=_prompt_is_a_conversation,
    ),
    Layout(
        "s1k",
        ("question", "solution", "thinking_trajectories", "attempt"),
        read=_s1k,
        types={"thinking_trajectories": pl.List(pl.String), "attempt": pl.String()},
    ),
    Layout(
        "s1k-1.1",
        ("question", "solution", "deepseek_thinking_trajectory", "deepseek_attempt"),
        read=_s1k,
        types=dict.fromkeys(
            (
                "deepseek_thinking_trajectory",
                "deepseek_attempt",
                "gemini_thinking_trajectory",
                "gemini_attempt",
            ),
            pl.String(),
        ),
    ),
    Layout(
        "numinamath-1.5",
        ("problem", "solution", "answer", "problem_type", "question_type"),
        {"problem": "problem", "gold": "answer", "response": "solution", "kind": "problem_type"},
        author="human",
    ),
    Layout(
        "big-math",
        ("problem", "answer", "llama8b_solve_rate"),
        read=lambda frame: frame.select("problem", gold="answer", level=1 - pl.col("llama8b_solve_rate")),
        types={"llama8b_solve_rate": pl.Float64()},
    ),
    Layout(
        "math-500",
        ("problem", "solution", "answer", "subject", "level"),
        {"problem": "problem", "gold": "answer", "response": "solution", "kind": "subject", "level": "level"},
        author="human",
    ),
    Layout(
        "math",
        ("problem", "level", "type", "solution"),
        author="human",
        read=_math,
        types={"solution": pl.String()},
    ),
    Layout(
        "deepscaler",
        ("problem", "answer", "solution"),
        {"problem": "problem", "gold": "answer", "response": "solution"},
        author="human",
        accepts=_nothing_else_answers,
    ),
    Layout(
        "limo",
        ("question", "solution", "answer"),
        {"problem": "question", "gold": "answer", "response": "solution"},
        author="LIMO",
        accepts=_nothing_else_answers,
    ),
    Layout(
        "gsm8k",
        ("question", "answer"),
        author="human",
        read=_gsm8k,
        types={"answer": pl.String()},
        accepts=_answers_are_worked,
    ),
    Layout(
        "gsm8k-model-solutions",
        ("question", "ground_truth"),
        read=_gsm8k_models,
        types={"ground_truth": pl.String()},
        accepts=lambda frame: bool(_solution_columns(frame)),
    ),
    Layout(
        "messages",
        ("messages",),
        by_record=True,
    ),
    Layout(
        "sharegpt",
        ("conversations",),
        by_record=True,
    ),
    Layout(
        "prompt-completion",
        ("prompt", "completion"),
        by_record=True,
    ),
    Layout(
        "long",
        ("problem", "gold", "response"),
        {name: name for name in LONG},
    ),
    Layout("problems", ("problem", "answer"), by_record=True),
)
#: Any other table.
ROW_BY_ROW = Layout("row by row", (), by_record=True)
