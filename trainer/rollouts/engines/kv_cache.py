"""Keys and values in buffers made once and written in place; a prompt's may be held once for all of its rows."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from trainer.modeling.attention import SharedPrompts

#: Buffers widen by this many columns, or an eighth where that is more: little memory stands empty, and heads lie close
#: together in it.
LEAST_COLUMNS = 16


class PreallocatedLayer(DynamicLayer):
    """A cache layer written in place. transformers' own grows by concatenation, which copies all of it every token.

    It holds every column, also under a sliding window: the window is the mask's affair.
    Tensors are (rows, heads, columns, head_dim).
    """

    keys: Tensor
    values: Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity  # columns
        self.shared = 0  # columns of prompts held elsewhere
        self.length = 0  # columns written
        self.rows = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Hold the prompts' keys and values as they come; the buffers are made when rows are repeated."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states, value_states
        self.length, self.rows = key_states.shape[-2], key_states.shape[0]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new columns; returns all columns held here, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            return key_states, value_states
        end = self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self.keys, self.values = self._widened(self.keys, end), self._widened(self.values, end)
        self.keys[: self.rows, :, self.length : end] = key_states
        self.values[: self.rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]

    def get_seq_length(self) -> int:
        """Columns so far."""
        return self.shared + self.length

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Make the buffers, each prompt's columns `repeats` times."""
        self.keys, self.values = self._repeated(self.keys, repeats), self._repeated(self.values, repeats)
        self.rows *= repeats

    def hand_over(self, repeats: int) -> tuple[Tensor, Tensor]:
        """Give the prompts' keys and values away and go on with `repeats` rows each that hold completions alone."""
        prompts = self.keys.contiguous(), self.values.contiguous()  # as they come, a product would copy them each time
        rows, heads, length, _ = self.keys.shape
        self.rows, self.shared, self.length = rows * repeats, length, 0
        self.capacity -= length
        room = self._room(1)  # values may be narrower than keys (DeepSeek's latent attention)
        self.keys, self.values = (states.new_empty((self.rows, heads, room, states.shape[3])) for states in prompts)
        return prompts

    def batch_select_indices(self, indices: Tensor) -> None:
        """Row i becomes what row `indices[i]` was; rows that stay in place are not copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(-1)
        sources = indices[moved]
        for buffer in (self.keys, self.values):
            written = buffer[: self.rows, :, : self.length]
            written.index_copy_(0, moved, written.index_select(0, sources))
        self.rows = len(indices)

    def _room(self, columns: int) -> int:
        """Columns of a buffer that is to hold so many."""
        return min(self.capacity, columns - 1 + max(LEAST_COLUMNS, columns // 8))

    def _widened(self, buffer: Tensor, columns: int) -> Tensor:
        """The rows in flight in a wider buffer."""
        rows, heads, size = self.rows, buffer.shape[1], buffer.shape[3]
        wider = buffer.new_empty((rows, heads, self._room(columns), size))
        wider[:, :, : self.length] = buffer[:rows, :, : self.length]
        return wider

    def _repeated(self, prompts: Tensor, repeats: int) -> Tensor:
        rows, heads, length, size = prompts.shape
        buffer = prompts.new_empty((rows, repeats, heads, self._room(length + 1), size))
        buffer[:, :, :, :length] = prompts[:, None]
        return buffer.flatten(0, 1)


class PreallocatedCache(Cache):
    """A `PreallocatedLayer` for each attention layer of a model, made when the layer first writes."""

    def __init__(self, capacity: int) -> None:
        super().__init__(layers=[])
        self.capacity = capacity
        self.prompts: SharedPrompts | None = None

    def share_prompts(self, repeats: int, prompt_mask: Tensor | None) -> None:
        """Let each prompt go on as `repeats` rows, its columns held once for all, in `prompts`.

        prompt_mask: (prompts, columns), True on tokens; None where nothing is padding.
        """
        keys, values = zip(*(cast(PreallocatedLayer, layer).hand_over(repeats) for layer in self.layers))
        self.prompts = SharedPrompts(list(keys), list(values), prompt_mask, width=repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Row i becomes what row `indices[i]` was."""
        super().batch_select_indices(indices)
        if self.prompts is not None:
            self.prompts.select(indices)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's new columns; returns all of its columns so far."""
        while len(self.layers) <= layer_idx:
            self.layers.append(PreallocatedLayer(self.capacity))
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)
