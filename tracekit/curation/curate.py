"""Sources → curated set: stages that measure, decisions that can be questioned, one folder at the end.

Measuring (segment, verify, count, pair, match) is slow and does not depend on thresholds: each is a
content-addressed stage. Deciding is fast and made anew each time, so a changed threshold costs seconds.

The run folder: run.json, problems, traces, steps, measures, golds, verdicts, disagreements, duplicates,
contamination, ledger, pairs and curated (.parquet), funnel.json, export/.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tracekit.core.folders import (
    HOLDER,
    LOCK,
    MARKER,
    check_claimable,
    claim_folder,
    has_run_file,
    lock_folder,
)
from tracekit.core.runs import Progress, commit, no_progress, read_json, read_run_file, versions, write_text
from tracekit.core.settings import build_settings
from tracekit.core.tables import CURATED, LEDGER, full_disk_told
from tracekit.curation import measurements as measuring
from tracekit.curation.decisions import decide_all, gather, read_decisions
from tracekit.curation.export import formats_of, shares_of, write_exports
from tracekit.curation.funnel import Counts, whole_funnel
from tracekit.curation.ledger import find, read_funnel
from tracekit.curation.operator_files import load_operators, own_formats
from tracekit.curation.operator_stages import measure_operators, operators_of
from tracekit.curation.reference import measure_reference
from tracekit.curation.select import PAIRS
from tracekit.curation.settings import CurateSettings
from tracekit.curation.stage_cache import Stages, digest, sweep
from tracekit.curation.streams import table_writer
from tracekit.curation.verify import DISAGREEMENTS, disagreements

#: Kinds of folders: a run, and stages that several runs share.
CURATION, STAGES = "curation", "stages"
#: What came by standard input, kept in the run folder.
STANDARD_INPUT = "standard-input.jsonl"

_HIDDEN = {LOCK, HOLDER, MARKER}
_STAGE = re.compile(r"[a-z.]+(-[0-9a-f]{12})+(-ray)?|\..*\.partial")


def _is_earlier_curation(folder: Path) -> bool:
    """Whether a run.json of ours stands there, or nothing but stages: the curation was killed before its end."""
    if (folder / "run.json").exists():
        return has_run_file(folder, ("settings", "recipe"))
    taken = {path.name for path in folder.iterdir() if path.name in _WRITES[CURATION]}
    return taken == {"stages"} and _is_earlier_stages(folder / "stages")


def _is_earlier_stages(folder: Path) -> bool:
    """Whether a folder holds nothing but stages: NAME-DIGEST folders, and what kills left half-written."""
    return all(_STAGE.fullmatch(path.name) for path in folder.iterdir() if path.name not in _HIDDEN)


_TABLES = ("lost", "problems", "traces", "steps", "measures", "golds", "verdicts", "duplicates", "contamination")
_DECIDED = ("disagreements", "details", "pairs", "ledger", "curated")
#: What stands in a folder of each kind, by name.
_WRITES = {
    CURATION: (
        *(f"{name}.parquet" for name in (*_TABLES, *_DECIDED)),
        *("operators", "run.json", "funnel.json", "restored.json", "stages", "export", STANDARD_INPUT),
    ),
    STAGES: ("*-" + 12 * "[0-9a-f]",),
}
_EARLIER = {CURATION: _is_earlier_curation, STAGES: _is_earlier_stages}


class CurationError(ValueError):
    """A curation cannot start: the message says what is missing."""


def curate(settings: CurateSettings, *, progress: Progress = no_progress) -> Path:
    """Make the run folder `settings.output`, or bring it up to date.

    After a kill at any moment the same call continues from the last whole stage and ends with the same bytes.

    Parameters
    ----------
    settings : CurateSettings
        A recipe; `load_settings` reads one.
    progress : callable, optional
        Called as progress(stage, done, total, note).

    Returns
    -------
    Path
        The run folder: curated.parquet, problems.parquet, traces.parquet, ledger.parquet, and `export/`.

    Raises
    ------
    CurationError
        Where the recipe cannot be run.
    SourceError, LayoutError
        Where a source is absent, damaged, or of an unknown format.

    Examples
    --------
    >>> from tracekit import CURATED, CurateSettings, curate, load_settings, read_table
    >>> source = 'sources=[{path="traces.jsonl", map={problem="question", gold="answer", response="generation"}}]'
    >>> run = curate(load_settings(CurateSettings, overrides=[source, "output=runs/docs"]))
    >>> read_table(run / "curated.parquet", CURATED).height
    38
    """
    if not settings.sources:
        raise CurationError("the recipe names no source; add [[sources]] with path = … .")
    formats_of(settings.export, own_formats(operators_of(settings)))  # faults are told before anything is read
    run, shared = settings.output, settings.stages or settings.output / "stages"
    owner = run if shared.parent == run else _owner_of(shared)
    own = [(run, CURATION)] if owner == run else [(run, CURATION), (owner, STAGES if owner == shared else CURATION)]
    for folder, kind in own:
        check_claimable(folder, kind, _WRITES[kind], _EARLIER[kind])
    with ExitStack() as locks:
        for folder, kind in own:
            locks.enter_context(_held(folder, kind, settings.wait))
        return _curate(settings, run, Stages(shared), progress)


def claim_curation(run: Path) -> None:
    """Make a folder the run folder of a curation that is about to begin. Raises FolderError."""
    claim_folder(run, CURATION, _WRITES[CURATION], _EARLIER[CURATION])


def _owner_of(stages: Path) -> Path:
    """The folder whose lock guards the stages: the run they lie in, or they themselves where they lie alone."""
    return stages.parent if (stages.parent / LOCK).exists() else stages


@contextmanager
def _held(folder: Path, kind: str, wait: float) -> Iterator[None]:
    """Hold the folder's lock and mark it as ours; a curation that was refused at its start leaves no folder behind."""
    with lock_folder(folder, "curate", wait_seconds=wait):
        try:
            claim_folder(folder, kind, _WRITES[kind], _EARLIER[kind])
            yield
        finally:
            if {path.name for path in folder.iterdir()} <= _HIDDEN:
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()


def _curate(settings: CurateSettings, run: Path, stages: Stages, progress: Progress) -> Path:
    sweep(run, _WRITES[CURATION])
    sweep(stages.folder, _WRITES[STAGES])
    measured = measure_reference(settings, measuring.measure_all(settings, stages, progress), stages, progress)
    measured = measure_operators(settings, measured, stages, progress)
    with full_disk_told(run):
        _publish(settings, run, measured, progress)
        funnel = json.loads((run / "funnel.json").read_text(encoding="utf-8"))
        own = own_formats(operators_of(settings))
        write_exports(run, shares_of(run), settings.export, card_facts(settings, funnel), own)
    progress("export", 1, 1, "")
    return run


def recipe_hash(settings: CurateSettings) -> str:
    """What decides the curated set: every setting but where it is written to."""
    elsewhere = {"output", "stages", "data", "workers", "engine", "wait", "operators"}
    functions = load_operators(settings.operators).digests()
    return digest({**settings.model_dump(mode="json", exclude=elsewhere), "operators": functions})


def card_facts(settings: CurateSettings, funnel: dict[str, Any]) -> dict[str, Any]:
    """What a data set card tells: recipe hash, sources with licences, funnel."""
    return {
        "recipe": recipe_hash(settings),
        "sources": [source.model_dump(mode="json") for source in settings.sources],
        "funnel": funnel,
    }


def restored(run: Path) -> dict[str, str]:
    """Rows taken back in by hand: id → reason."""
    path = run / "restored.json"
    return read_json(path) if path.is_file() else {}


def restore(run: Path, row_id: str, reason: str, *, progress: Progress = no_progress) -> Path:
    """Bring a dropped trace, or a problem with its traces, back in, and curate again.

    Parameters
    ----------
    run : Path
        A run folder of `curate`.
    row_id : str
        A trace's or a problem's id, or a prefix of one id alone.
    reason : str
        Written into the ledger.
    progress : callable, optional
        Called as progress(stage, done, total, note).

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    CurationError
        Where the folder is no run of `curate`.
    LedgerError
        Where no row, or more than one, has such an id.

    Examples
    --------
    >>> from tracekit import CURATED, LEDGER, CurateSettings, curate, load_settings, read_table, restore
    >>> source = 'sources=[{path="traces.jsonl", map={problem="question", gold="answer", response="generation"}}]'
    >>> run = curate(load_settings(CurateSettings, overrides=[source, "output=runs/restored"]))
    >>> ledger = read_table(run / "ledger.parquet", LEDGER)
    >>> dropped = ledger.filter(ledger["verdict"] == "drop")["row_id"][0]
    >>> _ = restore(run, dropped, "a slip in the box, the reasoning is right")
    >>> read_table(run / "curated.parquet", CURATED).height
    39
    """
    settings = settings_of(run)
    trace, problem = find(run, row_id)
    row_id = trace or problem
    write_text(
        run / "restored.json", json.dumps({**restored(run), row_id: reason}, indent=2, ensure_ascii=False) + "\n"
    )
    return curate(settings.model_copy(update={"output": run}), progress=progress)


def export(run: Path, *formats: str, operators: Sequence[str] = ()) -> Path:
    """Write a finished curation in trainers' formats, with a card; RUN/export is replaced whole.

    Parameters
    ----------
    run : Path
        A run folder of `curate`.
    *formats : str
        Such as "luffy", "verl", "trl-sft"; none: those of the run's recipe.
    operators : sequence of str
        Python files with exporters of your own, which are run; none: those of the run's recipe.

    Returns
    -------
    Path
        RUN/export: one folder a format, one file a split, and the card.

    Raises
    ------
    CurationError
        Where the folder is no run of `curate`.
    SettingsError
        Where a format is unknown.
    FolderError
        Where RUN/export holds files that no export wrote.

    Examples
    --------
    >>> from tracekit import CurateSettings, curate, export, load_settings
    >>> source = 'sources=[{path="traces.jsonl", map={problem="question", gold="answer", response="generation"}}]'
    >>> run = curate(load_settings(CurateSettings, overrides=[source, "output=runs/docs"]))
    >>> sorted(path.name for path in export(run, "trl-sft", "luffy").iterdir() if path.is_dir())
    ['luffy', 'trl-sft']
    """
    settings = settings_of(run)
    settings = settings.model_copy(update={"operators": tuple(operators) or settings.operators})
    wanted = settings.export.model_copy(update={"formats": formats or settings.export.formats})
    facts = card_facts(settings, read_funnel(run))
    return write_exports(run, shares_of(run), wanted, facts, own_formats(operators_of(settings)))


def settings_of(run: Path) -> CurateSettings:
    """The recipe a run folder was made by. Raises CurationError."""
    path = run / "run.json"
    if not path.is_file():
        raise CurationError(f"{run} is no run of `tracekit curate`: it holds no run.json.")
    return build_settings(CurateSettings, read_run_file(path)["settings"], str(path))


def _publish(settings: CurateSettings, run: Path, measured: measuring.Measured, progress: Progress) -> None:
    """Decide, and write all that a reader of the run wants under its plain name; curated.parquet comes last."""
    record = {
        "settings": settings.model_dump(mode="json"),
        "recipe": recipe_hash(settings),
        "seed": settings.seed,
        "inputs": {name: path.parent.name for name, path in measured.files.items()},
        "versions": versions(),
        "commit": commit(),
    }
    write_text(run / "run.json", json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    shutil.rmtree(run / "operators", ignore_errors=True)  # of functions that the recipe no longer names
    for name, path in measured.files.items():
        _link(path, run / f"{name}.parquet")
    lost = measured.read("lost")
    with ExitStack() as files:  # closed in turn, the last one first
        curated = files.enter_context(table_writer(run / "curated.parquet", CURATED))
        ledger = files.enter_context(table_writer(run / "ledger.parquet", LEDGER, row_group=100_000))
        pairs = files.enter_context(table_writer(run / "pairs.parquet", PAIRS))
        differing = files.enter_context(table_writer(run / "disagreements.parquet", DISAGREEMENTS))
        ledger.write(read_decisions(lost))
        counts, disagree, shares = list[Counts](), Counter[str](), list[dict[str, int]]()
        whole = gather(settings, measured, restored(run))
        for partition, decided in zip(measured.partitions, decide_all(settings, measured, whole), strict=True):
            progress("decide", partition.start, measured.partitions[-1].stop, "")
            ledger.write(decided.ledger)
            pairs.write(decided.pairs)
            curated.write(decided.curated)
            found = disagreements(*measured.opinions(partition))
            differing.write(found)
            disagree.update(found["other"])
            counts.append(decided.counts)
            shares.append({"curated": decided.curated.height, "pairs": decided.pairs.height})
        progress("decide", measured.partitions[-1].stop, measured.partitions[-1].stop, "")
        funnel = whole_funnel(counts, measured, lost)
        funnel |= {"disagreements": dict(sorted(disagree.items())), "partitions": shares}
        write_text(run / "funnel.json", json.dumps(funnel, indent=2, ensure_ascii=False) + "\n")


def _link(source: Path, target: Path) -> None:
    """A second name for the stage's file, a copy where the file system has no links."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    target.parent.mkdir(exist_ok=True)
    partial.unlink(missing_ok=True)
    if target.exists() and target.samefile(source):
        return  # a rename between two names of one file does nothing, and would leave both
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
