"""Each hybrid of imitation and RL against its paper's equation, worked out by hand from its shipped recipe."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_rollout import NOTHING, RIGHT, WRONG, ScriptedEngine, problem

from tracekit.core.settings import SettingsError, load_settings
from trainer.data.sequences import Row, collate
from trainer.loops.policy import totals_of, with_gradient
from trainer.modeling.models import load_tokenizer
from trainer.objectives.batch import Role
from trainer.objectives.loss_from_settings import policy_loss
from trainer.rollouts.log_prob_scoring import _importance
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


# Prefix-RFT: one row continues a prefix; its tokens of highest entropy alone are trained


def test_prefix_rft_trains_the_fifth_of_the_prefix_with_the_highest_entropy(tokenizer):
    settings = recipe("prefix_rft", "teacher.top_entropy=0.4")
    (group,), _ = roll_out(settings, tokenizer, [RIGHT, WRONG], number=250)  # half-way: half of the trace
    prefixed = group.samples[0]
    trace = problem(tokenizer).traces[0].token_ids
    assert prefixed.off_policy == len(trace) / 2 == 4
    assert list(prefixed.token_ids[:4]) == list(trace[:4])
    step = Step(settings, [group])
    gradient, entropy = step.gradient()[0], step.tokens(step.entropy, 0)
    best = sorted(range(4), key=lambda place: -entropy[place])[:2]  # ⌈0.4 · 4⌉
    unit = -step.rows[0].advantage / (4 * LENGTH)
    length = step.rows[0].response_length
    # −A·log p on the prefix, −A·p/p_old on the continuation: both have gradient −A at the first update
    assert gradient == pytest.approx([unit if place in best or place >= 4 else 0.0 for place in range(length)])


@pytest.mark.parametrize(("number", "share"), [(0, 0.95), (250, 0.5), (500, 0.05), (900, 0.05)])
def test_prefix_rfts_prefix_shortens_by_a_cosine(number, share):
    assert recipe("prefix_rft").teacher.prefix.at(number) == pytest.approx(share)


def test_a_prefix_can_be_drawn_uniformly_below_the_schedules_value(tokenizer):
    settings = recipe("prefix_rft", "teacher.prefix.lowest=0.1")
    problems = [problem(tokenizer, f"p{number}") for number in range(200)]
    sampler = GroupSampler(settings, tokenizer, ScriptedEngine(tokenizer, [WRONG]), problems)
    drawn = [sampler._fraction(one, 0) for one in problems]
    assert min(drawn) >= 0.1
    assert max(drawn) <= 0.95
    assert sum(drawn) / 200 == pytest.approx((0.1 + 0.95) / 2, abs=0.05)
    assert [sampler._fraction(one, 0) for one in problems] == drawn  # by seed, round and problem alone


# UFT: every row continues one hint of Binomial length; β·(−log p) on the hint


def test_uft_continues_one_hint_in_every_row_and_clones_it(tokenizer):
    settings = recipe("uft", "teacher.prefix.start=1", "teacher.prefix.end=1", "loss.sft=0.5")
    (group,), engine = roll_out(settings, tokenizer, [RIGHT, WRONG])
    trace = problem(tokenizer).traces[0].token_ids
    hint = len(trace) - 1  # the whole trace would leave nothing to continue
    assert [sample.off_policy for sample in group.samples] == [hint] * 4
    assert len(engine.asked) == 1
    step = Step(settings, [group])
    assert step.totals.cloned_tokens == 4 * hint
    own = [row.response_length - hint for row in step.rows]
    assert (step.totals.rows, step.totals.tokens) == (4, sum(own))
    cloned = -sum(sum(step.tokens(step.log_prob, index)[:hint]) for index in range(4)) / (4 * hint)
    acting = sum(-row.advantage * count for row, count in zip(step.rows, own)) / (4 * LENGTH)
    assert step.loss.item() == pytest.approx(acting + 0.5 * cloned, rel=1e-5, abs=1e-7)


def test_ufts_hint_is_a_binomial_number_of_fifths(tokenizer):
    settings = recipe("uft")
    problems = [problem(tokenizer, f"p{number}") for number in range(400)]
    sampler = GroupSampler(settings, tokenizer, ScriptedEngine(tokenizer, [WRONG]), problems)
    drawn = [sampler._fraction(one, 150) for one in problems]  # half-way: p = 0.475
    assert set(drawn) <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert sum(drawn) / 400 == pytest.approx(0.475, abs=0.04)
    assert sum(value**2 for value in drawn) / 400 - (sum(drawn) / 400) ** 2 == pytest.approx(
        0.475 * 0.525 / 5, abs=0.015
    )
    assert [sampler._fraction(one, 300) for one in problems] == [0.0] * 400


def test_uft_without_a_hint_is_grpo(tokenizer):
    (group,), _ = roll_out(recipe("uft"), tokenizer, [RIGHT, WRONG], number=300)
    assert [sample.on_policy for sample in group.samples] == [True] * 4


# BREAD: a failed group is sampled anew from growing prefixes


class StubbornEngine(ScriptedEngine):
    """Right from prompts of at least `needs` tokens, wrong from shorter ones."""

    needs: int = 0

    def generate(self, prompts, n, sampling):
        self.asked.append((len(prompts), n, sampling.max_tokens))
        return [
            [self._rollout(RIGHT if len(ids) >= self.needs and row % 2 else WRONG, 99) for row in range(n)]
            for ids in prompts
        ]


def bread_round(tokenizer, needs, *overrides, problems=None):
    settings = recipe("bread", *overrides)
    engine = StubbornEngine(tokenizer, [])
    engine.needs = needs
    problems = problems or [problem(tokenizer)]
    sampler = GroupSampler(settings, tokenizer, engine, problems)
    return settings, sampler.roll_out(0, len(problems), iter(range(9)), {}), engine


def test_bread_branches_from_the_shortest_prefix_that_leads_to_a_right_answer(tokenizer):
    prompt, trace = len(problem(tokenizer).prompt_ids), problem(tokenizer).traces[0].token_ids
    length = len(trace)
    settings, rolled, engine = bread_round(tokenizer, prompt + round(0.6 * length))
    (group,) = rolled.groups
    assert [asked[:2] for asked in engine.asked] == [(1, 4)] * 4  # from the prompt, 0.2, 0.4, 0.6
    assert [sample.off_policy for sample in group.samples] == [round(0.6 * length)] * 4
    assert [sample.reward for sample in group.samples] == [0, 1, 0, 1]
    assert [sample.advantage for sample in group.samples] == [-0.5, 0.5, -0.5, 0.5]
    assert rolled.counts["groups_branched"] == 1
    assert rolled.counts["tokens_discarded"] > 0
    step = Step(settings, [group])
    gradient = step.gradient()
    for index, row in enumerate(step.rows):
        own = row.response_length - row.off_policy
        unit = -row.advantage / (4 * LENGTH)
        assert gradient[index] == pytest.approx([0.0] * row.off_policy + [unit] * own)  # the prefix is not trained
    assert step.totals.tokens == sum(row.response_length - row.off_policy for row in step.rows)


def test_bread_leaves_solved_groups_hopeless_ones_and_those_without_a_trace_as_they_are(tokenizer):
    for needs, problems in ((0, None), (10**6, None), (10**6, [problem(tokenizer, traces=())])):
        _, rolled, engine = bread_round(tokenizer, needs, problems=problems)
        assert [sample.off_policy for sample in rolled.groups[0].samples] == [0] * 4
        assert len(engine.asked) == (5 if needs and problems is None else 1)
        assert rolled.counts["groups_branched"] == 0


def test_bread_branches_only_the_groups_that_failed(tokenizer):
    longer = problem(tokenizer, "b")
    longer = replace(longer, prompt_ids=[*longer.prompt_ids] * 9)
    _, rolled, _ = bread_round(tokenizer, len(longer.prompt_ids), problems=[problem(tokenizer, "a"), longer])
    assert [group.samples[0].off_policy for group in rolled.groups] == [0, 0]
    assert [max(group.rewards) for group in rolled.groups] == [0, 1]


@pytest.mark.parametrize("branch", ["[0.5, 0.2]", "[0.5, 1.0]", "[0.0]"])
def test_breads_fractions_grow_between_zero_and_one(branch):
    with pytest.raises(SettingsError, match="growing fractions"):
        recipe("bread", f"teacher.branch={branch}")


# SRFT: 0.5·e^(−H)·(−log p) and the group's surrogate on the demonstration; 0.1·e^H on right rollouts


def test_srft_weighs_demonstration_and_right_rollouts_by_entropy(tokenizer):
    settings = recipe("srft")
    (group,), _ = roll_out(settings, tokenizer, [RIGHT, WRONG, WRONG])
    step = Step(settings, [group])
    assert [row.advantage for row in step.rows] == [0.5, 0.5, -0.5, -0.5]
    lengths = [row.response_length for row in step.rows]
    h = [sum(step.tokens(step.entropy, index)) / lengths[index] for index in range(4)]
    p = [math.exp(value) for value in step.tokens(step.log_prob, 0)]
    cloned = 0.5 * math.exp(-h[0]) * -sum(math.log(value) for value in p) / lengths[0]
    demonstration = -0.5 * sum(value / (value + 0.1) for value in p)
    right = 0.1 * math.exp(h[1]) * -0.5 * lengths[1]
    wrong = 0.5 * (lengths[2] + lengths[3])
    wanted = cloned + (demonstration + right + wrong) / (4 * LENGTH)
    assert step.loss.item() == pytest.approx(wanted, rel=1e-5)
    assert step.gradient()[1] == pytest.approx([0.1 * math.exp(h[1]) * -0.5 / (4 * LENGTH)] * lengths[1], rel=1e-5)


# On-policy distillation: advantage log q − log p of each sampled token


def test_on_policy_distillation_has_the_gradient_of_the_reverse_kl():
    """One position, three tokens: Σ_y p(y)·∇ of each token's loss is ∇KL(p‖q), by enumeration."""
    settings = recipe("on_policy_distillation")
    logits = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64, requires_grad=True)
    log_q = torch.tensor([0.1, 0.2, -0.6], dtype=torch.float64).log_softmax(-1)
    total = torch.zeros(3, dtype=torch.float64)
    for token in range(3):
        log_p = logits.log_softmax(-1)
        row = Row([9, token], 1, advantage=5.0, teacher_log_probs=[log_q[token].item()])
        batch = collate([row], 0)
        log_prob = torch.stack([torch.zeros((), dtype=torch.float64), log_p[token]])[None]
        loss, _ = policy_loss(settings)(batch, log_prob, torch.zeros_like(log_prob), totals_of([row], settings))
        total += log_p[token].exp().item() * torch.autograd.grad(loss, logits)[0]
    kl = (logits.log_softmax(-1).exp() * (logits.log_softmax(-1) - log_q)).sum()
    torch.testing.assert_close(total, torch.autograd.grad(kl, logits)[0], rtol=1e-6, atol=1e-7)


def test_distillation_trains_rows_whose_reward_says_nothing():
    assert Row([9, 1], 1, teacher_log_probs=[-1.0]).has_gradient
    assert not Row([9, 1], 1).has_gradient


@pytest.mark.parametrize("words", [[], ['distill.scorer="a:b"', 'distill.model="m"']])
def test_distillation_has_one_teacher(words, tmp_path):
    (tmp_path / "r.toml").write_text(
        'method="grpo"\nmodel="m"\noutput="o"\n[data]\nproblems="p"\n[distill]\nweight=1.0'
    )
    with pytest.raises(SettingsError, match="exactly one of model"):
        load_settings(TrainSettings, tmp_path / "r.toml", words)


# Controls and corrections


def test_random_rewards_do_not_look_at_the_answer_and_are_the_same_again(tokenizer):
    settings = recipe("grpo_random", group_size=200)
    (group,), _ = roll_out(settings, tokenizer, [RIGHT, WRONG])
    (again,), _ = roll_out(settings, tokenizer, [WRONG])
    rewards = [sample.reward for sample in group.samples]
    assert [sample.reward for sample in again.samples] == rewards
    assert set(rewards) == {0.0, 1.0}
    assert sum(rewards) == pytest.approx(100, abs=25)
    assert {sample.verdict.outcome for sample in group.samples} == {"correct", "wrong"}  # still logged


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("token_truncate", [math.e, 2.0**0.5, 3.0]),
        ("token_mask", [math.e, 2.0**0.5, 0.0]),
        ("sequence_truncate", [3.0] * 3),
        ("sequence_mask", [0.0] * 3),
    ],
)
def test_importance_weights_by_token_or_sequence_truncated_or_masked(kind, wanted):
    rollout = recipe("grpo", f'rollout.importance="{kind}"', "rollout.importance_cap=3").rollout
    engine = [-2.0, -1.0, -3.0]
    trainer = [-1.0, -1.0 + math.log(2) / 2, -3.0 + math.log(4.0)]
    assert _importance(trainer, engine, 0, rollout) == pytest.approx(wanted)


def test_a_sequences_importance_leaves_its_teacher_tokens_out():
    rollout = recipe("grpo", 'rollout.importance="sequence_truncate"', "rollout.importance_cap=9").rollout
    assert _importance([-5.0, -1.0, -1.0], [0.0, -1.5, -1.0], 1, rollout) == pytest.approx([math.exp(0.5)] * 3)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gspo", lambda s: (s.on_policy.ratio, s.on_policy.clip_high, s.loss.reduction)),
        ("dapo", lambda s: (s.on_policy.clip_high, s.loss.reduction, s.rollout.drop_all_wrong)),
        ("cispo", lambda s: (s.on_policy.weight_cap, s.loss.reduction, s.advantage.std)),
    ],
)
def test_variants_of_grpo_are_settings(name, found):
    wanted = {
        "gspo": ("sequence", 4e-4, "sequence_mean"),
        "dapo": (0.28, "token_mean", True),
        "cispo": (5.0, "token_mean", True),
    }
    assert found(recipe(name)) == wanted[name]


# Objectives alone


def test_objectives_need_neither_transformers_nor_a_loop():
    code = (
        "import sys; from trainer.objectives import Batch, Role, Totals, advantage, losses, policy_loss; "
        "print(sorted({'transformers', 'polars', 'trl'} & set(sys.modules)), policy_loss.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] policy_loss"
