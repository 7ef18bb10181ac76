"""README's commands exist, its code runs, and what it links to stands."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_every_python_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """Blocks of one page run in order, in one interpreter and an empty folder."""
    script = tmp_path / "blocks.py"
    script.write_text("\n\n".join(blocks(page, "python")), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, f"{page.name}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"study", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    from tracekit.cli.app import COMMANDS

    known = {command.name for command in COMMANDS} | {"COMMAND", "CMD"}
    named = set(re.findall(r"`tracekit ([\w-]+)", page.read_text(encoding="utf-8")))
    named |= set(re.findall(r"^tracekit ([\w-]+)", "\n".join(blocks(page, "")), flags=re.M))
    assert named <= known, f"{page.name} names {', '.join(named - known)}"


def test_generated_references_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    generate = importlib.import_module("generate")
    for file, page in generate.PAGES.items():
        assert (ROOT / "docs" / file).read_text(encoding="utf-8") == page(), f"run python docs/generate.py: {file}"


def test_every_setting_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    generate = importlib.import_module("generate")
    empty = [
        f"{command}: {row[0]}"
        for command, target in generate.SETTINGS.items()
        for row in generate.rows_of(generate.load(target))
        if not row[3]
    ]
    assert empty == []
