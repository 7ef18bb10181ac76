"""The loop of every method with rollouts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from tracekit.core.runs import Progress, no_progress
from trainer.data.curriculum import Curriculum, Draws
from trainer.data.problems import endless_order, load_problems
from trainer.data.replay import ReplayBuffer
from trainer.data.sequences import Row, collate, micro_batches, pad_id
from trainer.data.shared_prompts import can_share, score_shared, shared_micro_batches
from trainer.distributed.fsdp import empty_pass, full_tensors, in_step
from trainer.distributed.ranks import max_over_ranks, rank, sum_gradients, sum_over_ranks, world_size
from trainer.loops.checkpoint import LoopState
from trainer.loops.evaluation import Evaluation, open_evaluation
from trainer.loops.optimization import apply_update, learning_rate, trained_parameters
from trainer.loops.round_metrics import (
    count_statistics,
    importance_statistics,
    pass_flops,
    probability_statistics,
    reward_statistics,
    round_statistics,
    sampling_flops,
    update_statistics,
    write_completions,
)
from trainer.loops.run_log import Averages, RunLog
from trainer.loops.run_state import Training, begin, warn_skipped
from trainer.modeling import models
from trainer.objectives.loss_from_settings import PolicyLoss, Totals, policy_loss
from trainer.planning.flops import model_cost
from trainer.rollouts.engines.open import open_engine
from trainer.rollouts.log_prob_scoring import open_scoring
from trainer.rollouts.rewards import charged_for_kl
from trainer.rollouts.rollout import GroupSampler
from trainer.settings import TrainSettings

#: Names of the tables in a checkpoint: the replay buffer, the pass rates.
REPLAY, CURRICULUM = "replay", "curriculum"

logger = logging.getLogger(__name__)


def run(settings: TrainSettings, progress: Progress = no_progress) -> Path:
    """Train to the end, from the newest checkpoint where there is one; returns the folder `final/`.

    A step is a round: problems → groups → rewards → advantages, then the optimizer's updates over their rows.
    """
    training = begin(settings)
    problems, skipped = load_problems(settings, training.tokenizer)
    warn_skipped(skipped, "rows")
    check_round(settings, len(problems))
    rollout_settings, model = settings.rollout, models.plain_model(training.model)
    total = settings.steps or math.ceil(settings.epochs * len(problems) / rollout_settings.prompts)
    parts = rollout_settings.prompts // min(rollout_settings.mini_batch_prompts, rollout_settings.prompts)
    updates = parts * rollout_settings.epochs  # of a round
    engine = open_engine(settings, model, pad_id(training.tokenizer), training.device)
    sampler = GroupSampler(settings, training.tokenizer, engine, problems, training.ends)
    scorer = training.scorer
    scoring = open_scoring(training, scorer, engine, one_update=updates == 1)
    loss_of, cost = policy_loss(settings), model_cost(model)
    sharing = settings.batch.share_prompts and can_share(scorer, training.device)
    replay, curriculum = open_replay(settings, training.state), open_curriculum(settings, training.state)
    place = int(training.state.values.get("place", 0))  # in the endless order of the problems
    evaluation = open_evaluation(training, engine)
    log = RunLog(training.folder, settings.log, training.state.step, settings.model_dump(mode="json"))
    for step in range(training.state.step, total):
        clock, averages = Clock(), Averages()

        with clock.stage("replay"):
            past = {}
            if replay is not None:
                past = replay.choose(f"{settings.seed}/{step}", rollout_settings.prompts, problems, scoring.entropies)
        with clock.stage("rollout"), training.autocast():
            order = endless_order(len(problems), settings.seed, place + rank())
            awake = None if curriculum is None else curriculum.awake(problems, step, rollout_settings.prompts)
            draws = Draws(islice(order, 0, None, world_size()), awake)
            rolled = sampler.roll_out(step, rollout_settings.prompts // world_size(), draws, past, str(rank()))
            place += max_over_ranks(draws.places) * world_size()  # all go on from the same place
            weights_gone = engine.rest()
        averages.add(round_statistics(rolled.groups))
        averages.add(count_statistics(rolled, len(past), skipped.total()))
        averages.add(reward_statistics(rolled.groups, rollout_settings.rewards, sampler.rewards.take_metrics()))
        averages.add(sampling_flops(rolled.groups, cost))

        with clock.stage("log_probs"):
            rows = scoring.rows(rolled.groups)
            if settings.loss.kl and settings.loss.kl_in == "reward":
                rows = charged_for_kl(rolled.groups, rows, settings)
        averages.add(importance_statistics(list(chain.from_iterable(rows)), rollout_settings.importance_cap))
        norms, trained, flops, lr = list[float](), list[Row](), 0, 0.0
        with clock.stage("update"):
            for update in range(updates):
                chosen = [row for group in rows[update % parts :: parts] for row in group]
                totals = totals_of(chosen, settings)
                if totals.rows == 0:
                    continue  # the filters left nothing to learn from
                chosen = with_gradient(chosen, settings, by_every_row=loss_of.needs_every_row)
                flops += accumulate(training, scorer, loss_of, chosen, totals, averages, sharing=sharing)
                trained += chosen
                lr = learning_rate(step * updates + update, total * updates, settings.optimizer)
                norms.append(apply_update(training.optimizer, lr, settings.optimizer.max_grad_norm, step))
        averages.add(update_statistics(trained, flops))
        with clock.stage("weights"):
            if not engine.live and (norms or weights_gone):
                engine.load_weights(full_tensors(model))

        means = averages.means()
        if replay is not None:
            replay.take_in(rolled.groups, means["reward_on_policy"])
        if curriculum is not None:
            curriculum.take_in(rolled.pass_rates, step)
        metrics = {
            **means,
            **clock.seconds,
            "updates": (step + 1) * updates,
            "gradient_norm": max(norms, default=None),
            "learning_rate": lr,
            "tokens_per_second": (means["tokens_sampled"] or 0.0) / clock.seconds["seconds_rollout"],
        }
        if evaluation is not None and evaluation.due(step + 1, total):
            with clock.stage("evaluate"):
                metrics |= evaluation.run(step + 1, log)
            metrics |= clock.seconds
        log.write(step + 1, metrics)
        every = settings.log.completions_every
        if every and (step + 1) % every == 0:
            log.samples(
                step + 1,
                "rollouts",
                write_completions(training.folder, rolled.groups, settings, step + 1, step * updates),
            )
        progress(settings.method, step + 1, total, note(metrics))
        if (step + 1) % settings.checkpoint.every == 0:
            log.flush()
        if training.saves_at(step + 1):
            training.save(loop_state(step + 1, place, replay, curriculum, evaluation))
    log.close()
    engine.close()
    return training.finish(loop_state(total, place, replay, curriculum, evaluation))


def check_round(settings: TrainSettings, problems: int) -> None:
    """Raise ValueError where ranks cannot share a round's problems; say where a round asks a problem twice."""
    wanted = settings.rollout.prompts
    if wanted % world_size():
        fitting = max(wanted - wanted % world_size(), world_size())
        raise ValueError(
            f"rollout.prompts is {wanted}, which {world_size()} processes cannot share evenly; set it to {fitting}."
        )
    if wanted > problems:
        logger.warning(
            "rollout.prompts is %d and there are %d problems: a round has some of them more than once", wanted, problems
        )


def accumulate(
    training: Training,
    scorer: models.TokenScorer,
    loss_of: PolicyLoss,
    rows: Sequence[Row],
    totals: Totals,
    averages: Averages,
    *,
    sharing: bool = False,
) -> int:
    """Add the gradient of the update's loss over these rows, micro-batch by micro-batch, summed over ranks.

    sharing: a prompt may be computed once for its rows. Returns the FLOPs of this rank's passes, by formula.
    """
    budget, probabilities = training.settings.batch.micro_tokens, [torch.zeros(0)]
    cost, flops = model_cost(models.plain_model(training.model)), 0
    shared = shared_micro_batches(rows, budget) if sharing else None
    for micro in in_step(shared or micro_batches([len(row.token_ids) for row in rows], budget), scorer):
        if micro is None:
            empty_pass(scorer, training.device)
            continue
        chosen = [rows[i] for i in micro]
        flops += pass_flops(chosen, cost, shared=bool(shared))
        batch = collate(chosen, pad_id(training.tokenizer), training.device)
        with training.autocast():
            if shared:
                log_prob, entropy = score_shared(scorer, chosen, batch)
            else:
                log_prob, entropy = scorer(batch.input_ids, batch.completion_mask)
        loss, statistics = loss_of(batch, log_prob, entropy, totals)
        loss.backward()  # type: ignore[no-untyped-call]
        averages.add({**statistics, "loss": (loss.detach(), torch.tensor(0.0))})
        probabilities.append(log_prob.detach()[batch.off_policy_mask & ~batch.replay_mask].exp().cpu())
    averages.add(probability_statistics(torch.cat(probabilities)))
    averages.add({"loss": (torch.tensor(0.0), torch.tensor(float(rank() == 0)))})  # parts add up; updates are averaged
    parameters = trained_parameters(training.optimizer)
    for parameter in parameters:
        if parameter.grad is None:  # no row had a gradient: momentum and decay act as they would on a gradient of 0
            parameter.grad = torch.zeros_like(parameter)
    sum_gradients(parameters)
    return flops


def with_gradient(rows: Sequence[Row], settings: TrainSettings, *, by_every_row: bool = False) -> list[Row]:
    """The rows whose loss moves a weight: of nonzero advantage, or cloned.

    by_every_row: an entropy or KL term moves weights by every row that is not left out.
    """
    kept = [row for row in rows if not row.left_out]
    if by_every_row or not settings.batch.skip_zero_advantage:
        return kept
    return [row for row in kept if row.has_gradient]


def totals_of(rows: Sequence[Row], settings: TrainSettings) -> Totals:
    """What an update's reductions divide by, over all ranks.

    A sampled row that a gate leaves out counts as one of zero advantage does: no row's weight depends on the others'.
    A masked truncated response counts as a row, and its tokens do not count, as in TRL.
    """
    acting = [row for row in rows if row.surrogate_tokens]
    tokens = sum(row.surrogate_tokens for row in acting if not row.masked)
    cloned_tokens = sum(row.cloned_tokens for row in rows)
    counts = torch.tensor([len(acting), tokens, cloned_tokens])
    found = [int(count) for count in sum_over_ranks(counts)]
    return Totals(rows=found[0], tokens=found[1], length=settings.data.response_tokens, cloned_tokens=found[2])


def open_replay(settings: TrainSettings, state: LoopState) -> ReplayBuffer | None:
    """The buffer of past traces as the checkpoint has it; None where the recipe has no [replay]."""
    if settings.replay is None:
        return None
    buffer = ReplayBuffer(settings.replay)
    if REPLAY in state.tables:
        buffer.restore(state.tables[REPLAY], bool(state.values["replay_open"]))
    return buffer


def open_curriculum(settings: TrainSettings, state: LoopState) -> Curriculum | None:
    """The pass rates as the checkpoint has them; None where the recipe has no [rollout.curriculum]."""
    if settings.rollout.curriculum is None:
        return None
    curriculum = Curriculum(settings.rollout.curriculum)
    if CURRICULUM in state.tables:
        curriculum.restore(state.tables[CURRICULUM])
    return curriculum


def loop_state(
    step: int,
    place: int,
    replay: ReplayBuffer | None = None,
    curriculum: Curriculum | None = None,
    evaluation: Evaluation | None = None,
) -> LoopState:
    """All that the next round depends on, beside weights, optimizer and torch's generators."""
    values: dict[str, Any] = {"place": place, **({} if evaluation is None else evaluation.values())}
    tables = {}
    if replay is not None:
        values["replay_open"] = replay.open
        tables[REPLAY] = replay.table()
    if curriculum is not None:
        tables[CURRICULUM] = curriculum.table()
    return LoopState(step, values, tables=tables)


class Clock:
    """Seconds of a round by stage, as metrics."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what happens inside to this stage."""
        started = time.perf_counter()
        yield
        key = f"seconds_{name}"
        self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - started


def note(metrics: Mapping[str, float | int | None]) -> str:
    """The line that a person sees while it runs."""
    shown = {"reward": "reward_on_policy", "entropy": "rollout_entropy", "tokens": "response_tokens"}
    shown |= {name.removesuffix("/accuracy"): name for name in metrics if name.endswith("/accuracy")}
    parts = [f"{word} {value:.3g}" for word, name in shown.items() if (value := metrics[name]) is not None]
    return "  ".join([*parts, f"{metrics['tokens_per_second']:,.0f} tokens/s"])
