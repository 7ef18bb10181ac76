"""Every command on damaged inputs: each pair ends with an exit code and one sentence, and no traceback.

    python benchmarks/damage.py [--every N] [--only TEXT]

Prints the pairs that do not, and counts. Runs in one process, on copies of tiny inputs.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import tempfile
import time
from pathlib import Path

from tests.reliability.damage import Pair, pairs, prepare
from tests.reliability.materials import Done, make_materials, tracekit
from tracekit.cli.app import INTERNAL_FAULT

ENDS = (0, 2, 3)


def fault_of(done: Done) -> str | None:
    """What is wrong with how a command ended; None where nothing is."""
    if done.code == INTERNAL_FAULT or "Traceback" in done.err:
        return done.err.strip()[-300:]
    if done.code not in ENDS:
        return f"code {done.code}: {done.err.strip()[-200:]}"
    sentences = [line for line in done.err.splitlines() if line.startswith("tracekit: ")]
    if done.code == 2 and len(sentences) != 1 and "╭" not in done.err:
        return f"{len(sentences)} sentences: {done.err.strip()[-200:]}"
    if done.code == 2 and sentences and len(sentences[0]) > 1_000:
        return f"a sentence of {len(sentences[0])} characters: {sentences[0][:200]}"
    return None


def try_pair(pair: Pair, materials: Path) -> Done:
    """Run one pair on a copy of the materials, in their place, so that recorded paths stay true."""
    kept = materials.with_name("kept")
    shutil.rmtree(materials, ignore_errors=True)
    shutil.copytree(kept, materials)
    words = pair.words(materials, materials.with_name("out"))
    pair.damage(materials)
    shutil.rmtree(materials.with_name("out"), ignore_errors=True)
    materials.with_name("out").unlink() if materials.with_name("out").is_file() else None
    return tracekit(words, cwd=materials.parent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="take every Nth pair")
    parser.add_argument("--only", default="", help="pairs whose name holds this")
    options = parser.parse_args()
    started, codes, faults = time.monotonic(), collections.Counter[int](), 0
    with tempfile.TemporaryDirectory(prefix="tracekit-damage-") as folder:
        materials = make_materials(Path(folder) / "materials")
        prepare(materials)
        chosen = [pair for pair in pairs(materials) if options.only in pair.name][:: options.every]
        shutil.copytree(materials, materials.with_name("kept"))
        for pair in chosen:
            done = try_pair(pair, materials)
            codes[done.code] += 1
            if fault := fault_of(done):
                faults += 1
                print(f"{pair.name}\n    {fault}", flush=True)
    ends = ", ".join(f"code {code}: {count}" for code, count in sorted(codes.items()))
    print(f"{len(chosen)} pairs, {faults} faults; {ends}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
