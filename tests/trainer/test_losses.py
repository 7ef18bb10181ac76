"""Losses against slow loops over Python floats, and gradients against finite differences."""

import math
import random

import pytest
import torch

from trainer.data.sequences import Batch
from trainer.objectives import losses
from trainer.objectives.loss_from_settings import Totals, policy_loss
from trainer.settings import LossSettings, OnPolicySettings, ShapeSettings, TeacherSettings, TrainSettings


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SHAPES = {
    "none": lambda x, s: x,
    "gamma": lambda x, s: x / (x + s.gamma),
    "sqrt": lambda x, s: math.sqrt(x),
    "power": lambda x, s: x**s.exponent,
    "log": lambda x, s: s.weight * math.log(x),
    "identity_log": lambda x, s: x + s.weight * math.log(x),
}
KL = {
    "k1": lambda lp, ref: lp - ref,
    "k2": lambda lp, ref: (lp - ref) ** 2 / 2,
    "k3": lambda lp, ref: math.exp(ref - lp) - (ref - lp) - 1,
}


def slow_loss(settings, rows, log_prob, old):
    """The same objective, token by token, `log_prob` and `old` are lists."""
    on, teacher, loss = settings.on_policy, settings.teacher, settings.loss
    cloned = settings.method == "rl_sft"
    total, entropy, tokens, clone_sum, clone_tokens = 0.0, 0.0, 0, 0.0, 0
    for b, row in enumerate(rows):
        places = [t for t, kept in enumerate(row["mask"]) if kept]
        own = [t for t in places if not row["off"][t]]
        mean_log_ratio = sum(log_prob[b][t] - old[b][t] for t in own) / max(len(own), 1)
        row_sum, row_tokens = 0.0, 0
        for t in places:
            lp, advantage = log_prob[b][t], row["advantage"]
            if row["off"][t] and cloned:
                clone_sum -= lp
                clone_tokens += 1
                continue
            row_tokens += 1
            entropy += row["entropy"][t]
            if row["off"][t]:
                q = 1.0 if teacher.probability == "one" else math.exp(row["recorded"][t]) + 1e-6
                ratio = SHAPES[teacher.shape.kind](math.exp(lp) / q, teacher.shape)
                if teacher.ratio_min is not None:
                    ratio = max(ratio, teacher.ratio_min)
                if teacher.ratio_max is not None:
                    ratio = min(ratio, teacher.ratio_max)
                value = -ratio * advantage
            else:
                value = slow_on_policy(on, lp, old[b][t], mean_log_ratio, advantage)
            value += loss.kl * KL[loss.kl_kind](lp, row["ref"][t])
            if loss.drop_above is None or math.exp(lp) <= loss.drop_above:
                row_sum += value
        tokens += row_tokens
        kept = sum(
            1
            for t in places
            if not (row["off"][t] and cloned)
            and (loss.drop_above is None or math.exp(log_prob[b][t]) <= loss.drop_above)
        )
        total += row_sum / max(kept, 1) if loss.reduction == "sequence_mean" else row_sum
    counted = len(rows) if not cloned else sum(1 for row in rows if not any(row["off"]))
    divisor = {"constant": counted * 20, "token_mean": tokens, "sequence_mean": counted}[loss.reduction]
    result = total / divisor - loss.entropy * entropy / tokens
    return result + (loss.sft * clone_sum / clone_tokens if clone_tokens else 0.0)


def slow_on_policy(on, lp, old, mean_log_ratio, advantage):
    if on.ratio == "sequence":
        ratio = SHAPES[on.shape.kind](math.exp(mean_log_ratio), on.shape)
    elif on.shape.kind == "gamma":
        ratio = SHAPES["gamma"](math.exp(lp), on.shape) / SHAPES["gamma"](math.exp(old), on.shape)
    else:
        ratio = SHAPES[on.shape.kind](math.exp(lp - old), on.shape)
    if on.weight_cap is not None:
        return -min(ratio, on.weight_cap) * advantage * lp
    if not on.clip:
        return -ratio * advantage
    clipped = min(max(ratio, 1 - on.clip_low), 1 + on.clip_high)
    free = ratio if on.delta is None else min(ratio, on.delta)
    return -min(free * advantage, clipped * advantage)


def draw_settings(rng):
    def shape(kinds):
        return ShapeSettings(
            kind=rng.choice(kinds), gamma=rng.choice([0.05, 0.3]), exponent=rng.choice([0.3, 0.7]), weight=0.4
        )

    capped = rng.random() < 0.2
    method = rng.choice(["luffy", "luffy", "luffy", "grpo", "rl_sft"])
    return TrainSettings(
        method=method,
        output="unused",
        model="unused",
        data={"problems": "unused", "curated": "unused"},
        teacher=TeacherSettings(
            probability=rng.choice(["one", "recorded"]),
            shape=shape(list(SHAPES)),
            ratio_min=rng.choice([None, 0.05]),
            ratio_max=rng.choice([None, 0.7]),
        ),
        on_policy=OnPolicySettings(
            ratio=rng.choice(["token", "sequence"]),
            shape=ShapeSettings() if capped else shape(list(SHAPES)),
            clip=rng.random() < 0.6,
            clip_high=rng.choice([0.2, 0.28]),
            delta=rng.choice([None, 1.3]),
            weight_cap=1.1 if capped else None,
        ),
        loss=LossSettings(
            reduction=rng.choice(["constant", "token_mean", "sequence_mean"]),
            entropy=rng.choice([0.0, 0.01]),
            kl=rng.choice([0.0, 0.05]),
            kl_kind=rng.choice(list(KL)),
            drop_above=rng.choice([None, None, 0.8]),
        ),
    )


def draw_rows(rng, method, count=5, length=9):
    rows = []
    for index in range(count):
        begin, end = rng.randint(1, 3), rng.randint(5, length)
        taught = (
            0 if method == "grpo" or index not in (1, 3) else (end if method == "rl_sft" or index == 1 else begin + 2)
        )
        mask = [begin <= t < end for t in range(length)]
        rows.append(
            {
                "mask": mask,
                "off": [kept and t < taught for t, kept in enumerate(mask)],
                "advantage": rng.uniform(-1, 1),
                "log_prob": [-rng.expovariate(1) - 1e-3 for _ in mask],
                "old": [-rng.expovariate(1) - 1e-3 for _ in mask],
                "ref": [-rng.expovariate(1) for _ in mask],
                "recorded": [-rng.expovariate(2) for _ in mask],
                "entropy": [rng.random() for _ in mask],
            }
        )
    return rows


def to_batch(rows, method):
    def stack(name, dtype=torch.float64):
        return torch.tensor([row[name] for row in rows], dtype=dtype)

    return Batch(
        input_ids=torch.zeros(len(rows), len(rows[0]["mask"]), dtype=torch.long),
        completion_mask=stack("mask", torch.bool),
        off_policy_mask=stack("off", torch.bool),
        replay_mask=torch.zeros(len(rows), 1, dtype=torch.bool),
        advantage=stack("advantage")[:, None],
        old_log_prob=stack("old"),
        ref_log_prob=stack("ref"),
        recorded_log_prob=stack("recorded"),
        surrogate_mask=stack("mask", torch.bool) & ~stack("off", torch.bool) if method == "rl_sft" else None,
        cloned_mask=stack("off", torch.bool) if method == "rl_sft" else None,
    )


def totals_of(rows, method):
    own = [row for row in rows if method != "rl_sft" or not any(row["off"])]
    return Totals(
        rows=len(own),
        tokens=sum(sum(row["mask"]) for row in own),
        length=20,
        cloned_tokens=sum(sum(row["off"]) for row in rows) if method == "rl_sft" else 0,
    )


@pytest.mark.parametrize("seed", range(120))
def test_any_choice_of_settings_is_the_token_by_token_loss_and_its_gradient(seed):
    rng = random.Random(seed)
    settings = draw_settings(rng)
    rows = draw_rows(rng, settings.method)
    log_prob = torch.tensor([row["log_prob"] for row in rows], dtype=torch.float64, requires_grad=True)
    entropy = torch.tensor([row["entropy"] for row in rows], dtype=torch.float64)
    loss, _ = policy_loss(settings)(
        to_batch(rows, settings.method), log_prob, entropy, totals_of(rows, settings.method)
    )
    old = [row["old"] for row in rows]
    wanted = slow_loss(settings, rows, log_prob.tolist(), old)
    assert loss.item() == pytest.approx(wanted, rel=1e-10, abs=1e-12)
    if settings.on_policy.weight_cap is not None:
        return  # a detached weight has no finite difference; its gradient is tested below
    (gradient,) = torch.autograd.grad(loss, log_prob)
    for b, t in rng.sample([(b, t) for b in range(len(rows)) for t in range(9)], 12):
        moved = log_prob.detach().clone()
        step = 1e-6
        values = []
        for sign in (1, -1):
            moved[b, t] = log_prob[b, t] + sign * step
            values.append(slow_loss(settings, rows, moved.tolist(), old))
        difference = (values[0] - values[1]) / (2 * step)
        assert gradient[b, t].item() == pytest.approx(difference, rel=1e-5, abs=1e-7), (b, t)


def test_a_capped_weight_has_the_gradient_of_a_weighted_log_prob():
    log_prob = torch.tensor([[-0.1, -1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    ratio = torch.tensor([[0.5, 3.0, 9.0]], dtype=torch.float64)
    losses.capped_weight_surrogate(ratio, log_prob, torch.tensor([[2.0]]), cap=5.0).sum().backward()
    assert log_prob.grad.tolist() == [[-1.0, -6.0, -10.0]]


def test_without_old_log_probs_the_ratio_is_one_and_its_gradient_is_not_lost():
    settings = draw_settings(random.Random(3)).model_copy(
        update={"method": "grpo", "on_policy": OnPolicySettings(), "loss": LossSettings(reduction="token_mean")}
    )
    rows = draw_rows(random.Random(0), "grpo")
    batch = to_batch(rows, "grpo")
    batch = Batch(**{name: getattr(batch, name) for name in Batch.__slots__} | {"old_log_prob": None})
    log_prob = torch.tensor([row["log_prob"] for row in rows], dtype=torch.float64, requires_grad=True)
    totals = totals_of(rows, "grpo")
    loss, _ = policy_loss(settings)(batch, log_prob, torch.zeros_like(log_prob), totals)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    wanted = -batch.advantage * batch.completion_mask / totals.tokens
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("seed", range(12))
def test_the_loss_does_not_depend_on_how_rows_fall_into_micro_batches(seed):
    rng = random.Random(1000 + seed)
    settings = draw_settings(rng)
    rows = draw_rows(rng, settings.method, count=8)
    objective, totals = policy_loss(settings), totals_of(rows, settings.method)

    def gradient_of(groups):
        log_prob = torch.tensor([row["log_prob"] for row in rows], dtype=torch.float64, requires_grad=True)
        loss = 0.0
        for group in groups:
            entropy = torch.tensor([rows[i]["entropy"] for i in group], dtype=torch.float64)
            part, _ = objective(to_batch([rows[i] for i in group], settings.method), log_prob[group], entropy, totals)
            part.backward(retain_graph=True)
            loss += part.item()
        return loss, log_prob.grad

    whole, gradient = gradient_of([list(range(8))])
    order = rng.sample(range(8), 8)
    for groups in ([order[:1], order[1:4], order[4:]], [[i] for i in order]):
        loss, other = gradient_of(groups)
        assert loss == pytest.approx(whole, rel=1e-12)
        torch.testing.assert_close(other, gradient, rtol=1e-12, atol=1e-15)


def test_the_published_micro_batch_sum_is_ours_times_the_rows_of_a_micro_batch():
    """docs/losses.md gives this factor: 64 rows in micro-batches of 4, averaged over the 16, are 4 times our sum."""
    torch.manual_seed(0)
    token_loss, mask = torch.randn(64, 10), torch.rand(64, 10) < 0.8
    ours = losses.weighted_sum(token_loss, losses.constant_weights(mask, rows=64, length=10))
    published = torch.stack(
        [
            losses.weighted_sum(part, losses.constant_weights(kept, rows=1, length=10))
            for part, kept in zip(token_loss.split(4), mask.split(4))
        ]
    ).mean()
    torch.testing.assert_close(published, 4 * ours)


def test_a_micro_batch_without_a_teacher_row_has_a_finite_loss():
    settings = draw_settings(random.Random(5)).model_copy(update={"method": "luffy"})
    rows = draw_rows(random.Random(5), "grpo")
    log_prob = torch.tensor([row["log_prob"] for row in rows], dtype=torch.float64)
    loss, statistics = policy_loss(settings)(to_batch(rows, "luffy"), log_prob, log_prob, totals_of(rows, "luffy"))
    assert math.isfinite(loss.item())
    assert all(math.isfinite(total.item()) for total, _ in statistics.values())


def test_shapes_are_exact_where_the_probability_underflows():
    log_p = torch.tensor([-200.0], dtype=torch.float32, requires_grad=True)  # p is 0 in float32, √p is not
    value = losses.power(log_p, 0.5)
    assert value.item() == pytest.approx(math.exp(-100), rel=1e-5)
    assert torch.autograd.grad(losses.over_gamma(log_p, 0.1), log_p)[0].isfinite()


def test_dpo_is_the_logistic_loss_of_the_margin_and_smoothing_swaps_labels():
    margin, ref = torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor([0.5, 0.0], dtype=torch.float64)
    for smoothing in (0.0, 0.2):
        found = losses.dpo_loss(margin, ref, beta=0.3, label_smoothing=smoothing)
        for value, m, r in zip(found.tolist(), margin.tolist(), ref.tolist()):
            right = math.log1p(math.exp(-0.3 * (m - r)))
            swapped = math.log1p(math.exp(0.3 * (m - r)))
            assert value == pytest.approx((1 - smoothing) * right + smoothing * swapped, rel=1e-12)


def test_masked_tokens_may_hold_anything():
    value = torch.tensor([[1.0, float("inf"), float("nan")]], requires_grad=True)
    mask = torch.tensor([[True, False, False]])
    total = losses.weighted_sum(value, losses.token_mean_weights(mask, 1))
    total.backward()
    assert total.item() == 1.0
    assert value.grad.tolist() == [[1.0, 0.0, 0.0]]
