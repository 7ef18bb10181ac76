"""Token log-probs and entropy straight from hidden states: the (N, V) logits never stand in memory at once.

At a vocabulary of 152k one row of 8k tokens has 5 GB of float32 logits, and autograd keeps them several
times over. Here a chunk of tokens is projected, reduced to two numbers a token and dropped; the backward
pass projects it again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.modeling.linear import linear, product

#: Elements of a chunk's float32 logits. A GPU reads the whole weight for each chunk and wants some 400 tokens of
#: them to be busy: 256 MiB at a vocabulary of 152k. On a CPU, blocks of 32 MiB and less come from glibc's heap,
#: which kept 700 MiB of freed ones; larger ones go back to the system at once.
CHUNK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 26}


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk_elements: int | None = None,
) -> tuple[Tensor, Tensor]:
    """log softmax(h·Wᵀ/temperature)[target] and the distribution's entropy in nats: two (N,) in float32.

    hidden: (N, H), the state that predicts each target. weight: (V, H) and bias: (V,) of the output layer.
    targets: (N,), token ids below V. temperature: > 0. Differentiable in hidden, weight and bias, both
    results. chunk_elements: logits that stand in memory at once, None for the device's CHUNK_ELEMENTS; where
    N · V is within it they and their exponentials are kept for the backward pass, else made again chunk by chunk.
    """
    if hidden.shape[0] == 0:  # no token: zeros that still hang on the graph
        nothing = hidden.float().sum(-1) + 0.0 * weight.float().sum()
        return nothing, nothing
    if chunk_elements is None:
        chunk_elements = CHUNK_ELEMENTS.get(hidden.device.type, CHUNK_ELEMENTS["cpu"])
    if bias is not None:
        bias = bias.to(hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):  # the caller's dtype of `hidden` is the products' dtype
        result: tuple[Tensor, Tensor] = _TokenLogProbs.apply(
            hidden, weight.to(hidden.dtype), bias, targets, temperature, chunk_elements
        )
    return result


def from_logits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same two numbers from logits that stand in memory: (…, V), (…) → (…), (…)."""
    log_softmax = torch.log_softmax(logits.float(), dim=-1)
    log_prob = log_softmax.gather(-1, targets[..., None]).squeeze(-1)
    return log_prob, -(log_softmax.exp() * log_softmax).sum(-1)


class _TokenLogProbs(torch.autograd.Function):
    """With z = h·Wᵀ/τ, p = softmax z, H its entropy: ∂log p_y/∂z = 1_y − p and ∂H/∂z = −p·(log p + H).

    In terms of s = z − max z and Z = Σ exp s, of which log p = s − log Z and H = log Z − Σ s·exp s / Z.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_elements: int,
    ) -> tuple[Tensor, Tensor]:
        rows = max(1, chunk_elements // weight.shape[0])
        log_probs, entropies, tops, log_totals = [], [], [], []
        kept: tuple[Tensor | None, Tensor | None] = (None, None)
        for part, target in zip(hidden.split(rows), targets.split(rows)):
            shifted = _logits(part, weight, bias, temperature)
            top = shifted.amax(-1)
            shifted -= top[:, None]
            powers = shifted.exp()
            total = powers.sum(-1)
            log_total = total.log()
            log_probs.append(shifted.gather(-1, target[:, None]).squeeze(-1) - log_total)
            entropies.append(log_total - torch.linalg.vecdot(powers, shifted) / total)
            tops.append(top)
            log_totals.append(log_total)
            if hidden.shape[0] <= rows:
                kept = shifted, powers
            del shifted, powers
        entropy = torch.cat(entropies)
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat(tops), torch.cat(log_totals), entropy, *kept)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.set_materialize_grads(False)
        return torch.cat(log_probs), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, tops, log_totals, entropy, shifted, powers = ctx.saved_tensors
        by_log_prob, by_entropy = (None if grad is None else grad / ctx.temperature for grad in grads)
        if by_log_prob is None and by_entropy is None:
            return (None,) * 6
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        whole = hidden.shape[0] <= ctx.rows
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight and not whole else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        for start in range(0, hidden.shape[0], ctx.rows):
            span = slice(start, start + ctx.rows)
            if not whole:
                shifted = _logits(hidden[span], weight, bias, ctx.temperature).sub_(tops[span, None])
            grad_logits = _grad_logits(
                shifted,
                powers,
                targets[span],
                log_totals[span],
                entropy[span],
                None if by_log_prob is None else by_log_prob[span],
                None if by_entropy is None else by_entropy[span],
            )
            del shifted
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
            grad_logits = grad_logits.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[span] = product(grad_logits, weight.T)
            if wants_weight and whole:
                grad_weight = product(grad_logits.T, hidden.T)
            elif grad_weight is not None:
                if hidden.dtype == torch.float32:  # added in place: a second (V, H) would cost more than the chunk
                    grad_weight.addmm_(grad_logits.T, hidden[span])
                else:
                    grad_weight += grad_logits.T @ hidden[span]
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = linear(hidden, weight, bias).float()
    return logits if temperature == 1.0 else logits.div_(temperature)


def _grad_logits(
    shifted: Tensor,
    powers: Tensor | None,
    targets: Tensor,
    log_total: Tensor,
    entropy: Tensor,
    by_log_prob: Tensor | None,
    by_entropy: Tensor | None,
) -> Tensor:
    """Gradient by h·Wᵀ, (N, V): Σ over both results of their gradients (N,), those divided by τ already.

    powers: exp(shifted), kept for another backward pass; None: `shifted` is used up for them.
    """
    inverse = torch.exp(-log_total)
    constant = torch.zeros_like(log_total) if by_log_prob is None else -by_log_prob
    if by_entropy is None:
        factor = (constant * inverse)[:, None]
        grad = shifted.exp_().mul_(factor) if powers is None else powers * factor
    else:
        constant = constant + by_entropy * (log_total - entropy)
        grad = (shifted * (-by_entropy * inverse)[:, None]).add_((constant * inverse)[:, None])
        grad *= shifted.exp_() if powers is None else powers
    if by_log_prob is not None:
        grad.scatter_add_(1, targets[:, None], by_log_prob[:, None])
    return grad
