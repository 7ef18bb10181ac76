"""The dependency rule between layers, and where heavy packages may be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("evaluators", "tracekit", "trainer", "probes")
#: The dependency rule: a layer imports itself and the layers named beside it, and nothing else of ours.
LAYERS = {
    "evaluators": (),
    "tracekit.core": ("evaluators",),  # the list of think tags is the verifier's
    "tracekit.text": ("tracekit.core", "evaluators"),
    "tracekit.reading": ("tracekit.core", "evaluators"),
    "tracekit.collection": ("tracekit.core", "tracekit.reading", "evaluators"),  # one way to join thought and answer
    # a reference model is asked through the request ledger of `collect`
    "tracekit.curation": ("tracekit.core", "tracekit.text", "tracekit.reading", "tracekit.collection", "evaluators"),
    "trainer": ("tracekit.core", "tracekit.text", "evaluators"),
    "probes": ("tracekit.core", "tracekit.text", "evaluators"),
    "tracekit.viewer": ("tracekit.core", "tracekit.curation", "tracekit.text", "tracekit.reading", "evaluators"),
    "tracekit.study": ("evaluators", "tracekit", "trainer", "probes"),
    "tracekit.cli": ("evaluators", "tracekit", "trainer", "probes"),
}


#: Heavy package → the only places that may import it.
ONLY_IN = {
    "vllm": ("trainer/rollouts/engines/",),
    "ray": ("tracekit/curation/ray_engine.py",),
    "matplotlib": ("probes/", "tracekit/study/"),
    "numba": ("probes/",),
    "sklearn": ("probes/",),
    "peft": ("trainer/modeling/models.py", "trainer/loops/checkpoint.py"),
    # OpenRLHF wants tensors: its adapter alone makes them
    "torch": ("trainer/", "probes/", "tracekit/study/", "evaluators/rewards.py", "tracekit/core/models.py"),
    "transformers": ("trainer/", "probes/", "tracekit/study/", "tracekit/core/models.py"),
}


#: Attribute → the only modules that may use it.
ONE_PLACE = {
    # Called without trust_remote_code, transformers asks on standard input. tokenizers' own reads JSON alone.
    "from_pretrained": ("tracekit/core/models.py", "tracekit/text/tokens.py"),
    "apply_chat_template": ("tracekit/core/prompts.py",),
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
def test_a_module_imports_only_its_own_layer_and_those_named_beside_it(module: str, path: Path) -> None:
    layer = next((name for name in LAYERS if within(module, (name,))), None)
    if layer is None:
        return  # tracekit itself: the public names, loaded lazily from every layer
    for name in imports(path):
        if name.partition(".")[0] in PACKAGES:
            allowed = (layer, *LAYERS[layer])
            assert within(name, allowed), f"{module} imports {name}; {layer} may import {', '.join(allowed)}"
            if layer != "tracekit.cli":
                assert not within(name, ("tracekit.cli",)), f"{module} imports the command line: {name}"


@pytest.mark.parametrize("heavy", ONLY_IN)
def test_heavy_packages_stay_in_their_places(heavy: str) -> None:
    for _, path in modules():
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(ONLY_IN[heavy]):
            users = [name for name in imports(path) if name.partition(".")[0] == heavy]
            assert not users, f"{place} imports {heavy}; only {', '.join(ONLY_IN[heavy])} may"


@pytest.mark.parametrize(("name", "places"), ONE_PLACE.items())
def test_what_has_one_place_is_done_nowhere_else(name: str, places: tuple[str, ...]) -> None:
    for _, path in modules():
        place = path.relative_to(ROOT).as_posix()
        calls = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)
        ]
        assert place in places or name not in {call.attr for call in calls}, f"{place} calls {name}: {places[0]} does"


@pytest.mark.parametrize(
    "package", ["evaluators", "tracekit", "tracekit.core.tables", "tracekit.core.prompts", "tracekit.cli.app"]
)
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
    from tracekit.core.tables import SCHEMAS

    for table, schema in SCHEMAS.items():
        assert f"## {table}" in page, f"docs/data.md does not describe {table}"
        for column in schema:
            assert f"`{column}`" in page, f"docs/data.md does not describe {table}.{column}"


def module_imports() -> dict[str, set[str]]:
    """Module → the modules of ours that it imports, deferred imports counted, those for type checkers alone not."""
    known = dict(modules())
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= inner & known.keys() or {node.module}  # a module of a package, or names of a module
        # the packages' own names are loaded lazily
        graph[module] = {name for name in found if name in known and name not in PACKAGES} - {module}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert cycles(module_imports()) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_keeps_few_modules_in_its_top_folder(package: str) -> None:
    assert len([path for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]) <= 9
