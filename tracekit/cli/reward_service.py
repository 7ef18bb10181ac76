"""`tracekit serve-verifier` and `tracekit attack-reward`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tracekit.cli.rows import has_column, read_rows, write_rows
from tracekit.cli.verify import (
    GOLD_COLUMNS,
    PROMPT_COLUMNS,
    beside,
    first_column,
    judge_from,
    progress_bar,
    texts_of,
)


def command_serve_verifier(
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    deadline_seconds: float = 1.0,
    judge: str | None = None,
    judge_model: str | None = None,
    judge_cache: Path | None = None,
) -> None:
    """Serve the verifier over HTTP until interrupted: JSON, single or in batches; rates by outcome.

    Example: tracekit serve-verifier --port 8765

    Parameters
    ----------
    host
        Address to listen on. The service asks for no password: leave it local.
    port
        Port to listen on; 0 takes a free one.
    deadline_seconds
        CPU time that sympy may take for one row.
    judge
        Base URL of an OpenAI-compatible endpoint, asked about undecided verdicts alone; its key is read from
        OPENAI_API_KEY.
    judge_model
        Name of its model.
    judge_cache
        JSONL file of its replies, with what was asked.
    """
    from evaluators.service.server import VerifierServer
    from evaluators.verdict import Policy

    policy = Policy(deadline_seconds=deadline_seconds)
    with VerifierServer(host, port, policy, judge_from(judge, judge_model, judge_cache)) as server:
        address = f"http://{server.server_address[0]!s}:{server.server_address[1]}"
        Console(stderr=True).print(f"Verifier at {address}: POST /verify, POST /reward, GET /rates, GET /health")
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.serve_forever()


def command_attack_reward(
    file: Path, *, gold: str | None = None, prompt: str | None = None, output: Path | None = None, examples: int = 3
) -> None:
    """Print which responses that solve nothing would be paid on a data set, by attack, and write them beside it.

    Example: tracekit attack-reward problems.parquet --gold answer --prompt question

    Parameters
    ----------
    file
        JSONL or Parquet with a column of golds.
    gold
        Column of the golds, `a.b` for a field of a struct; by default as in `tracekit verify`.
    prompt
        Column of the questions, as text or messages; by default the first of problem, prompt, question, input, if any.
    output
        Where the paying responses go; by default FILE.attacks.jsonl or .parquet beside the file.
    examples
        How many paying responses of each attack are shown.
    """
    from evaluators.service.attacks import attack_golds

    rows = read_rows([file])
    gold = gold or first_column(rows, GOLD_COLUMNS, "gold")
    prompt = prompt or next((name for name in PROMPT_COLUMNS if has_column(rows, name) and name != gold), None)
    prompts = None if prompt is None else [str(value or "") for value in texts_of(rows, prompt)]
    with progress_bar("attack") as progress:
        report = attack_golds(texts_of(rows, gold), prompts, progress=progress)
    output = output or beside(file, "attacks") or Path("attacks.jsonl")
    if report.examples:
        write_rows([asdict(found) for found in report.examples], output)
    shown = Table("attack", "tried", "rows that pay", "examples", title=f"{report.rows} golds")
    for name, tried in report.tried.items():
        paying = [found for found in report.examples if found.attack == name]
        text = "\n".join(f"{found.response!r:.60} pays for {found.gold!r:.30}" for found in paying[:examples])
        shown.add_row(name, str(tried), str(report.rows_paying(name)), text)
    Console().print(shown)
    if report.examples:
        Console().print(f"The {len(report.examples)} paying responses are in {output}.")
