"""The TRL adapter: its step is our loop's step on the same rows, alone and on two processes."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

pytest.importorskip("trl")

from trl import GRPOConfig, GRPOTrainer

from trainer.adapters.rows import RecipeError, load_recipe, row_roles
from trainer.adapters.trl import LuffyTrainer, luffy_dataset
from trainer.data.problems import Problem
from trainer.data.sequences import collate
from trainer.loops.optimization import apply_update
from trainer.loops.policy import totals_of, with_gradient
from trainer.modeling.models import TokenScorer, load_tokenizer
from trainer.objectives.loss_from_settings import policy_loss
from trainer.rollouts.groups import Group, Sample, with_advantages, with_roles
from trainer.rollouts.rollout import training_row

ROOT = Path(__file__).parents[2]
LIMIT = 24  # tokens of a completion at most
#: What the policy "samples": some right, some wrong, different lengths.
WRITTEN = [
    "A +1 4",
    "\\boxed{ ( 1 , 2 ) }",
    "5 A +1 ?",
    "\\boxed{ ( 3 , 4 ) } A",
    "A",
    "4 4 4 4",
    "+1 +1 A 5",
    "( 1 , 2 )",
]


@pytest.fixture(scope="module")
def tokenizer(world_folder):
    return load_tokenizer(world_folder / "tokenizer")


def tiny_qwen2(tokenizer, seed=0):
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=256, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def arguments(output, generations, **changes):
    """One optimizer step over two groups, in micro-batches; no decay, no warm-up, and the plainest optimizer."""
    given = {
        "output_dir": str(output), "num_generations": generations, "per_device_train_batch_size": generations,
        "gradient_accumulation_steps": 2, "max_steps": 1, "max_completion_length": LIMIT, "optim": "sgd",
        "learning_rate": 0.5, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no",
        "scale_rewards": "none", "logging_steps": 1, "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    return GRPOConfig(**{**given, **changes})


def reward(completions, **_):
    """1 for a text that holds 1 and 2: the teacher's and some of the rollouts."""
    texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
    return [float("1" in text and "2" in text) for text in texts]


def never(completions, teacher, **_):
    """1 for the teacher's text alone."""
    texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
    return [float(text.strip() == taught.strip()) for text, taught in zip(texts, teacher)]


class Recorded(LuffyTrainer):
    """Samples WRITTEN in turn in place of the model's answers, and keeps what it trained on."""

    def _generate_and_score_completions(self, inputs):
        self.seen = super()._generate_and_score_completions(inputs)
        return self.seen


def written(self, prompt_ids, *_, **__):
    ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in WRITTEN]
    return [[*ids[place % len(ids)], self._tokenizer.eos_token_id] for place in range(len(prompt_ids))], None


def trained(recipe, tokenizer, world_folder, tmp_path, monkeypatch, reward_of, **changes):
    """The adapter after one step, and the model as it was before."""
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", written)
    settings = load_recipe(recipe, f"data.response_tokens={LIMIT}")
    model = tiny_qwen2(tokenizer)
    before = copy.deepcopy(model)
    generations = 5 if settings.teacher_beside and settings.teacher_rows else 4
    trainer = Recorded(
        model, recipe=settings, args=arguments(tmp_path, generations, **changes), reward_funcs=reward_of,
        train_dataset=luffy_dataset(world_folder / "curated.parquet"), processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return trainer, before


def our_step(trainer, before):
    """The same rows through our loop's own functions; the model after the step, its loss and gradient norm."""
    settings, seen = trainer.recipe, trainer.seen
    rewards = trainer._rewards.tolist()
    groups = {}
    for place in range(len(rewards)):
        prompt = seen["prompt_ids"][place][seen["prompt_mask"][place].bool()].tolist()
        ids = seen["completion_ids"][place][seen["completion_mask"][place].bool()].tolist()
        taught = bool(seen["luffy_teacher"][place])
        sample = Sample(ids, len(ids) if taught else 0, "stop", reward=rewards[place])
        problem = Problem(str(place // trainer.num_generations), "", "", prompt)
        groups.setdefault(problem.problem_id, (problem, []))[1].append(sample)
    made = [Group(problem, tuple(samples)) for problem, samples in groups.values()]
    decided = with_roles(with_advantages(made, settings), settings, 0)
    rows = [training_row(group.problem, sample, old_log_probs=False) for group in decided for sample in group.samples]
    totals, kept = totals_of(rows, settings), with_gradient(rows, settings, by_every_row=settings.loss.entropy != 0)
    model = copy.deepcopy(before)
    optimizer, objective, loss = torch.optim.SGD(model.parameters(), lr=0.5), policy_loss(settings), 0.0
    for part in (kept[::2], kept[1::2]):
        batch = collate(part, 0)
        log_prob, entropy = TokenScorer(model)(batch.input_ids, batch.completion_mask)
        value, _ = objective(batch, log_prob, entropy, totals)
        value.backward()
        loss += value.item()
    return model, loss, apply_update(optimizer, 0.5, 1.0, 0), totals


@pytest.mark.parametrize(
    "recipe", ["luffy", "luffy_unshaped", "luffy_baseline", "grpo", "rl_sft", "hpt", "chord_phi", "srft"]
)
@pytest.mark.parametrize("reward_of", [reward, never])
def test_one_step_of_the_adapter_is_one_step_of_our_loop(
    recipe, reward_of, tokenizer, world_folder, tmp_path, monkeypatch
):
    trainer, before = trained(recipe, tokenizer, world_folder, tmp_path, monkeypatch, reward_of)
    model, loss, norm, totals = our_step(trainer, before)
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(loss, abs=1e-5)
    assert logged["grad_norm"] == pytest.approx(norm, rel=1e-4, abs=1e-7)
    assert trainer.seen["luffy_rows"].item() == totals.rows
    assert trainer.seen["luffy_tokens"].item() == totals.tokens
    assert trainer.seen["luffy_cloned"].item() == totals.cloned_tokens
    moved = 0.0
    for (name, ours), theirs, start in zip(model.named_parameters(), trainer.model.parameters(), before.parameters()):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5, msg=name)
        torch.testing.assert_close(theirs - start, ours - start, rtol=1e-3, atol=5e-7, msg=name)
        moved = max(moved, (theirs - start).abs().max().item())
    assert moved > 5e-5 or (recipe, reward_of) in {("grpo", never), ("luffy_baseline", never)}  # something was trained


def test_the_last_row_of_each_group_is_the_trace(tokenizer, world_folder, tmp_path, monkeypatch):
    trainer, _ = trained("luffy", tokenizer, world_folder, tmp_path, monkeypatch, reward)
    seen = trainer.seen
    assert seen["luffy_teacher"].tolist() == [False, False, False, True] * 2
    table = luffy_dataset(world_folder / "curated.parquet")
    traces = {
        tuple(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]): row["teacher"]
        for row in table
    }
    for place in (3, 7):
        prompt = tuple(seen["prompt_ids"][place][seen["prompt_mask"][place].bool()].tolist())
        ids = seen["completion_ids"][place][seen["completion_mask"][place].bool()].tolist()
        assert ids[-1] == tokenizer.eos_token_id
        assert ids[:-1] == tokenizer(traces[prompt], add_special_tokens=False)["input_ids"]
    assert trainer.state.log_history[0]["luffy/teacher_rows"] == 2


def test_a_trace_over_the_limit_and_a_missing_one_leave_the_group_to_the_policy(
    tokenizer, world_folder, tmp_path, monkeypatch
):
    trainer, _ = trained("luffy", tokenizer, world_folder, tmp_path, monkeypatch, reward, max_completion_length=3)
    assert trainer.seen["luffy_teacher"].tolist() == [False] * 8
    assert trainer._trace_of({"prompt": "5 A +1 ?", "teacher": None}) is None


def test_a_recipes_schedule_counts_generations(tokenizer, world_folder, tmp_path, monkeypatch):
    trainer, _ = trained("chord_mu", tokenizer, world_folder, tmp_path, monkeypatch, reward, max_steps=3)
    mu = trainer.recipe.loss.mu.at(2)
    teacher = trainer.seen["luffy_teacher"]
    assert trainer.seen["luffy_clone_weight"][teacher].tolist() == pytest.approx([mu] * 2)
    assert trainer.seen["luffy_weight"][~teacher].tolist() == pytest.approx([1 - mu] * 8)


def test_two_updates_a_generation_weigh_as_one_over_all(tokenizer, world_folder, tmp_path, monkeypatch):
    """Four micro-batches a generation in two updates: each is half of the rows over half of the totals."""
    trainer, _ = trained(
        "luffy", tokenizer, world_folder, tmp_path, monkeypatch, reward,
        gradient_accumulation_steps=1, steps_per_generation=2, max_steps=2,
    )  # fmt: skip
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    whole, before = trained("luffy", tokenizer, world_folder, tmp_path, monkeypatch, reward, learning_rate=0.0)
    _, loss, _, _ = our_step(whole, before)
    assert losses[0] != pytest.approx(loss, rel=1e-3)
    still, _ = trained(
        "luffy", tokenizer, world_folder, tmp_path, monkeypatch, reward,
        gradient_accumulation_steps=1, steps_per_generation=2, max_steps=2, learning_rate=0.0,
    )  # fmt: skip
    halves = [line["loss"] for line in still.state.log_history if "loss" in line]
    assert sum(halves) / 2 == pytest.approx(loss, abs=1e-5)


def test_hpts_gate_looks_at_rewards_and_not_at_advantages():
    settings = load_recipe("hpt")
    roles = row_roles([0, 0, 1, 1, 1, 1], [False, False, True] * 2, [0, 0, 0, 1, 1, 1], settings, 0)
    assert roles.acts.tolist() == [False, False, False, True, True, False]
    assert roles.clones.tolist() == [False, False, True, False, False, False]
    assert roles.counts.tolist() == [True, True, False] * 2  # left-out rollouts stay in the divisor


def test_a_reward_that_is_not_known_moves_nothing():
    roles = row_roles([1.0, float("nan"), None, 0.0], [False] * 4, [0] * 4, load_recipe("grpo"), 0)
    assert roles.advantage.tolist() == [0.5, 0.0, 0.0, -0.5]


@pytest.mark.parametrize(
    ("recipe", "told"),
    [("prefix_rft", "teacher.prefix"), ("bread", "teacher.branch"), ("exgrpo", "replay"), ("dapo", "drop_all_right")],
)
def test_a_recipe_that_the_adapter_cannot_do_is_refused_by_its_setting(recipe, told):
    with pytest.raises(RecipeError, match=told):
        load_recipe(recipe)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"beta": 0.1}, "set both or neither"), ({"top_entropy_quantile": 0.2}, "takes its place")],
)
def test_arguments_that_contradict_the_recipe_are_refused(changes, told, tokenizer, world_folder, tmp_path):
    with pytest.raises(RecipeError, match=told):
        LuffyTrainer(
            tiny_qwen2(tokenizer), args=arguments(tmp_path, 4, **changes), reward_funcs=reward,
            train_dataset=luffy_dataset(world_folder / "curated.parquet"), processing_class=tokenizer,
        )  # fmt: skip


def test_the_data_set_has_a_right_trace_a_problem(world_folder):
    table = luffy_dataset(world_folder / "curated.parquet", system_prompt="Think.")
    curated = pl.read_parquet(world_folder / "curated.parquet").filter("correct")
    assert len(table) == curated["problem_id"].n_unique()
    assert table.column_names == ["prompt", "solution", "teacher"]
    assert [message["role"] for message in table[0]["prompt"]] == ["system", "user"]
    row = curated.row(0, named=True)
    assert (table[0]["solution"], table[0]["teacher"]) == (row["gold"], row["response"])


ACCELERATED = """
import json, sys
import torch
sys.path[:0] = [{tests!r}]
import test_adapters_trl as t
from trl import GRPOTrainer
from trainer.modeling.models import load_tokenizer
from pathlib import Path

torch.set_num_threads(1)
world, output, processes = Path({world!r}), Path({output!r}), int(sys.argv[1])
tokenizer = load_tokenizer(world / "tokenizer")

def written(self, prompt_ids, *_, **__):
    ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in t.WRITTEN]
    first = self.accelerator.process_index * len(prompt_ids)
    return [[*ids[(first + place) % 8], self._tokenizer.eos_token_id] for place in range(len(prompt_ids))], None

GRPOTrainer._generate_single_turn = written
trainer = t.LuffyTrainer(
    t.tiny_qwen2(tokenizer), recipe=t.load_recipe("luffy", "data.response_tokens=24"),
    args=t.arguments(output / str(processes), 4, per_device_train_batch_size=4 // processes, shuffle_dataset=False,
                     ddp_backend="gloo" if processes > 1 else None),
    reward_funcs=t.reward, train_dataset=t.luffy_dataset(world / "curated.parquet"), processing_class=tokenizer)
trainer.train()
if trainer.accelerator.is_main_process:
    torch.save([p.detach() for p in trainer.accelerator.unwrap_model(trainer.model).parameters()],
               output / f"{{processes}}.pt")
    (output / f"{{processes}}.json").write_text(json.dumps(trainer.state.log_history[0]))
"""


@pytest.mark.slow
def test_two_processes_under_accelerate_take_the_step_of_one(world_folder, tmp_path):
    """Groups of four split over two gloo processes: the teacher's row is the last of the whole group."""
    script = tmp_path / "step.py"
    tests = str(Path(__file__).parent)
    script.write_text(ACCELERATED.format(tests=tests, world=str(world_folder), output=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for processes in (1, 2):
        many = ["--multi_gpu"] if processes == 2 else ["--cpu"]  # accelerate's word for several processes on a machine
        command = [
            sys.executable, "-m", "accelerate.commands.launch", *many, "--num_processes", str(processes),
            "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
            str(script), str(processes),
        ]  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"{count}.json").read_text()) for count in (1, 2))
    assert two["luffy/teacher_rows"] == one["luffy/teacher_rows"] == 2
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    for ours, theirs in zip(torch.load(tmp_path / "1.pt"), torch.load(tmp_path / "2.pt")):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
