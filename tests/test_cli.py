"""The command line: every command is documented, and every fault is one line and code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tracekit.cli.app import COMMANDS, Command, build_app, explain, find_shadow
from tracekit.core.runs import RunError, start_run
from tracekit.core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def tracekit(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tracekit.cli", *words], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_command_is_in_the_reference_and_its_help_shows_an_example(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"## `tracekit {command.name}`" in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        build_app(command.name.partition(" ")[0])([*command.name.split(), "--help"])
    assert left.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "example" in shown.lower(), f"tracekit {command.name} --help shows no example"
    assert f"tracekit {command.name}" in shown


def test_the_overview_names_every_command() -> None:
    overview = tracekit("--help").stdout
    assert all(command.name in overview for command in COMMANDS if " " not in command.name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-command"], ""),
        (["train", "no-such-recipe.toml"], "no-such-recipe.toml does not exist"),
        (["train", "method=sft"], "output is missing"),
        (["study", "seedz=[0]"], "did you mean seed"),
        (["study", "world.habitt=0.1"], "did you mean world.habit"),
        (["curate", "no-such-recipe.toml"], "no-such-recipe.toml"),
        (["verify", "no-such-file.jsonl"], "no-such-file.jsonl"),
    ],
)
def test_a_fault_of_the_user_is_one_line_and_code_two(words: list[str], said: str, tmp_path: Path) -> None:
    done = tracekit(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "a refused command left something behind"


class _Recipe(Settings):
    rate: int = 1


def test_a_run_that_failed_at_its_start_binds_nobody_and_one_with_results_does(tmp_path: Path) -> None:
    start_run(tmp_path, _Recipe(), seed=0)
    start_run(tmp_path, _Recipe(rate=2), seed=0)
    (tmp_path / "result.json").touch()
    start_run(tmp_path, _Recipe(rate=2), seed=0)
    with pytest.raises(RunError, match=r"settings\.rate is 2 there and 3 here"):
        start_run(tmp_path, _Recipe(rate=3), seed=0)


def test_a_missing_extra_is_named_with_the_install_that_adds_it() -> None:
    error = ImportError("cannot import")
    error.__cause__ = ModuleNotFoundError("No module named 'numba'", name="numba")
    assert "pip install 'reasoning-tracekit[probe]'" in explain(error)


def test_a_full_disk_is_told_plainly() -> None:
    assert "no space left" in explain(OSError(28, "No space left on device", "out.parquet"))


def test_a_package_of_another_distribution_in_our_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "evaluators").mkdir()
    (tmp_path / "evaluators" / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from tracekit.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "the package evaluators is imported from" in done.stderr


def test_nothing_stands_in_the_way_here() -> None:
    assert find_shadow() is None
