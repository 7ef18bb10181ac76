"""Losses as pure functions that compose: log-ratio → shape → clip → surrogate per token (B, T) → weights → sum.

Every token function returns what is minimised, one number a token. Every reduction is a weight per token,
made from totals of the whole optimizer step: a step's loss is Σ weight · token loss, so it is the same
however rows fall into micro-batches and ranks. `docs/losses.md` has the equations and what differs from
the published code.

Shapes everywhere: log_prob, old_log_prob, ref_log_prob: (B, T), natural logarithms.
advantage: (B, 1) or (B, T). completion_mask, off_policy_mask: (B, T), True on tokens that count, and on
tokens the policy did not write.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: log x → f(x), elementwise. Taking the logarithm keeps √x and x/(x+γ) exact where x underflows.
Shape = Callable[[Tensor], Tensor]


# Ratios, as logarithms


def token_log_ratio(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """log r = log p − log p_old of each token: (B, T)."""
    return log_prob - old_log_prob


def sequence_log_ratio(log_prob: Tensor, old_log_prob: Tensor, completion_mask: Tensor) -> Tensor:
    """One log-ratio a row, the mean over its tokens (GSPO, Zheng et al. 2025, eq. 7): (B, 1)."""
    total = ((log_prob - old_log_prob) * completion_mask).sum(-1, keepdim=True)
    return total / completion_mask.sum(-1, keepdim=True).clamp(min=1)


def recorded_log_ratio(log_prob: Tensor, recorded_prob: Tensor, epsilon: float = 1e-6) -> Tensor:
    """log p/(q + epsilon) against a teacher's recorded probabilities q in [0, 1] (LUFFY's code): (B, T)."""
    return log_prob - (recorded_prob + epsilon).log()


# Shapes f, as functions of log x


def identity(log_x: Tensor) -> Tensor:
    """f(x) = x."""
    return log_x.exp()


def over_gamma(log_x: Tensor, gamma: float) -> Tensor:
    """f(x) = x/(x+γ), γ > 0 (LUFFY, Yan et al. 2025, eq. 7, γ 0.1): the logistic function of log x − log γ."""
    return torch.sigmoid(log_x - torch.log(log_x.new_tensor(gamma)))


def power(log_x: Tensor, exponent: float) -> Tensor:
    """f(x) = x^exponent; 0.5 is the square root."""
    return (exponent * log_x).exp()


def logarithm(log_x: Tensor, weight: float = 1.0) -> Tensor:
    """f(x) = weight · log x: the gradient of behavioural cloning where x is a probability."""
    return weight * log_x


def identity_and_logarithm(log_x: Tensor, weight: float = 1.0) -> Tensor:
    """f(x) = x + weight · log x."""
    return log_x.exp() + weight * log_x


def shaped_quotient(log_prob: Tensor, old_log_prob: Tensor, shape: Shape) -> Tensor:
    """f(p)/f(p_old), which is 1 where the policy has not moved: how a shape of probabilities meets a ratio."""
    return shape(log_prob) / shape(old_log_prob)


# Surrogates: what a token contributes


def surrogate(ratio: Tensor, advantage: Tensor) -> Tensor:
    """−r·A."""
    return -ratio * advantage


def clipped_surrogate(ratio: Tensor, advantage: Tensor, low: float, high: float, delta: float | None = None) -> Tensor:
    """−min(min(r, delta)·A, clip(r, low, high)·A): PPO's (Schulman et al. 2017, eq. 7), bounds on the ratio itself.

    delta: cap of the unclipped ratio, which bounds the loss of unlikely tokens of negative advantage
    (two-sided clipping, INTELLECT-2); None: no cap.
    """
    clipped = ratio.clamp(low, high)
    if delta is not None:
        ratio = ratio.clamp(max=delta)
    return -torch.minimum(ratio * advantage, clipped * advantage)


def capped_weight_surrogate(ratio: Tensor, log_prob: Tensor, advantage: Tensor, cap: float) -> Tensor:
    """−min(r, cap)·A·log p with the weight detached (CISPO, MiniMax-M1 2025, eq. 4)."""
    return -ratio.clamp(max=cap).detach() * advantage * log_prob


def bounded(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    """The ratio held inside [low, high]; None is no bound. A bounded token has no gradient."""
    return ratio if low is None and high is None else ratio.clamp(low, high)


def mixed(on_policy: Tensor, off_policy: Tensor, off_policy_mask: Tensor) -> Tensor:
    """Each token by who wrote it (LUFFY, eq. 4): off_policy where the mask is True, on_policy elsewhere."""
    return torch.where(off_policy_mask, off_policy, on_policy)


# Other terms per token


def kl_k1(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """log p − log p_ref: unbiased, signed (Schulman 2020, "Approximating KL divergence", k1)."""
    return log_prob - ref_log_prob


def kl_absolute(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """|log p − log p_ref|."""
    return (log_prob - ref_log_prob).abs()


def kl_k2(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """(log p − log p_ref)²/2 (Schulman 2020, k2)."""
    return (log_prob - ref_log_prob).square() / 2


def kl_k3(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """p_ref/p − log(p_ref/p) − 1 ≥ 0 (Schulman 2020, k3; GRPO, Shao et al. 2024, eq. 4)."""
    log_ratio = ref_log_prob - log_prob
    return log_ratio.exp() - log_ratio - 1


def kl_k3_clamped(log_prob: Tensor, ref_log_prob: Tensor, bound: float = 10.0) -> Tensor:
    """k3 held inside ±bound: verl's `low_var_kl`. The log-ratio is held at ±20 before its exponential, so that neither
    value nor gradient overflows."""
    log_ratio = (ref_log_prob - log_prob).clamp(-20.0, 20.0)
    return (log_ratio.exp() - log_ratio - 1).clamp(-bound, bound)


def cross_entropy(log_prob: Tensor) -> Tensor:
    """−log p: language modelling, SFT."""
    return -log_prob


def phi(log_prob: Tensor) -> Tensor:
    """p·(1 − p), detached: (B, T). CHORD's weight of a cloned token (Zhang et al. 2025, arXiv 2508.11408): most for
    tokens that the policy is unsure of, nothing for those it knows or finds impossible."""
    p = log_prob.detach().exp()
    return p * (1 - p)


def entropy_factor(entropy: Tensor, mask: Tensor, exponent: Tensor) -> Tensor:
    """e^{cH}, detached, H the mean entropy of a row's tokens in nats (SRFT, Fu et al. 2025, arXiv 2506.19767): (B, 1).

    exponent: (B, 1), c of each row; −1 for its cloned rows, +1 for right rollouts.
    """
    mean = torch.where(mask, entropy.detach(), 0.0).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    return (exponent * mean).exp()


def dpo_loss(policy_margin: Tensor, ref_margin: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """−log σ(β·(margin − margin_ref)) of each pair: (P,) → (P,) (DPO, Rafailov et al. 2023, eq. 7).

    policy_margin, ref_margin: (P,), log p(chosen) − log p(rejected), summed over the row's tokens.
    label_smoothing: probability in [0, 0.5) that a pair's labels are swapped (cDPO).
    """
    logit = beta * (policy_margin - ref_margin)
    return -(1 - label_smoothing) * F.logsigmoid(logit) - label_smoothing * F.logsigmoid(-logit)


def truncated_importance(log_prob: Tensor, sampled_log_prob: Tensor, cap: float) -> Tensor:
    """min(p/p_engine, cap), detached: corrects for an engine whose log-probs differ from the trainer's; any shape."""
    return (log_prob - sampled_log_prob).exp().clamp(max=cap).detach()


def masked_importance(log_prob: Tensor, sampled_log_prob: Tensor, floor: float, cap: float) -> Tensor:
    """p/p_engine where it lies in [floor, cap], else 0, detached; any shape (IcePop, Ling team 2025)."""
    ratio = (log_prob - sampled_log_prob).exp().detach()
    return torch.where((ratio >= floor) & (ratio <= cap), ratio, 0.0)


def reverse_kl_advantage(log_prob: Tensor, teacher_log_prob: Tensor) -> Tensor:
    """log q − log p, detached: the advantage whose policy gradient is that of KL(p‖q) on p's own samples: (B, T).

    On-policy distillation (Agarwal et al. 2024, arXiv 2306.13649): each token by itself, later ones not counted.
    """
    return (teacher_log_prob - log_prob).detach()


# Reductions, as weights: (B, T), zero off the completion


def constant_weights(completion_mask: Tensor, rows: int, length: int) -> Tensor:
    """1/(rows · length): sum over a constant (Dr. GRPO, Liu et al. 2025).

    rows: rows of the whole optimizer step; length: longest response allowed. rows = 1 on a micro-batch is
    the published LUFFY code's sum, which depends on how rows fall into micro-batches.
    """
    return completion_mask / (rows * length)


def token_mean_weights(completion_mask: Tensor, tokens: int) -> Tensor:
    """1/tokens: every token alike (DAPO, Yu et al. 2025). tokens: completion tokens of the whole optimizer step."""
    return completion_mask / max(tokens, 1)


def sequence_mean_weights(completion_mask: Tensor, rows: int) -> Tensor:
    """1/(rows · tokens of the row): every row alike (GRPO, Shao et al. 2024). rows: of the whole optimizer step."""
    return completion_mask / (rows * completion_mask.sum(-1, keepdim=True).clamp(min=1))


def without_likely(completion_mask: Tensor, log_prob: Tensor, bound: float) -> Tensor:
    """The mask without tokens whose probability is above `bound`: (B, T)."""
    return completion_mask & (log_prob.detach().exp() <= bound)


def highest_entropy(mask: Tensor, entropy: Tensor, share: float) -> Tensor:
    """The mask's tokens of highest entropy, `share` of each row's rounded up: (B, T) (Prefix-RFT, Huang et al. 2025,
    arXiv 2507.01679). Of equal entropies the earlier token stays."""
    kept = (share * mask.sum(-1, keepdim=True) - 1e-6).ceil()  # 0.1 · 30 is not to count as 4
    order = entropy.detach().masked_fill(~mask, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1, stable=True)
    return mask & (rank < kept)


def weighted_sum(token_values: Tensor, weights: Tensor) -> Tensor:
    """Σ weight · value, a scalar; a token of weight 0 adds 0 whatever its value."""
    return (torch.where(weights != 0, token_values, 0.0) * weights).sum()


# What a person watches


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over True tokens, a scalar; 0 where there is none."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def clipped_tokens(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """True where the clip takes the gradient away: above `high` with A > 0, below `low` with A < 0."""
    return ((ratio > high) & (advantage > 0)) | ((ratio < low) & (advantage < 0))
