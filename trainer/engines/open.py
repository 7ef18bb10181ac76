"""Settings → a rollout engine; each engine's packages are imported when it is asked for."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from trainer.config import TrainSettings
from trainer.engines.protocol import Engine
from trainer.models import config_changes
from trainer.ranks import world_size
from trainer.sharding import full_tensors, is_sharded, sampling_copy


def open_engine(settings: TrainSettings, model: PreTrainedModel, pad_token_id: int, device: torch.device) -> Engine:
    """The engine of `engine.kind`, with the weights of `model`. device: the trainer's, for the embedded engine.

    Raises ValueError where the engine cannot be had with LoRA or in several processes.
    """
    kind = settings.engine.kind
    if kind == "embedded":
        from trainer.engines.embedded import EmbeddedEngine

        if not is_sharded(model):
            return EmbeddedEngine(model, rows=settings.engine.rows, pad_token_id=pad_token_id)
        copy = sampling_copy(model, settings, device)
        return EmbeddedEngine(copy, rows=settings.engine.rows, pad_token_id=pad_token_id, live=False)
    assert settings.model is not None, "a rollout engine outside the process is built from a model folder or hub name"
    if settings.lora is not None:
        raise ValueError(
            f"engine.kind is {kind}, which takes whole weights, and [lora] trains adapters; "
            "set engine.kind to embedded."
        )
    if kind == "vllm" and world_size() > 1 and settings.engine.tensor_parallel > 1:
        raise ValueError(
            f"engine.tensor_parallel is {settings.engine.tensor_parallel} in {world_size()} processes, each of which "
            "has an engine of its own; set it to 1, or engine.kind to vllm-server."
        )
    length = settings.data.prompt_tokens + settings.data.response_tokens
    engine: Engine
    if kind == "vllm":
        from trainer.engines.vllm import VllmEngine

        engine = VllmEngine(
            settings.model,
            max_length=length,
            dtype=settings.dtype,
            memory_fraction=settings.engine.memory_fraction,
            tensor_parallel=settings.engine.tensor_parallel,
            sleep=settings.engine.sleep,
            trust_remote_code=settings.trust_remote_code,
            config_changes=config_changes(model.config, settings.model_changes),
        )
    else:
        from trainer.engines.vllm_server import VllmServerEngine

        engine = VllmServerEngine(settings.engine.urls, settings.model, settings.output / "weights")
    engine.load_weights(full_tensors(model))  # a resumed run's are newer than those of its starting model
    return engine
