"""Two gloo processes do what one does."""

import socket
import subprocess

import pytest
import torch
from safetensors.torch import load_file
from test_supervised import metrics, run_in_background, settings_for

from trainer.checkpoint import checkpoints
from trainer.train import train


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def on_two_ranks(settings):
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [run_in_background(settings, {**shared, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in (0, 1)]
    try:
        assert [process.wait(timeout=180) for process in processes] == [0, 0]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        raise


def test_a_run_does_not_depend_on_the_number_of_ranks(world_folder, tmp_path):
    changes = {"steps": 3, "batch": {"rows": 5, "micro_tokens": 64}, "checkpoint": {"every": 3}}
    one, two = (settings_for(world_folder, tmp_path / name, **changes) for name in ("one", "two"))
    alone = load_file(train(one) / "model.safetensors")
    on_two_ranks(two)
    together = load_file(two.output / "final" / "model.safetensors")
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-5)
    for name in ("loss", "entropy", "gradient_norm"):
        assert metrics(two.output)[name].to_list() == pytest.approx(metrics(one.output)[name].to_list(), rel=1e-5)
    assert len(checkpoints(two.output / "checkpoints")) == 1
