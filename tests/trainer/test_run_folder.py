"""Run folders: extended, moved, resumed with other neutral settings, locked, and never gone on with when damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys

import polars as pl
import pytest

from tracekit.core.folders import FolderError
from tracekit.core.runs import RunError
from trainer.loops.checkpoint import MANIFEST, damage
from trainer.settings import CheckpointSettings, DataSettings, LogSettings, OptimizerSettings, TrainSettings
from trainer.train import train


def recipe(world_folder, model, output, steps, **changes):
    settings = TrainSettings(
        method="sft",
        model=str(model),
        output=output,
        data=DataSettings(curated=world_folder / "curated.parquet"),
        batch={"rows": 8},
        optimizer=OptimizerSettings(lr=1e-3),
        checkpoint=CheckpointSettings(every=2),
        steps=steps,
        threads=1,
    )
    return settings.model_copy(update=changes)


def weights(final):
    return (final / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def longer(world_folder, model, tmp_path_factory):
    return train(recipe(world_folder, model, tmp_path_factory.mktemp("longer"), 5))


@pytest.mark.parametrize("first", [1, 3, 4])
def test_an_extended_run_is_the_longer_one(world_folder, model, tmp_path, longer, first):
    short = train(recipe(world_folder, model, tmp_path, first))
    assert weights(short) != weights(longer)
    assert weights(train(recipe(world_folder, model, tmp_path, 5))) == weights(longer)
    assert pl.read_parquet(tmp_path / "metrics.parquet")["step"].to_list() == [1, 2, 3, 4, 5]
    written = (tmp_path / "final" / "model.safetensors").stat().st_mtime_ns
    train(recipe(world_folder, model, tmp_path, 5))
    assert (tmp_path / "final" / "model.safetensors").stat().st_mtime_ns == written, "a finished run is not made again"


def test_an_extension_that_was_killed_goes_on(world_folder, model, tmp_path, longer):
    train(recipe(world_folder, model, tmp_path, 2))

    def stop(stage, done, total, note=""):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(world_folder, model, tmp_path, 5), progress=stop)
    assert weights(train(recipe(world_folder, model, tmp_path, 5))) == weights(longer)


def test_a_schedule_that_depends_on_the_length_is_not_extended_and_no_run_is_shortened(world_folder, model, tmp_path):
    decaying = {"optimizer": OptimizerSettings(schedule="cosine")}
    train(recipe(world_folder, model, tmp_path / "a", 1, **decaying))
    with pytest.raises(RunError, match="steps"):
        train(recipe(world_folder, model, tmp_path / "a", 2, **decaying))
    train(recipe(world_folder, model, tmp_path / "b", 2))
    with pytest.raises(RunError, match="steps"):
        train(recipe(world_folder, model, tmp_path / "b", 1))


def test_settings_that_touch_no_result_may_differ_and_folders_may_move(world_folder, model, tmp_path, longer):
    tables, first, second = tmp_path / "tables", tmp_path / "first", tmp_path / "second"
    shutil.copytree(world_folder, tables)

    def stop(stage, done, total, note=""):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(world_folder, model, first, 5), progress=stop)
    first.rename(second)
    other = {
        "log": LogSettings(every=2, flush_seconds=1.0),
        "checkpoint": CheckpointSettings(every=3, keep=1),
        "threads": None,
        "data": DataSettings(curated=tables / "curated.parquet"),
    }
    assert weights(train(recipe(world_folder, model, second, 5, **other))) == weights(longer)
    with pytest.raises(RunError, match="seed"):
        train(recipe(world_folder, model, second, 5, seed=1))


def test_a_moved_run_of_stages_goes_on(world_folder, model, tmp_path):
    stages = ({"method": "sft"}, {"method": "sft", "seed": 1})
    shared = recipe(world_folder, model, tmp_path / "a", 1).model_dump(exclude_unset=True) | {"stages": stages}
    first = weights(train(TrainSettings.model_validate(shared)))
    (tmp_path / "a").rename(tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "2_sft" / "final")
    assert weights(train(TrainSettings.model_validate(shared | {"output": tmp_path / "b"}))) == first


def test_one_process_trains_in_a_folder(world_folder, model, tmp_path):
    holder = "import sys, time; from tracekit.core.folders import lock_folder\n"
    holder += "with lock_folder(sys.argv[1], 'train'):\n    print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(FolderError, match=f"process {process.pid}"):
        train(recipe(world_folder, model, tmp_path, 1))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert train(recipe(world_folder, model, tmp_path, 1)).is_dir()


def _empty_manifest(folder):
    (folder / MANIFEST).write_text("{}")


def _flipped_byte(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def _entry_left_out(folder):
    kept = json.loads((folder / MANIFEST).read_text())
    del kept["model.safetensors"]
    (folder / MANIFEST).write_text(json.dumps(kept))


@pytest.mark.parametrize("harm", [_empty_manifest, _flipped_byte, _entry_left_out])
@pytest.mark.filterwarnings("ignore:.*damaged")
def test_a_damaged_final_or_checkpoint_is_made_again(world_folder, model, tmp_path, longer, harm):
    final = train(recipe(world_folder, model, tmp_path, 5))
    for folder in (final, tmp_path / "checkpoints" / "step-000005", tmp_path / "checkpoints" / "step-000004"):
        harm(folder)
        assert damage(folder) is not None
    assert weights(train(recipe(world_folder, model, tmp_path, 5))) == weights(longer)
    assert damage(final) is None


def test_cut_metrics_are_refused_with_the_way_out(world_folder, model, tmp_path):
    train(recipe(world_folder, model, tmp_path, 2))
    path = tmp_path / "metrics.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RunError, match=r"metrics\.parquet is damaged .* delete it"):
        train(recipe(world_folder, model, tmp_path, 4))
