"""A group's prompt computed once: its responses side by side behind it, each seeing the prompt and itself alone.

    tokens     p0 p1 p2 | a0 a1 | b0 b1 b2
    positions   0  1  2 |  3  4 |  3  4  5

Log-probs and gradients are those of separate rows. It saves the prompt's arithmetic for all rows but one and
costs a dense attention mask over the whole group: worth it for short responses, never for long ones, so each update
decides by its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.flops import ModelCost, causal_pairs
from trainer.models import TokenScorer, plain_model
from trainer.sequences import Batch, Row, collate, micro_batches

#: What a FLOP of masked attention costs beside one of a matrix product, measured on CPU.
ATTENTION_PENALTY = 2.0
#: Sharing has to save this much of an update's arithmetic: it is not free to lay out.
LEAST_SAVING = 0.1


def shared_micro_batches(rows: Sequence[Row], cost: ModelCost, budget: int) -> list[list[int]] | None:
    """Row numbers in micro-batches of whole groups, rows of a prompt together; None where sharing does not pay.

    budget: padded tokens of a micro-batch; a group over it is split.
    """
    units = [part for group in by_prompt(rows) for part in _within(rows, group, budget)]
    lengths = [_shared_length([rows[i] for i in unit]) for unit in units]
    shared = sum(_work(cost, length, length**2) for length in lengths)
    apart = sum(_work(cost, len(row.token_ids), causal_pairs(len(row.token_ids))) for row in rows)
    if shared > (1 - LEAST_SAVING) * apart:
        return None
    return [[row for unit in micro for row in units[unit]] for micro in micro_batches(lengths, budget)]


def by_prompt(rows: Sequence[Row]) -> list[list[int]]:
    """Row numbers, those of one prompt together."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(tuple(row.token_ids[: row.prompt_length]), []).append(number)
    return list(found.values())


def score_shared(scorer: TokenScorer, rows: Sequence[Row], batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies like `scorer(batch.input_ids, batch.completion_mask)`: two (B, T).

    rows: those of the batch in its order, rows of one prompt next to each other.
    """
    groups = [[rows[i] for i in group] for group in by_prompt(rows)]
    assert [row for group in groups for row in group] == list(rows), "rows of one prompt stand together"
    ids, positions, part = (tensor.to(batch.input_ids.device) for tensor in _laid_out(groups))
    scored = part > 0
    places = scored.flatten().nonzero().squeeze(-1)
    before = torch.cat([part.new_zeros(len(part), 1), part[:, :-1]], dim=1)
    ends = (part == 0).sum(1) - 1 + torch.arange(len(part), device=part.device) * part.shape[1]
    first = (scored & (part != before)).flatten()[places]  # a response's first token follows the prompt's end
    predictors = torch.where(first, ends[places // part.shape[1]], places - 1)
    log_prob, entropy = scorer(ids, scored, positions, _visible(part), predictors)
    targets = batch.completion_mask.flatten().nonzero().squeeze(-1)  # the same tokens in the same order
    zeros = log_prob.new_zeros(batch.completion_mask.numel())
    return (
        zeros.index_copy(0, targets, log_prob.flatten()[places]).view(batch.completion_mask.shape),
        zeros.index_copy(0, targets, entropy.flatten()[places]).view(batch.completion_mask.shape),
    )


@torch.no_grad()
def can_share(scorer: TokenScorer, device: torch.device | str = "cpu", atol: float = 1e-4) -> bool:
    """Whether the model takes positions and a mask of our own and gives the log-probs of separate rows: tried out."""
    model = plain_model(scorer.model)
    if model.config._attn_implementation != "sdpa":
        return False
    rows = [Row([0, 1, *response], 2) for response in ([1, 0, 1], [0, 0], [1])]
    batch = collate(rows, 0, device)
    was_training = scorer.training
    scorer.eval()
    try:
        apart, _ = scorer(batch.input_ids, batch.completion_mask)
        shared, _ = score_shared(scorer, rows, batch)
    except (TypeError, ValueError, RuntimeError):  # a model that takes no such arguments, or mask of such a shape
        return False
    finally:
        scorer.train(was_training)
    return bool(torch.allclose(apart, shared, rtol=0, atol=atol)) and not _slides(model.config)


def _slides(config: object) -> bool:
    """Whether a layer's window is narrower than a row may be: our mask has no window."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if not kinds else None
    return bool(kinds - {"full_attention"}) or window is not None


def _laid_out(groups: Sequence[Sequence[Row]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, positions and parts of groups, three (G, L): part 0 is the prompt, 1 … its responses, −1 padding."""
    longest = max(map(_shared_length, groups))
    ids, positions, parts = [], [], []
    for group in groups:
        start = group[0].prompt_length
        tokens, places, part = list(group[0].token_ids[:start]), list(range(start)), [0] * start
        for number, row in enumerate(group, 1):
            tokens += row.token_ids[start:]
            places += range(start, len(row.token_ids))
            part += [number] * row.response_length
        padding = longest - len(tokens)
        ids.append(tokens + [0] * padding)
        positions.append(places + [0] * padding)
        parts.append(part + [-1] * padding)
    return torch.tensor(ids), torch.tensor(positions), torch.tensor(parts)


def _visible(part: Tensor) -> Tensor:
    """(G, 1, L, L), True where a token sees another: earlier, of the prompt or of its own response."""
    columns = torch.arange(part.shape[1], device=part.device)
    earlier = columns[:, None] >= columns
    own = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
    return (earlier & own)[:, None]


def _within(rows: Sequence[Row], group: Sequence[int], budget: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for number in group:
        if parts[-1] and _shared_length([rows[i] for i in [*parts[-1], number]]) > budget:
            parts.append([])
        parts[-1].append(number)
    return parts


def _shared_length(group: Sequence[Row]) -> int:
    return group[0].prompt_length + sum(row.response_length for row in group)


def _work(cost: ModelCost, tokens: int, pairs: int) -> float:
    return cost.forward(tokens, 0, 0) + ATTENTION_PENALTY * cost.forward(0, 0, pairs)
