"""The commands `recipes` and `recipe`: list the recipes that come along, and print one to edit."""

from __future__ import annotations

import sys
from pathlib import Path

from tracekit.cli.arguments import print_json

#: Package that ships recipes → the commands that take them.
COMMAND_OF = {"tracekit": "curate, evaluate", "trainer": "train", "tracekit.study": "study"}


def command_recipes(*, json: bool = False) -> None:
    """List the recipes that come with the packages.

    Example: tracekit recipes

    Parameters
    ----------
    json
        Print one JSON object: recipe → command and file.
    """
    found = recipe_files()
    if json:
        print_json({name: {"command": command, "file": path} for name, (command, path) in found.items()})
        return
    for name, (command, path) in found.items():
        print(f"{name:14} tracekit {command:18} {_first_comment(path)}")


def command_recipe(name: str, *, json: bool = False) -> None:
    """Print a recipe, to be saved under a name of your own and edited.

    Example: tracekit recipe luffy > mine.toml

    Parameters
    ----------
    name
        A name that `tracekit recipes` lists.
    json
        Print one JSON object: the recipe's text and file.
    """
    from tracekit.core.settings import SettingsError

    found = recipe_files()
    if name not in found:
        raise SettingsError(f"{name} is no recipe; expected one of {', '.join(found)}.")
    text = found[name][1].read_text(encoding="utf-8")
    if json:
        print_json({"recipe": name, "command": found[name][0], "file": found[name][1], "text": text})
    else:
        sys.stdout.write(text)


def recipe_files() -> dict[str, tuple[str, Path]]:
    """Recipe → the commands that take it and its file."""
    from tracekit.core.recipes import shipped_recipes

    return {path.stem: (command, path) for package, command in COMMAND_OF.items() for path in shipped_recipes(package)}


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
