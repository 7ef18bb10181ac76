"""Damaged inputs: each ends with an exit code and one sentence. The whole set: benchmarks/damage.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.damage import fault_of, try_pair
from tests.reliability.damage import ANY, CSV, JSON, READERS, TOML, pairs, prepare

#: Of the whole set, one in so many is tried in the fast tests: an odd number, so that kinds and commands mix.
EVERY = 53


@pytest.fixture(scope="module")
def damaged(materials: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    shutil.copytree(materials, folder / "materials")
    prepare(folder / "materials")
    shutil.copytree(folder / "materials", folder / "kept")
    return folder / "materials"


def test_the_whole_set_is_as_large_as_promised(damaged: Path) -> None:
    assert len(ANY) + len(JSON) + len(TOML) + len(CSV) >= 40
    assert sum(1 for _ in pairs(damaged.with_name("kept"))) >= 1_000
    assert {name for readers in READERS.values() for name, _ in readers} >= {"curate", "verify", "train", "evaluate"}


@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_a_damaged_input_ends_in_one_sentence(every: int, damaged: Path) -> None:
    chosen = list(pairs(damaged.with_name("kept")))[::every]
    faults = {}
    for pair in chosen:
        done = try_pair(pair, damaged)
        if fault := fault_of(done):
            faults[pair.name] = fault
    assert faults == {}


@pytest.mark.parametrize("kind", ["empty", "cut in half", "flipped in the middle", "random bytes", "deep nesting"])
def test_the_sentence_names_the_file(kind: str, damaged: Path) -> None:
    chosen = [
        pair
        for pair in pairs(damaged.with_name("kept"))
        if pair.name in (f"segment, rows.json: {kind}", f"why, curated/run.json: {kind}")
    ]
    for pair in chosen:
        done = try_pair(pair, damaged)
        if done.code == 2:
            assert pair.name.partition(", ")[2].partition(":")[0].rpartition("/")[2] in done.err
