"""Who may import whom, and how big a room may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("evaluators", "tracekit", "trainer", "probes")
ROOF = (
    "tracekit.cli",
    "tracekit.collect_command",
    "tracekit.evaluate_command",
    "tracekit.evaluate_sets",
    "tracekit.study",
)

#: What trainer and probes may take from tracekit.
SHARED = ("tracekit.tables", "tracekit.config", "tracekit.runs", "tracekit.ids", "tracekit.progress")
#: Package → the modules of ours that it may import, beside its own.
MAY_IMPORT = {
    "evaluators": (),
    "tracekit": ("evaluators",),
    "trainer": ("evaluators", *SHARED, "tracekit.world"),
    "probes": (*SHARED, "tracekit.segment"),
}

#: Heavy package → the only places that may import it.
ONLY_IN = {
    "vllm": ("trainer/engines/",),
    "ray": ("tracekit/ray_engine.py", "tracekit/curate_ray.py"),
    "matplotlib": ("probes/", "tracekit/study/"),
    "numba": ("probes/",),
    "sklearn": ("probes/",),
    "peft": ("trainer/models.py", "trainer/checkpoint.py"),
    # OpenRLHF wants tensors: its adapter alone makes them
    "torch": ("trainer/", "probes/", "tracekit/study/", "evaluators/rewards.py"),
    "transformers": ("trainer/", "probes/", "tracekit/study/", "tracekit/world.py"),
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize(("module", "path"), list(modules()))
def test_a_room_imports_only_what_the_plan_allows(module: str, path: Path) -> None:
    package = module.partition(".")[0]
    if within(module, ROOF):
        return
    allowed = (package, *MAY_IMPORT[package])
    for name in imports(path):
        if name.partition(".")[0] in PACKAGES:
            assert within(name, allowed), f"{module} imports {name}; {package} may import {', '.join(allowed)}"
            assert not within(name, ROOF), f"{module} imports the roof: {name}"


@pytest.mark.parametrize("heavy", ONLY_IN)
def test_heavy_packages_stay_in_their_places(heavy: str) -> None:
    for _, path in modules():
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(ONLY_IN[heavy]):
            users = [name for name in imports(path) if name.partition(".")[0] == heavy]
            assert not users, f"{place} imports {heavy}; only {', '.join(ONLY_IN[heavy])} may"


@pytest.mark.parametrize("package", ["evaluators", "tracekit", "tracekit.tables", "tracekit.cli"])
def test_importing_the_ground_floor_loads_no_heavy_package(package: str) -> None:
    heavy = "{'torch', 'transformers', 'sympy', 'matplotlib', 'numba', 'sklearn', 'datasets'}"
    code = f"import sys, {package}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_file_grows_past_five_hundred_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for _, p in modules() if (n := p.read_text(encoding="utf-8").count("\n")) > 500}
    assert not long


def test_every_settings_record_and_table_is_documented() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    from tracekit.tables import SCHEMAS

    for table, schema in SCHEMAS.items():
        assert f"## {table}" in page, f"docs/data.md does not describe {table}"
        for column in schema:
            assert f"`{column}`" in page, f"docs/data.md does not describe {table}.{column}"
