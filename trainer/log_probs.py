"""Token log-probs and entropy straight from hidden states: the (N, V) logits never stand in memory at once.

At a vocabulary of 152k one row of 8k tokens has 5 GB of float32 logits, and autograd keeps them several
times over. Here a chunk of tokens is projected, reduced to two numbers a token and dropped; the backward
pass projects it again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.linear import linear, product

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
    N · V is within it they are kept for the backward pass, else made again chunk by chunk.
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
    """With z = h·Wᵀ/τ, p = softmax z, H its entropy: ∂log p_y/∂z = 1_y − p and ∂H/∂z = −p·(log p + H)."""

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
        log_probs, entropies, normalizers = [], [], []
        kept = None
        for part, target in zip(hidden.split(rows), targets.split(rows)):
            logits = _logits(part, weight, bias, temperature)
            top = logits.amax(-1)
            logits -= top[:, None]
            powers = logits.exp()
            total = powers.sum(-1)
            log_total = total.log()
            log_probs.append(logits.gather(-1, target[:, None]).squeeze(-1) - log_total)
            entropies.append(log_total - torch.linalg.vecdot(powers, logits) / total)
            normalizers.append(top + log_total)
            del powers
            if hidden.shape[0] <= rows:
                kept = logits.sub_(log_total[:, None])
        entropy = torch.cat(entropies)
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat(normalizers), entropy, kept)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.set_materialize_grads(False)
        return torch.cat(log_probs), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers, entropy, kept = ctx.saved_tensors
        grad_log_prob, grad_entropy = grads
        if grad_log_prob is None and grad_entropy is None:
            return (None,) * 6
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        whole = hidden.shape[0] <= ctx.rows
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight and not whole else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        for start in range(0, hidden.shape[0], ctx.rows):
            span = slice(start, start + ctx.rows)
            if kept is None:
                log_softmax = _logits(hidden[span], weight, bias, ctx.temperature).sub_(normalizers[span, None])
            else:
                log_softmax = kept
            grad_logits = _grad_logits(
                log_softmax,
                targets[span],
                entropy[span],
                None if grad_log_prob is None else grad_log_prob[span],
                None if grad_entropy is None else grad_entropy[span],
                use_up=kept is None,
            )
            del log_softmax
            grad_logits = grad_logits.div_(ctx.temperature)
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
    log_softmax: Tensor,
    targets: Tensor,
    entropy: Tensor,
    grad_log_prob: Tensor | None,
    grad_entropy: Tensor | None,
    *,
    use_up: bool,
) -> Tensor:
    """Gradient by z = logits/τ. use_up: the memory of `log_softmax` may be written over."""
    by_log_prob = None if grad_log_prob is None else grad_log_prob[:, None]
    if grad_entropy is None:
        assert by_log_prob is not None
        grad = (log_softmax.exp_() if use_up else log_softmax.exp()).mul_(-by_log_prob)
    else:
        grad = (log_softmax + entropy[:, None]).mul_(-grad_entropy[:, None])
        if by_log_prob is not None:
            grad -= by_log_prob
        grad *= log_softmax.exp_() if use_up else log_softmax.exp()
    if by_log_prob is not None:
        grad.scatter_add_(1, targets[:, None], by_log_prob)
    return grad
