"""Each hybrid of imitation and RL against its paper's equation, worked out by hand from its shipped recipe."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from test_rollout import NOTHING, RIGHT, WRONG, ScriptedEngine, problem

from tracekit.core.settings import SettingsError, load_settings
from trainer.data.sequences import collate
from trainer.loops.policy import totals_of, with_gradient
from trainer.modeling.models import load_tokenizer
from trainer.objectives.batch import Role
from trainer.objectives.loss_from_settings import policy_loss
from trainer.rollouts.rollout import GroupSampler, training_row
from trainer.settings import TrainSettings

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"
LENGTH = 20  # of a response at most


@pytest.fixture(scope="module")
def tokenizer(world_folder):
    return load_tokenizer(world_folder / "tokenizer")


def recipe(name, *overrides, group_size=4):
    small = (f"data.response_tokens={LENGTH}", "rollout.prompts=2", f"rollout.group_size={group_size}")
    return load_settings(TrainSettings, RECIPES / f"{name}.toml", [*small, "loss.entropy=0", *overrides])


def roll_out(settings, tokenizer, texts, problems=None, number=0):
    problems = problems or [problem(tokenizer)]
    engine = ScriptedEngine(tokenizer, texts)
    sampler = GroupSampler(settings, tokenizer, engine, problems)
    rolled = sampler.roll_out(number, len(problems), itertools.cycle(range(len(problems))), {})
    return rolled.groups, engine


class Step:
    """One update over the groups: the recipe's loss on random log-probs, and those log-probs row by row."""

    def __init__(self, settings, groups, seed=0):
        rows = [
            training_row(group.problem, sample, old_log_probs=False) for group in groups for sample in group.samples
        ]
        self.totals, self.rows = totals_of(rows, settings), with_gradient(rows, settings)
        batch = collate(self.rows, 0)
        draw = torch.Generator().manual_seed(seed)
        drawn = -torch.rand(batch.input_ids.shape, generator=draw) * 3 - 0.01
        self.log_prob = drawn.masked_fill(~batch.completion_mask, 0.0).requires_grad_()
        self.entropy = torch.rand(batch.input_ids.shape, generator=draw)
        self.loss, _ = policy_loss(settings)(batch, self.log_prob, self.entropy, self.totals)

    def tokens(self, values, index):
        """The response's values of a row, as floats."""
        row = self.rows[index]
        return values.tolist()[index][row.prompt_length : len(row.token_ids)]

    def surrogate(self, index):
        """Σ_t −A of a row: every ratio is 1 at a round's first update."""
        row = self.rows[index]
        return -row.advantage * row.response_length

    def gradient(self):
        (gradient,) = torch.autograd.grad(self.loss, self.log_prob)
        return [self.tokens(gradient, index) for index in range(len(self.rows))]


# extends


def test_a_recipe_is_laid_over_the_one_that_it_extends(tmp_path):
    (tmp_path / "base.toml").write_text('method = "grpo"\nsteps = 3\n[loss]\nkl = 0.5\nentropy = 0.25\n')
    (tmp_path / "middle.toml").write_text('extends = "base"\nsteps = 4\n[loss]\nkl = 0.75\n')
    (tmp_path / "top.toml").write_text('extends = "middle.toml"\nmodel = "m"\noutput = "o"\n[data]\nproblems = "p"\n')
    settings = load_settings(TrainSettings, tmp_path / "top.toml", ["loss.entropy=0.125"])
    assert (settings.method, settings.steps, settings.loss.kl, settings.loss.entropy) == ("grpo", 4, 0.75, 0.125)


@pytest.mark.parametrize(("text", "told"), [('extends = "a"', "comes back"), ("extends = 3", "name or path")])
def test_a_circle_and_a_base_that_is_no_name_are_told(tmp_path, text, told):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SettingsError, match=told):
        load_settings(TrainSettings, tmp_path / "a.toml")


def test_a_missing_base_is_told_by_its_path(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "gone"')
    with pytest.raises(SettingsError, match=r"gone\.toml does not exist"):
        load_settings(TrainSettings, tmp_path / "a.toml")


# HPT: (α, β) = (0, 1) where no rollout is right, else (1, 0)


def test_hpt_clones_the_trace_where_no_rollout_is_right_and_does_grpo_elsewhere(tokenizer):
    settings = recipe("hpt")
    failed, solved = (
        roll_out(settings, tokenizer, texts)[0][0] for texts in ([WRONG, NOTHING], [WRONG, RIGHT, WRONG, WRONG])
    )
    assert [sample.teacher for sample in failed.samples] == [True] + [False] * 4  # beside a whole group
    assert [sample.teacher_role for sample in failed.samples if sample.teacher] == [Role.CLONED]
    assert {sample.role for sample in failed.samples if not sample.teacher} == {Role.LEFT_OUT}
    assert [sample.teacher_role for sample in solved.samples if sample.teacher] == [Role.LEFT_OUT]
    assert [sample.advantage for sample in solved.samples[1:]] == [-0.25, 0.75, -0.25, -0.25]

    step = Step(settings, [failed, solved])
    assert len(step.rows) == 5  # the failed group's trace, the solved group's rollouts
    assert (step.totals.rows, step.totals.cloned_tokens) == (8, step.rows[0].response_length)
    cloned = -sum(step.tokens(step.log_prob, 0)) / step.rows[0].response_length
    acting = sum(step.surrogate(index) for index in range(1, 5)) / (8 * LENGTH)
    assert step.loss.item() == pytest.approx(cloned + acting, rel=1e-5)
    gradient = step.gradient()
    assert gradient[0] == pytest.approx([-1 / step.rows[0].response_length] * step.rows[0].response_length)
    assert gradient[2] == pytest.approx([-0.75 / (8 * LENGTH)] * step.rows[2].response_length)


def test_hpt_without_a_trace_is_grpo(tokenizer):
    (group,), _ = roll_out(recipe("hpt"), tokenizer, [WRONG], [problem(tokenizer, traces=())])
    assert {sample.role for sample in group.samples} == {Role.SURROGATE}


def test_hpts_gate_can_ask_for_more_right_rollouts(tokenizer):
    (group,), _ = roll_out(recipe("hpt", "teacher.right_at_most=1"), tokenizer, [RIGHT, WRONG, WRONG, WRONG])
    assert [sample.role for sample in group.samples[1:]] == [Role.LEFT_OUT] * 4


# CHORD: (1 − μ)·L_GRPO + μ·L_SFT, φ = p(1 − p)


@pytest.mark.parametrize(
    ("name", "number", "mu"), [("chord_mu", 0, 0.9), ("chord_mu", 100, 0.475), ("chord_phi", 7, 0.1)]
)
def test_chord_mixes_grpo_and_sft_by_mu(tokenizer, name, number, mu):
    settings = recipe(name)
    groups, _ = roll_out(settings, tokenizer, [RIGHT, WRONG], number=number)
    assert [sample.advantage for sample in groups[0].samples] == [
        0.0,
        0.5,
        -0.5,
        0.5,
        -0.5,
    ]  # the trace compares nothing
    step = Step(settings, groups)
    length = step.rows[0].response_length
    p = [math.exp(value) for value in step.tokens(step.log_prob, 0)]
    weights = [value * (1 - value) for value in p] if name == "chord_phi" else [1.0] * length
    cloned = -sum(weight * math.log(value) for weight, value in zip(weights, p)) / length
    acting = sum(step.surrogate(index) for index in range(1, 5)) / (4 * LENGTH)
    assert step.loss.item() == pytest.approx((1 - mu) * acting + mu * cloned, rel=1e-5)
    gradient = step.gradient()
    assert gradient[0] == pytest.approx([-mu * weight / length for weight in weights], rel=1e-5)  # φ is detached
    assert gradient[1] == pytest.approx([-(1 - mu) * 0.5 / (4 * LENGTH)] * step.rows[1].response_length, rel=1e-5)


def test_chords_mu_falls_by_a_cosine_and_stays():
    mu = recipe("chord_mu").loss.mu
    assert [mu.at(number) for number in (0, 50, 100, 200, 900)] == pytest.approx(
        [0.9, 0.05 + 0.85 * (1 + math.cos(math.pi / 4)) / 2, 0.475, 0.05, 0.05]
    )


# Arms of LUFFY


def test_a_teacher_row_of_weight_zero_shifts_the_baseline_and_trains_nothing(tokenizer):
    texts = [RIGHT, WRONG, WRONG]
    (plain,), _ = roll_out(recipe("luffy"), tokenizer, texts)
    (shifted,), _ = roll_out(recipe("luffy_baseline"), tokenizer, texts)
    assert [s.advantage for s in shifted.samples] == [s.advantage for s in plain.samples] == [0.5, 0.5, -0.5, -0.5]
    step = Step(recipe("luffy_baseline"), [shifted])
    assert (len(step.rows), step.totals.rows) == (3, 4)  # its row still counts in the step's rows
    assert step.loss.item() == pytest.approx(sum(step.surrogate(i) for i in range(3)) / (4 * LENGTH), rel=1e-5)


@pytest.mark.parametrize("name", ["luffy", "luffy_unshaped"])
def test_luffys_teacher_tokens_weigh_f_of_p(tokenizer, name):
    settings = recipe(name)
    groups, _ = roll_out(settings, tokenizer, [WRONG])
    step = Step(settings, groups)
    assert [row.advantage for row in step.rows] == [0.75, -0.25, -0.25, -0.25]
    p = [math.exp(value) for value in step.tokens(step.log_prob, 0)]
    f = [value / (value + 0.1) if name == "luffy" else value for value in p]
    total = -0.75 * sum(f) + sum(step.surrogate(i) for i in (1, 2, 3))
    assert step.loss.item() == pytest.approx(total / (4 * LENGTH), rel=1e-5)
