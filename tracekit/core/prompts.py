"""How a problem becomes a prompt's tokens: the one renderer of training, rollouts, evaluation and probing.

A prompt is the tokenizer's chat template around the problem (with the system prompt and the template's arguments), or
the problem's plain text. The settings travel with a checkpoint in `prompt_settings.json`, so that a model is evaluated
and probed on the tokens that it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from evaluators.extraction.thinking import CLOSING_TAGS, OPENING_TAGS, find_tags, opens_thinking
from tracekit.core.chat_templates import Message, TemplateError, render
from tracekit.core.runs import write_text
from tracekit.core.settings import Settings, build_settings

#: Beside a checkpoint's tokenizer: the PromptSettings that its prompts were made with.
PROMPT_FILE = "prompt_settings.json"

_ANSWER = "4711"  # digits: no template strips or changes them
_HARMONY_PARTS = ("<|message|>", "<|start|>")
_LONGEST_TAG = 200  # characters in which a response's first think tag ends


class PromptError(ValueError):
    """A prompt cannot be made: the message says why and which setting decides it."""


class PromptSettings(Settings):
    """How problems are printed."""

    system_prompt: str | None = Field(
        default=None, description="first message of every prompt; needs a chat template. None: no system message"
    )
    chat_template: bool = Field(
        default=True, description="use the tokenizer's chat template where it has one; False: the problem's plain text"
    )
    template_arguments: dict[str, Any] = Field(
        default_factory=dict, description="names that the chat template reads, such as enable_thinking = false"
    )


#: The tokenizer's chat template where it has one, without a system prompt.
AS_IT_COMES = PromptSettings()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    text: as it is printed, up to where the response begins. token_ids: BOS counted, where there is one. think_open:
    whether the text ends inside a think block that it opened, so that the response thinks from its first token.
    """

    text: str
    token_ids: list[int]
    think_open: bool


def make_prompts(tokenizer: Any, problems: Sequence[str], settings: PromptSettings = AS_IT_COMES) -> list[Prompt]:
    """Return each problem's prompt.

    A chat template prints BOS itself where its model wants one; plain text gets the tokenizer's BOS. Either way it
    stands at most once at the beginning. Raises PromptError.
    """
    texts = print_prompts(tokenizer, problems, settings)
    before = [] if uses_template(tokenizer, settings) else bos_ids(tokenizer)
    encoded = encode_texts(tokenizer, texts)
    return [
        Prompt(text, _one_bos(tokenizer, [*before, *ids]), opens_thinking(text)) for text, ids in zip(texts, encoded)
    ]


def print_prompts(tokenizer: Any, problems: Sequence[str], settings: PromptSettings = AS_IT_COMES) -> list[str]:
    """Return each problem as the chat template prints it, up to where the response begins; itself without one."""
    if not uses_template(tokenizer, settings):
        return list(problems)
    system = [] if settings.system_prompt is None else [{"role": "system", "content": settings.system_prompt}]
    chats = [[*system, {"role": "user", "content": problem}] for problem in problems]
    return print_chats(tokenizer, chats, settings, add_generation_prompt=True)


def print_chats(
    tokenizer: Any, chats: Sequence[Sequence[Message]], settings: PromptSettings, *, add_generation_prompt: bool
) -> list[str]:
    """Return each conversation as the tokenizer's chat template prints it. Raises PromptError."""
    variables = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **tokenizer.special_tokens_map,
        **settings.template_arguments,
    }
    try:
        return render(tokenizer.get_chat_template(), chats, variables)
    except TemplateError as error:
        raise PromptError(str(error)) from error


def uses_template(tokenizer: Any, settings: PromptSettings) -> bool:
    """Whether prompts go through a chat template. Raises PromptError where settings need one and there is none."""
    if settings.chat_template and tokenizer.chat_template:
        return True
    for name in ("system_prompt", "template_arguments"):
        if getattr(settings, name):
            raise PromptError(f"{name} is set, but no chat template is used; put it into the problems.")
    return False


def opened_characters(prompt: str, response: str) -> int:
    """Return how many leading characters of a response repeat what its prompt has printed already.

    That is the think tag which the prompt opened, and the white space that the template prints after it.
    """
    if not opens_thinking(prompt):
        return 0
    bare = prompt.rstrip()
    begins = len(response) - len(response.lstrip())
    tags = find_tags(response[begins : begins + _LONGEST_TAG])
    if not tags or not tags[0].opens or tags[0].start or not bare.endswith(response[begins : begins + tags[0].end]):
        return 0
    end = begins + tags[0].end
    gap = prompt[len(bare) :]
    return end + (len(gap) if response.startswith(gap, end) else 0)


def turn_end(tokenizer: Any, settings: PromptSettings = AS_IT_COMES) -> int | None:
    """Return the id that ends a response: the template's end of turn, else the tokenizer's EOS; None without either.

    The end of turn is the first special token that the chat template prints behind an assistant's answer:
    `<end_of_turn>` for Gemma, `<|end|>` for Phi, whose tokenizers call another token EOS.
    """
    eos = None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
    if not uses_template(tokenizer, settings):
        return eos
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER}]
    try:
        printed = print_chats(tokenizer, [chat], settings, add_generation_prompt=False)[0]
    except PromptError:  # a template of prompts alone may refuse an assistant's turn
        return eos
    _, found, after = printed.rpartition(_ANSWER)
    special = special_ids(tokenizer)
    return next((i for i in encode_texts(tokenizer, [after])[0] if i in special), eos) if found else eos


def stop_ids(
    tokenizer: Any, settings: PromptSettings = AS_IT_COMES, generation_ends: Sequence[int] = ()
) -> tuple[int, ...]:
    """Return every id that ends a response: the end of turn first, the tokenizer's EOS, those of `generation_ends`.

    generation_ends: the list of the model's generation_config.json (`tracekit.core.models.generation_ends`).
    """
    ends = (turn_end(tokenizer, settings), tokenizer.eos_token_id, *generation_ends)
    return tuple(dict.fromkeys(int(end) for end in ends if end is not None))


def decode_responses(tokenizer: Any, responses: Sequence[Sequence[int]]) -> list[str]:
    """Return the texts of responses without special tokens, those of think tags excepted.

    `[THINK]` and the parts of harmony's channels are special tokens; without them thought and answer are one text.
    """
    dropped = {i for i in special_ids(tokenizer) if not _marks_thinking(tokenizer, i)}
    kept = [[i for i in ids if i not in dropped] for ids in responses]
    return [str(text) for text in tokenizer.batch_decode(kept, skip_special_tokens=False)]


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids that decoding with `skip_special_tokens` leaves out."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _marks_thinking(tokenizer: Any, token: int) -> bool:
    """Whether a special token is a think tag, or a part of one."""
    text = str(tokenizer.convert_ids_to_tokens(token))
    if any(text in tag for tag in (*OPENING_TAGS, *CLOSING_TAGS)):
        return True
    return text in _HARMONY_PARTS and tokenizer.convert_tokens_to_ids("<|channel|>") in special_ids(tokenizer)


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, no special token added; one call uses the tokenizer's own threads."""
    return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"]) if texts else []


def bos_ids(tokenizer: Any) -> list[int]:
    """Return the tokenizer's BOS as a list; empty where it has none, or one that is its EOS (GPT-2)."""
    bos = tokenizer.bos_token_id
    return [] if bos is None or bos == tokenizer.eos_token_id else [int(bos)]


def _one_bos(tokenizer: Any, ids: list[int]) -> list[int]:
    bos = bos_ids(tokenizer)
    while bos and ids[:2] == bos * 2:
        ids = ids[1:]
    return ids


def save_prompt_settings(settings: PromptSettings, folder: str | Path) -> None:
    """Write the settings into a checkpoint folder."""
    record = settings.model_dump(mode="json")
    write_text(Path(folder) / PROMPT_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read_prompt_settings(folder: str | Path) -> PromptSettings | None:
    """Return the settings that a checkpoint folder was written with; None where it names none.

    Raises PromptError where the file is damaged.
    """
    path = Path(folder) / PROMPT_FILE
    if not path.is_file():
        return None
    try:
        return build_settings(PromptSettings, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PromptError(f"{path} is damaged ({error}); write the checkpoint again, or delete the file.") from error
