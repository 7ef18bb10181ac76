"""One batch through a decoder: only the rows that are read are kept, and nothing deeper than the deepest is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.states.places import Place, TokenisedTrace
from probes.svm.kernels import StatesError

if TYPE_CHECKING:
    import torch


def make_batches(sequences: Sequence[TokenisedTrace], places: Sequence[Place], budget: int) -> Iterator[Batch]:
    """Sequences with at least one place, shortest first, as many a batch as the padded budget holds."""
    rows: dict[int, list[int]] = {}
    for row, p in enumerate(places):
        rows.setdefault(p.sequence, []).append(row)
    batch: list[int] = []
    for number in sorted(rows, key=lambda s: (len(sequences[s].token_ids), s)):
        if batch and len(sequences[number].token_ids) * (len(batch) + 1) > budget:
            yield Batch(batch, [row for s in batch for row in rows[s]])
            batch = []
        batch.append(number)
    yield Batch(batch, [row for s in batch for row in rows[s]])


@dataclass(frozen=True)
class Batch:
    """sequences: which are read together; rows: the rows of the states that they hold."""

    sequences: list[int]
    rows: list[int]


class _DeepestLayerRead(Exception):
    """Thrown out of the forward pass once the deepest layer is read."""


def read_batch(
    model: torch.nn.Module,
    sequences: Sequence[TokenisedTrace],
    places: Sequence[Place],
    batch: Batch,
    layers: Sequence[int],
    log_probs: bool,
) -> dict[str, torch.Tensor]:
    """ "layer_000" … → (rows of the batch, width) on the CPU, and "log_prob" (rows,) where asked for."""
    import torch

    device = next(model.parameters()).device
    length = max(len(sequences[s].token_ids) for s in batch.sequences)
    token_ids = torch.zeros(len(batch.sequences), length, dtype=torch.long)
    for row, s in enumerate(batch.sequences):
        token_ids[row, : len(sequences[s].token_ids)] = torch.tensor(sequences[s].token_ids)
    token_ids = token_ids.to(device)
    gather = Gather.of([places[r] for r in batch.rows], batch.sequences, length, device)
    owner, decoder = head_and_decoder(model) if log_probs else (model, model)
    found: dict[str, torch.Tensor] = {}

    def keep(layer: int, hidden: torch.Tensor) -> None:
        found[f"layer_{layer:03d}"] = gather(hidden)
        if layer == max(layers) and not log_probs:
            raise _DeepestLayerRead

    handles = _hook(decoder, layers, keep)
    try:
        with torch.inference_mode():
            output = decoder(input_ids=token_ids, use_cache=False)
            if log_probs:
                found["log_prob"] = _log_probs(_Head(owner, decoder, output), token_ids, gather)
    except _DeepestLayerRead:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found


def _hook(decoder: Any, layers: Sequence[int], keep: Any) -> list[Any]:
    blocks = decoder_blocks(decoder)
    handles = []
    for layer in layers:
        if layer == 0:

            def before(_: Any, args: tuple, kwargs: dict) -> None:
                keep(0, args[0] if args else kwargs["hidden_states"])

            handles.append(blocks[0].register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(_: Any, __: Any, output: Any, layer: int = layer) -> None:
                keep(layer, output[0] if isinstance(output, tuple) else output)

            handles.append(blocks[layer - 1].register_forward_hook(after))
    return handles


def decoder_blocks(decoder: Any) -> Any:
    """The stack of decoder blocks: the outermost ModuleList as long as the config says."""
    import torch

    depth = decoder.config.get_text_config().num_hidden_layers
    for _, module in decoder.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return module
    raise StatesError(f"{type(decoder).__name__} has no list of {depth} blocks; it is no decoder this reads.")


@contextmanager
def hooked_layer(model: Any, layer: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Put `change` over the output (b, t, d) of a layer (0: the embedding) for as long as the context lasts."""
    blocks = decoder_blocks(model)

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after(_: Any, __: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    if layer == 0:
        handle = blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = blocks[layer - 1].register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Gather:
    """Picks rows out of a padded batch: single tokens by index, means by summing over their tokens.

    single: flat token of each row (0 for means). tokens, owner: tokens of the means and the row each belongs
    to. counts: tokens a mean row.
    """

    single: torch.Tensor
    means: torch.Tensor
    tokens: torch.Tensor
    owner: torch.Tensor
    counts: torch.Tensor
    spans: list[tuple[int, int]]

    @classmethod
    def of(cls, places: Sequence[Place], batch: Sequence[int], length: int, device: Any) -> Gather:
        """For the places of a batch of sequences that are padded to `length` tokens."""
        import torch

        at = {s: row for row, s in enumerate(batch)}
        base = [at[p.sequence] * length for p in places]
        means = [row for row, p in enumerate(places) if p.mean]
        tokens = [base[row] + t for row in means for t in range(places[row].first, places[row].last + 1)]
        owner = [k for k, row in enumerate(means) for _ in range(places[row].first, places[row].last + 1)]
        counts = [places[row].last - places[row].first + 1 for row in means]

        def index(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        return cls(
            single=index([b + p.last for b, p in zip(base, places)]),
            means=index(means),
            tokens=index(tokens),
            owner=index(owner),
            counts=index(counts),
            spans=[(b + p.first, b + p.last) for b, p in zip(base, places)],
        )

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, d) → (rows, d) on the CPU; means are summed in float32."""
        import torch

        flat = hidden.reshape(-1, hidden.shape[-1])
        rows = flat[self.single]
        if len(self.means):
            sums = torch.zeros(len(self.means), flat.shape[-1], dtype=torch.float32, device=flat.device)
            sums.index_add_(0, self.owner, flat[self.tokens].float())
            rows[self.means] = (sums / self.counts[:, None]).to(rows.dtype)
        return rows.cpu()


def head_and_decoder(model: Any) -> tuple[Any, Any]:
    """The module that makes the logits, and the decoder below it, without a head of its own.

    Some models (Llama 4) hold a whole language model with its head where others hold the decoder.
    """
    owner, decoder = model, model.get_decoder()
    while decoder is not owner and getattr(decoder, "lm_head", None) is not None:
        owner, decoder = decoder, decoder.get_decoder()
    if decoder is owner:  # Llama 4's text model names no decoder of its own
        decoder = owner.model
    return owner, decoder


@dataclass(frozen=True)
class _Head:
    """A model's own way from hidden states to logits: head, scale and soft cap, whatever its `forward` does.

    The decoder has run once; for each piece of its output the model's `forward` is called with the decoder standing
    in for itself, so that no list of architectures and their scales has to be kept.
    """

    owner: Any
    decoder: Any
    output: Any

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (m, vocabulary) in float32 of m hidden states (m, d)."""
        import copy

        import torch

        piece = copy.copy(self.output)
        piece.last_hidden_state = hidden[None]
        if "last_hidden_state" in piece:
            piece["last_hidden_state"] = hidden[None]
        tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        forward = self.decoder.forward
        self.decoder.forward = lambda *_, **__: piece
        try:
            return self.owner(input_ids=tokens, use_cache=False).logits[0].float()
        finally:
            self.decoder.forward = forward


def _log_probs(head: _Head, token_ids: torch.Tensor, gather: Gather) -> torch.Tensor:
    """Mean log-probability of each row's tokens, (rows,); the head runs on 1,024 tokens at a time."""
    import torch

    hidden = head.output.last_hidden_state
    batch, length = token_ids.shape
    before, after = hidden[:, :-1].reshape(-1, hidden.shape[-1]), token_ids[:, 1:].reshape(-1)
    pieces = [
        torch.log_softmax(head.logits(h), -1).gather(1, t[:, None])[:, 0]
        for h, t in zip(before.split(1024), after.split(1024))
    ]
    log_probs = torch.zeros(batch, length)  # the first token has none: 0
    log_probs[:, 1:] = torch.cat(pieces).reshape(batch, length - 1).cpu()
    flat = log_probs.reshape(-1)
    return torch.stack([flat[first : last + 1].mean() for first, last in gather.spans])
