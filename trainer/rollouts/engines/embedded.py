"""The default engine: our sampling loop over the live Hugging Face model, on any device.

What makes it faster than `model.generate` on the same model: a prompt is prefilled once for its n
completions, which on a CPU also read its keys and values once; keys and values are written in place instead of
concatenated at every token; and rows that have ended leave the batch. It samples from the weights being
trained, so no update has to be shipped.

Every completion has its own stream of random numbers: what it samples depends neither on the rows beside it
nor on when they end, and the first of n completions are those that a smaller n would give.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.modeling.attention import ATTENTION_LAYERS, ROWS, slides
from trainer.modeling.models import uncompiled
from trainer.rollouts.engines.kv_cache import PreallocatedCache
from trainer.rollouts.engines.protocol import Rollout, Sampling
from trainer.rollouts.engines.sampling import choose

#: Finished rows leave the batch once they are this share of it. Measured on one CPU thread: flat from 0.005 to 0.04.
COMPACTION_SHARE = 0.02


class EngineError(ValueError):
    """The engine cannot do what was asked: the message says what was found and what to do."""


class EmbeddedEngine:
    """Samples from `model` as it is at the call.

    model: any causal LM of attention layers. rows: completions in flight at once, which bounds the memory
    of keys and values. pad_token_id: fills prompts on the left; never attended to.
    live: whether `model` is the trainer's own; False for a copy, which `load_weights` brings up to date.
    """

    exact = True

    def __init__(self, model: PreTrainedModel, *, rows: int = 512, pad_token_id: int = 0, live: bool = True) -> None:
        config = model.config.get_text_config(decoder=True)
        recurrent = set(getattr(config, "layer_types", None) or ()) - ATTENTION_LAYERS
        if recurrent:
            raise EngineError(
                f"{type(model).__name__} has layers of {', '.join(sorted(recurrent))}, whose state the embedded "
                "engine does not keep; set engine.kind to vllm."
            )
        self.model, self.rows, self.pad_token_id, self.live = model, rows, pad_token_id, live
        self._shares: bool | None = None  # whether completions may share their prompt's cache; None: not yet tried
        self._accepts = set(inspect.signature(model.forward).parameters)

    def generate(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling) -> list[list[Rollout]]:
        """`n` rollouts for each prompt, in the order of `prompts`. Raises EngineError for an empty prompt."""
        for number, prompt in enumerate(prompts):
            if not prompt:
                raise EngineError(f"prompt {number} is empty; a completion needs at least one token to follow.")
        if n < 1 or not prompts:
            return [[] for _ in prompts]
        results: list[list[Rollout]] = [[] for _ in prompts]
        with self._sampling_mode():
            for numbers, copies, first in waves([len(prompt) for prompt in prompts], n, self.rows):
                uniform = row_noise(numbers, range(first, first + copies), sampling)
                done = self._sample([prompts[number] for number in numbers], copies, sampling, uniform)
                for place, number in enumerate(numbers):
                    results[number] += done[place * copies : (place + 1) * copies]
        return results

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy full tensors into the model; one that already shares its memory is left as it is."""
        own = self.model.state_dict()
        with torch.no_grad():
            for name, tensor in weights:
                if name not in own:
                    raise EngineError(f"the model has no weight {name}; expected names of its own state dict.")
                if own[name].data_ptr() != tensor.data_ptr():
                    own[name].copy_(tensor)

    def rest(self) -> bool:
        """Keep the weights: they are the trainer's own, or its copy."""
        return False

    def close(self) -> None:
        """Nothing to free: the model belongs to the trainer."""

    @contextmanager
    def _sampling_mode(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), uncompiled(self.model):
                yield
        finally:
            self.model.train(was_training)

    def _sample(self, prompts: list[Sequence[int]], n: int, sampling: Sampling, noise: Tensor) -> list[Rollout]:
        """One wave: `n` completions of each prompt. noise: (prompts · n, max_tokens), uniform in [0, 1)."""
        device = next(self.model.parameters()).device
        noise = noise.to(device)
        flight = _Flight.start(prompts, n, sampling, self.pad_token_id, device)
        cache, logits = self._begin(flight, n, shared=n > 1 and self._can_share(device))
        for step in range(sampling.max_tokens):
            token, log_prob = choose(logits, sampling, noise[flight.active, step])
            flight.record(step, token, log_prob)
            if flight.unfinished == 0 or step + 1 == sampling.max_tokens:
                break
            if len(flight.active) - flight.unfinished >= COMPACTION_SHARE * len(flight.active):
                kept = flight.drop_finished()
                cache.batch_select_indices(kept)
                token = token[kept]
            logits = self._next(flight, step, token, cache)
        return flight.rollouts()

    def _begin(self, flight: _Flight, n: int, *, shared: bool) -> tuple[PreallocatedCache, Tensor]:
        """Prefill: the cache of `n` rows a prompt and their logits, (prompts · n, V). shared: hold prompts once."""
        cache = PreallocatedCache(flight.width)
        logits = self._forward(flight.prompt_ids, flight.prompt_mask, flight.prompt_positions, cache)
        if shared:
            cache.share_prompts(n, flight.prompt_mask)
        else:
            cache.batch_repeat_interleave(n)
        return cache, logits.repeat_interleave(n, dim=0)

    def _next(self, flight: _Flight, step: int, token: Tensor, cache: PreallocatedCache) -> Tensor:
        """Logits after the tokens of a step, (active, V)."""
        mask = None if flight.mask is None else flight.mask[:, : flight.prompt_width + step + 1]
        return self._forward(token[:, None], mask, flight.positions[:, None] + step, cache)

    def _can_share(self, device: torch.device) -> bool:
        """Whether the model attends after shared prompts as it does over its own cache: tried out once.

        On a CPU alone, where a query a row is a product of its own; a GPU has kernels that read the whole cache.
        """
        if self._shares is None:
            config = self.model.config
            possible = device.type == "cpu" and config._attn_implementation == ROWS and not slides(config)
            self._shares = possible and self._sharing_agrees(device)
        return self._shares

    def _sharing_agrees(self, device: torch.device, atol: float = 1e-4) -> bool:
        """Whether two prompts of unlike length, gone on with by two rows each, give the same log-probs either way."""
        found = []
        for shared in (False, True):
            flight = _Flight.start([[0, 1, 0], [1, 0]], 2, Sampling(3, ()), self.pad_token_id, device)
            try:
                cache, logits = self._begin(flight, 2, shared=shared)
                steps = [logits]
                for step, tokens in enumerate(([0, 1, 1, 0], [1, 1, 0, 0])):
                    steps.append(self._next(flight, step, torch.tensor(tokens, device=device), cache))
            except (AttributeError, TypeError, ValueError, RuntimeError):  # a model that takes no such arguments
                return False
            found.append(torch.stack(steps).log_softmax(-1))
        return torch.allclose(found[0], found[1], rtol=0, atol=atol)

    def _forward(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: PreallocatedCache) -> Tensor:
        """Logits after the last column, (rows, V) in float32. mask: None where nothing is padding."""
        inputs: dict[str, Any] = {"input_ids": ids, "past_key_values": cache, "use_cache": True}
        if cache.prompts is not None:
            inputs["shared_prompts"] = cache.prompts
            inputs["attention_mask"] = ids.new_ones((1, 1, 1, 1))  # else transformers makes one that nobody reads
        elif mask is not None:
            inputs["attention_mask"] = mask
        if "position_ids" in self._accepts:
            inputs["position_ids"] = positions
        if "logits_to_keep" in self._accepts:
            inputs["logits_to_keep"] = 1
        logits: Tensor = self.model(**inputs).logits
        return logits[:, -1].float()


def waves(lengths: Sequence[int], n: int, rows: int) -> Iterator[tuple[list[int], int, int]]:
    """Which rows are sampled together: (prompt numbers, completions of each, number of the first completion).

    Prompts of like length share a wave, so that few of its columns are padding. At most `rows` rows a wave.
    """
    order = sorted(range(len(lengths)), key=lambda number: lengths[number])
    copies = min(n, rows)
    prompts = max(1, rows // copies)
    for start in range(0, len(order), prompts):
        for first in range(0, n, copies):
            yield order[start : start + prompts], min(copies, n - first), first


def row_noise(prompts: Iterable[int], completions: Iterable[int], sampling: Sampling) -> Tensor:
    """Uniform numbers in [0, 1) for each token of each completion: (prompts · completions, max_tokens).

    A row's numbers depend on the seed, its prompt's place (or, in place of both, its prompt's own seed) and its own.
    """
    generator, own = torch.Generator(), list(completions)
    return torch.stack(
        [
            torch.rand(sampling.max_tokens, generator=generator.manual_seed(_row_seed(sampling, prompt, completion)))
            for prompt in prompts
            for completion in own
        ]
    )


def _row_seed(sampling: Sampling, prompt: int, completion: int) -> int:
    own = sampling.seeds[prompt] if sampling.seeds else f"{sampling.seed}/{prompt}"
    key = f"{own}/{completion}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


@dataclass(slots=True)
class _Flight:
    """The rows of a wave. `active` are the rows in the batch, some of which may have ended since the last drop."""

    prompt_ids: Tensor  # (prompts, prompt_width), padded on the left
    prompt_mask: Tensor | None  # None where no prompt is padded
    prompt_positions: Tensor
    mask: Tensor | None  # (active, width), True on prompt and completion
    positions: Tensor  # (active,), position of the first completion token
    stops: Tensor  # (stop tokens,)
    tokens: Tensor  # (rows, max_tokens)
    log_probs: Tensor  # (rows, max_tokens)
    lengths: Tensor  # (rows,), 0 while a row goes on
    active: Tensor  # (active,), rows in the batch
    going: Tensor  # (active,), True where the row has not ended
    unfinished: int

    @property
    def prompt_width(self) -> int:
        """Columns of the prompts."""
        return self.prompt_ids.shape[1]

    @property
    def width(self) -> int:
        """Columns of prompt and longest completion."""
        return self.prompt_width + self.tokens.shape[1]

    @classmethod
    def start(cls, prompts: list[Sequence[int]], n: int, sampling: Sampling, pad: int, device: torch.device) -> _Flight:
        """Lay the prompts out, padded on the left so that every row writes the same column."""
        rows, longest = len(prompts) * n, max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        columns = torch.arange(longest, device=device)
        prompt_mask = columns >= (longest - lengths)[:, None]
        padded = bool((lengths < longest).any())
        mask = None
        if padded:
            after = torch.ones((rows, sampling.max_tokens), dtype=torch.bool, device=device)
            mask = torch.cat([prompt_mask.repeat_interleave(n, dim=0), after], dim=1)
        return cls(
            prompt_ids=ids,
            prompt_mask=prompt_mask if padded else None,
            prompt_positions=(columns - (longest - lengths)[:, None]).clamp(min=0),
            mask=mask,
            positions=lengths.repeat_interleave(n),
            stops=torch.tensor(sampling.stop_token_ids, dtype=torch.long, device=device),
            tokens=torch.zeros((rows, sampling.max_tokens), dtype=torch.long, device=device),
            log_probs=torch.zeros((rows, sampling.max_tokens), device=device),
            lengths=torch.zeros(rows, dtype=torch.long, device=device),
            active=torch.arange(rows, device=device),
            going=torch.ones(rows, dtype=torch.bool, device=device),
            unfinished=rows,
        )

    def record(self, step: int, token: Tensor, log_prob: Tensor) -> None:
        """Write the tokens of one step and see which rows they end. Rows that ended before write past their end."""
        self.tokens[self.active, step] = token
        self.log_probs[self.active, step] = log_prob
        ended = torch.isin(token, self.stops) & self.going
        self.lengths[self.active[ended]] = step + 1
        self.going &= ~ended
        self.unfinished = int(self.going.sum())

    def drop_finished(self) -> Tensor:
        """Take ended rows out, the last rows moving into their places; returns which row each place now holds."""
        places = torch.arange(len(self.going), device=self.going.device)
        front, back = self.going[: self.unfinished], self.going[self.unfinished :]
        kept = places[: self.unfinished].clone()
        kept[~front] = places[self.unfinished :][back]
        self.active, self.going, self.positions = self.active[kept], self.going[kept], self.positions[kept]
        self.mask = None if self.mask is None else self.mask[kept]
        return kept

    def rollouts(self) -> list[Rollout]:
        """What was sampled, row by row."""
        found = []
        longest = self.tokens.shape[1]
        for tokens, log_probs, length in zip(self.tokens.tolist(), self.log_probs.tolist(), self.lengths.tolist()):
            end = length or longest
            found.append(Rollout(tokens[:end], log_probs[:end], "stop" if length else "length"))
        return found
