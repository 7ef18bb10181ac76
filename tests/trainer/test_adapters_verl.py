"""The verl adapter's pure parts without verl, and its registered parts where verl can be imported."""

import math
from types import SimpleNamespace

import pytest
import torch

from trainer.adapters.rows import RecipeError, load_recipe
from trainer.adapters.verl import TEACHER, Claims, check_groups, check_trainer, mark_teacher, token_losses, trace_ids
from trainer.modeling.models import load_tokenizer
from trainer.objectives import losses
from trainer.objectives.batch import Batch
from trainer.objectives.loss_from_settings import Totals, policy_loss


@pytest.fixture(scope="module")
def tokenizer(world_folder):
    return load_tokenizer(world_folder / "tokenizer")


def rows(seed=0, count=6, length=9):
    """Random rows, every third a teacher's."""
    draw = torch.Generator().manual_seed(seed)
    log_prob = -torch.rand(count, length, generator=draw, dtype=torch.float64) * 3 - 0.01
    old = log_prob + 0.3 * torch.randn(count, length, generator=draw, dtype=torch.float64)
    lengths = torch.randint(2, length + 1, (count, 1), generator=draw)
    mask = torch.arange(length) < lengths
    advantage = torch.randn(count, 1, generator=draw, dtype=torch.float64)
    teacher = torch.arange(count) % 3 == 2
    return log_prob.requires_grad_(), old.clamp(max=0.0), advantage, mask, teacher


@pytest.mark.parametrize("recipe", ["luffy", "luffy_unshaped", "luffy_baseline"])
def test_the_token_losses_reduced_as_verl_does_are_our_loss_and_its_gradient(recipe):
    log_prob, old, advantage, mask, teacher = rows()
    marked = mark_teacher(old, teacher.tolist())
    token_loss, found, _ = token_losses(recipe)(log_prob, marked, advantage.expand(mask.shape), mask.long())
    # verl's seq-mean-token-sum-norm: Σ over tokens, mean over rows, ÷ loss_scale_factor
    theirs = (token_loss * mask).sum(-1).mean() / 20
    settings = load_recipe(recipe, "loss.entropy=0")
    batch = Batch(
        input_ids=torch.zeros(mask.shape, dtype=torch.long), completion_mask=mask,
        off_policy_mask=mask & teacher[:, None], replay_mask=torch.zeros(6, 1, dtype=torch.bool), advantage=advantage,
        old_log_prob=old, weight=torch.where(teacher, settings.teacher.weight, 1.0)[:, None],
    )  # fmt: skip
    totals = Totals(rows=6, tokens=int(mask.sum()), length=20)
    ours, _ = policy_loss(settings)(batch, log_prob, torch.zeros_like(log_prob), totals)
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-6)
    assert torch.equal(found, mask & teacher[:, None])
    gradients = [torch.autograd.grad(loss, log_prob, retain_graph=True)[0] for loss in (theirs, ours)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


def test_a_teachers_token_weighs_p_over_p_plus_gamma_and_a_sampled_one_its_ratio():
    log_prob = torch.tensor([[math.log(0.4), math.log(0.2)], [math.log(0.5), math.log(0.3)]])
    old = torch.tensor([[TEACHER, TEACHER], [math.log(0.25), math.log(0.3)]])
    found, teacher, _ = token_losses("luffy")(log_prob, old, torch.full((2, 2), 2.0), torch.ones(2, 2))
    assert teacher.tolist() == [[True, True], [False, False]]
    torch.testing.assert_close(found, torch.tensor([[-2 * 0.4 / 0.5, -2 * 0.2 / 0.3], [-2 * 2.0, -2 * 1.0]]))


def test_padding_is_no_teacher_and_certain_tokens_are_the_policys():
    old = torch.tensor([[0.0, TEACHER]])  # log 1: the policy was certain
    _, teacher, _ = token_losses("luffy")(torch.tensor([[-0.1, -0.2]]), old, torch.ones(1, 2), torch.tensor([[1, 0]]))
    assert teacher.tolist() == [[False, False]]


@pytest.mark.parametrize("recipe", ["hpt", "chord_phi", "srft", "rl_sft"])
def test_recipes_whose_trace_is_cloned_are_refused(recipe):
    with pytest.raises(RecipeError, match="expected one of luffy"):
        token_losses(recipe)


def test_a_group_of_two_teacher_rows_is_an_error():
    check_groups([True, False, False, True], ["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="num_workers"):
        check_groups([True, True, False], ["a", "a", "b"])


def test_the_first_rollout_of_each_problem_takes_the_trace():
    claims = Claims()
    assert [claims.take(uid) for uid in ("a", "b", "a", "a", "b", "c")] == [True, True, False, False, False, True]


def test_a_trace_is_tokens_with_an_end_within_the_limit(tokenizer):
    messages = [{"role": "user", "content": "5 A +1 ?"}]
    target = [{"role": "assistant", "content": "\\boxed{ ( 1 , 2 ) }"}]
    ids = trace_ids(tokenizer, messages, target, 20, {})
    assert ids == [*tokenizer("\\boxed{ ( 1 , 2 ) }", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert trace_ids(tokenizer, messages, target, len(ids) - 1, {}) == []
    assert trace_ids(tokenizer, messages, None, 20, {}) == trace_ids(tokenizer, messages, [], 20, {}) == []


def test_where_verl_is_installed_its_registry_has_our_losses_and_they_are_ours_under_its_reduction():
    pytest.importorskip("verl.trainer.ppo.core_algos")
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    import trainer.adapters.verl_plugin  # registers

    log_prob, old, advantage, mask, teacher = rows(1)
    config = type("Config", (), {"global_batch_info": {"dp_size": 2, "global_batch_size": 6, "loss_scale_factor": 20}})
    loss, metrics = get_policy_loss_fn("luffy")(
        mark_teacher(old, teacher.tolist()), log_prob, advantage.expand(mask.shape), mask.long(),
        "seq-mean-token-sum-norm", config,
    )  # fmt: skip
    own = losses.surrogate(losses.identity(log_prob - old), advantage)
    taught = losses.surrogate(losses.over_gamma(log_prob, 0.1), advantage)
    wanted = 2 * (losses.mixed(own, taught, teacher[:, None]) * mask).sum() / (6 * 20)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert metrics["actor/teacher_tokens"] == (mask & teacher[:, None]).sum()
    assert trainer.adapters.verl_plugin.LuffyAgentLoop.__mro__[1].__name__ == "SingleTurnAgentLoop"


def test_a_trainer_that_never_calls_the_hook_is_refused():
    legacy, new = (SimpleNamespace(trainer=SimpleNamespace(use_v1=use_v1)) for use_v1 in (False, True))
    check_trainer(legacy)
    check_trainer(SimpleNamespace())
    with pytest.raises(ValueError, match="use_v1=False"):
        check_trainer(new)
