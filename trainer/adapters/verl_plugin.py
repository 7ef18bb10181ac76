"""Registers LUFFY with verl on import: VERL_USE_EXTERNAL_MODULES=trainer.adapters.verl_plugin.

What it does and what was tested of it: trainer.adapters.verl.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo import ray_trainer
from verl.trainer.ppo.core_algos import register_policy_loss
from verl.utils.dataset.rl_dataset import RLHFDataset

from trainer.adapters.verl import (
    RECIPES,
    Claims,
    check_groups,
    check_trainer,
    mark_teacher,
    trace_ids,
    verl_policy_loss,
)

_CLAIMS = Claims()

for _name in RECIPES:
    register_policy_loss(_name)(verl_policy_loss(_name))


class LuffyDataset(RLHFDataset):  # type: ignore[misc]
    """verl's data set with the tokens of each row's column `target` as `luffy_trace`; none in rows without one.

    `tracekit export` writes the format `luffy`, whose files it reads. Validation files need no `target`.
    """

    def __getitem__(self, item: int) -> dict[str, Any]:
        row: dict[str, Any] = super().__getitem__(item)
        target = row.pop("target", None)
        trace = np.empty((), dtype=object)  # a list in a cell: traces of one length must not become a matrix
        trace[()] = trace_ids(
            self.tokenizer,
            row["raw_prompt"],
            target,
            int(self.config.get("max_response_length", 8192)),
            dict(self.apply_chat_template_kwargs or {}),
        )
        row["luffy_trace"] = trace[()]
        return row


@register("luffy_agent")
class LuffyAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """Gives the trace in the place of a problem's first rollout; samples the others."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """A trace as the answer, or what verl's own loop samples."""
        ids = [int(one) for one in kwargs.pop("luffy_trace", None) or ()]
        if not ids or not _CLAIMS.take(str(kwargs.get("uid"))):
            output = await super().run(sampling_params, **kwargs)
            output.extra_fields["luffy_teacher"] = False
            return output
        check_trainer(self.config)
        prompt_ids = await self.ct_build_initial_tokens(list(kwargs["raw_prompt"]))
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=ids,
            response_mask=[1] * len(ids),
            response_logprobs=[0.0] * len(ids) if self.rollout_config.calculate_log_probs else None,
            num_turns=2,
            metrics={},
            extra_fields={"luffy_teacher": True, "turn_scores": [], "tool_rewards": []},
        )


def _marks_teacher(compute: Any) -> Any:
    """RayPPOTrainer._compute_old_log_prob, with TEACHER in the rows of traces."""

    @functools.wraps(compute)
    def marked(self: Any, batch: Any) -> Any:
        result, mfu = compute(self, batch)
        taught = batch.non_tensor_batch.get("luffy_teacher")
        if taught is not None:
            check_groups(taught, batch.non_tensor_batch["uid"])
            result.batch["old_log_probs"] = mark_teacher(result.batch["old_log_probs"], taught)
        return result, mfu

    return marked


ray_trainer.RayPPOTrainer._compute_old_log_prob = _marks_teacher(ray_trainer.RayPPOTrainer._compute_old_log_prob)
