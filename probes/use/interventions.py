"""Does a direction matter? Erase it or push along it inside a layer, and answer the same problems again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probes.states.forward import hooked_layer
from probes.use.saved_probe import SavedProbe

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Edit:
    """An affine map of hidden states: x → x − (x − mean) left rightᵀ + shift.

    left, right: (d, r), mean and shift: (d,). Rank 0 leaves x where it is.
    """

    name: str
    left: Floats
    right: Floats
    mean: Floats
    shift: Floats

    def __call__(self, states: Floats) -> Floats:
        """Edited states (…, d)."""
        return states - ((states - self.mean) @ self.left) @ self.right.T + self.shift


def leace(states: Floats, labels: Floats) -> Edit:
    """The least change after which no linear probe tells the labels (Belrose et al. 2023, theorem 4.3).

    states: (n, d). labels: (n,) or (n, k), of -1/+1, one-hot or real. With W = Σ_xx^{-1/2} and P the projection on the
    columns of W Σ_xz, x → x − W⁺ P W (x − μ): the cross-covariance with the labels is 0 afterwards.
    """
    states = np.asarray(states, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64).reshape(len(states), -1)
    mean = states.mean(0)
    centred, about = states - mean, labels - labels.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(states))
    keep = values > 1e-10 * max(float(values[-1]), 1e-300)
    whiten = (vectors[:, keep] / np.sqrt(values[keep])) @ vectors[:, keep].T
    unwhiten = (vectors[:, keep] * np.sqrt(values[keep])) @ vectors[:, keep].T
    basis, sizes, _ = np.linalg.svd(whiten @ (centred.T @ about / len(states)), full_matrices=False)
    basis = basis[:, sizes > 1e-10]
    # (x − μ) W P W⁺ as (x − μ) left rightᵀ: W and W⁺ are symmetric.
    return Edit("erased", whiten @ basis, unwhiten @ basis, mean, np.zeros(states.shape[1]))


def random_erasure(states: Floats, rank: int, seed: int) -> Edit:
    """The control of `leace`: as many random directions of the whitened states taken out."""
    random = np.random.default_rng(seed)
    edit = leace(states, random.standard_normal((len(states), rank)))
    return Edit("random direction erased", edit.left, edit.right, edit.mean, edit.shift)


def steer(probe: SavedProbe, strength: float, states_spread: float) -> Edit:
    """Push along the probe's direction by `strength` standard deviations of the states along it."""
    return _push("steered", probe.raw_direction, strength * states_spread)


def random_steer(width: int, length: float, seed: int) -> Edit:
    """The control of `steer`: a random direction of equal norm."""
    random = np.random.default_rng(seed).standard_normal(width)
    return _push("random direction", random / np.linalg.norm(random), length)


def _push(name: str, direction: Floats, length: float) -> Edit:
    none = np.zeros((len(direction), 0))
    return Edit(name, none, none, np.zeros(len(direction)), direction * length)


@contextmanager
def editing(model: torch.nn.Module, layer: int, edit: Edit) -> Iterator[None]:
    """Apply the edit to the output of a layer (0: the embedding) at every token, for as long as the context lasts."""
    import torch

    device = next(model.parameters()).device
    names = ("left", "right", "mean", "shift")
    left, right, mean, shift = (torch.as_tensor(getattr(edit, name), device=device).float() for name in names)

    def apply(hidden: torch.Tensor) -> torch.Tensor:
        wide = hidden.float()
        return (wide - ((wide - mean) @ left) @ right.T + shift).to(hidden.dtype)

    with hooked_layer(model, layer, apply):
        yield


# ---------------------------------------------------------------- answers under an edit


def answer_greedily(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, new_tokens: int, batch: int = 64
) -> list[str]:
    """Greedy responses to prompts of token ids; prompts of one length are read together, so nothing is padded."""
    import torch

    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
    texts, device = [""] * len(prompts), next(model.parameters()).device
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    first = 0
    while first < len(order):
        length = len(prompts[order[first]])
        same = [k for k in order[first : first + batch] if len(prompts[k]) == length]
        ids = torch.tensor([list(prompts[k]) for k in same], device=device)
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new_tokens,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )
        for k, row in zip(same, out[:, length:]):
            texts[k] = tokenizer.decode(row, skip_special_tokens=True)
        first += len(same)
    return texts


def paired_difference(correct: Sequence[bool], without: Sequence[bool]) -> tuple[float, float, float]:
    """(difference of accuracy, low, high) on the same problems, 95 % by t over problems."""
    d = np.asarray(correct, dtype=np.float64) - np.asarray(without, dtype=np.float64)
    half = float(stats.t.isf(0.025, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5) if len(d) > 1 else float("nan")
    return float(d.mean()), float(d.mean()) - half, float(d.mean()) + half


def end_scorer(model: Any, tokenizer: Any, probe: SavedProbe) -> Callable[[list[str], list[str]], Floats]:
    """(prompts, completions) → the probe's probability at each completion's last token: a score for `ProbeReward`."""
    import torch

    def score(prompts: list[str], completions: list[str]) -> Floats:
        device = next(model.parameters()).device
        rows: list[Floats] = []

        def keep_last(hidden: torch.Tensor) -> torch.Tensor:
            rows.append(hidden[0, -1].float().cpu().numpy())
            return hidden

        for prompt, completion in zip(prompts, completions):
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            ids = [*ids, *tokenizer(completion, add_special_tokens=False)["input_ids"]]
            with torch.inference_mode(), hooked_layer(model, probe.layer, keep_last):
                model(input_ids=torch.tensor([ids], device=device), use_cache=False)
        return probe.probability(probe.margin(np.stack(rows)))

    return score
