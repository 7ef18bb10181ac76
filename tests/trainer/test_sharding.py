"""Two gloo processes, each with the whole model or with half of it, do what one does."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_policy import exgrpo_settings, scripted_verdicts
from test_supervised import metrics, settings_for
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from tracekit.core.settings import build_settings
from trainer.data.problems import Problem
from trainer.data.replay import ReplayBuffer
from trainer.data.sequences import Row
from trainer.distributed.fsdp import full_tensors, on_first_rank
from trainer.distributed.ranks import rank, world_size
from trainer.loops.checkpoint import checkpoints
from trainer.loops.optimization import apply_update
from trainer.loops.policy import accumulate, totals_of
from trainer.loops.run_log import Averages
from trainer.loops.run_state import begin
from trainer.objectives.loss_from_settings import policy_loss
from trainer.rollouts import rewards
from trainer.rollouts.engines.open import open_engine
from trainer.rollouts.engines.protocol import Sampling
from trainer.rollouts.rollout import Group, Sample
from trainer.settings import ReplaySettings, TrainSettings
from trainer.train import train

STEP = {"steps": 1, "optimizer": {"lr": 1e-3}, "checkpoint": {"every": 1}}
SAMPLING = Sampling(max_tokens=6, stop_token_ids=(2,), seed=7)
PROMPTS = [[5, 6, 7], [8, 9]]


def settings(world_folder, output, method, *, fsdp, **changes):
    tree = {
        "method": method,
        "output": str(output),
        "new_model": {"tokenizer": str(world_folder / "tokenizer"), "hidden_size": 32, "layers": 2, "heads": 2},
        "data": {
            "curated": str(world_folder / "curated.parquet"),
            "problems": str(world_folder / "problems.parquet"),
            "response_tokens": 40,
        },
        "batch": {"rows": 5, "micro_tokens": 100},
        "rollout": {"prompts": 4, "mini_batch_prompts": 2, "group_size": 4},
        "threads": 1,
        "device": "cpu",
        "parallel": {"fsdp": fsdp},
    }
    return build_settings(TrainSettings, {**tree, **changes}, "test")


def luffy_rows():
    """Seven rows of unlike lengths, the teacher's among them."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(7):
        length = 30 - 3 * number
        old = None if number == 2 else (-torch.rand(length - 4, generator=generator)).tolist()
        rows.append(
            Row(
                token_ids=torch.randint(5, 30, (length,), generator=generator).tolist(),
                prompt_length=4,
                off_policy=length - 4 if number == 2 else 0,
                advantage=float(torch.randn((), generator=generator)),
                old_log_probs=old,
            )
        )
    return rows


def luffy_step(read):
    """One update by the loop's own code: loss, gradient norm, and the weights after it, full on rank 0."""
    training, averages, rows = begin(read), Averages(), luffy_rows()
    if world_size() > 1:
        rows = rows if rank() == 0 else []  # a rank whose rows all have advantage 0
        assert all(isinstance(parameter, DTensor) for parameter in training.scorer.parameters())
    engine = open_engine(read, training.model, 0, training.device)
    totals = totals_of(rows, read)
    accumulate(training, training.scorer, policy_loss(read), rows, totals, averages)
    norm = apply_update(training.optimizer, 1e-3, read.optimizer.max_grad_norm, 0)
    if not engine.live:
        engine.load_weights(full_tensors(training.model))
    weights = on_first_rank(full_tensors(training.model))
    streamed = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    rollouts = [[row.token_ids for row in rows] for rows in engine.generate(PROMPTS, 2, SAMPLING)]
    return averages.means()["loss"], norm, weights, streamed, rollouts


def on_each_rank(world, output):
    """What each of the two processes does."""
    loss, norm, weights, streamed, rollouts = luffy_step(settings(world, output / "luffy", "luffy", fsdp=True))
    save_file({name: t.clone() for name, t in streamed.items()}, output / f"streamed-{rank()}.safetensors")
    if rank() == 0:
        save_file({name: t.clone() for name, t in weights.items()}, output / "luffy.safetensors")
        (output / "luffy.json").write_text(json.dumps([loss, norm, rollouts]))
    train(pretraining(world, output / "unsharded"))
    base = train(settings(world, output / "sft", "sft", fsdp=True, **STEP))
    train(settings(world, output / "half", "sft", fsdp=True, dtype="bfloat16", gradient_checkpointing=True, **STEP))
    train(adapted(world, output / "adapted", base, fsdp=True))
    train(long_sft(world, output / "whole", fsdp=True))
    killed = long_sft(world, output / "killed", fsdp=True)
    try:
        train(killed, progress=stop_after_three)
    except InterruptedError:
        train(killed)
    grpo = settings(world, output / "grpo", "grpo", fsdp=True, steps=2, loss={"kl": 0.1})
    train(grpo)
    (output / f"replay-{rank()}.json").write_text(json.dumps(replayed_rounds()))
    rewards.verify_batch = scripted_verdicts
    for fsdp in (False, True):
        train(replaying(world, output / f"exgrpo-{fsdp}/whole", fsdp=fsdp))
        killed = replaying(world, output / f"exgrpo-{fsdp}/killed", fsdp=fsdp)
        try:
            train(killed, progress=stop_after_three)
        except InterruptedError:
            train(killed)
    distributed.destroy_process_group()


def replaying(world, output, *, fsdp):
    """ExGRPO with a checkpoint after the second of four rounds."""
    read = exgrpo_settings(world, output).model_copy(update={"steps": 4})
    return read.model_copy(update={"parallel": read.parallel.model_copy(update={"fsdp": fsdp})})


def replayed_rounds():
    """Three rounds of twelve problems, dealt to the ranks, through a buffer and its table in a checkpoint.

    What each round draws, this rank's share of it, and what the buffer holds at the end.
    """
    problems = [Problem(f"p{number}", "", "", [5]) for number in range(12)]
    buffer, generator = ReplayBuffer(ReplaySettings(start_reward=0.0, traces_per_problem=3)), torch.Generator()
    draws = []
    for number in range(3):
        generator.manual_seed(number)
        groups = [Group(problem, random_rows(generator)) for problem in problems]
        buffer.take_in(groups[rank() :: world_size()], mean_reward=0.5)
        chosen = buffer.choose(f"round {number}", 10, problems, lambda pairs: [s.token_ids[0] % 7 for _, s in pairs])
        draws.append({place: [list(s.token_ids) for s in past] for place, past in chosen.items()})
    table = buffer.table()
    again = ReplayBuffer(buffer.settings)
    again.restore(table, buffer.open)
    assert again.past.keys() == buffer.past.keys()
    assert all(again.past[name] == past for name, past in buffer.past.items())
    held = sum(len(past.traces) for past in buffer.past.values())
    return {"draws": draws, "table": table.to_dict(as_series=False), "held": held}


def random_rows(generator):
    """Four on-policy rows, about half of them right."""
    values = torch.randint(10, 90, (4,), generator=generator).tolist()
    return tuple(
        Sample([value, 2], 0, "stop", log_probs=[-value / 7, 0.0], reward=float(value % 2)) for value in values
    )


def pretraining(world, output):
    changes = {"steps": 3, "batch": {"rows": 5, "micro_tokens": 64}, "checkpoint": {"every": 3}}
    return settings_for(world, output, **changes)


def long_sft(world, output, *, fsdp):
    return settings(world, output, "sft", fsdp=fsdp, steps=4, checkpoint={"every": 2}, optimizer={"lr": 1e-3})


def adapted(world, output, base, *, fsdp):
    changes = {**STEP, "new_model": None, "model": str(base), "lora": {"rank": 4, "alpha": 8}}
    return settings(world, output, "sft", fsdp=fsdp, **changes)


def stop_after_three(stage, done, total, note):
    if done == 3:
        raise InterruptedError


#: One interpreter imports everything, then splits into the two ranks: imports are most of the time.
TWO_RANKS = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[1])
import test_sharding
other = os.fork()
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
test_sharding.on_each_rank(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def two_ranks(world_folder, tmp_path_factory):
    """The folder that the two processes leave."""
    output = tmp_path_factory.mktemp("sharded")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", TWO_RANKS, str(Path(__file__).parent), str(world_folder), str(output)]
    process = subprocess.Popen(
        arguments, env={**os.environ, **shared}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        errors = process.communicate(timeout=220)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a rank whose other broke down waits for it
        raise
    assert process.returncode == 0, errors[-4000:]
    return output


def close(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_a_run_does_not_depend_on_the_number_of_ranks(two_ranks, world_folder, tmp_path):
    """Every rank with the whole model, gradients summed."""
    alone, together = train(pretraining(world_folder, tmp_path / "one")), two_ranks / "unsharded/final"
    wanted = load_file(alone / "model.safetensors")
    for name, tensor in load_file(together / "model.safetensors").items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-5)
    for name in ("loss", "entropy", "gradient_norm"):
        found = metrics(together.parent)[name].to_list()
        assert found == pytest.approx(metrics(alone.parent)[name].to_list(), rel=1e-5)
    assert len(checkpoints(together.parent / "checkpoints")) == 1


def test_one_sft_step_is_the_unsharded_one(two_ranks, world_folder, tmp_path):
    final = train(settings(world_folder, tmp_path / "sft", "sft", fsdp=False, **STEP))
    together, alone = metrics(two_ranks / "sft"), metrics(final.parent)
    assert together["loss"][0] == pytest.approx(alone["loss"][0], abs=1e-6)
    assert together["gradient_norm"][0] == pytest.approx(alone["gradient_norm"][0], rel=1e-5)
    close(load_file(two_ranks / "sft/final/model.safetensors"), load_file(final / "model.safetensors"))
    newest = checkpoints(two_ranks / "sft/checkpoints")[-1]
    close(
        load_file(newest / "optimizer.safetensors"),
        load_file(final.parent / "checkpoints" / newest.name / "optimizer.safetensors"),
    )


def test_one_luffy_step_is_the_unsharded_one_and_the_engine_has_its_weights(two_ranks, world_folder, tmp_path):
    loss, norm, weights, _, rollouts = luffy_step(settings(world_folder, tmp_path, "luffy", fsdp=False))
    found_loss, found_norm, found_rollouts = json.loads((two_ranks / "luffy.json").read_text())
    assert found_loss == pytest.approx(loss, abs=1e-6)
    assert found_norm == pytest.approx(norm, rel=1e-5)
    found = load_file(two_ranks / "luffy.safetensors")
    close(found, weights)
    for number in (0, 1):
        streamed = load_file(two_ranks / f"streamed-{number}.safetensors")
        assert all(torch.equal(streamed[name], tensor) for name, tensor in found.items())
    assert found_rollouts == rollouts


def test_adapters_are_merged_into_the_final_folder(two_ranks, world_folder, tmp_path):
    base = two_ranks / "sft/final"
    final = train(adapted(world_folder, tmp_path / "run", base, fsdp=False))
    found = load_file(two_ranks / "adapted/final/model.safetensors")
    close(found, load_file(final / "model.safetensors"))
    assert any(not torch.equal(tensor, found[name]) for name, tensor in load_file(base / "model.safetensors").items())


def test_bfloat16_and_gradient_checkpointing_stay_near_the_plain_step(two_ranks):
    plain, half = metrics(two_ranks / "sft"), metrics(two_ranks / "half")
    assert half["loss"][0] == pytest.approx(plain["loss"][0], rel=2e-2)
    assert half["gradient_norm"][0] == pytest.approx(plain["gradient_norm"][0], rel=2e-2)
    assert {tensor.dtype for tensor in load_file(two_ranks / "half/final/model.safetensors").values()} == {
        torch.float32
    }


def test_a_sharded_run_that_was_stopped_ends_as_one_that_was_not(two_ranks, world_folder, tmp_path):
    whole, again = (load_file(two_ranks / name / "final/model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    alone = load_file(train(long_sft(world_folder, tmp_path / "run", fsdp=False)) / "model.safetensors")
    for name, tensor in alone.items():
        torch.testing.assert_close(whole[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_single_process_and_engines_that_take_whole_weights_are_told(world_folder, tmp_path):
    read = settings(world_folder, tmp_path / "run", "grpo", fsdp=True)
    with pytest.raises(ValueError, match="single process"):
        begin(read)
    changes = {"new_model": None, "model": "unused", "lora": {"rank": 4}, "engine": {"kind": "vllm-server"}}
    with pytest.raises(ValueError, match="adapters"):
        open_engine(settings(world_folder, tmp_path, "grpo", fsdp=False, **changes), nn.Linear(1, 1), 0, "cpu")


def test_a_sharded_policy_run_goes_to_its_end(two_ranks):
    table = metrics(two_ranks / "grpo")
    assert table["step"].to_list() == [1, 2]
    assert table["kl"][0] == pytest.approx(0.0, abs=1e-2)
    assert table["gradient_norm"].is_not_null().all()


def test_the_replay_buffer_and_its_draws_do_not_depend_on_the_number_of_ranks(two_ranks):
    parts = [json.loads((two_ranks / f"replay-{number}.json").read_text()) for number in (0, 1)]
    alone = json.loads(json.dumps(replayed_rounds()))
    assert parts[0]["table"] == parts[1]["table"] == alone["table"]
    assert all(part["held"] for part in parts)  # each rank holds some of the traces, and none is held twice
    assert sum(part["held"] for part in parts) == alone["held"] == len(alone["table"]["problem_id"])
    for first, second, drawn in zip(parts[0]["draws"], parts[1]["draws"], alone["draws"]):
        assert first | second == drawn
        assert len(first) + len(second) == len(drawn) == 5  # half of ten
        assert abs(len(first) - len(second)) <= 1


@pytest.mark.parametrize("sharded", [False, True])
def test_a_replaying_run_on_two_ranks_that_was_stopped_ends_as_one_that_was_not(two_ranks, sharded):
    whole, killed = (two_ranks / f"exgrpo-{sharded}" / name for name in ("whole", "killed"))
    assert metrics(whole)["groups_replayed"].sum() > 0
    assert (whole / "final/model.safetensors").read_bytes() == (killed / "final/model.safetensors").read_bytes()
    for name in ("groups_replayed", "reward_replayed", "loss", "gradient_norm"):
        assert metrics(whole)[name].to_list() == metrics(killed)[name].to_list()
