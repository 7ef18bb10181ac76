"""`tracekit verify` and `tracekit audit-gold`: verdicts or findings beside the file, a summary on the terminal."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluators.audit import Audit, Fault, Finding, audit_golds
from evaluators.service.judge import Judge
from evaluators.verdict import Outcome, Policy, Verdict
from tracekit.cli.app import GATE_FAILED
from tracekit.cli.arguments import print_json
from tracekit.cli.row_output import check_output, write_rows
from tracekit.cli.rows import columns_of, has_column, is_standard_input, read_rows, stem_of, values_of
from tracekit.cli.verify_parts import journal_of, verify_in_parts
from tracekit.core.progress import draw_progress

RESPONSE_COLUMNS = ("response", "completion", "solution", "output", "prediction")
GOLD_COLUMNS = ("gold", "answer", "ground_truth", "reward_model.ground_truth", "target", "label", "solution")
PROMPT_COLUMNS = ("problem", "prompt", "question", "input")
VERDICT_COLUMNS = ("row", *(field.name for field in fields(Verdict)), "correct")


def command_verify(
    *files: Path,
    response: str | None = None,
    gold: str | None = None,
    output: Path | None = None,
    workers: int | None = None,
    require_box: bool = False,
    symbolic: bool = True,
    deadline_seconds: float = 1.0,
    prompt: str | None = None,
    fail_under: float | None = None,
    judge: str | None = None,
    judge_model: str | None = None,
    judge_cache: Path | None = None,
    json: bool = False,
) -> None:
    """Verify every row of JSONL, JSON, CSV or Parquet files and write the verdicts beside the first.

    Example: tracekit verify rollouts.jsonl --response completion --gold answer

    Parameters
    ----------
    files
        Files with a column of responses and one of golds, plain or compressed; - is standard input, as JSONL.
    response
        Column of the responses; by default the first of response, completion, solution, output, prediction.
    gold
        Column of the golds, `a.b` for a field of a struct; by default the first of gold, answer, ground_truth,
        reward_model.ground_truth, target, label, solution.
    output
        Where the verdicts go, in the same order; by default FILE.verdicts.jsonl or .parquet beside the first file, and
        nowhere for standard input.
    workers
        Interpreters that share the work; by default one a core for large files, none for small ones.
    require_box
        Only a boxed answer counts.
    symbolic
        Whether sympy decides what the other tiers leave open.
    deadline_seconds
        Time that sympy may take for one row.
    prompt
        Column of the questions, so that an answer that restates its question does not count; by default the first of
        problem, prompt, question, input, if any.
    fail_under
        End with code 3 where the accuracy of what is known is below this share, in [0, 1].
    judge
        Base URL of an OpenAI-compatible endpoint, asked about undecided rows alone; its key is read from
        OPENAI_API_KEY.
    judge_model
        Name of its model.
    judge_cache
        JSONL file of its replies, with what was asked; by default FILE.judge.jsonl beside the first file.
    json
        Print one JSON object: rows, outcomes, accuracy, and where the verdicts are.
    """
    target = output or (beside(files[0], "verdicts") if files else None)
    if target is not None:
        check_output(target, VERDICT_COLUMNS, "verdicts", files)
    rows = read_rows(files)
    response = response or first_column(rows, RESPONSE_COLUMNS, "response")
    gold = gold or first_column(rows, tuple(c for c in GOLD_COLUMNS if c != response), "gold")
    prompt = prompt or next((name for name in PROMPT_COLUMNS if has_column(rows, name) and name != response), None)
    policy = Policy(require_box=require_box, symbolic=symbolic, deadline_seconds=deadline_seconds)
    responses, golds = texts_of(rows, response), texts_of(rows, gold)
    prompts = None if prompt is None else texts_of(rows, prompt)
    if judge is not None and judge_cache is None and files and not is_standard_input(files[0]):
        judge_cache = files[0].with_name(f"{files[0].name}.judge.jsonl")
    asked = judge_from(judge, judge_model, judge_cache)
    journal = journal_of(target) if target else None
    with draw_progress() as progress, warnings.catch_warnings(record=True) as raised:
        verdicts = verify_in_parts(
            *(responses, golds, prompts),
            policy=policy,
            workers=workers,
            journal=journal,
            progress=progress,
            judge=asked,
        )
    if target is not None:
        write_rows([_record(row, verdict) for row, verdict in enumerate(verdicts)], target)
    if journal:
        journal.unlink(missing_ok=True)
    accuracy = _accuracy(verdicts)
    if json:
        outcomes = Counter(str(verdict.outcome) for verdict in verdicts)
        print_json({"rows": len(verdicts), "outcomes": outcomes, "accuracy": accuracy, "verdicts": target})
    else:
        Console().print(_verdict_summary(verdicts, target))
    for warning in raised:
        Console(stderr=True).print(f"warning: {warning.message}", markup=False)
    if asked is not None:
        counts = f"asked {asked.asked} times, {asked.recalled} from the cache, {asked.failed} without an answer"
        Console(stderr=True).print(f"judge {asked.model}: {counts}", markup=False)
    if fail_under is not None and not accuracy >= fail_under:
        print(f"tracekit: accuracy {accuracy:.4f} is below --fail-under {fail_under:g}.", file=sys.stderr)
        sys.exit(GATE_FAILED)


def command_audit_gold(
    file: Path,
    *more: Path,
    gold: str | None = None,
    prompt: str | None = None,
    output: Path | None = None,
    constant_share: float = 0.1,
    examples: int = 5,
    json: bool = False,
) -> None:
    """Tell which golds of a dataset cannot be verified and which are hackable; write the findings beside it.

    Example: tracekit audit-gold problems.parquet --gold answer --prompt question

    Parameters
    ----------
    file, more
        JSONL, JSON, CSV or Parquet with a column of golds; - is standard input, as JSONL.
    gold
        Column of the golds, `a.b` for a field of a struct; by default as in `tracekit verify`.
    prompt
        Column of the prompts, as text or messages; by default the first of problem, prompt, question, input, if any.
    output
        Where the findings go, one a row and fault; by default FILE.audit.jsonl or .parquet beside the file.
    constant_share
        A constant answer that solves this share of the rows is a fault of them.
    examples
        How many findings of each fault are shown.
    json
        Print one JSON object: rows, findings by fault, the best constant answers, and where the findings are.
    """
    files = (file, *more)
    columns = [field.name for field in fields(Finding)]
    output = check_output(output or beside(files[0], "audit") or Path("audit.jsonl"), columns, "findings", files)
    rows = read_rows(files)
    gold = gold or first_column(rows, GOLD_COLUMNS, "gold")
    prompt = prompt or next((name for name in PROMPT_COLUMNS if has_column(rows, name) and name != gold), None)
    prompts = None if prompt is None else texts_of(rows, prompt)
    with draw_progress() as progress:
        audit = audit_golds(texts_of(rows, gold), prompts, constant_share=constant_share, progress=progress)
    written = write_rows([asdict(finding) for finding in audit.findings], output, columns)
    if json:
        counts = {str(fault): audit.count(fault) for fault in Fault}
        constants = [{"answer": answer, "share": share} for answer, share in audit.constants]
        print_json({"rows": audit.rows, "faults": counts, "constants": constants, "findings": written})
    else:
        _print_audit(audit, written, examples)


def judge_from(url: str | None, model: str | None, cache: Path | None) -> Judge | None:
    """The judge that the options name, None where they name none. Raises ValueError where one of the two is missing."""
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise ValueError("--judge URL and --judge-model NAME go together")
    return Judge(url, model, cache)


def beside(file: Path, name: str) -> Path | None:
    """FILE.name.jsonl or .parquet beside a file; None for standard input."""
    if is_standard_input(file):
        return None
    stem = stem_of(file)
    ending = ".parquet" if stem.endswith(".parquet") else ".jsonl"
    return file.with_name(f"{stem.rpartition('.')[0] or stem}.{name}{ending}")


def first_column(rows: Sequence[dict[str, Any]], names: tuple[str, ...], what: str) -> str:
    """The first of these columns that the rows have. Raises ValueError."""
    found = next((name for name in names if has_column(rows, name)), None)
    if found is None:
        raise ValueError(
            f"there is no {what} column; there are {', '.join(columns_of(rows))}. Name one with --{what} COLUMN."
        )
    return found


def texts_of(rows: Sequence[dict[str, Any]], column: str) -> list[Any]:
    """A column's values; of a conversation, the text of its last message."""
    return [_last_message(value) for value in values_of(rows, column)]


def _last_message(value: Any) -> Any:
    """The text of a conversation's last message; anything else as it is."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return value[-1].get("content")
    return value


def _record(row: int, verdict: Verdict) -> dict[str, Any]:
    return {"row": row} | asdict(verdict) | {"outcome": str(verdict.outcome), "correct": verdict.correct}


def _accuracy(verdicts: Sequence[Verdict]) -> float:
    """Share of CORRECT among the verdicts that say something of the response; NaN where none does."""
    known = [v for v in verdicts if v.outcome not in (Outcome.UNPARSED_GOLD, Outcome.TIMEOUT)]
    return sum(v.correct for v in known) / len(known) if known else float("nan")


def _verdict_summary(verdicts: list[Verdict], output: Path | None) -> Table:
    share = _accuracy(verdicts)
    accuracy = f"{100 * share:.2f} %" if share == share else "not known"
    slowest = max((verdict.seconds for verdict in verdicts), default=0.0)
    title = f"{len(verdicts)} verdicts" + (f" → {output}" if output else "")
    table = Table(
        title=escape(title),
        caption=f"accuracy of what is known: {accuracy}",
    )
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_column("decided by")
    for outcome in Outcome:
        methods = Counter(verdict.method for verdict in verdicts if verdict.outcome is outcome)
        if methods:
            decided = ", ".join(f"{method} {count}" for method, count in methods.most_common())
            table.add_row(str(outcome), str(sum(methods.values())), decided)
    table.add_section()
    table.add_row("slowest", f"{1000 * slowest:.1f} ms", "")
    return table


def _print_audit(audit: Audit, output: Path | None, examples: int) -> None:
    title = f"{audit.rows} golds, {len(audit.findings)} findings" + (f" → {output}" if output else "")
    table = Table(title=escape(title))
    table.add_column("fault")
    table.add_column("rows", justify="right")
    table.add_column("for example", overflow="fold")
    for fault in Fault:
        found = [finding for finding in audit.findings if finding.fault is fault]
        shown = "\n".join(f"row {f.row}: {f.gold[:60]!r} {f.detail}" for f in found[:examples])
        table.add_row(str(fault), str(len(found)), escape(shown))
    console = Console()
    console.print(table)
    if audit.constants:
        answer, share = audit.constants[0]
        console.print(
            f"The best constant answer is {answer!r}: it solves {100 * share:.1f} % of the rows.", markup=False
        )
