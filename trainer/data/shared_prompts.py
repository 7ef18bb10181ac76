"""A group's prompt computed once: rows laid end to end in one sequence, the tokens of a shared prompt in it but once.

    rows       p0 p1 p2 a0 a1 a2,  p0 p1 p2 b0 b1
    tokens     p0 p1 p2 | a0 a1 | b0
    positions   0  1  2 |  3  4 |  3

Attention sees the rows (`trainer.modeling.attention`), everything else the tokens: none is computed twice, none is
padding, and none is the last of its row, after which nothing is predicted. Log-probs and
gradients are those of separate rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.sequences import Batch, Row, collate
from trainer.modeling.attention import ROWS, SharedRows, slides
from trainer.modeling.models import TokenScorer, plain_model, uncompiled

#: Sharing has to save this much of an update's tokens: it is not free to lay out.
LEAST_SAVING = 0.1
#: Tokens of a sequence are filled up to a multiple of this: oneDNN makes a kernel for each number of rows it meets.
TOKENS_MULTIPLE = 64
#: Rows are filled up to a multiple of this: attention on a CPU took an eighth longer at 87 columns than at 88.
COLUMNS_MULTIPLE = 8


def shared_micro_batches(rows: Sequence[Row], budget: int) -> list[list[int]] | None:
    """Row numbers in micro-batches, rows of a prompt together and longest first; None where sharing does not pay.

    budget: rows × longest row of a micro-batch; a group over it is split, a longer row stands alone.
    """
    units = [part for group in by_prompt(rows) for part in _within(rows, group, budget)]
    shared = sum(_shared_length([rows[i] for i in unit]) for unit in units)
    if not rows or shared > (1 - LEAST_SAVING) * sum(len(row.token_ids) for row in rows):
        return None
    units.sort(key=lambda unit: -_longest(rows, unit))
    found = [list(units[0])]
    for unit in units[1:]:
        if (len(found[-1]) + len(unit)) * _longest(rows, found[-1]) <= budget:
            found[-1] += unit
        else:
            found.append(list(unit))
    return found


def by_prompt(rows: Sequence[Row]) -> list[list[int]]:
    """Row numbers, those of one prompt together."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(tuple(row.token_ids[: row.prompt_length]), []).append(number)
    return list(found.values())


def shared_tokens(rows: Sequence[Row]) -> int:
    """Tokens of the one sequence that rows are laid in, filled up."""
    length = sum(_shared_length([rows[i] for i in group]) for group in by_prompt(rows))
    return length + -length % TOKENS_MULTIPLE


def score_shared(scorer: TokenScorer, rows: Sequence[Row], batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies like `scorer(batch.input_ids, batch.completion_mask)`: two (B, T).

    rows: those of the batch in its order, rows of one prompt next to each other.
    """
    groups = [[rows[i] for i in group] for group in by_prompt(rows)]
    assert [row for group in groups for row in group] == list(rows), "rows of one prompt stand together"
    laid = _laid_out(groups, batch.input_ids.device)
    found: tuple[Tensor, Tensor] = scorer(
        laid.token_ids,
        batch.completion_mask,
        laid.positions,
        shared_rows=laid.rows,
        predictors=laid.predictors,
        targets=batch.input_ids[batch.completion_mask],
    )
    return found


@torch.no_grad()
def can_share(scorer: TokenScorer, device: torch.device | str = "cpu", atol: float = 1e-4) -> bool:
    """Whether the model takes positions and rows of our own and gives the log-probs of separate rows: tried out."""
    model = plain_model(scorer.model)
    if model.config._attn_implementation != ROWS:
        return False
    rows = [Row([0, 1, *response], 2) for response in ([1, 0, 1], [0, 0], [1])]
    batch = collate(rows, 0, device)
    was_training = scorer.training
    scorer.eval()
    try:
        with uncompiled(model):
            apart, _ = scorer(batch.input_ids, batch.completion_mask)
            shared, _ = score_shared(scorer, rows, batch)
    except (TypeError, ValueError, RuntimeError):  # a model that takes no such arguments
        return False
    finally:
        scorer.train(was_training)
    return bool(torch.allclose(apart, shared, rtol=0, atol=atol)) and not slides(model.config)


@dataclass(frozen=True, slots=True)
class _Laid:
    """Rows laid end to end. token_ids, positions: (1, T). predictors: (scored tokens,), the place in T before each."""

    token_ids: Tensor
    positions: Tensor
    predictors: Tensor
    rows: SharedRows


def _laid_out(groups: Sequence[Sequence[Row]], device: torch.device) -> _Laid:
    """The rows of prompts, each group's prompt once before its responses."""
    longest = max(row.prompt_length + _fed(row) for group in groups for row in group)
    longest += -longest % COLUMNS_MULTIPLE
    ids, positions, predictors = list[int](), list[int](), list[int]()
    tokens, homes = list[list[int]](), list[int]()
    for group in groups:
        prompt, begin = group[0].prompt_length, len(ids)
        ids += group[0].token_ids[:prompt]
        positions += range(prompt)
        homes += range(len(tokens) * longest, len(tokens) * longest + prompt)
        for row in group:
            start, fed = len(ids), _fed(row)
            ids += row.token_ids[prompt : prompt + fed]
            positions += range(prompt, prompt + fed)
            predictors += [begin + prompt - 1, *range(start, start + fed)][: row.response_length]
            homes += range(len(tokens) * longest + prompt, len(tokens) * longest + prompt + fed)
            fill = longest - prompt - fed
            tokens.append([*range(begin, begin + prompt), *range(start, start + fed), *[begin] * fill])
    fill = -len(ids) % TOKENS_MULTIPLE
    return _Laid(
        token_ids=torch.tensor([ids + [0] * fill], device=device),
        positions=torch.tensor([positions + [0] * fill], device=device),
        predictors=torch.tensor(predictors, device=device),
        rows=SharedRows(torch.tensor(tokens, device=device), torch.tensor(homes + [0] * fill, device=device)),
    )


def _fed(row: Row) -> int:
    """Response tokens after which another is predicted."""
    return max(row.response_length - 1, 0)


def _within(rows: Sequence[Row], group: Sequence[int], budget: int) -> list[list[int]]:
    """A group in parts within the budget, longest rows first: two parts then never fit into one micro-batch, where
    rows of another prompt could come between them."""
    parts: list[list[int]] = [[]]
    for number in sorted(group, key=lambda number: -len(rows[number].token_ids)):
        if parts[-1] and (len(parts[-1]) + 1) * _longest(rows, parts[-1]) > budget:
            parts.append([])
        parts[-1].append(number)
    return parts


def _longest(rows: Sequence[Row], numbers: Sequence[int]) -> int:
    return max(len(rows[number].token_ids) for number in numbers)


def _shared_length(group: Sequence[Row]) -> int:
    return group[0].prompt_length + sum(map(_fed, group))
