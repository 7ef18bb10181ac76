"""Settings of the model that a run trains: made new, changed, adapted, sharded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from tracekit.core.settings import Settings


class NewModelSettings(Settings):
    """A Llama with random weights drawn under the run's seed. The vocabulary is the tokenizer's."""

    tokenizer: Path = Field(description="folder of a Hugging Face tokenizer")
    hidden_size: PositiveInt = Field(96, description="width of the residual stream")
    layers: PositiveInt = Field(3, description="number of decoder layers")
    heads: PositiveInt = Field(4, description="attention heads of a layer")
    kv_heads: PositiveInt | None = Field(None, description="key and value heads of a layer; none: as many as heads")
    intermediate_size: PositiveInt | None = Field(None, description="width of the MLP; none: 4 × hidden_size")
    max_positions: PositiveInt = Field(1024, description="window, tokens")
    rope_theta: PositiveFloat = Field(10_000.0, description="base of the rotary embedding")
    tie_embeddings: bool = Field(True, description="whether the output matrix is the embedding's")


class ModelChanges(Settings):
    """What a run changes in the model it starts from, before the first step; its checkpoints keep the changes.

    LUFFY's authors took Qwen2.5-Math, whose window is 4,096, to 16,384 by a rope theta of 40,000 in place of 10,000,
    and gave it a chat template of their own.
    """

    rope_theta: PositiveFloat | None = Field(None, description="base of the rotary embedding; none: the model's")
    max_positions: PositiveInt | None = Field(None, description="window, tokens; none: the model's")
    chat_template: str | None = Field(
        None,
        description="name of a template that comes with the package (luffy), or path of a Jinja file; none: the "
        "tokenizer's",
    )


class LoraSettings(Settings):
    """Low-rank adapters through peft; `final/` holds the merged model."""

    rank: PositiveInt = Field(16, description="rank of an adapter")
    alpha: PositiveInt = Field(32, description="scale of an adapter, divided by its rank")
    dropout: NonNegativeFloat = Field(0.0, description="share of an adapter's inputs dropped, [0, 1); 0 in dpo and RL")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="names of the linear layers that get an adapter, or all of them but the head"
    )


class ParallelSettings(Settings):
    """Several processes, started by torchrun or accelerate launch."""

    fsdp: bool | Literal["auto"] = Field(
        False,
        description="shard weights, gradients and optimizer over all processes (FSDP2); auto: where there are several",
    )
    reshard_after_forward: bool = Field(True, description="free a layer's gathered weights between its two passes")
    cpu_offload: bool = Field(False, description="keep sharded weights and optimizer in the host's memory")
