"""Digest of a function's source and of what it uses: a changed function is run anew, an unchanged one never."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from tracekit.core.ids import file_digest


def source_digest(function: Callable[..., Any]) -> str:
    """Return 12 hexadecimal digits over a function and every name of its module that it reaches.

    Counted are the function, the functions, classes and constants of its file that it uses, directly or through
    others, the bytes of modules that it imports from elsewhere on disk, and the versions of installed packages.
    Comments, blank lines and the other functions of the file do not count.

    Raises
    ------
    OSError
        If the function's source cannot be read, as for one that was typed at a prompt.

    Examples
    --------
    >>> from tracekit.core.ids import content_id
    >>> source_digest(content_id) == source_digest(content_id)
    True
    """
    module = inspect.getmodule(function)
    file = inspect.getsourcefile(function)
    if module is None or file is None:
        raise OSError(f"the source of {function.__qualname__} cannot be read; define it in a file.")
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    parts = list(_reached(tree, function.__qualname__.partition(".")[0]))
    text = "\x1f".join(_text_of(part, module) for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _reached(tree: ast.Module, name: str) -> Iterator[ast.stmt]:
    """The top-level statements that bind `name` and the names that these use, in the order of the file."""
    binding: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for bound in _bound_names(statement):
            binding.setdefault(bound, []).append(statement)
    waiting, seen, reached = [name], set[str](), set[int]()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for statement in binding.get(current, ()):
            reached.add(id(statement))
            waiting += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return (statement for statement in tree.body if id(statement) in reached)


def _bound_names(statement: ast.stmt) -> set[str]:
    """Names that a top-level statement binds or changes: `X = 1`, `X[0] = 1`, `X.append(1)`, `if …: X = 1`."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            names |= _root(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            names |= _root(node.value.func) if isinstance(node.value.func, ast.Attribute) else set()
            names |= {name for argument in node.value.args for name in _root(argument)}
    return names


def _root(node: ast.expr) -> set[str]:
    """`X` of `X`, `X.a` and `X[0]`; nothing of other expressions."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _text_of(statement: ast.stmt, module: ModuleType) -> str:
    imported = [node for node in ast.walk(statement) if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.unparse(statement) + "".join(_version_of(name) for node in imported for name in _modules(node))


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if node.module and not node.level else []


def _version_of(name: str) -> str:
    """The version of an installed package, the bytes of another module's file; nothing for the standard library."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return ""
    distributions = _distributions().get(top, [])
    if distributions:
        return f" {top} {metadata.version(distributions[0])}"
    file = getattr(sys.modules.get(name), "__file__", None)
    return f" {name} {file_digest(Path(file))}" if file else ""


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
