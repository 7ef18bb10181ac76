"""Settings → a rollout engine; each engine's packages are imported when it is asked for."""

from __future__ import annotations

from transformers import PreTrainedModel

from trainer.config import TrainSettings
from trainer.engines.protocol import Engine


def open_engine(settings: TrainSettings, model: PreTrainedModel, pad_token_id: int) -> Engine:
    """The engine of `engine.kind`, with the weights of `model`."""
    kind = settings.engine.kind
    if kind == "embedded":
        from trainer.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(model, rows=settings.engine.rows, pad_token_id=pad_token_id)
    raise ValueError(f"engine.kind {kind} is not part of this version; set it to embedded.")
