"""Public data set layouts: which columns tell one, and how its rows become one row a trace.

A layout turns a frame into the long form: one row a (problem, trace) with the columns of LONG; a problem
without a trace has a null response. Lists that run in parallel are exploded together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from evaluators.extraction.boxes import last_box
from tracekit.reading.columns import SCALAR, Wanted, misfit
from tracekit.reading.mapping import is_path
from tracekit.reading.names import RESPONSE, SAMPLES, THOUGHT

#: The long form; `problem` alone is required of a row.
LONG: dict[str, pl.DataType | type[pl.DataType]] = {
    "problem": pl.String,
    "gold": pl.String,
    "response": pl.String,
    "author": pl.String,
    "flagged_correct": pl.Boolean,
    "kind": pl.String,
    "level": pl.Float32,
    "system": pl.String,
    "finish_reason": pl.String,
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


def detect(frame: pl.DataFrame, where: str) -> Layout:
    """The layout of most matching columns; rows of an unknown one are read one by one, by their columns' names."""
    plain = {name for name, dtype in frame.schema.items() if dtype != pl.Object}  # objects: values of mixed types
    found = [
        layout
        for layout in LAYOUTS
        if set(layout.columns) <= plain and layout.accepts(frame) and (layout.by_record or not _left_out(frame, layout))
    ]
    return max(found, key=lambda layout: len(layout.columns)) if found else ROW_BY_ROW


def fits(layout: Layout, frame: pl.DataFrame) -> bool:
    """Whether a further piece of a file can be read in the layout of its first piece."""
    return set(layout.columns) <= set(frame.columns) and misfit(frame, layout.types) is None


def _left_out(frame: pl.DataFrame, layout: Layout) -> bool:
    """Whether a column of responses or thoughts would be left out: then another layout of the same columns is meant."""
    taken = {*layout.columns, *layout.fields.values(), *layout.types}
    answers = {*RESPONSE, *SAMPLES, *THOUGHT, "chosen", "rejected"}
    return any(
        name.lower() in answers and name not in taken and frame[name].null_count() < frame.height
        for name in frame.columns
    )


def named(name: str) -> Layout:
    """The layout of that name. Raises LayoutError."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise LayoutError(f"no layout is called {name!r}; known: {', '.join(layout.name for layout in LAYOUTS)}, tracekit.")


def by_hand(columns: Mapping[str, str]) -> Layout:
    """A layout from `--map ours=theirs`. Raises LayoutError on a name that is not of the long form."""
    known = (*LONG, "thought")
    unknown = [name for name in columns if name not in known]
    empty = [name for name, theirs in columns.items() if not theirs.strip()]
    if unknown or empty:
        fault = f"{unknown[0]} is no column of ours" if unknown else f"{empty[0]} is mapped to nothing"
        raise LayoutError(f"--map: {fault}; ours are {', '.join(known)}, as in --map gold=answer response=generation.")
    nested = any(is_path(column) for column in columns.values())
    if nested or "problem" not in columns or "thought" in columns:
        tops = () if nested else tuple(columns.values())
        return Layout("by hand", tops, columns, by_record=True)
    return Layout("by hand", tuple(columns.values()), columns)


def _prompt_is_a_conversation(frame: pl.DataFrame) -> bool:
    return isinstance(frame.schema["prompt"], pl.List)


def _answers_are_worked(frame: pl.DataFrame) -> bool:
    """Whether GSM8K's solutions stand in `answer`: each ends in `#### ` and its number."""
    return frame.schema["answer"] == pl.String and bool(
        frame.select(pl.col("answer").str.contains("####", literal=True).mean().fill_null(0) > 0.5).item()
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
    """The last message of one of `roles`: of several exchanges, the last one is read."""
    message = pl.element().filter(pl.element().struct.field(role).is_in(roles)).struct.field(content)
    return pl.col(column).list.eval(message).list.last()


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
LAYOUTS: list[Layout] = [
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
        types={"thinking_trajectories": pl.List(pl.String), "attempt": pl.String(), "cot": SCALAR},
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
    ),
    Layout(
        "limo",
        ("question", "solution", "answer"),
        {"problem": "question", "gold": "answer", "response": "solution"},
        author="LIMO",
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
]

#: Any other table.
ROW_BY_ROW = Layout("row by row", (), by_record=True)


def source_format(
    name: str,
    *columns: str,
    author: str = "",
    types: Mapping[str, Wanted] | None = None,
    accepts: Callable[[pl.DataFrame], bool] = lambda frame: True,
) -> Callable[[Reader], Reader]:
    """Register a format of your own; it is preferred to ours where it names as many columns.

    Parameters
    ----------
    name
        The name that `sources.layout` may give.
    columns
        Columns by which a table of this format is known; all must be there.
    author
        Who wrote the traces, where the reader gives no column `author`.
    types
        Types that columns must have before the reader is called.
    accepts
        What else must hold of a table.

    Raises
    ------
    LayoutError
        If the name is taken by another function.

    Examples
    --------
    >>> import polars as pl
    >>> from tracekit import source_format
    >>> @source_format("quiz", "frage", "antwort")
    ... def read_quiz(frame: pl.DataFrame) -> pl.DataFrame:
    ...     return frame.select(problem="frage", gold="antwort")
    >>> read_quiz(pl.DataFrame({"frage": ["2 + 2?"], "antwort": ["4"]})).to_dicts()
    [{'problem': '2 + 2?', 'gold': '4'}]
    """

    def register(read: Reader) -> Reader:
        known = next((place for place, one in enumerate(LAYOUTS) if one.name == name), None)
        if known is not None:
            before = LAYOUTS[known].read
            if before is None or (before.__module__, before.__qualname__) != (read.__module__, read.__qualname__):
                raise LayoutError(f"a layout is called {name!r} already; give yours another name.")
            del LAYOUTS[known]  # the module was loaded again
        LAYOUTS.insert(0, Layout(name, columns, author=author, read=read, types=types or {}, accepts=accepts))
        return read

    return register
