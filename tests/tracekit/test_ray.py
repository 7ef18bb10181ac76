"""Batches shared out over a Ray cluster of two workers on this machine: `make test-ray`."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tracekit.core.settings import build_settings
from tracekit.curation.curate import curate
from tracekit.curation.ray_engine import for_each_on_ray
from tracekit.curation.settings import CurateSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def two_workers() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="needs the extra [ray]")
    ray.init(num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()


def contents(run: Path) -> dict[str, bytes]:
    """Every published file but run.json, which names the engine."""
    files = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and "stages" not in p.parts}
    files.pop("run.json")
    return files


def test_a_curation_on_two_workers_is_the_same_to_the_byte(tmp_path: Path) -> None:
    rows = [
        {
            "problem": f"How many are {n} and {n + 1} hens, of which none lays?",
            "gold": str(2 * n + 1),
            "response": f"{n} + {n + 1} = {2 * n + 1 + (k == 2)}\n\nThe answer is \\boxed{{{2 * n + 1 + (k == 2)}}}. "
            + k * "So it is.",
        }
        for n in range(20)
        for k in range(3)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    tree = {
        "data": tmp_path,
        "sources": ["traces.jsonl"],
        "verify": {"batch": 7},
        "select": {"pairs": 1},
        "export": {"formats": ["luffy", "trl-dpo"]},
    }
    runs = {
        engine: curate(build_settings(CurateSettings, {**tree, "output": tmp_path / engine, "engine": engine}, engine))
        for engine in ("local", "ray")
    }
    local, remote = contents(runs["local"]), contents(runs["ray"])
    assert local.keys() == remote.keys()
    assert [name for name in local if local[name] != remote[name]] == []
    assert json.loads((runs["ray"] / "funnel.json").read_text())["funnel"][-1]["traces"] == 40
    assert not list((runs["ray"] / "stages").glob("*-ray"))  # the job's folder is gone


def test_two_batches_are_at_work_at_once(tmp_path: Path) -> None:
    """Each waits until the other has begun: one worker alone would wait in vain."""

    def make(start: int) -> Path:
        (tmp_path / f"begun-{start}").write_text(str(os.getpid()))
        until = time.monotonic() + 120
        while len(list(tmp_path.glob("begun-*"))) < 2:
            assert time.monotonic() < until, "the other batch has not begun"
            time.sleep(0.01)
        return tmp_path

    assert list(for_each_on_ray([0, 5], make, tmp_path / "job")) == [tmp_path, tmp_path]


def test_an_interrupted_job_hands_out_the_rest_alone(tmp_path: Path) -> None:
    log, stop = tmp_path / "log", tmp_path / "stop"
    log.mkdir()
    stop.touch()
    driver = os.getpid()

    def make(start: int) -> Path:
        if os.getpid() == driver:
            return tmp_path / str(start)
        if start == 30 and stop.exists():
            until = time.monotonic() + 120
            while len(list((tmp_path / "job" / "checkpoint").rglob("*.parquet"))) < 3:  # the others are written down
                assert time.monotonic() < until, "the checkpoint does not fill"
                time.sleep(0.01)
            raise OSError("this worker is lost")
        (log / f"{start}-{len(list(log.iterdir()))}").touch()
        return tmp_path / str(start)

    starts = [0, 10, 20, 30]
    with pytest.raises(Exception, match="this worker is lost"):
        list(for_each_on_ray(starts, make, tmp_path / "job"))
    assert sorted(path.name.split("-")[0] for path in log.iterdir()) == ["0", "10", "20"]
    stop.unlink()
    assert list(for_each_on_ray(starts, make, tmp_path / "job")) == [tmp_path / str(start) for start in starts]
    assert sorted(path.name.split("-")[0] for path in log.iterdir()) == ["0", "10", "20", "30"]
    assert not (tmp_path / "job").exists()
