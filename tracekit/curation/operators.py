"""Rules, measurements and exporters of a user's own: functions with a decorator, in a file that the recipe names.

The parameters of a function name the columns that it reads, so it can be called and tested like any other:

    @measurement
    def hedges(response: str) -> int:
        return response.lower().count("wait")

    @rule(reason="hedges too often")
    def max_hedges(hedges: int, threshold: int = 5) -> bool:
        return hedges <= threshold

`operators = ["my_rules.py"]` in the recipe runs the file; nothing else is run.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tracekit.core.source_digest import source_digest
from tracekit.core.tables import CURATED, PROBLEMS
from tracekit.curation.export_formats import FORMATS
from tracekit.curation.filters import FilterSettings

Kind = Literal["rule", "measurement", "exporter"]
Function = Callable[..., Any]
#: What a measurement may return; None is "unknown" in each case.
TYPES: Mapping[str, type] = {"int": int, "float": float, "str": str, "bool": bool}

#: Columns that a measurement or a rule may read, by the table that they stand in.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "problems": tuple(PROBLEMS),
    "traces": ("trace_id", "author", "response", "flagged_correct"),
    "measures": (
        *("characters", "think_opened", "think_closed", "boxed", "repeated_lines", "repeated_characters"),
        *("tail_repeats", "loop_repeats", "foreign_share", "language_switches", "markers", "answer_position"),
        *("think_fault", "truncated", "token_count", "steps", "wrong_calculations", "first_wrong_step"),
    ),
    "verdicts": ("outcome", "prediction"),
}
_BUILT_IN = {name for names in COLUMNS.values() for name in names}


class OperatorError(ValueError):
    """An operator cannot be used: the message names the file, the function and, where it failed, the row."""


@dataclass(frozen=True)
class Operator:
    """A function of the user's, and what its signature says.

    columns: the columns it reads. optional: those of them that may be null; a null in another means "unknown", and the
    function is not called. returns: the name of its result's type. threshold: a rule's default; None where it has none.
    """

    kind: Kind
    name: str
    function: Function = field(repr=False)
    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    returns: str = ""
    threshold: Any = None
    reason: str = ""
    each: Literal["trace", "problem"] = "trace"
    schema: Any = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is known by: kind, name and the module that registered it."""
        return self.kind, self.name, self.function.__module__

    @property
    def where(self) -> str:
        """File and line of the function."""
        code = self.function.__code__
        return f"{code.co_filename}, line {code.co_firstlineno}"

    @property
    def digest(self) -> str:
        """Digest of the function's source and of what it uses of its file."""
        return source_digest(self.function)


_REGISTERED: list[Operator] = []


def measurement(function: Function | None = None, *, name: str = "") -> Any:
    """Register a measurement: a column for each trace, made once and kept.

    Parameters
    ----------
    function
        Its parameters name the columns that it reads: response, problem, gold, author, source, kind, level,
        flagged_correct, the measures of docs/curation.md (token_count, steps …), outcome and prediction. It returns an
        int, float, str or bool, as its annotation says, or None for "unknown".
    name
        The column's name; the function's where not given.

    Raises
    ------
    OperatorError
        If the signature cannot be used or the name is taken.

    Examples
    --------
    >>> from tracekit import measurement
    >>> @measurement
    ... def exclamation_marks(response: str) -> int:
    ...     return response.count("!")
    >>> exclamation_marks("Yes! 4!")
    2
    """
    return _decorator(function, "measurement", name)


def rule(function: Function | None = None, *, name: str = "", reason: str = "") -> Any:
    """Register a rule: which traces stay. It is decided once a trace, kept, and written into the ledger.

    Parameters
    ----------
    function
        Its parameters name the columns that it reads: those of a measurement, and measurements. A parameter
        `threshold` with a default takes the recipe's value, `[rules] NAME = …`. It returns True (keep), False (drop), a
        text (drop, for this reason) or None (unknown: keep).
    name
        The rule's name in the recipe and the ledger; the function's where not given.
    reason
        Why a row is dropped; the first line of the docstring where not given.

    Raises
    ------
    OperatorError
        If the signature cannot be used or the name is taken, be it by a filter of ours.

    Examples
    --------
    >>> from tracekit import rule
    >>> @rule(reason="shouts")
    ... def quiet(response: str, threshold: int = 3) -> bool:
    ...     return response.count("!") <= threshold
    >>> quiet("No!!!!")
    False
    """
    return _decorator(function, "rule", name, reason=reason)


def exporter(
    function: Function | None = None, *, name: str = "", each: Literal["trace", "problem"] = "trace", schema: Any = None
) -> Any:
    """Register an export format: one row of a file for each trace or problem of the curated set.

    Parameters
    ----------
    function
        Its parameters name columns of CURATED. It returns a row as a dict, or None to leave it out.
    name
        The format's name in `export.formats`; the function's where not given.
    each
        "trace": every correct trace; "problem": every problem once.
    schema
        A pyarrow schema writes Parquet of these types; without one the rows are JSON lines.

    Raises
    ------
    OperatorError
        If the signature cannot be used or the name is taken.

    Examples
    --------
    >>> from tracekit import exporter
    >>> @exporter(name="question-answer")
    ... def question_answer(problem: str, response: str) -> dict:
    ...     return {"q": problem, "a": response}
    """
    return _decorator(function, "exporter", name, each=each, schema=schema)


def call(one: Operator, given: Mapping[str, Any], row_id: str) -> Any:
    """Call the function on one row. Raises OperatorError that names file, line, function and row where it fails."""
    try:
        return one.function(**given)
    except Exception as error:  # whatever a user's function raises is the user's to mend
        place = place_of(error, Path(one.function.__code__.co_filename))
        said = f"{type(error).__name__}: {error}"
        raise OperatorError(f"{place}: {one.kind} {one.name} on trace {row_id}: {said}") from error


def place_of(error: BaseException, path: Path) -> str:
    """File and line where an error arose: the last line of `path` that it passed through."""
    if isinstance(error, SyntaxError):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def registered(module: str) -> list[Operator]:
    """The operators that the module of that name registered, in its order."""
    return [one for one in _REGISTERED if one.function.__module__ == module]


def forget(module: str) -> None:
    """Drop what a module registered, before it is run again."""
    _REGISTERED[:] = [one for one in _REGISTERED if one.function.__module__ != module]


def _decorator(function: Function | None, kind: Kind, name: str, **more: Any) -> Any:
    def register(function: Function) -> Function:
        one = _operator(kind, name or function.__name__, function, more)
        same = [known for known in _REGISTERED if known.key == one.key]
        if same and same[0].where != one.where and function.__module__ != "__main__":
            raise OperatorError(f"{one.where}: {kind} {one.name} is defined at {same[0].where} too.")
        _REGISTERED[:] = [known for known in _REGISTERED if known.key != one.key]
        _REGISTERED.append(one)
        return function

    return register if function is None else register(function)


def _operator(kind: Kind, name: str, function: Function, more: dict[str, Any]) -> Operator:
    """What the signature says. Raises OperatorError where it cannot be used."""
    parameters = inspect.signature(function).parameters
    columns = tuple(column for column in parameters if not (kind == "rule" and column == "threshold"))
    optional = tuple(column for column in columns if parameters[column].default is not inspect.Parameter.empty)
    reason = more.pop("reason", "") or (inspect.getdoc(function) or name).splitlines()[0].rstrip(".")
    threshold = _threshold(kind, parameters)
    one = Operator(kind, name, function, columns, optional, _returns(function), threshold, reason, **more)
    _check(one, parameters)
    return one


def _threshold(kind: Kind, parameters: Mapping[str, inspect.Parameter]) -> Any:
    return parameters["threshold"].default if kind == "rule" and "threshold" in parameters else None


def _returns(function: Function) -> str:
    """The annotated type of the result by its name: `-> int`, `-> "int"`, `-> int | None`."""
    annotation = function.__annotations__.get("return", "")
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.removesuffix("| None").strip()


def _check(one: Operator, parameters: Mapping[str, inspect.Parameter]) -> None:
    taken = {
        "rule": set(FilterSettings.model_fields),
        "measurement": _BUILT_IN,
        "exporter": set(FORMATS),
    }[one.kind]
    allowed = {"measurement": _BUILT_IN, "exporter": set(CURATED), "rule": None}[one.kind]
    strange = [column for column in one.columns if allowed is not None and column not in allowed]
    starred = [p.name for p in parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)]
    fault = ""
    if one.name in taken:
        fault = f"the name is taken by one of ours; ours are {', '.join(sorted(taken))}"
    elif not one.name.replace("-", "_").isidentifier():
        fault = "the name is none; expected letters, digits, _ and -"
    elif starred or not one.columns:
        fault = "its parameters must name the columns it reads, one by one"
    elif strange:
        fault = f"there is no column {strange[0]}; there are {', '.join(sorted(allowed or ()))}"
    elif one.kind == "measurement" and one.returns not in TYPES:
        fault = f"it returns {one.returns or 'something unannotated'}; annotate it with -> {', '.join(TYPES)}"
    elif one.kind == "rule" and "threshold" in parameters and one.threshold in (inspect.Parameter.empty, None):
        fault = "threshold has no default; write threshold: int = 5"
    if fault:
        raise OperatorError(f"{one.where}: {one.kind} {one.name}: {fault}.")
