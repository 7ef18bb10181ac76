"""The one place that opens models and tokenizers: safetensors alone, and no code of a folder unless asked for.

Every call passes `trust_remote_code`, since transformers would otherwise ask on standard input and run the folder's
code on "y".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracekit.core.hub import hub_answers, prepare_hub, unreachable

#: Tokenizer classes that say nothing about a model: `tokenizer.json` alone describes such a tokenizer.
GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")


class ModelError(ValueError):
    """A model or tokenizer cannot be used: the message names it, what is wrong and what to do."""


def is_path(name: str | Path) -> bool:
    """Whether this can be no name of the hub, which is NAME or OWNER/NAME."""
    return isinstance(name, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1


def open_tokenizer(name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Open the tokenizer of a folder or hub name, as its `tokenizer.json` describes it.

    transformers' AutoTokenizer goes by the model type first: in a Qwen2 checkpoint it replaces a tokenizer saved
    without a model's class by Qwen2Tokenizer, whose own splitting of numbers makes other token ids. Raises ModelError.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    _check_exists(name)
    try:
        kept = get_tokenizer_config(str(name), trust_remote_code=trust_remote_code)
        if kept.get("tokenizer_class") in GENERIC_TOKENIZERS and "auto_map" not in kept:
            return PreTrainedTokenizerFast.from_pretrained(str(name))
        return AutoTokenizer.from_pretrained(str(name), trust_remote_code=trust_remote_code)
    except MemoryError:
        raise
    except Exception as error:  # tokenizers raises Exception itself, and parsers of damaged files whatever they meet
        _tell_unreachable(name, error)
        raise ModelError(
            f"{name} has no tokenizer that can be read ({_short(error)}); take a whole copy of the folder."
        ) from error


def open_config(name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Open the configuration of a folder or hub name. Raises ModelError."""
    from transformers import AutoConfig

    _check_exists(name)
    try:
        return AutoConfig.from_pretrained(str(name), trust_remote_code=trust_remote_code)
    except MemoryError:
        raise
    except Exception as error:  # transformers validates nothing before it reads: a wrong type ends anywhere
        _tell_unreachable(name, error)
        raise ModelError(
            f"{name} has no configuration that can be read ({_short(error)}); take a whole copy of the folder."
        ) from error


def generation_ends(name: str | Path) -> tuple[int, ...]:
    """Return the ids that end a response by a model's generation_config.json; () where it names none."""
    from transformers import GenerationConfig

    try:
        return ends_of(GenerationConfig.from_pretrained(str(name)))
    except OSError as error:  # a model without the file
        if (Path(name) / "generation_config.json").exists():
            raise ModelError(f"{name}/generation_config.json cannot be read ({_short(error)}).") from error
        return ()
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{name}/generation_config.json cannot be read ({_short(error)}).") from error


def ends_of(generation_config: Any) -> tuple[int, ...]:
    """Return the ids that end a response by a generation configuration; None has none."""
    ends = getattr(generation_config, "eos_token_id", None)
    return () if ends is None else tuple(map(int, ends)) if isinstance(ends, list) else (int(ends),)


def open_model(
    name: str | Path,
    *,
    dtype: Any = None,
    head: bool = True,
    attention: str | None = None,
    config: Any = None,
    untrained_seed: int | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Open the causal language model of a folder or hub name, from safetensors alone, on the CPU.

    Parameters
    ----------
    dtype
        torch dtype or "auto" (the weights' own); None: float32.
    head
        False: the decoder without its language-model head.
    attention
        transformers' `attn_implementation`; None: its own choice.
    config
        Configuration to use in place of the folder's.
    untrained_seed
        In place of the weights an initialisation drawn with this seed.

    Raises
    ------
    ModelError
        If the model cannot be opened; the message holds the cause.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    config = open_config(name, trust_remote_code=trust_remote_code) if config is None else config
    kind: Any = AutoModelForCausalLM if head else AutoModel
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        if untrained_seed is not None:
            with torch.random.fork_rng():
                torch.manual_seed(untrained_seed)
                return kind.from_config(config, trust_remote_code=trust_remote_code, **chosen)
        return kind.from_pretrained(
            str(name),
            config=config,
            dtype=torch.float32 if dtype is None else dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            **chosen,
        )
    except MemoryError:
        raise
    except Exception as error:  # damaged weights and configurations end in errors of every kind
        raise ModelError(f"{name} cannot be opened as a causal language model: {_cause(error, attention)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _tell_unreachable(name: str | Path, error: Exception) -> None:
    """Raise ModelError if a hub name could not be had because the hub does not answer."""
    if not Path(name).exists() and not hub_answers():
        raise ModelError(unreachable(name)) from error


def _short(error: BaseException) -> str:
    """An error's first line, at most 300 characters of it."""
    text = first_line(error)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _check_exists(name: str | Path) -> None:
    if is_path(name) and not Path(name).exists():
        raise ModelError(f"{name} does not exist; expected a model folder, or a hub name as Qwen/Qwen2.5-Math-7B.")
    prepare_hub(name)


def _cause(error: BaseException, attention: str | None) -> str:
    """What went wrong, and what to do where that is known."""
    text = _short(error)
    if "trust_remote_code" in str(error):
        return "it brings code of its own, which is not run; set trust_remote_code=true if you trust it."
    if "scaled_dot_product_attention" in str(error) or "attn_implementation" in str(error):
        return f"it has no attention {attention or 'sdpa'}; set attention=eager. ({text})"
    if isinstance(error, RuntimeError) and "memory" in text:
        return text
    if isinstance(error, OSError):
        return f"no safetensors weights that can be read ({text})."
    return f"{type(error).__name__}: {text}"
