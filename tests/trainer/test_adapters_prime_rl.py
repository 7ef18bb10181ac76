"""The prime-rl adapter: one dataclass in, one out; its loss and gradient are ours on the same rows."""

import sys
import types
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from trainer.adapters.prime_rl import luffy_loss, sequence_loss
from trainer.adapters.rows import RecipeError, load_recipe
from trainer.adapters.token_losses import TEACHER
from trainer.objectives.batch import Batch
from trainer.objectives.loss_from_settings import Totals, policy_loss


@dataclass
class LossInputs:
    """The fields that prime-rl documents."""

    trainer_logprobs: Tensor
    inference_logprobs: Tensor
    ref_logprobs: Tensor | None
    advantages: Tensor
    loss_mask: Tensor
    loss_weights: Tensor | None


@dataclass
class LossOutputs:
    loss: Tensor
    metrics: dict[str, Tensor]


@pytest.fixture
def prime_rl(monkeypatch):
    """The module that prime-rl's outputs come from."""
    module = types.ModuleType("prime_rl.trainer.rl.loss")
    module.LossOutputs = LossOutputs
    for name in ("prime_rl", "prime_rl.trainer", "prime_rl.trainer.rl"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("recipe", ["luffy", "luffy_unshaped", "luffy_baseline"])
def test_the_sum_over_sequences_divided_by_the_tokens_is_our_loss_and_its_gradient(prime_rl, recipe):
    draw = torch.Generator().manual_seed(1)
    count, length = 6, 9
    log_prob = (-torch.rand(count, length, generator=draw, dtype=torch.float64) * 3 - 0.01).requires_grad_()
    old = (log_prob.detach() + 0.3 * torch.randn(count, length, generator=draw, dtype=torch.float64)).clamp(max=0.0)
    mask = torch.arange(length) < torch.randint(2, length + 1, (count, 1), generator=draw)
    advantage = torch.randn(count, 1, generator=draw, dtype=torch.float64)
    teacher = torch.arange(count) % 3 == 2
    marked = torch.where(teacher[:, None], TEACHER, old)
    parts = [
        luffy_loss(LossInputs(log_prob[i], marked[i], None, advantage[i].expand(length), mask[i], None), recipe=recipe)
        for i in range(count)
    ]
    tokens = int(mask.sum())
    theirs = sum(part.loss for part in parts) / tokens
    settings = load_recipe(recipe, "loss.entropy=0", "loss.reduction=token_mean")
    batch = Batch(
        input_ids=torch.zeros(mask.shape, dtype=torch.long), completion_mask=mask,
        off_policy_mask=mask & teacher[:, None], replay_mask=torch.zeros(6, 1, dtype=torch.bool), advantage=advantage,
        old_log_prob=old, weight=torch.where(teacher, settings.teacher.weight, 1.0)[:, None],
    )  # fmt: skip
    ours, _ = policy_loss(settings)(batch, log_prob, torch.zeros_like(log_prob), Totals(6, tokens, length))
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-9)
    gradients = [torch.autograd.grad(loss, log_prob, retain_graph=True)[0] for loss in (theirs, ours)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
    assert [part.metrics["teacher_tokens"].item() for part in parts] == (mask.sum(-1) * teacher).tolist()


def test_weights_scale_tokens_and_leave_out_those_of_weight_0():
    log_prob, old = torch.tensor([0.5, 0.5, 0.5]).log(), torch.tensor([0.5, 0.25, 0.5]).log()
    mask = torch.tensor([True, True, False])
    loss, metrics = sequence_loss(log_prob, old, torch.full((3,), 2.0), mask, torch.tensor([0.5, 1.0, 7.0]))
    assert loss.item() == pytest.approx(-0.5 * 2 - 2 * 2)  # ratios 1 and 2; the third token is none of the loss's
    assert metrics["teacher_tokens"] == 0


def test_recipes_with_other_roles_are_refused():
    one = torch.zeros(1)
    with pytest.raises(RecipeError, match="know no roles"):
        sequence_loss(one, one, one, one.bool(), recipe="hpt")
