"""Settings of what a run reads, and how its rows become batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from tracekit.core.prompts import PromptSettings
from tracekit.core.settings import Settings


class DataSettings(Settings):
    """The tables a run reads, and the limits of a row in tokens."""

    text: Path | None = Field(None, description="Parquet file with a column `text`: pretrain, cpt")
    curated: Path | None = Field(
        None, description="Parquet file with the schema CURATED: sft, dpo; teacher rows of luffy and rl_sft"
    )
    problems: Path | None = Field(None, description="Parquet file with the schema PROBLEMS: grpo, luffy, rl_sft")
    system_prompt: str | None = Field(None, description="needs a chat template that takes a system message")
    chat_template: bool = Field(True, description="false: the problem's plain text, whatever the tokenizer carries")
    template_arguments: dict[str, Any] = Field(
        default_factory=dict, description="variables for the chat template, such as enable_thinking"
    )
    prompt_tokens: PositiveInt = Field(1024, description="longest prompt, tokens")
    response_tokens: PositiveInt = Field(8192, description="longest response, tokens, EOS counted")
    pack_tokens: PositiveInt | None = Field(
        None, description="pretrain, cpt: whole documents in rows of this many tokens; none: one document a row"
    )
    over_long: Literal["skip", "error"] = Field(
        "skip", description="what happens to a row over its limit; skipped rows are counted and logged"
    )

    @property
    def prompt(self) -> PromptSettings:
        """How problems are printed."""
        return PromptSettings(
            system_prompt=self.system_prompt,
            chat_template=self.chat_template,
            template_arguments=self.template_arguments,
        )


class BatchSettings(Settings):
    """How rows are grouped. No loss depends on `micro_tokens` or on the number of processes."""

    rows: PositiveInt = Field(
        128, description="supervised: rows of an optimizer step, all processes together; pairs of dpo"
    )
    micro_tokens: PositiveInt = Field(
        16_384, description="tokens of one forward pass: rows × longest row, padding counted"
    )
    skip_zero_advantage: bool = Field(True, description="RL: compute no pass for rows that have no gradient")
    share_prompts: bool = Field(
        True, description="RL: compute a prompt once for all its rows in an update where that saves arithmetic"
    )
