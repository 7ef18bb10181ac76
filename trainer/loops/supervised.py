"""The loop of pretrain, cpt, sft and dpo."""

from __future__ import annotations

import functools
import logging
import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tracekit.core.runs import Progress, no_progress
from tracekit.core.tables import CURATED, read_table
from trainer.data.sequences import (
    Batch,
    Row,
    SequenceError,
    collate,
    encode_curated,
    encode_text,
    micro_batches,
    pad_id,
    preference_pairs,
    read_input,
    without_padding,
)
from trainer.distributed.fsdp import empty_pass, in_step
from trainer.distributed.ranks import rank, sum_gradients, world_size
from trainer.loops.checkpoint import LoopState
from trainer.loops.evaluation import open_evaluation
from trainer.loops.optimization import apply_update, learning_rate, trained_parameters
from trainer.loops.run_log import Averages, RunLog
from trainer.loops.run_state import Training, autocast, begin, warn_skipped
from trainer.modeling import models
from trainer.modeling.models import TokenScorer, packs_exactly
from trainer.objectives import losses
from trainer.planning.flops import model_cost
from trainer.settings import TrainSettings

#: Rows up to so long are packed on the fly: a (L, L) mask costs less than padding. Measured on CPU with rows of
#: 5 to 71 tokens: a step takes 0.81 of the padded one's time at 96 tokens a packed row, 0.85 at 128, 1.02 at 256.
PACKED_ROW, SHORTEST_PACKED_ROW = 256, 96

logger = logging.getLogger(__name__)

Statistics = dict[str, tuple[Tensor, Tensor]]

#: A micro-batch, its log-probs and entropies (B, T), and the step's totals → its part of the loss, its statistics.
Objective = Callable[[Batch, Tensor, Tensor, "Totals"], tuple[Tensor, Statistics]]


@dataclass(frozen=True, slots=True)
class Example:
    """What an optimizer step counts: one row, or the chosen and the rejected row of a preference pair."""

    rows: tuple[Row, ...]

    @property
    def tokens(self) -> int:
        """Length of its longest row times its rows: what it takes of a micro-batch."""
        return len(self.rows) * max(len(row.token_ids) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the whole optimizer step, over all micro-batches and ranks."""

    examples: int
    scored_tokens: int


def run(settings: TrainSettings, progress: Progress = no_progress) -> Path:
    """Train to the end, from the newest checkpoint where there is one; returns the folder `final/`."""
    training = begin(settings)
    examples, skipped = load_examples(training)
    packing = may_pack(training, examples)
    objective = METHODS[settings.method].objective(settings)
    per_step = rows_a_step(settings, len(examples))
    if per_step < world_size():
        raise SequenceError(
            f"a step has {per_step} examples (batch.rows, or all there are); {world_size()} ranks need one each."
        )
    total = settings.steps or math.ceil(settings.epochs * len(examples) / per_step)
    evaluation = open_evaluation(training)
    log = RunLog(training.folder, settings.log, training.state.step, settings.model_dump(mode="json"))
    cost = model_cost(models.plain_model(training.model))
    for step in range(training.state.step, total):
        started = time.perf_counter()
        chosen = [examples[i] for i in rows_of_step(step, per_step, len(examples), settings.seed)]
        totals = Totals(len(chosen), sum(row.scored_tokens for example in chosen for row in example.rows))
        averages = Averages()
        mine = chosen[rank() :: world_size()]
        for rows in in_step(micro_rows(mine, settings, packing=packing), training.scorer):
            if rows is None:
                empty_pass(training.scorer, training.device)
                continue
            batch = collate(rows, pad_id(training.tokenizer), training.device)
            with training.autocast():
                log_prob, entropy = training.scorer(batch.input_ids, batch.completion_mask, batch.position_ids)
            loss, statistics = objective(batch, log_prob, entropy, totals)
            loss.backward()  # type: ignore[no-untyped-call]
            averages.add(statistics)
        sum_gradients(trained_parameters(training.optimizer))
        lr = learning_rate(step, total, settings.optimizer)
        norm = apply_update(training.optimizer, lr, settings.optimizer.max_grad_norm, step)
        sizes = [(len(row.token_ids), row.scored_tokens) for example in chosen for row in example.rows]
        tokens = sum(length for length, _ in sizes)
        seconds = time.perf_counter() - started
        means = averages.means()
        metrics = {
            **means,
            "learning_rate": lr,
            "gradient_norm": norm,
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "flops": cost.training(sizes),
            "seconds": seconds,
            "skipped_rows": skipped.total(),
        }
        if evaluation is not None and evaluation.due(step + 1, total):
            metrics |= evaluation.run(step + 1, log)
        log.write(step + 1, metrics)
        progress(settings.method, step + 1, total, f"loss {means['loss']:.4f}  {tokens / seconds:,.0f} tokens/s")
        if (step + 1) % settings.checkpoint.every == 0:
            log.flush()
        training.save(LoopState(step + 1, {} if evaluation is None else evaluation.values()))
    log.close()
    if evaluation is not None:
        evaluation.close()
    return training.finish(LoopState(total, {} if evaluation is None else evaluation.values()))


def rows_a_step(settings: TrainSettings, examples: int) -> int:
    """Examples of an optimizer step: `batch.rows`, or all where there are fewer, which is said."""
    if examples < settings.batch.rows:
        logger.warning(
            "batch.rows is %d and there are %d examples: a step takes all of them, each once",
            settings.batch.rows,
            examples,
        )
    return min(settings.batch.rows, examples)


def may_pack(training: Training, examples: Sequence[Example]) -> bool:
    """Whether rows are laid into one another's padding: short ones of a model whose documents do not see each other.

    Raises SequenceError where `data.pack_tokens` asks for it and the model mixes documents.
    """
    settings = training.settings
    if not METHODS[settings.method].packs:
        return False
    joined = any(len(row.documents) > 1 for example in examples for row in example.rows)
    short = max(len(row.token_ids) for example in examples for row in example.rows) <= PACKED_ROW
    if not (joined or short) or packs_exactly(training.scorer, training.device):
        return short
    name = type(models.plain_model(training.model)).__name__
    if joined:
        raise SequenceError(
            f"data.pack_tokens is set, and {name} lets the documents of a packed row see each other; take it out."
        )
    logger.warning("%s lets the documents of a packed row see each other: rows are padded, not packed", name)
    return False


def micro_rows(examples: Sequence[Example], settings: TrainSettings, *, packing: bool = True) -> list[list[Row]]:
    """The rows of each forward pass. Short ones are laid into one another's padding, where a mask is cheap."""
    if packing and METHODS[settings.method].packs:
        longest = max((len(example.rows[0].token_ids) for example in examples), default=0)
        if longest <= PACKED_ROW:
            packed = without_padding([example.rows[0] for example in examples], max(longest, SHORTEST_PACKED_ROW))
            examples = [Example((row,)) for row in packed]
    groups = micro_batches([example.tokens for example in examples], settings.batch.micro_tokens)
    return [[row for place in group for row in examples[place].rows] for group in groups]


def language_objective(batch: Batch, log_prob: Tensor, entropy: Tensor, totals: Totals) -> tuple[Tensor, Statistics]:
    """Mean of −log p over the step's scored tokens."""
    token_loss = losses.cross_entropy(log_prob)
    loss = losses.weighted_sum(token_loss, losses.token_mean_weights(batch.completion_mask, totals.scored_tokens))
    count = batch.completion_mask.sum()
    return loss, {"loss": (token_loss.sum(), count), "entropy": (entropy.sum(), count)}


def preference_objective(settings: TrainSettings) -> Objective:
    """DPO over rows that alternate chosen, rejected; the reference's sums stand in the rows' ref_log_probs."""

    def objective(batch: Batch, log_prob: Tensor, entropy: Tensor, totals: Totals) -> tuple[Tensor, Statistics]:
        assert batch.ref_log_prob is not None
        policy, reference = log_prob.sum(-1), batch.ref_log_prob.sum(-1)
        margin, ref_margin = policy[0::2] - policy[1::2], reference[0::2] - reference[1::2]
        pair_loss = losses.dpo_loss(margin, ref_margin, settings.dpo.beta, settings.dpo.label_smoothing)
        pairs = torch.tensor(len(pair_loss))
        preferred = (margin - ref_margin).detach()
        return pair_loss.sum() / totals.examples, {
            "loss": (pair_loss.sum(), pairs),
            "preferred_pairs": ((preferred > 0).sum(), pairs),
            "reward_margin": (settings.dpo.beta * preferred.sum(), pairs),
            "chosen_log_prob": (policy[0::2].sum(), pairs),
            "rejected_log_prob": (policy[1::2].sum(), pairs),
        }

    return objective


def load_examples(training: Training) -> tuple[list[Example], Counter[str]]:
    """The run's examples in the table's order, and what was left out, counted. SequenceError where none is left."""
    method = training.settings.method
    examples, skipped = METHODS[method].load(training)
    warn_skipped(skipped, "rows")
    if not examples:
        raise SequenceError(f"{method} finds no row to train on; left out: {dict(skipped) or 'none'}.")
    return examples, skipped


def _documents(training: Training) -> tuple[list[Example], Counter[str]]:
    """Documents for language modelling."""
    settings = training.settings
    encoded = encode_text(_texts(settings), training.tokenizer, settings.data)
    return [Example((row,)) for row in encoded.rows], encoded.skipped


def _right_traces(training: Training) -> tuple[list[Example], Counter[str]]:
    """Correct traces behind their prompts."""
    curated = read_input(_path(training.settings.data.curated), CURATED, "curated").filter(pl.col("correct"))
    encoded = encode_curated(curated, training.tokenizer, training.settings.data)
    return [Example((row,)) for row in encoded.rows], encoded.skipped


def _preferences(training: Training) -> tuple[list[Example], Counter[str]]:
    """Pairs of a right and a wrong trace of one problem."""
    curated = read_input(_path(training.settings.data.curated), CURATED, "curated")
    encoded = encode_curated(curated, training.tokenizer, training.settings.data)
    return _pairs(training, curated[encoded.origin], encoded.rows), encoded.skipped


@dataclass(frozen=True, slots=True)
class SupervisedMethod:
    """What the supervised methods differ in: their examples, their loss, and whether rows may be packed."""

    load: Callable[[Training], tuple[list[Example], Counter[str]]]
    objective: Callable[[TrainSettings], Objective] = lambda settings: language_objective
    packs: bool = True


#: The methods of this loop by name.
METHODS = {
    "pretrain": SupervisedMethod(_documents),
    "cpt": SupervisedMethod(_documents),
    "sft": SupervisedMethod(_right_traces),
    "dpo": SupervisedMethod(_preferences, preference_objective, packs=False),
}


def rows_of_step(step: int, per_step: int, count: int, seed: int) -> list[int]:
    """Row numbers of optimizer step 0, 1, …: a new seeded permutation of all rows for each epoch, without state."""
    places = range(step * per_step, (step + 1) * per_step)
    return [int(_permutation(place // count, count, seed)[place % count]) for place in places]


@functools.lru_cache(maxsize=4)
def _permutation(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def _pairs(training: Training, curated: pl.DataFrame, rows: Sequence[Row]) -> list[Example]:
    settings = training.settings
    pairs = preference_pairs(curated, settings.dpo.pairs_per_problem, settings.seed)
    used = sorted({index for pair in pairs for index in pair})
    scored = dict(zip(used, _with_reference(training, [rows[index] for index in used])))
    return [Example((scored[chosen], scored[rejected])) for chosen, rejected in pairs]


@torch.no_grad()
def _with_reference(training: Training, rows: list[Row]) -> list[Row]:
    """The rows with the reference's log-probs; it is loaded, asked once and let go."""
    settings = training.settings
    name = settings.ref_model or settings.model
    assert name is not None  # dpo starts from a model: TrainSettings holds this
    changes = settings.model_changes if settings.ref_model is None else models.NO_CHANGES
    reference = models.load_model(
        name, attention=settings.attention, trust_remote_code=settings.trust_remote_code, changes=changes
    )
    scorer = TokenScorer(reference).to(training.device).eval()
    found = list(rows)
    for micro in micro_batches([len(row.token_ids) for row in rows], settings.batch.micro_tokens):
        batch = collate([rows[i] for i in micro], pad_id(training.tokenizer), training.device)
        with autocast(settings, training.device):
            log_prob, _ = scorer(batch.input_ids, batch.completion_mask)
        for values, index in zip(log_prob.tolist(), micro):
            row = rows[index]
            found[index] = replace(row, ref_log_probs=array("f", values[row.prompt_length : len(row.token_ids)]))
    return found


def _texts(settings: TrainSettings) -> list[str]:
    path = _path(settings.data.text)
    return read_table(path, {"text": pl.String}, "text")["text"].to_list()


def _path(path: Path | None) -> Path:
    assert path is not None  # TrainSettings holds this
    return path
