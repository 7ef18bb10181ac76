"""Settings: a TOML file and `key.sub=value` overrides → one frozen, validated pydantic record.

Defaults stand in the settings class alone. An unknown key is answered with the nearest known one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from tracekit.core.recipes import SettingsError

__all__ = ["Settings", "SettingsError", "build_settings", "lay_over", "load_settings", "read_toml"]

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of every settings record: frozen, no unknown keys, no silent coercion of meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def load_settings(kind: type[SettingsT], recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> SettingsT:
    """Read a recipe, apply overrides, and validate.

    Parameters
    ----------
    kind : type
        The settings class, such as CurateSettings.
    recipe : str or Path, optional
        A TOML file; None: the defaults. With `extends = "luffy"` it is laid over luffy.toml of its own folder, or over
        the file that it names.
    overrides : sequence of str
        `key.sub=value` with a TOML value; what is no TOML value is a string (`method=luffy` is `method="luffy"`).

    Returns
    -------
    Settings
        A frozen record of class `kind`.

    Raises
    ------
    SettingsError
        In one line: the file, the key, what was found and what is expected; an unknown key names the nearest known one.

    Examples
    --------
    >>> from tracekit import CurateSettings, load_settings
    >>> load_settings(CurateSettings, overrides=["filters.max_tokens=4096", "seed=3"]).filters.max_tokens
    4096
    """
    tree = read_recipe(recipe) if recipe is not None else {}
    for override in overrides:
        _override(tree, override)
    return build_settings(kind, tree, str(recipe) if recipe is not None else "settings")


def build_settings(kind: type[SettingsT], tree: dict[str, Any], name: str) -> SettingsT:
    """Validate a tree of plain values as `kind`; every fault is told in one line."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = [_explain(kind, name, fault) for fault in error.errors()]
        more = f"; and {len(faults) - 2} more faults" if len(faults) > 3 else ""
        raise SettingsError("; ".join(faults[: 2 if more else 3]) + more) from error


def lay_over(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with `changes` laid over it, table by table."""
    merged = dict(tree)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = lay_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as a tree of plain values. Raises SettingsError where it is absent or damaged."""
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"{path} does not exist; expected a recipe in TOML.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}.") from error


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A recipe laid over the one that its `extends` names, and so on. Raises SettingsError where they form a circle."""
    path, trees, seen = Path(path), list[dict[str, Any]](), set[Path]()
    while True:
        if path.resolve() in seen:
            raise SettingsError(
                f"{path}: extends comes back to a recipe that extends it; expected a chain with an end."
            )
        seen.add(path.resolve())
        trees.append(read_toml(path))
        base = trees[-1].pop("extends", None)
        if base is None:
            break
        path = _extended(path, base)
    merged: dict[str, Any] = {}
    for tree in reversed(trees):
        merged = lay_over(merged, tree)
    return merged


def _extended(path: Path, base: Any) -> Path:
    """The file that a recipe's `extends` names: a path from the recipe's own folder, .toml or not."""
    if not isinstance(base, str):
        raise SettingsError(f"{path}: extends is {base!r}; expected the name or path of a recipe.")
    named = path.parent / base
    return named if named.suffix == ".toml" else named.with_name(f"{named.name}.toml")


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(f"{override!r} is no override; write key=value or key.sub=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{key}: {parent} is a value, not a table; it has no key {last}.")
    tree[last] = value


def _explain(kind: type[BaseModel], name: str, fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "value_error":  # a record's own check says what it found; all of its input would bury that
        return ": ".join(part for part in (name, key, str(fault["ctx"]["error"])) if part)
    if fault["type"] == "missing":
        return f"{name}: {key} is missing and has no default"
    if fault["type"] != "extra_forbidden":
        return f"{name}: {key or 'settings'} is {fault['input']!r}: {fault['msg']}"
    known = _known_keys(kind)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:  # `rats` under another table: compare the last word alone
        tails = {k.rsplit(".", 1)[-1]: k for k in known}
        near = [tails[t] for t in difflib.get_close_matches(key.rsplit(".", 1)[-1], tails, n=1, cutoff=0.5)]
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}."
    return f"{name}: unknown key {key}; {hint}"


def _known_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for field_name, info in kind.model_fields.items():
        keys.append(prefix + field_name)
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                keys += _known_keys(part, f"{prefix}{field_name}.")
    return keys
