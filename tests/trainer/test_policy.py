"""The policy loop: one LUFFY step against a slow computation, invariances, and a run that was killed."""

import math
import os
import shutil
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from evaluators.verdict import Outcome, Verdict
from tracekit.core.tables import COMPLETIONS, read_table
from trainer.data import shared_prompts
from trainer.data.problems import load_problems
from trainer.loops import policy
from trainer.loops.policy import accumulate, totals_of, with_gradient
from trainer.loops.round_metrics import importance_statistics
from trainer.loops.run_log import Averages
from trainer.loops.run_state import begin
from trainer.modeling.models import TokenScorer
from trainer.objectives.loss_from_settings import policy_loss
from trainer.rollouts import rewards
from trainer.rollouts.engines.embedded import EmbeddedEngine
from trainer.rollouts.log_prob_scoring import open_scoring
from trainer.rollouts.rollout import GroupSampler, training_row
from trainer.settings import TrainSettings
from trainer.train import train

LUFFY = {"on_policy": {"clip": False}, "loss": {"entropy": 0.001}, "teacher": {"rows": 1}}


def settings(world_folder, output, **changes):
    tree = {
        "method": "luffy",
        "output": output,
        "new_model": {"tokenizer": world_folder / "tokenizer", "hidden_size": 32, "layers": 2, "heads": 2},
        "data": {
            "problems": world_folder / "problems.parquet",
            "curated": world_folder / "curated.parquet",
            "response_tokens": 40,
        },
        "steps": 4,
        "threads": 1,
        "seed": 3,
        "rollout": {"prompts": 4, "mini_batch_prompts": 2, "group_size": 4},
        "optimizer": {"lr": 1e-3},
        "checkpoint": {"every": 1},
    }
    for name, value in changes.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainSettings.model_validate(tree)


def rolled_out(read):
    """A training at its start, and one round of rows with rewards that vary."""
    training = begin(read)
    problems, _ = load_problems(read, training.tokenizer)
    sampler = GroupSampler(read, training.tokenizer, EmbeddedEngine(training.model), problems)
    groups = sampler.roll_out(0, 4, iter(range(40)), {}).groups
    generator = torch.Generator().manual_seed(1)
    rows = [
        replace(training_row(group.problem, sample, old_log_probs=True), advantage=advantage)
        for group in groups
        for sample, advantage in zip(group.samples, torch.randn(8, generator=generator).tolist())
    ]
    return training, rows


def gradient(training, rows, loss_settings, micro_tokens=16_384, sharing=False):
    """Gradient of one update by the loop's own code, and its loss."""
    training.optimizer.zero_grad(set_to_none=True)
    read = loss_settings.model_copy(
        update={"batch": loss_settings.batch.model_copy(update={"micro_tokens": micro_tokens})}
    )
    averages = Averages()
    scorer = TokenScorer(training.model, read.rollout.temperature)
    totals = totals_of(rows, read)
    accumulate(replace(training, settings=read), scorer, policy_loss(read), rows, totals, averages, sharing=sharing)
    parts = {name: p.grad.clone() for name, p in training.model.named_parameters()}
    return averages.means()["loss"], parts


def test_one_luffy_step_is_what_a_slow_computation_gives(world_folder, tmp_path):
    """Row by row from plain logits: −A·p/p_old on own tokens, −A·p/(p + 0.1) on the teacher's, no clip; their sum over
    rows × response limit; less 0.001 × the mean entropy of all tokens."""
    read = settings(world_folder, tmp_path, **LUFFY)
    training, rows = rolled_out(read)
    loss, found = gradient(training, rows, read)
    training.optimizer.zero_grad(set_to_none=True)
    surrogate, entropies, tokens = 0.0, 0.0, 0
    for row in rows:
        logits = training.model(torch.tensor([list(row.token_ids)])).logits[0]
        for place in range(row.prompt_length, len(row.token_ids)):
            p = logits[place - 1].softmax(-1)
            chosen = p[row.token_ids[place]]
            if row.off_policy:
                surrogate += -row.advantage * chosen / (chosen + 0.1)
            else:
                old = row.old_log_probs[place - row.prompt_length]
                surrogate += -row.advantage * (chosen.log() - old).exp()
            entropies += -(p * p.log()).sum()
            tokens += 1
    wanted = surrogate / (len(rows) * 40) - 0.001 * entropies / tokens
    wanted.backward()
    assert sum(1 for row in rows if row.off_policy) == 4
    assert loss == pytest.approx(wanted.item(), rel=1e-4, abs=1e-7)
    for name, parameter in training.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_train_as_plain_ones_do(world_folder, tmp_path, checkpointing):
    plain, compiled = (
        pl.read_parquet(
            train(settings(world_folder, tmp_path / str(compile), **LUFFY, **changes)).parent / "metrics.parquet"
        )
        for compile, changes in ((False, {}), (True, {"compile": True, "gradient_checkpointing": checkpointing}))
    )
    for column in ("loss", "gradient_norm", "rollout_entropy", "response_tokens"):
        assert compiled[column].to_list() == pytest.approx(plain[column].to_list(), rel=1e-4, abs=1e-7), column


@pytest.mark.parametrize("reduction", ["constant", "token_mean", "sequence_mean"])
def test_the_gradient_does_not_depend_on_how_rows_fall_into_micro_batches(world_folder, tmp_path, reduction):
    read = settings(world_folder, tmp_path, **{**LUFFY, "loss": {"entropy": 0.01, "reduction": reduction}})
    training, rows = rolled_out(read)
    whole_loss, whole = gradient(training, rows, read)
    for budget in (1, 150):
        loss, parts = gradient(training, rows, read, micro_tokens=budget)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        for name, part in parts.items():
            torch.testing.assert_close(part, whole[name], rtol=1e-4, atol=1e-7)


def test_prompts_computed_once_give_the_same_update(world_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_prompts, "LEAST_SAVING", -10.0)  # share although so small a model gains nothing
    read = settings(world_folder, tmp_path, **LUFFY)
    training, rows = rolled_out(read)
    whole_loss, whole = gradient(training, rows, read)
    scored = []
    monkeypatch.setattr(policy, "score_shared", lambda *a: scored.append(1) or shared_prompts.score_shared(*a))
    for budget in (200, 16_384):
        loss, parts = gradient(training, rows, read, micro_tokens=budget, sharing=True)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        for name, part in parts.items():
            torch.testing.assert_close(part, whole[name], rtol=1e-4, atol=1e-7)
    assert len(scored) > 2


def test_rows_of_zero_advantage_can_be_left_out(world_folder, tmp_path):
    read = settings(world_folder, tmp_path, **{**LUFFY, "loss": {"entropy": 0.0}})
    training, rows = rolled_out(read)
    rows = [replace(row, advantage=0.0) if place % 3 else row for place, row in enumerate(rows)]
    _, whole = gradient(training, rows, read)
    kept = with_gradient(rows, read)
    assert len(kept) == sum(row.advantage != 0 for row in rows) < len(rows)
    training.optimizer.zero_grad(set_to_none=True)
    accumulate(training, TokenScorer(training.model), policy_loss(read), kept, totals_of(rows, read), Averages())
    for name, parameter in training.model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-5, atol=1e-8)


def test_no_row_is_left_out_where_entropy_or_kl_reach_it(world_folder, tmp_path):
    assert policy_loss(settings(world_folder, tmp_path, **LUFFY)).needs_every_row
    assert policy_loss(settings(world_folder, tmp_path, loss={"kl": 0.1})).needs_every_row
    assert not policy_loss(settings(world_folder, tmp_path)).needs_every_row


def test_a_run_leaves_metrics_completions_and_a_model(world_folder, tmp_path):
    read = settings(world_folder, tmp_path / "run", **LUFFY, steps=2)
    seen = []
    final = train(read, progress=lambda *line: seen.append(line))
    assert [line[:3] for line in seen] == [("luffy", 1, 2), ("luffy", 2, 2)]
    assert AutoModelForCausalLM.from_pretrained(final).num_parameters() > 0
    metrics = pl.read_parquet(read.output / "metrics.parquet")
    assert metrics["updates"].to_list() == [2, 4]  # two a round
    completions = read_table(read.output / "completions" / "round-000001.parquet", COMPLETIONS)
    assert len(completions) == 4 * 4
    teacher = completions.filter(~pl.col("on_policy"))
    assert teacher["outcome"].unique().to_list() == ["correct"]
    first = metrics.row(0, named=True)
    assert first["reward_teacher"] == 1.0
    own = completions.filter("on_policy")
    assert first["reward_on_policy"] == pytest.approx(own["reward"].mean())
    assert first["tokens_sampled"] == own["token_count"].sum()
    assert first["tokens_teacher"] == teacher["token_count"].sum()
    assert first["advantage_teacher"] == pytest.approx(teacher["advantage"].mean(), abs=1e-6)
    shares = [value for name, value in first.items() if name.startswith("teacher_probability_to_")]
    assert sum(shares) == pytest.approx(1.0)
    assert first["tokens_trained"] > first["tokens_sampled"]


def test_the_kl_to_the_starting_model_is_zero_at_first_and_grows(world_folder, tmp_path):
    read = settings(world_folder, tmp_path / "run", method="luffy", loss={"kl": 0.1}, steps=2)
    read = read.model_copy(update={"rollout": read.rollout.model_copy(update={"mini_batch_prompts": 4})})
    train(read)
    kl = pl.read_parquet(read.output / "metrics.parquet")["kl"].to_list()
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert kl[1] > 1e-5


def scripted_verdicts(responses, golds, **_):
    """Right by a checksum, so that a random model is right now and then; a boxed answer always, the teacher's so."""
    right = [zlib.crc32(response.encode()) % 3 == 0 or "box" in response for response in responses]
    return [Verdict(Outcome.CORRECT if r else Outcome.WRONG, None, g, "", "") for r, g in zip(right, golds)]


def exgrpo_settings(world_folder, output):
    return settings(world_folder, output, replay={"start_reward": 0.05}, steps=5, checkpoint={"every": 2})


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_policy
from trainer.rollouts import rewards
from trainer.train import train

rewards.verify_batch = test_policy.scripted_verdicts

def progress(stage, done, total, note):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

train(test_policy.exgrpo_settings(Path(sys.argv[2]), Path(sys.argv[3])), progress=progress)
"""


def test_a_killed_run_ends_with_the_same_bytes(world_folder, tmp_path, monkeypatch):
    """kill -9 in the fourth round, past the newest checkpoint, with a replay buffer filled and open."""
    first, second = tmp_path / "a" / "run", tmp_path / "b" / "run"
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(world_folder), str(second)]
    killed = subprocess.run(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [path.name for path in (second / "checkpoints").iterdir()] == ["step-000002"]
    monkeypatch.setattr(rewards, "verify_batch", scripted_verdicts)
    for folder in (first, second):
        train(exgrpo_settings(world_folder, folder))
    assert (first / "final/model.safetensors").read_bytes() == (second / "final/model.safetensors").read_bytes()
    times = pl.selectors.starts_with("seconds") | pl.selectors.by_name("tokens_per_second")
    metrics = [pl.read_parquet(folder / "metrics.parquet").drop(times) for folder in (first, second)]
    assert metrics[0].equals(metrics[1])
    assert metrics[0]["groups_replayed"].sum() > 0
    for number in range(1, 6):
        name = f"completions/round-{number:06d}.parquet"
        assert pl.read_parquet(first / name).equals(pl.read_parquet(second / name))


# Engines whose log-probs are not the trainer's


class ShiftedEngine(EmbeddedEngine):
    """Says of every token that it was exp(shift) times as likely as it is."""

    exact, shift = False, 0.0

    def generate(self, prompts, n, sampling):
        return [
            [replace(rollout, log_probs=[value + self.shift for value in rollout.log_probs]) for rollout in group]
            for group in super().generate(prompts, n, sampling)
        ]


@pytest.mark.parametrize(
    ("shift", "weight", "cut"), [(-0.4, math.exp(0.4), 0.0), (0.4, math.exp(-0.4), 0.0), (-1, 2, 1)]
)
def test_an_engine_that_is_not_exact_is_corrected_for_by_truncated_weights(world_folder, tmp_path, shift, weight, cut):
    """Old log-probs are the trainer's own; every on-policy token's loss is weighed by min(p/p_engine, 2)."""
    read = settings(world_folder, tmp_path, method="grpo", on_policy={"clip": False})
    training = begin(read)
    problems, _ = load_problems(read, training.tokenizer)
    engine = ShiftedEngine(training.model)
    engine.shift = shift
    groups = GroupSampler(read, training.tokenizer, engine, problems).roll_out(0, 4, iter(range(40)), {}).groups
    scoring = open_scoring(training, training.scorer, engine, one_update=True)
    scored = [row for group in scoring.rows(groups) for row in group]
    rows = [replace(row, advantage=place % 3 - 1.0) for place, row in enumerate(scored)]
    samples = [sample for group in groups for sample in group.samples]
    for row, sample in zip(rows, samples, strict=True):
        assert row.old_log_probs == pytest.approx([value - shift for value in sample.log_probs], abs=1e-4)
        assert row.importance == pytest.approx([weight] * len(sample.token_ids), abs=1e-3)
    averages = Averages()
    averages.add(importance_statistics(rows, read.rollout.importance_cap))
    found = averages.means()
    assert found["importance"] == pytest.approx(weight, abs=1e-3)
    assert found["importance_gap"] == pytest.approx(abs(math.log(weight)), abs=1e-3)
    assert found["importance_cut"] == cut
    weighed_loss, weighed = gradient(training, rows, read)
    plain_loss, plain = gradient(training, [replace(row, importance=None) for row in rows], read)
    assert weighed_loss == pytest.approx(weight * plain_loss, rel=1e-3)
    for name, part in plain.items():
        torch.testing.assert_close(weighed[name], weight * part, rtol=2e-3, atol=1e-7, msg=name)


def test_a_run_logs_the_size_of_the_correction(world_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ShiftedEngine, "shift", -0.1)
    monkeypatch.setattr(policy, "open_engine", lambda settings, model, *_: ShiftedEngine(model))
    read = settings(world_folder, tmp_path / "run", steps=2, **LUFFY)
    train(read)
    metrics = pl.read_parquet(read.output / "metrics.parquet")
    assert metrics["importance"].to_list() == pytest.approx([math.exp(0.1)] * 2, abs=1e-3)
    assert metrics["importance_gap"].to_list() == pytest.approx([0.1] * 2, abs=1e-3)
    assert metrics["importance_cut"].to_list() == [0.0, 0.0]
