"""Settings → a rollout engine; each engine's packages are imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.data.sequences import pad_id
from trainer.distributed.fsdp import full_tensors, is_sharded, sampling_copy
from trainer.distributed.ranks import world_size
from trainer.modeling.models import check_match, config_changes, load_model
from trainer.rollouts.engines.protocol import Engine
from trainer.settings import EngineSettings, TrainSettings


def open_engine(settings: TrainSettings, model: PreTrainedModel, pad_token_id: int, device: torch.device) -> Engine:
    """The engine of `engine.kind`, with the weights of `model`. device: the trainer's, for the embedded engine.

    Raises ValueError where the engine cannot be had with LoRA or in several processes.
    """
    kind = settings.engine.kind
    if kind == "embedded":
        from trainer.rollouts.engines.embedded import EmbeddedEngine

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
    engine = _vllm_engine(
        settings.model,
        settings.engine,
        max_length=settings.data.prompt_tokens + settings.data.response_tokens,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        exchange=settings.output / "weights",
        changes=config_changes(model.config, settings.model_changes),
    )
    engine.load_weights(full_tensors(model))  # a resumed run's are newer than those of its starting model
    return engine


def engine_of(
    model: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    settings: EngineSettings,
    *,
    max_length: int,
    dtype: str,
    device: torch.device,
    trust_remote_code: bool,
    exchange: Path,
    attention: str = "sdpa",
) -> Engine:
    """An engine that holds the weights of a model folder or hub name.

    max_length: longest prompt and completion together. device: of the embedded engine. exchange: a folder through
    which a server's weights go. A server that takes weights is given them; one that takes none must serve the model.
    Raises ModelError, or ServerError where a server is not there or serves something else.
    """
    if settings.kind == "vllm":
        return _vllm_engine(model, settings, max_length, dtype, trust_remote_code, exchange)
    if settings.kind == "vllm-server":
        from trainer.rollouts.engines.vllm_server import VllmServerEngine

        server = _vllm_engine(model, settings, max_length, dtype, trust_remote_code, exchange)
        assert isinstance(server, VllmServerEngine)
        if server.takes_weights():
            server.load_weights(load_model(model, trust_remote_code=trust_remote_code).state_dict().items())
        else:
            server.check_serves(model)
        return server
    from trainer.rollouts.engines.embedded import EmbeddedEngine

    loaded = load_model(model, attention=attention, trust_remote_code=trust_remote_code)
    check_match(loaded, tokenizer, str(model))
    loaded = cast(PreTrainedModel, nn.Module.to(loaded, device, _dtype(dtype)))
    return EmbeddedEngine(loaded, rows=settings.rows, pad_token_id=pad_id(tokenizer))


def _vllm_engine(
    model: str | Path,
    settings: EngineSettings,
    max_length: int,
    dtype: str,
    trust_remote_code: bool,
    exchange: Path,
    changes: dict[str, Any] | None = None,
) -> Engine:
    """vLLM in process or over HTTP; a server's weights and configuration are what it was started with."""
    if settings.kind == "vllm":
        from trainer.rollouts.engines.vllm import VllmEngine

        return VllmEngine(
            model,
            max_length=max_length,
            dtype=dtype,
            memory_fraction=settings.memory_fraction,
            tensor_parallel=settings.tensor_parallel,
            eager=settings.eager,
            sleep=settings.sleep,
            trust_remote_code=trust_remote_code,
            config_changes=changes,
        )
    from trainer.rollouts.engines.vllm_server import VllmServerEngine

    return VllmServerEngine(settings.urls, model, exchange, dtype=_dtype(dtype))


def _dtype(name: str) -> torch.dtype:
    return torch.bfloat16 if name == "bfloat16" else torch.float32
