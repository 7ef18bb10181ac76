"""Columns of foreign tables against the types that their layout needs: null parts are given a type, others named.

A shard whose lists are all empty, or whose column holds nothing but null, has no type of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from polars.datatypes import DataTypeClass

#: A type as polars names it; a tuple of them where a column may be any one.
Type = pl.DataType | DataTypeClass
Wanted = Type | tuple[Type, ...]

#: A number or a text, as a wanted type.
SCALAR = pl.Unknown


def misfit(frame: pl.DataFrame, types: Mapping[str, Wanted], first: int = 0) -> str | None:
    """The first column that is not of its type, with its first row that holds a value; None where all are.

    first: number of the frame's first row in its file.
    """
    for column, wanted in types.items():
        if column in frame.columns and _given(frame.schema[column], wanted) is None:
            rows = frame.select(pl.col(column).is_not_null().arg_true()).to_series()
            row = f"row {rows[0] + 1 + first}, " if len(rows) else ""
            return f"{row}column {column}: found {frame.schema[column]}, expected {_named(wanted)}"
    return None


def typed(frame: pl.DataFrame, types: Mapping[str, Wanted]) -> pl.DataFrame:
    """The frame with a type for what is null throughout, and categories as the text they stand for.

    Columns must fit: ask `misfit` first.
    """
    casts = []
    for column, found in frame.schema.items():
        given = _given(found, types[column]) if column in types else None
        if given is not None and given != found:
            casts.append(pl.col(column).cast(given))
        elif isinstance(found, pl.Categorical | pl.Enum):
            casts.append(pl.col(column).cast(pl.String))
    return frame.with_columns(casts)


def _given(found: Type, wanted: Wanted) -> Type | None:
    """`found` with its null parts as wanted; None where it is something else. Structs may hold more fields."""
    if isinstance(wanted, tuple):
        return next((given for one in wanted if (given := _given(found, one)) is not None), None)
    if found == pl.Null:
        return pl.String() if wanted == SCALAR else wanted
    if isinstance(wanted, pl.List):
        inner = _given(found.inner, wanted.inner) if isinstance(found, pl.List) else None
        return None if inner is None else pl.List(inner)
    if isinstance(wanted, pl.Struct):
        if not isinstance(found, pl.Struct):
            return None
        fields = {field.name: field.dtype for field in found.fields}
        for field in wanted.fields:
            given = _given(fields[field.name], field.dtype) if field.name in fields else None
            if given is None:
                return None
            fields[field.name] = given
        return pl.Struct(fields)
    if isinstance(found, pl.Categorical | pl.Enum):
        found = pl.String()
    if wanted == SCALAR:
        return None if found.is_nested() else found
    if wanted == pl.Float64:
        return found if found.is_numeric() else None
    return found if found == wanted else None


def _named(wanted: Wanted) -> str:
    if isinstance(wanted, tuple):
        return " or ".join(_named(one) for one in wanted)
    if isinstance(wanted, pl.List):
        return f"a list of {_named(wanted.inner)}"
    if isinstance(wanted, pl.Struct):
        return f"an object with {', '.join(field.name for field in wanted.fields)}"
    if wanted == SCALAR:
        return "text or a number"
    if wanted == pl.String:
        return "text"
    return "a number" if wanted == pl.Float64 else str(wanted)
