"""One grammar for every command: files or a recipe first, then settings as key=value, then options.

A recipe is a TOML file, or the name of one that comes with a package. A word with "=" is a setting, unless a file of
that name exists. `--output FOLDER` is the setting `output`. With `--json` a command prints one JSON object on standard
output and everything else on standard error.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tracekit.core.recipes import SettingsError, find_recipe

_SETTING = re.compile(r"[A-Za-z_][\w.-]*=")


@dataclass(frozen=True)
class Words:
    """The words of a command line, by what they are: `names` (recipes, models, files) and `settings` (key=value)."""

    names: tuple[str, ...]
    settings: tuple[str, ...]


def split_words(words: Iterable[str | Path | None], output: Path | None = None) -> Words:
    """Tell settings from names.

    Parameters
    ----------
    words
        The positional words of a command; None is left out.
    output
        The value of `--output`; it becomes the setting `output`.

    Raises
    ------
    SettingsError
        If `--output` and the setting `output` name different folders.

    Examples
    --------
    >>> split_words(["luffy", "optimizer.lr=1e-6"])
    Words(names=('luffy',), settings=('optimizer.lr=1e-6',))
    """
    given = [str(word) for word in words if word is not None]
    settings = [word for word in given if _SETTING.match(word) and not Path(word).exists()]
    if output is not None:
        for setting in settings:
            key, _, value = setting.partition("=")
            if key == "output" and Path(value) != output:
                raise SettingsError(f"--output {output} and {setting} name two folders; give one of them.")
        settings.append(f"output={json.dumps(str(output))}")
    return Words(tuple(word for word in given if word not in settings), tuple(settings))


def recipe_and_settings(
    recipe: str | Path | None, overrides: Sequence[str], package: str, output: Path | None = None
) -> tuple[Path | None, tuple[str, ...]]:
    """Return the recipe's file (None without one) and the settings laid over it. Raises SettingsError."""
    words = split_words([recipe, *overrides], output)
    if len(words.names) > 1:
        raise SettingsError(f"{words.names[1]} is no setting; expected one recipe, then settings as key=value.")
    return (find_recipe(words.names[0], package) if words.names else None), words.settings


@contextmanager
def spooled_input(source: str | Path) -> Iterator[str]:
    """A path to read `source` from: itself, or for standard input a copy of it as JSONL, removed at the end."""
    if str(source) not in ("-", "/dev/stdin"):
        yield str(source)
        return
    with TemporaryDirectory(prefix="tracekit-") as folder:
        path = Path(folder) / "standard-input.jsonl"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield str(path)


def print_json(record: Any) -> None:
    """Print one JSON object on standard output: numbers stay numbers, paths become text, NaN becomes null.

    record: a mapping or a dataclass.
    """
    json.dump(_plain(record), sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
