"""LUFFY inside TRL: teacher rows, shaping, HPT, CHORD and SRFT in a `GRPOTrainer`.

    from trainer.adapters.trl import LuffyTrainer, luffy_dataset
    trainer = LuffyTrainer("Qwen/Qwen2.5-Math-1.5B", recipe="luffy", reward_funcs=accuracy_reward,
                           args=GRPOConfig(num_generations=8, …), train_dataset=luffy_dataset("curated.parquet"))

Loss, advantages and roles are our loop's, so that one step here is one step there on the same rows (a test holds it).
Generation, vLLM, LoRA, DeepSpeed, FSDP, logging, checkpoints and the hub stay TRL's.

Written for TRL 1.16 and tested with it alone: three private methods of its trainer are overridden.
Differences to our loop: the last sampled row of a group is replaced by the trace, so that one rollout a group is
sampled for nothing (as in LUFFY's own code); a trace that TRL's `max_completion_length` does not hold leaves its group
without a teacher row; rows of zero advantage go through the model too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from tracekit.core.tables import CURATED, read_table
from trainer.adapters.rows import RecipeError, RowRoles, as_batch, load_recipe, printed_prompt, row_roles
from trainer.data.sequences import responses_ids
from trainer.objectives.loss_from_settings import Totals, policy_loss
from trainer.settings import TrainSettings

#: TRL's settings of its own losses, which a recipe takes the place of, and the values that leave them out.
REPLACED = {
    "use_liger_kernel": (False,),
    "top_entropy_quantile": (1.0,),
    "off_policy_mask_threshold": (None,),
    "use_adaptive_entropy": (False,),
    "entropy_coef": (0.0,),
}

#: Names under which a row's role travels through TRL's shuffling and splitting of a batch.
ROLE_NAMES = ("advantage", "weight", "clone_weight", "entropy_exponent", "acts", "clones", "counts")


def luffy_dataset(curated: str | Path, system_prompt: str | None = None) -> Dataset:
    """A row for each problem of a curated table that has a right trace: `prompt`, `solution` and `teacher`.

    prompt: a conversation. solution: the gold, as `evaluators.rewards.accuracy_reward` takes it. teacher: the
    response of the problem's first right trace.
    """
    table = read_table(curated, CURATED, "curated").filter(pl.col("correct"))
    table = table.unique("problem_id", keep="first", maintain_order=True)
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    rows = [
        {"prompt": [*system, {"role": "user", "content": problem}], "solution": gold, "teacher": response}
        for problem, gold, response in table.select("problem", "gold", "response").iter_rows()
    ]
    return Dataset.from_list(rows)


class LuffyTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer with a teacher's trace in the last row of each group.

    Parameters
    ----------
    recipe
        Name of a recipe (luffy, luffy_unshaped, luffy_baseline, rl_sft, hpt, chord_mu, chord_phi, srft, grpo) or the
        settings themselves. Their `teacher`, `on_policy`, `advantage` and `loss` are used; everything else is TRL's.
        With recipes whose trace stands beside the group, `num_generations` counts it: 9 for 8 rollouts.
    args, kwargs
        As for `GRPOTrainer`. The data set's column `teacher` holds the trace's text, or None.

    Raises RecipeError where recipe and TRL's arguments contradict each other.
    """

    def __init__(self, *args: Any, recipe: str | TrainSettings = "luffy", **kwargs: Any) -> None:
        self.recipe = load_recipe(recipe)
        given = next((one for one in (*args, *kwargs.values()) if isinstance(one, GRPOConfig)), None)
        _check_arguments(GRPOConfig() if given is None else given, self.recipe)
        super().__init__(*args, **kwargs)
        self._loss_of = policy_loss(self.recipe)
        self._teacher_ids: list[list[int] | None] = []
        self._rewards: Tensor = torch.empty(0)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._teacher_ids = [None] * len(inputs)
        if self.model.training and self.recipe.teacher_rows:
            self._teacher_ids = [
                self._trace_of(row) if self._is_last(place, len(inputs)) else None for place, row in enumerate(inputs)
            ]
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        taught = torch.tensor([ids is not None for ids in self._teacher_ids], device=self.accelerator.device)
        roles = self._roles(self.accelerator.gather(taught), len(inputs))
        lengths = self._mask_of(output).sum(-1)
        totals = torch.stack([
            roles["counts"].sum(),
            (lengths * roles["counts"]).sum(),
            (lengths * roles["clones"]).sum(),
        ])  # fmt: skip
        output |= {f"luffy_{name}": values for name, values in roles.items()} | {"luffy_teacher": taught}
        summed = self.accelerator.reduce(totals, reduction="sum")
        output |= {"luffy_rows": summed[0], "luffy_tokens": summed[1], "luffy_cloned": summed[2]}
        self._metrics["train"]["luffy/teacher_rows"].append(self.accelerator.gather(taught).sum().item())
        return output

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        completion_ids, log_probs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        for place, ids in enumerate(self._teacher_ids):
            if ids is not None:
                completion_ids[place] = ids
                if log_probs is not None:
                    log_probs[place] = [None] * len(ids)  # TRL's word for "not known": no correction
        return completion_ids, log_probs

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's, gathered over processes and kept: a recipe's gate looks at rewards, of which TRL returns none."""
        by_function: Tensor = super()._calculate_rewards(*args, **kwargs)
        weighted = by_function * self.reward_weights.to(by_function.device)
        self._rewards = weighted.nansum(dim=1).masked_fill(by_function.isnan().all(dim=1), torch.nan)
        return by_function

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if "luffy_teacher" not in inputs:  # evaluation has no teacher rows
            evaluated: Tensor = super()._compute_loss(model, inputs)
            return evaluated
        prompt, completion = inputs["prompt_ids"], inputs["completion_ids"]
        log_prob, entropy, aux_loss = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([prompt, completion], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            completion.size(1),
            compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled,
        )
        batch = as_batch(
            self._mask_of(inputs),
            inputs["luffy_teacher"],
            RowRoles(**{name: inputs[f"luffy_{name}"] for name in ROLE_NAMES}),
            old_log_prob=inputs.get("old_per_token_logps"),
            ref_log_prob=inputs.get("ref_per_token_logps"),
            importance=inputs.get("importance_sampling_ratio"),
        )
        rows, tokens, cloned = (int(inputs[f"luffy_{name}"]) for name in ("rows", "tokens", "cloned"))
        totals = Totals(rows=rows, tokens=tokens, length=self.max_completion_length, cloned_tokens=cloned)
        loss, statistics = self._loss_of(batch, log_prob, entropy, totals)
        self._log_statistics(statistics)
        # Totals are of the generation batch; processes' gradients are averaged and windows of accumulation are shorter.
        windows = self.args.steps_per_generation / self.current_gradient_accumulation_steps
        loss = loss * self.accelerator.num_processes * windows
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss / self.current_gradient_accumulation_steps
        return loss

    def _is_last(self, place: int, rows: int) -> bool:
        """Whether a row of this process is the last of its group; groups may span processes."""
        return bool((self.accelerator.process_index * rows + place + 1) % self.num_generations == 0)

    def _trace_of(self, row: Mapping[str, Any]) -> list[int] | None:
        """A row's trace as tokens with its end, or None where it has none or TRL's limit does not hold it."""
        text = row.get("teacher")
        if text is None:
            return None
        prompt = row["prompt"]
        printed = printed_prompt(self._tokenizer, prompt, self.chat_template_kwargs)
        (ids,) = responses_ids(self._tokenizer, [text], [printed], self.recipe.data)
        return ids if len(ids) <= self.max_completion_length else None

    def _roles(self, taught: Tensor, rows: int) -> dict[str, Tensor]:
        """What this process's rows train, decided over the rows of all processes."""
        groups = [place // self.num_generations for place in range(len(taught))]
        updates = max(self.args.steps_per_generation // self.args.gradient_accumulation_steps, 1) * self.num_iterations
        number = self.state.global_step // updates  # of this generation, from 0
        decided = row_roles(self._rewards.tolist(), taught.tolist(), groups, self.recipe, number)
        own = slice(self.accelerator.process_index * rows, (self.accelerator.process_index + 1) * rows)
        return {name: getattr(decided, name)[own].to(taught.device) for name in ROLE_NAMES}

    @staticmethod
    def _mask_of(inputs: Mapping[str, Any]) -> Tensor:
        mask: Tensor = inputs["completion_mask"]
        return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask

    def _log_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for name, pair in statistics.items():
            total, count = self.accelerator.reduce(
                torch.stack([part.float() for part in pair]), reduction="sum"
            ).tolist()
            if count:
                self._metrics["train"][f"luffy/{name}"].append(total / count)


def _check_arguments(arguments: Any, recipe: TrainSettings) -> None:
    """Raise RecipeError where TRL's arguments would have an effect that the recipe's loss has not, or lack one."""
    for name, neutral in REPLACED.items():
        if getattr(arguments, name, neutral[0]) not in neutral:
            raise RecipeError(
                f"{name} is {getattr(arguments, name)!r}; the recipe's loss takes its place: leave it out."
            )
    if bool(arguments.beta) != bool(recipe.loss.kl):
        raise RecipeError(
            f"beta is {arguments.beta} and the recipe's loss.kl {recipe.loss.kl}; TRL loads the reference model by the "
            "one and the loss takes the other: set both or neither."
        )
    if arguments.num_generations < 2 + recipe.teacher_rows * recipe.teacher_beside:
        raise RecipeError(
            f"num_generations is {arguments.num_generations}; too few for a group beside its teacher row."
        )
