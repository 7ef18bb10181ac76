"""A causal LM and its tokenizer: loaded from a folder or the hub, or made new; and the module that scores tokens."""

from __future__ import annotations

import contextlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from tracekit.core.models import ModelError, open_config, open_model, open_tokenizer
from trainer.modeling.attention import ATTENTION_LAYERS, SharedRows, take_rows
from trainer.modeling.linear import widen
from trainer.modeling.log_probs import from_logits, token_log_probs
from trainer.settings import LoraSettings, ModelChanges, NewModelSettings, TrainSettings

#: Dtypes of a model folder by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: The model as it stands.
NO_CHANGES = ModelChanges()


def load_tokenizer(
    name: str | Path, *, trust_remote_code: bool = False, changes: ModelChanges = NO_CHANGES
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name. Raises ModelError where there is none, or none with an EOS."""
    tokenizer = open_tokenizer(name, trust_remote_code=trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {name} has no eos_token, so no response could end; set one and save it.")
    if changes.chat_template is not None:
        tokenizer.chat_template = read_template(changes.chat_template)
    if changes.max_positions is not None:
        tokenizer.model_max_length = changes.max_positions
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_model(
    name: str | Path,
    *,
    attention: str = "sdpa",
    trust_remote_code: bool = False,
    changes: ModelChanges = NO_CHANGES,
) -> PreTrainedModel:
    """The causal LM of a folder or hub name, in float32, from safetensors alone."""
    disable_progress_bar()  # transformers draws its own; here the roof does
    model = open_model(
        name,
        config=load_config(name, trust_remote_code=trust_remote_code, changes=changes),
        attention=attention,
        trust_remote_code=trust_remote_code,
    )
    return with_own_kernels(cast(PreTrainedModel, model))


def load_config(
    name: str | Path, *, trust_remote_code: bool = False, changes: ModelChanges = NO_CHANGES
) -> PreTrainedConfig:
    """The configuration of a folder or hub name with `changes` made. Raises ModelError where it cannot be had."""
    config: PreTrainedConfig = open_config(name, trust_remote_code=trust_remote_code)
    for key, value in config_changes(config, changes).items():
        setattr(config, key, value)
    return config


def config_changes(config: PreTrainedConfig, changes: ModelChanges) -> dict[str, Any]:
    """The keys of a configuration that `changes` set, in transformers' words.

    Raises ModelError for a model whose positions are not rotary, or rotary in more than one way.
    """
    rope, found = getattr(config, "rope_parameters", None), dict[str, Any]()
    if changes.rope_theta is None and changes.max_positions is None:
        return found
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        raise ModelError(
            f"model_changes of rope_theta and max_positions need rotary positions of one theta; {config.model_type} "
            f"has rope_parameters {rope!r}."
        )
    if changes.rope_theta is not None:
        found["rope_parameters"] = {**rope, "rope_theta": changes.rope_theta}
    if changes.max_positions is not None:
        found["max_position_embeddings"] = changes.max_positions
    return found


def read_template(name: str) -> str:
    """The Jinja text of a chat template that comes with the package, or of a file."""
    folder = Path(str(resources.files("trainer"))) / "templates"
    path = next((path for path in (folder / f"{name}.jinja", Path(name)) if path.is_file()), None)
    if path is None:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.jinja")))
        raise ModelError(f"model_changes.chat_template is {name!r}; expected one of {known}, or a Jinja file.")
    return path.read_text(encoding="utf-8")


def new_config(settings: NewModelSettings, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """The configuration of a Llama whose vocabulary is the tokenizer's.

    Not a Qwen2: in a Qwen2 folder transformers' AutoTokenizer replaces any tokenizer by Qwen2's own splitting.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads or settings.heads,
        intermediate_size=settings.intermediate_size or 4 * settings.hidden_size,
        max_position_embeddings=settings.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        tie_word_embeddings=settings.tie_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def new_model(settings: NewModelSettings, tokenizer: PreTrainedTokenizerBase, attention: str) -> PreTrainedModel:
    """A Llama with random weights drawn from torch's global generator."""
    config = new_config(settings, tokenizer)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return with_own_kernels(cast(PreTrainedModel, model))


def with_own_kernels(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with our choice of kernels for its linear layers and its attention; weights stay as they are."""
    widen(model)
    take_rows(model)
    return model


def load(settings: TrainSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that a run starts from, and its tokenizer, on the CPU in float32; adapters not yet in place."""
    if settings.new_model is not None:
        tokenizer = load_tokenizer(settings.new_model.tokenizer)
        return new_model(settings.new_model, tokenizer, settings.attention), tokenizer
    assert settings.model is not None  # TrainSettings holds this
    changes, trusted = settings.model_changes, settings.trust_remote_code
    tokenizer = load_tokenizer(settings.model, trust_remote_code=trusted, changes=changes)
    model = load_model(settings.model, attention=settings.attention, trust_remote_code=trusted, changes=changes)
    check_match(model, tokenizer, settings.model)
    return model, tokenizer


def base_dtype(settings: TrainSettings) -> torch.dtype:
    """The dtype that the starting model came in, float32 for a new one.

    A stage before this one may be kept in float32 and says in its `state.json` what its own base was.
    """
    if settings.model is None:
        return torch.float32
    record = Path(settings.model) / "state.json"
    if record.is_file():
        name = json.loads(record.read_text(encoding="utf-8")).get("base_dtype")
        if name in DTYPES:
            return DTYPES[name]
    config = open_config(settings.model, trust_remote_code=settings.trust_remote_code)
    found = getattr(config.get_text_config(decoder=True), "dtype", None) or getattr(config, "dtype", None)
    return next((dtype for dtype in DTYPES.values() if dtype == found), torch.float32)


def final_dtype(settings: TrainSettings) -> torch.dtype:
    """The dtype of the model folders that a run leaves."""
    return base_dtype(settings) if settings.final_dtype == "base" else DTYPES[settings.final_dtype]


def check_match(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise ModelError where the tokenizer makes ids that the model has no row for."""
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"{name}: the tokenizer makes {len(tokenizer)} ids, the model embeds {rows}; "
            "this tokenizer is not the model's. Take the one that was saved with it, or resize the embeddings."
        )


def with_adapters(model: PreTrainedModel, lora: LoraSettings) -> nn.Module:
    """The model with LoRA adapters of peft in place; they alone have gradients."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ModelError("[lora] needs peft: pip install 'reasoning-tracekit[peft]'.") from error
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    return cast(nn.Module, get_peft_model(model, config))


def plain_model(model: nn.Module) -> PreTrainedModel:
    """The Hugging Face model itself, beneath peft's wrapping where there is one."""
    beneath = getattr(model, "get_base_model", lambda: model)
    return cast(PreTrainedModel, beneath())


def without_dropout(model: nn.Module) -> nn.Module:
    """The same model with every random change of its passes turned off: dropout, layer drop and router noise.

    DPO and policy gradients compare the log-probs of two passes, which noise would make differ with no update between.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and any(word in name for word in ("dropout", "layerdrop", "jitter", "pdrop")):
                setattr(module, name, 0.0)
    return model


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks that transformers names as not to be split. Raises ModelError where it names none."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} does not say which of its modules are decoder layers (_no_split_modules); "
            "set parallel.fsdp and compile to false."
        )
    return layers


def compile_layers(model: PreTrainedModel) -> None:
    """Have torch.compile fuse what stands between the products of each decoder layer, for batches of any shape.

    Layer by layer, not the whole: one is compiled for all, and hooks around layers (checkpointing, sharding) still run.
    """
    for layer in decoder_layers(model):
        layer.compile(dynamic=True)


def uncompiled(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Inside, a model runs as if it had not been compiled: in sampling, say, where a cache grows with every call."""
    if all(module._compiled_call_impl is None for module in model.modules()):
        return contextlib.nullcontext()  # the compiler takes seconds to import
    return cast(contextlib.AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


class TokenScorer(nn.Module):
    """Log-prob and entropy of chosen tokens, made without logits of the others.

    The whole computation is one forward, so that it can be sharded, compiled or wrapped as one module.
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.plain_head = head_is_plain(plain_model(model))

    def forward(
        self,
        input_ids: Tensor,
        scored: Tensor,
        position_ids: Tensor | None = None,
        *,
        shared_rows: SharedRows | None = None,
        predictors: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """log p(token | tokens before it) and the entropy it was drawn from: two (B, L) in float32, 0 off `scored`.

        input_ids: (B, L), padded on the right. scored: (B, L), True on tokens wanted; token 0 never is.
        position_ids: for packed rows, restarting with each document: attention stays inside a document.
        shared_rows: input_ids and position_ids are (1, T), the tokens of these rows, `scored` is still that of rows
        side by side; with it come predictors: (scored tokens,), the place in T whose state predicts each, and
        targets: (scored tokens,), their ids.
        """
        model = plain_model(self.model)
        if predictors is None or targets is None:
            places = scored.flatten().nonzero().squeeze(-1)
            predictors, targets = places - 1, input_ids.flatten()[places]
        if position_ids is not None and model.config._attn_implementation.startswith("flash"):
            # FlashAttention tells documents apart in a single row alone; token 0 of each document is not scored
            input_ids, position_ids = input_ids.view(1, -1), position_ids.view(1, -1)
        inputs: dict[str, Any] = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False}
        if shared_rows is not None:
            inputs["shared_rows"] = shared_rows
            inputs["attention_mask"] = input_ids.new_ones((1, 1, 1, 1))  # else transformers makes one that nobody reads
        if self.plain_head:
            hidden = _decoder(model)(**inputs).last_hidden_state
            head = cast(nn.Linear, model.get_output_embeddings())
            hidden = hidden.flatten(0, 1).index_select(0, predictors)
            if torch.is_autocast_enabled(hidden.device.type):
                hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
            log_prob, entropy = token_log_probs(
                hidden, head.weight, targets, bias=head.bias, temperature=self.temperature
            )
        else:  # logits are scaled or capped after the head: materialise them
            logits = model(**inputs).logits.flatten(0, 1).index_select(0, predictors)
            log_prob, entropy = from_logits(logits / self.temperature, targets)
        zeros = log_prob.new_zeros(scored.shape)
        return zeros.masked_scatter(scored, log_prob), zeros.masked_scatter(scored, entropy)


@torch.no_grad()
def packs_exactly(scorer: TokenScorer, device: torch.device | str = "cpu") -> bool:
    """Whether documents in one row get the log-probs that they have alone: tried out, since no flag tells.

    Recurrent layers, convolutions and some position embeddings carry one document over into the next.
    """
    model = plain_model(scorer.model)
    layers = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ())
    if layers - ATTENTION_LAYERS:  # seen in new models too, whose weights are too small for the trial to tell
        return False
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    documents = [[(7 * place + start) % vocabulary for place in range(9)] for start in (1, 2, 3)]
    apart = torch.tensor(documents, device=device)
    packed = apart.view(1, -1)
    positions = torch.arange(9, device=device).repeat(len(documents))[None]
    was_training = scorer.training
    scorer.eval()
    try:
        with uncompiled(model):
            alone, _ = scorer(apart, torch.arange(9, device=device).expand_as(apart) > 0)
            together, _ = scorer(packed, positions > 0, positions)
    except (TypeError, ValueError, RuntimeError):  # a model that takes no positions
        return False
    finally:
        scorer.train(was_training)
    half = torch.is_autocast_enabled(apart.device.type) or next(scorer.parameters()).dtype != torch.float32
    return bool(torch.allclose(alone.view(1, -1), together, rtol=0, atol=0.05 if half else 1e-4))


def _decoder(model: PreTrainedModel) -> nn.Module:
    for name in (model.base_model_prefix, "model"):  # Llama 4's text model is not where its prefix says
        if isinstance(found := getattr(model, name, None), nn.Module):
            return found
    raise ModelError(f"{type(model).__name__} has no decoder beneath its head, by the name {model.base_model_prefix}.")


@torch.no_grad()
def head_is_plain(model: PreTrainedModel) -> bool:
    """Whether logits are the decoder's last hidden state times the head: tried out, since no flag tells."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    was_training, attention = model.training, model.config._attn_implementation
    model.eval()
    if attention.startswith("flash"):
        model.config._attn_implementation = "sdpa"  # FlashAttention takes neither float32 nor a CPU
    probe = torch.tensor([[0, 1]], device=head.weight.device)
    logits = model(input_ids=probe, use_cache=False).logits
    hidden = _decoder(model)(input_ids=probe, use_cache=False).last_hidden_state
    model.train(was_training)
    model.config._attn_implementation = attention
    return bool(torch.allclose(head(hidden).float(), logits.float(), rtol=1e-4, atol=1e-5))
