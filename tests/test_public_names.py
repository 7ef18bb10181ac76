"""The public surface: every exported name loads, is documented, and is what documents and examples import."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("evaluators", "tracekit", "trainer", "probes")
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_an_exported_name_loads(package: str, name: str) -> None:
    assert getattr(importlib.import_module(package), name) is not None


@pytest.mark.parametrize(("package", "name"), [pair for pair in NAMES if pair[1] != "__version__"])
def test_an_exported_function_or_class_is_documented(package: str, name: str) -> None:
    found = getattr(importlib.import_module(package), name)
    if callable(found) or inspect.ismodule(found):
        assert inspect.getdoc(found), f"{package}.{name} has no docstring"


#: Their fields stand in docs/settings.md.
SETTINGS = ("CollectSettings", "CurateSettings", "SourceSettings", "StudySettings", "EvaluateSettings", "TrainSettings")


@pytest.fixture(scope="module")
def folder_with_traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples read: traces.jsonl."""
    folder = tmp_path_factory.mktemp("examples")
    sys.path.insert(0, str(ROOT / "examples"))
    importlib.import_module("tiny_inputs").write_traces(folder / "traces.jsonl")
    return folder


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_the_example_of_a_public_name_runs(
    package: str, name: str, folder_with_traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = getattr(importlib.import_module(package), name)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return
    text = inspect.getdoc(found) or ""
    examples = [test for test in doctest.DocTestFinder(recurse=False).find(found, name, globs={}) if test.examples]
    assert examples, f"{package}.{name} has no example"
    if name not in SETTINGS and not (inspect.isclass(found) and issubclass(found, Enum)):
        assert "Parameters\n---" in text or "Attributes\n---" in text, f"{package}.{name} names no parameters"
    monkeypatch.chdir(folder_with_traces)
    for example in examples:
        report: list[str] = []
        assert doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_function_wins_over_a_module_of_its_name(package: str) -> None:
    code = (
        f"import {package}, trainer.train, evaluators.verify; "
        "from trainer import train; from evaluators import verify; print(callable(train), callable(verify))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "True"]


def test_verifying_stays_light() -> None:
    code = "import sys, evaluators; print(sorted({'sympy', 'polars', 'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def imported(source: str) -> set[str]:
    """Our modules that a piece of Python imports from."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


#: What trainers load by path, and what is documented as a module of its own.
BY_PATH = {"evaluators.rewards", "evaluators.verify", "trainer.adapters.trl", "trainer.adapters.verl"}


@pytest.mark.parametrize("page", [ROOT / "README.md"], ids=lambda page: page.name)
def test_documents_import_from_the_packages_alone(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        foreign = imported(block) - set(PACKAGES) - BY_PATH
        assert not foreign, f"{page.name} imports from {', '.join(sorted(foreign))}"
