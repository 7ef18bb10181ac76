"""The command line. A command is "module:function", imported when it is called, so that `--help` costs no torch."""

from __future__ import annotations

import ast
import errno
import importlib
import importlib.util
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from cyclopts import App, CycloptsError

DISTRIBUTION = "reasoning-tracekit"
PACKAGES = ("evaluators", "tracekit", "trainer", "probes")

#: Third-party packages of an extra, and the extra that installs them.
EXTRA_OF = {
    **dict.fromkeys(("filelock", "httpx", "numpy", "polars", "pyarrow", "pydantic", "zstandard"), "curate"),
    **dict.fromkeys(("datasets", "huggingface_hub"), "hub"),
    **dict.fromkeys(("torch", "transformers", "tokenizers", "accelerate", "safetensors", "tensorboard"), "train"),
    **dict.fromkeys(("matplotlib", "numba", "sklearn", "scipy", "threadpoolctl"), "probe"),
    **{name: name for name in ("trl", "vllm", "ray", "peft")},
}

USER_ERROR, GATE_FAILED, INTERNAL_FAULT, INTERRUPTED = 2, 3, 70, 130

#: Commands that go on where they were interrupted.
RESUMED = ("collect", "curate", "evaluate", "probe", "restore", "study", "train", "verify")


@dataclass(frozen=True)
class Command:
    """One command: where it stands and what the overview says of it."""

    name: str
    target: str
    help: str


COMMANDS = (
    Command(
        "curate", "tracekit.cli.curate:command_curate", "Curate teacher traces: verify, filter, deduplicate, export."
    ),
    Command("init", "tracekit.cli.curate:command_init", "Write a recipe for a file of traces."),
    Command("why", "tracekit.cli.curate:command_why", "Tell the whole story of one problem or trace of a curation."),
    Command("restore", "tracekit.cli.curate:command_restore", "Bring a dropped trace back into a curated set."),
    Command("diff", "tracekit.cli.curate:command_diff", "Compare two curations row by row."),
    Command("segment", "tracekit.cli.stages:command_segment", "Cut responses into steps and tag them."),
    Command("duplicates", "tracekit.cli.stages:command_duplicates", "Find exact and near duplicates."),
    Command(
        "contamination",
        "tracekit.cli.stages:command_contamination",
        "Find benchmark problems in a set of problems.",
    ),
    Command("export", "tracekit.cli.stages:command_export", "Write a curated set in a trainer's format."),
    Command("push", "tracekit.cli.stages:command_push", "Push a model or an exported data set to the hub."),
    Command("verify", "tracekit.cli.verify:command_verify", "Verify responses against golds, row by row."),
    Command(
        "audit-gold", "tracekit.cli.verify:command_audit_gold", "Tell which golds cannot be verified or are hackable."
    ),
    Command("serve-verifier", "tracekit.cli.reward_service:command_serve_verifier", "Serve the verifier over HTTP."),
    Command("attack-reward", "tracekit.cli.reward_service:command_attack_reward", "Try rewards with empty answers."),
    Command("collect", "tracekit.cli.collect:command_collect", "Ask a teacher for traces."),
    Command(
        "train",
        "tracekit.cli.train:command_train",
        "Train: pretrain, cpt, sft, dpo, grpo, luffy, rl_sft.",
    ),
    Command(
        "evaluate", "tracekit.cli.evaluate:command_evaluate", "Evaluate checkpoints: greedy, pass@k, majority vote."
    ),
    Command("probe", "tracekit.cli.probe:command_probe", "Test which reasoning features became linearly separable."),
    Command("probe fit", "tracekit.cli.probe_use:command_probe_fit", "Fit a probe on one model and keep it."),
    Command("probe apply", "tracekit.cli.probe_use:command_probe_apply", "Score new traces with a kept probe."),
    Command("probe early", "tracekit.cli.probe_use:command_probe_early", "How early a probe tells a correct answer."),
    Command("probe erase", "tracekit.cli.probe_use:command_probe_erase", "Erase a feature and answer again."),
    Command("probe steer", "tracekit.cli.probe_use:command_probe_steer", "Push along a direction and answer again."),
    Command("study", "tracekit.cli.study:command_study", "Run the whole experiment and write its report."),
    Command("demo", "tracekit.cli.demo:command_demo", "Write the published study's pages and open them."),
    Command(
        "preflight",
        "tracekit.cli.preflight:command_preflight",
        "Forecast whether RL can begin from a model on a set of problems.",
    ),
    Command("recipes", "tracekit.cli.recipes:command_recipes", "List the recipes that come with the packages."),
    Command("recipe", "tracekit.cli.recipes:command_recipe", "Print a recipe, to be saved and edited."),
    Command("view", "tracekit.cli.view:command_view", "Write a page to read traces, decisions and rollouts."),
)


def build_app(called: str | None) -> App:
    """The command line. called: the command in use; its help is its own docstring.

    The others carry the overview's line, so that no module of theirs is imported to draw it.
    """
    called = (called or "").partition(" ")[0]
    app = App(
        name="tracekit",
        help="Curate and verify reasoning traces, train by imitation and RL, probe what changed.",
        version=lambda: metadata.version(DISTRIBUTION),
        suppress_keyboard_interrupt=False,  # main() says how to go on
        help_epilogue="A fault ends with one line and code 2; TRACEKIT_TRACEBACK=1 shows where it arose.",
    )
    app.register_install_completion_command(add_to_startup=False)
    for command in COMMANDS:
        parts = [part for part in COMMANDS if part.name.startswith(f"{command.name} ")]
        if " " in command.name:
            continue  # a part of another command, added with it
        if parts and command.name == called:
            app.command(_with_parts(command, parts))
            continue
        below = f" Also: {', '.join(part.name for part in parts)}." if parts else ""
        line = {} if command.name == called else {"help": command.help + below}
        app.command(command.target, name=command.name, **line)
    return app


def _with_parts(command: Command, parts: list[Command]) -> App:
    """A command that has others below it: `probe`, and `probe fit`."""
    module, _, function = command.target.partition(":")
    group = App(name=command.name)
    group.default(getattr(importlib.import_module(module), function))
    for part in parts:
        group.command(part.target, name=part.name.removeprefix(f"{command.name} "))
    return group


def main() -> None:
    """Entry point of the `tracekit` script: 0 done, 2 what the user can mend, 3 a failed gate of a study."""
    try:
        shadow = find_shadow()
        if shadow:
            raise ValueError(shadow)
        sys.argv[1:] = ["/dev/stdin" if word == "-" else word for word in sys.argv[1:]]  # cyclopts knows no lone dash
        warnings.showwarning = _show_warning
        build_app(sys.argv[1] if len(sys.argv) > 1 else None)(
            sys.argv[1:], exit_on_error=False
        )  # CycloptsError: it has printed its own panel, the nearest known name in it
    except CycloptsError:
        sys.exit(USER_ERROR)
    except ImportError as error:
        if not ({"--help", "-h"} & set(sys.argv) and print_help_from_source(sys.argv[1])):
            fail(error)
    except (ValueError, OSError, MemoryError) as error:
        fail(error)
    except RuntimeError as error:
        fail(error) if _is_memory(error) else fail_internally(error)
    except KeyboardInterrupt:
        print(f"tracekit: interrupted; {going_on(sys.argv[1:])}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        fail_internally(error)


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    """A warning as a line, without the source line that raised it."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def going_on(words: list[str]) -> str:
    """What to do after an interruption: the command to run again, which keeps what was done."""
    command = shlex.join(["tracekit", *words])
    if words and words[0] in RESUMED:
        return f"what was done is kept. To go on, run the same command again: {command}"
    return f"to start again, run: {command}"


def fail(error: Exception) -> NoReturn:
    """End with one sentence and code 2; TRACEKIT_TRACEBACK=1 raises the fault as it is."""
    if os.environ.get("TRACEKIT_TRACEBACK"):
        raise error
    print(f"tracekit: {explain(error)}", file=sys.stderr)
    sys.exit(USER_ERROR)


def fail_internally(error: Exception) -> NoReturn:
    """End with code 70 on a fault that no message foresees: it is one of tracekit, and its place is named."""
    if os.environ.get("TRACEKIT_TRACEBACK"):
        raise error
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).resolve().parents[2])]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "unknown place"
    said = " ".join(str(error).split())[:300]
    print(
        f"tracekit: internal fault at {place}: {type(error).__name__}: {said}. This is a fault of tracekit; please "
        "report it with what TRACEKIT_TRACEBACK=1 shows.",
        file=sys.stderr,
    )
    sys.exit(INTERNAL_FAULT)


def _is_memory(error: BaseException) -> bool:
    """Whether torch could not allocate: it raises RuntimeError on a CPU."""
    return any(words in str(error) for words in ("can't allocate memory", "out of memory", "not enough memory"))


def print_help_from_source(name: str) -> bool:
    """Print a command's docstring without importing its module, whose extra is not installed; False for no command."""
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        return False
    module, _, function = command.target.partition(":")
    path = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            print(f"Usage: tracekit {name}\n\n{ast.get_docstring(node)}")
            return True
    return False


def explain(error: Exception) -> str:
    """One line: what was found, what was expected, what to do."""
    for cause in _causes(error):
        package = (cause.name or "").partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
        if extra := EXTRA_OF.get(package):
            return (
                f"this command needs {package}, which is not installed: pip install '{DISTRIBUTION}[{extra}]', "
                f"or in a clone: pip install -e '.[{extra}]'."
            )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        said = os.strerror(error.errno).lower()
        return f"{said} while writing {error.filename or 'a file'}; make room and run again, it goes on from there."
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist."
    if isinstance(error, MemoryError) or _is_memory(error):
        return f"out of memory ({str(error) or 'no more could be allocated'}); give the process more, or work on parts."
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def find_shadow() -> str | None:
    """Return why a package of ours is imported from elsewhere, as a sentence for the user; None if all are ours.

    `tracekit`, `trainer`, `evaluators` and `probes` are names of other people's packages on the index too.
    """
    home = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if found == home:
            continue
        if found == Path.cwd():
            return (
                f"the working directory holds a package {package}, which Python imports in place of that of "
                f"{DISTRIBUTION}: run the command `tracekit` (under torchrun: --no-python tracekit), or change folder."
            )
        return (
            f"the package {package} is imported from {found or 'nowhere'}, not from {DISTRIBUTION} in {home}: "
            f"uninstall that one or take it off PYTHONPATH, then install {DISTRIBUTION} again."
        )
    return None


if __name__ == "__main__":
    main()
