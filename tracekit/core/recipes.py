"""Recipes that come with the packages: TOML files that a command finds by name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

#: Packages that ship recipes, and the folder in each that holds them.
RECIPE_FOLDERS = {"tracekit": "recipes", "trainer": "recipes", "tracekit.study": "recipes"}


class SettingsError(ValueError):
    """Settings cannot be used: the message names the key, what was found and what was expected."""


def find_recipe(recipe: str | Path, package: str) -> Path:
    """Return the file of a recipe: a path, or the name of one that comes with `package`.

    Raises
    ------
    SettingsError
        If there is neither such a file nor such a recipe; the message lists the recipes there are.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = {found.stem: found for found in shipped_recipes(package)}
    name = path.name.removesuffix(".toml")
    if name in shipped and path.parent == Path():
        return shipped[name]
    raise SettingsError(
        f"{recipe} does not exist; expected a recipe in TOML or one of {', '.join(sorted(shipped)) or 'none here'}."
    )


def shipped_recipes(package: str) -> Iterator[Path]:
    """The recipes that come with a package, by name."""
    folder = Path(str(resources.files(package))) / RECIPE_FOLDERS[package]
    yield from sorted(folder.glob("*.toml"))
