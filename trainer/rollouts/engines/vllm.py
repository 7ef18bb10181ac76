"""vLLM in process: rollouts on the trainer's own machine, weights passed as tensors.

The trainer's log-probs are those of its own forward pass in another kernel and precision: this engine is not
exact, and the loop corrects for it by truncated importance weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.distributed.ranks import world_size
from trainer.rollouts.engines.protocol import Rollout, Sampling
from trainer.rollouts.engines.sampling import seed_of_prompt

#: Weights enter through the worker's loader: `load_weights` on the inner model renames and fuses only part of
#: them on CPU and leaves a half-updated model.
RELOAD = "reload_weights"


class VllmEngine:
    """`engine.kind = "vllm"`.

    model: a Hugging Face folder or hub name that the engine is built from; `load_weights` replaces its weights.
    dtype: "float32" or "bfloat16". memory_fraction: of the device's memory, weights and cache together. eager: no
    compilation, no CUDA graphs. sleep: let `rest` give weights and cache back (GPUs alone). max_length: longest
    prompt and completion together.
    config_changes: keys of the model's configuration that are not as its folder has them.
    """

    exact = False
    live = False

    def __init__(
        self,
        model: str | Path,
        *,
        max_length: int,
        dtype: str = "float32",
        memory_fraction: float = 0.4,
        tensor_parallel: int = 1,
        eager: bool = False,
        sleep: bool = False,
        trust_remote_code: bool = False,
        seed: int = 0,
        config_changes: dict[str, Any] | None = None,
    ) -> None:
        # One process holds trainer and engine: weights pass as tensors, not through a socket.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from vllm import LLM

        self._sleeps = sleep and has_gpu()
        self._asleep: tuple[str, ...] = ()  # parts whose memory is given back
        self._llm = LLM(
            model=str(model),
            dtype=dtype,
            max_model_len=max_length,
            tensor_parallel_size=tensor_parallel,
            gpu_memory_utilization=memory_fraction,
            enforce_eager=eager,
            enable_sleep_mode=self._sleeps,
            trust_remote_code=trust_remote_code,
            hf_overrides=config_changes or {},
            logprobs_mode="processed_logprobs",  # after temperature, top-p and top-k: what was sampled from
            seed=seed,
            # beside other ranks: this one's engine is its own, in the process group that there is
            distributed_executor_backend="external_launcher" if world_size() > 1 else None,
        )

    def generate(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling) -> list[list[Rollout]]:
        """`n` rollouts for each prompt, in the order of `prompts`."""
        from vllm import SamplingParams

        if "weights" in self._asleep:
            raise ValueError("the engine rests and its weights are gone; call load_weights before generate.")
        self._wake("kv_cache")
        each = [
            SamplingParams(
                n=n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_tokens,
                stop_token_ids=list(sampling.stop_token_ids),
                ignore_eos=True,  # the stop tokens are those of `sampling`, and no others
                seed=seed_of_prompt(sampling, place, n),
                logprobs=0,  # of the sampled token alone
                detokenize=False,
            )
            for place in range(len(prompts))
        ]
        asked: list[Any] = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._llm.generate(asked, each, use_tqdm=False)
        return [[_rollout(o) for o in sorted(output.outputs, key=lambda o: o.index)] for output in outputs]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take new weights, and forget what the cache computed with the old ones; the cache sleeps on until used."""
        self._wake("weights")
        self._llm.collective_rpc(RELOAD, kwargs={"weights_iterator": iter(weights)})
        self._llm.reset_prefix_cache()

    def rest(self) -> bool:
        """Give the memory of weights and cache back; an update needs it, and makes the weights old anyway."""
        if self._sleeps and not self._asleep:
            self._llm.sleep(level=2)  # level 1 would keep a copy of the weights in host memory
            self._asleep = ("weights", "kv_cache")
        return "weights" in self._asleep

    def close(self) -> None:
        """Shut the engine down."""
        self._llm.llm_engine.engine_core.shutdown()

    def _wake(self, part: str) -> None:
        if part in self._asleep:
            self._llm.wake_up(tags=[part])
            self._asleep = tuple(other for other in self._asleep if other != part)


def has_gpu() -> bool:
    """Whether vLLM can sleep here: it gives back device memory alone."""
    return torch.cuda.is_available()


def _rollout(output: Any) -> Rollout:
    ids = list(output.token_ids)
    log_probs = [float(of_token[token].logprob) for token, of_token in zip(ids, output.logprobs)]
    return Rollout(ids, log_probs, "stop" if output.finish_reason == "stop" else "length")
