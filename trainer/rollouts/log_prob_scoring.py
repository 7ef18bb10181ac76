"""Log-probs of rolled-out rows under the policy and the reference, without gradient."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from trainer.data.problems import Problem
from trainer.data.sequences import Row, collate, micro_batches, pad_id
from trainer.distributed.fsdp import empty_pass, in_step
from trainer.loops.run_state import Training
from trainer.modeling import models
from trainer.modeling.models import TokenScorer
from trainer.objectives.losses import masked_importance, truncated_importance
from trainer.rollouts.engines.protocol import Engine
from trainer.rollouts.rollout import Group, Sample, training_row
from trainer.settings import RolloutSettings, TrainSettings

#: A teacher's log-prob of every response token of each row.
TeacherScores = Callable[[Sequence[Problem], Sequence[Row]], list[list[float]]]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Which log-probs the rows of a round need, and where they come from.

    old: "sampled" are the engine's; "recompute" are the trainer's, with a truncated importance weight against
    an engine that is not exact; "none" where the policy makes one update a round and is its own old policy.
    reference: of the KL term; teacher: of on-policy distillation; None without one.
    """

    training: Training
    scorer: TokenScorer
    old: str
    engine_is_exact: bool
    reference: TokenScorer | None = None
    teacher: TeacherScores | None = None

    def rows(self, groups: Sequence[Group]) -> list[list[Row]]:
        """The rows of each group, with the log-probs that the loss needs."""
        sampled = [
            training_row(group.problem, sample, old_log_probs=self.old != "none")
            for group in groups
            for sample in group.samples
        ]
        if self.old == "recompute":
            sampled = self._recomputed(sampled)
        if self.reference is not None:
            scores = score_rows(self.training, self.reference, sampled)
            sampled = [replace(row, ref_log_probs=values) for row, (values, _) in zip(sampled, scores)]
        if self.teacher is not None:
            owners = [group.problem for group in groups for _ in group.samples]
            scored = self.teacher(owners, sampled)
            sampled = [replace(row, teacher_log_probs=values) for row, values in zip(sampled, scored)]
        remaining = iter(sampled)
        return [[next(remaining) for _ in group.samples] for group in groups]

    def entropies(self, pairs: Sequence[tuple[Problem, Sample]]) -> list[float]:
        """Mean entropy of the policy over the tokens of each sample, in nats."""
        rows = [training_row(problem, sample, old_log_probs=False) for problem, sample in pairs]
        return [entropy for _, entropy in score_rows(self.training, self.scorer, rows)]

    def _recomputed(self, rows: list[Row]) -> list[Row]:
        """On-policy rows with the trainer's log-probs in place of the engine's; replayed rows keep their own."""
        rollout = self.training.settings.rollout
        places = [i for i, row in enumerate(rows) if row.off_policy < row.response_length]
        found = list(rows)
        scores = score_rows(self.training, self.scorer, [rows[i] for i in places])
        for place, (values, _) in zip(places, scores):
            importance = None
            if not self.engine_is_exact:
                importance = _importance(values, rows[place].old_log_probs or (), rows[place].off_policy, rollout)
            found[place] = replace(rows[place], old_log_probs=values, importance=importance)
        return found


def open_scoring(training: Training, scorer: TokenScorer, engine: Engine, one_update: bool) -> Scoring:
    """Decide once where old log-probs come from, and load the reference where a KL term asks for it."""
    settings = training.settings
    exact = engine.exact and not _truncated(settings.rollout)
    old = {"engine": "sampled", "recompute": "recompute"}.get(settings.rollout.old_log_probs)
    if old is None:  # auto
        own = one_update and settings.replay is None
        old = ("none" if own else "sampled") if exact else "recompute"
    reference = _reference(settings, training) if settings.loss.kl else None
    return Scoring(training, scorer, old, exact, reference, _teacher(settings, training))


@torch.no_grad()
def score_rows(training: Training, scorer: TokenScorer, rows: Sequence[Row]) -> list[tuple[list[float], float]]:
    """For each row: the log-prob of every response token, and the mean entropy over them."""
    found: list[tuple[list[float], float]] = [([], 0.0)] * len(rows)
    was_training = scorer.training
    scorer.eval()
    budget = training.settings.batch.micro_tokens
    for micro in in_step(micro_batches([len(row.token_ids) for row in rows], budget), scorer):
        if micro is None:
            empty_pass(scorer, training.device)
            continue
        batch = collate([rows[i] for i in micro], pad_id(training.tokenizer), training.device)
        with training.autocast():
            log_prob, entropy = scorer(batch.input_ids, batch.completion_mask)
        means = entropy.sum(-1) / batch.completion_mask.sum(-1).clamp(min=1)
        for index, values, mean in zip(micro, log_prob.tolist(), means.tolist()):
            row = rows[index]
            found[index] = (values[row.prompt_length : len(row.token_ids)], mean)
    scorer.train(was_training)
    return found


def _truncated(rollout: RolloutSettings) -> bool:
    """Whether the sampling distribution leaves tokens out, which the trainer's does not."""
    return rollout.top_p < 1 or rollout.top_k > 0


def _importance(
    trainer: Sequence[float], engine: Sequence[float], off_policy: int, rollout: RolloutSettings
) -> list[float]:
    """A row's weights, by token or for all its tokens the product over those that the policy wrote."""
    ours, theirs = torch.tensor(trainer), torch.tensor(engine)
    if rollout.importance.startswith("sequence"):
        ours, theirs = (values[off_policy:].sum().expand(len(trainer)) for values in (ours, theirs))
    if rollout.importance.endswith("truncate"):
        weights: list[float] = truncated_importance(ours, theirs, rollout.importance_cap).tolist()
        return weights
    masked: list[float] = masked_importance(ours, theirs, rollout.importance_floor, rollout.importance_cap).tolist()
    return masked


def _teacher(settings: TrainSettings, training: Training) -> TeacherScores | None:
    """What scores sampled rows for on-policy distillation: a model, read once and frozen, or the user's function."""
    distill = settings.distill
    if distill is None:
        return None
    if distill.scorer is not None:
        return _scored_by(distill.scorer)
    assert distill.model is not None  # DistillSettings holds this
    tokenizer = models.load_tokenizer(distill.model, trust_remote_code=settings.trust_remote_code)
    if tokenizer.get_vocab() != training.tokenizer.get_vocab():
        raise ValueError(
            f"distill.model {distill.model} has another vocabulary than the policy; take one that shares it."
        )
    model = models.load_model(distill.model, attention=settings.attention, trust_remote_code=settings.trust_remote_code)
    scorer = TokenScorer(model.requires_grad_(False), settings.rollout.temperature).to(training.device).eval()
    return lambda problems, rows: [values for values, _ in score_rows(training, scorer, rows)]


def _scored_by(path: str) -> TeacherScores:
    """The user's `module:function`, called row by row. Raises ValueError where there is none, or it answers wrongly."""
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name, None) if name else None
    if not callable(function):
        raise ValueError(f"distill.scorer is {path!r}; expected module:function that can be imported.")

    def scores(problems: Sequence[Problem], rows: Sequence[Row]) -> list[list[float]]:
        found = []
        for problem, row in zip(problems, rows):
            values = [float(value) for value in function(problem, list(row.token_ids[row.prompt_length :]))]
            if len(values) != row.response_length:
                raise ValueError(f"{path} gave {len(values)} log-probs for {row.response_length} response tokens.")
            found.append(values)
        return found

    return scores


def _reference(settings: TrainSettings, training: Training) -> TokenScorer:
    """The model that KL is taken to, frozen: `ref_model`, or the run's starting model read again."""
    if settings.ref_model is not None:
        model = models.load_model(
            settings.ref_model, attention=settings.attention, trust_remote_code=settings.trust_remote_code
        )
    else:
        state = torch.get_rng_state()
        torch.manual_seed(settings.seed)  # a [new_model] is drawn again as the run drew it
        model, _ = models.load(settings)
        torch.set_rng_state(state)
    return TokenScorer(model.requires_grad_(False), settings.rollout.temperature).to(training.device).eval()
