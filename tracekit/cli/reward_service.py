"""`tracekit serve-verifier` and `tracekit attack-reward`."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tracekit.cli.arguments import print_json
from tracekit.cli.row_output import check_output, write_rows
from tracekit.cli.rows import has_column, read_rows
from tracekit.cli.verify import (
    GOLD_COLUMNS,
    PROMPT_COLUMNS,
    beside,
    first_column,
    judge_from,
    texts_of,
)
from tracekit.core.progress import draw_progress


def command_serve_verifier(
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    deadline_seconds: float = 1.0,
    judge: str | None = None,
    judge_model: str | None = None,
    judge_cache: Path | None = None,
    json: bool = False,
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
    json
        Print one JSON object when the service listens: its address.
    """
    from evaluators.service.server import VerifierServer
    from evaluators.verdict import Policy

    policy = Policy(deadline_seconds=deadline_seconds)
    with VerifierServer(host, port, policy, judge_from(judge, judge_model, judge_cache)) as server:
        address = f"http://{server.server_address[0]!s}:{server.server_address[1]}"
        if json:
            print_json({"address": address})
            sys.stdout.flush()
        Console(stderr=True).print(f"Verifier at {address}: POST /verify, POST /reward, GET /rates, GET /health")
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.serve_forever()


def command_attack_reward(
    file: Path,
    *more: Path,
    gold: str | None = None,
    prompt: str | None = None,
    output: Path | None = None,
    examples: int = 3,
    json: bool = False,
) -> None:
    """Print which responses that solve nothing would be paid on a data set, by attack, and write them beside it.

    Example: tracekit attack-reward problems.parquet --gold answer --prompt question

    Parameters
    ----------
    file, more
        JSONL, JSON, CSV or Parquet with a column of golds; - is standard input, as JSONL.
    gold
        Column of the golds, `a.b` for a field of a struct; by default as in `tracekit verify`.
    prompt
        Column of the questions, as text or messages; by default the first of problem, prompt, question, input, if any.
    output
        Where the paying responses go; by default FILE.attacks.jsonl or .parquet beside the file.
    examples
        How many paying responses of each attack are shown.
    json
        Print one JSON object: rows, responses tried and rows that pay by attack, and where the responses are.
    """
    from evaluators.service.attacks import Paying, attack_golds

    files, columns = (file, *more), [field.name for field in fields(Paying)]
    output = check_output(output or beside(file, "attacks") or Path("attacks.jsonl"), columns, "attacks", files)
    rows = read_rows(files)
    gold = gold or first_column(rows, GOLD_COLUMNS, "gold")
    prompt = prompt or next((name for name in PROMPT_COLUMNS if has_column(rows, name) and name != gold), None)
    prompts = None if prompt is None else [str(value or "") for value in texts_of(rows, prompt)]
    with draw_progress() as progress:
        report = attack_golds(texts_of(rows, gold), prompts, progress=progress)
    written = write_rows([asdict(found) for found in report.examples], output, columns)
    if json:
        attacks = {
            name: {"tried": tried, "rows_paying": report.rows_paying(name)} for name, tried in report.tried.items()
        }
        print_json({"rows": report.rows, "attacks": attacks, "responses": written})
        return
    shown = Table("attack", "tried", "rows that pay", "examples", title=f"{report.rows} golds")
    for name, tried in report.tried.items():
        paying = [found for found in report.examples if found.attack == name]
        text = "\n".join(f"{found.response!r:.60} pays for {found.gold!r:.30}" for found in paying[:examples])
        shown.add_row(name, str(tried), str(report.rows_paying(name)), text)
    Console().print(shown)
    if report.examples:
        Console().print(f"The {len(report.examples)} paying responses are in {written}.", markup=False, soft_wrap=True)
