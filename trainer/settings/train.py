"""TrainSettings: one training run, and what its settings must agree on.

A recipe is a TOML file read by `tracekit.core.settings.load_settings(TrainSettings, recipe, overrides)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tracekit.core.settings import Settings, build_settings, lay_over
from trainer.settings.data import BatchSettings, DataSettings
from trainer.settings.model import LoraSettings, ModelChanges, NewModelSettings, ParallelSettings
from trainer.settings.objective import (
    AdvantageSettings,
    DistillSettings,
    DpoSettings,
    LossSettings,
    OnPolicySettings,
    ReplaySettings,
    TeacherSettings,
)
from trainer.settings.rollout import ENGINE_CONNECTION, EngineSettings, RolloutSettings
from trainer.settings.run import CheckpointSettings, EvaluationSettings, LogSettings, OptimizerSettings

Method = Literal["pretrain", "cpt", "sft", "dpo", "grpo", "luffy", "rl_sft"]

SUPERVISED: tuple[Method, ...] = ("pretrain", "cpt", "sft", "dpo")
POLICY: tuple[Method, ...] = ("grpo", "luffy", "rl_sft")

#: What teacher rows train where `teacher.role` does not say; a method that is not here has none.
TEACHER_ROLES: dict[Method, str] = {"luffy": "surrogate", "rl_sft": "cloned"}

#: Tables of `[data]` that a method needs.
TABLES: dict[Method, tuple[str, ...]] = {
    "pretrain": ("text",),
    "cpt": ("text",),
    "sft": ("curated",),
    "dpo": ("curated",),
    "grpo": ("problems",),
    "luffy": ("problems", "curated"),
    "rl_sft": ("problems", "curated"),
}

#: Settings on which no result depends: a run goes on with others, wherever its folder and its tables lie now (what
#: the tables hold is compared by digest).
NEUTRAL = (
    *ENGINE_CONNECTION,
    "log",
    "checkpoint",
    "evaluate",
    "threads",
    "output",
    "data.text",
    "data.curated",
    "data.problems",
)


class TrainSettings(Settings):
    """Settings of a training run; docs/settings.md lists each field.

    Examples
    --------
    >>> from trainer import TrainSettings
    >>> data = {"curated": "curated.parquet"}
    >>> TrainSettings(method="sft", model="model", output="runs/sft", data=data, steps=2).method
    'sft'
    """

    method: Method = Field(description="what is trained by")
    output: Path = Field(description="folder of the run")
    model: str | None = Field(None, description="folder or hub name to start from; none where [new_model] is given")
    model_changes: ModelChanges = Field(ModelChanges(), description="changes of the model before the first step")
    new_model: NewModelSettings | None = Field(None, description="a model with random weights")
    ref_model: str | None = Field(None, description="reference of the KL and of DPO; none: the starting model")
    data: DataSettings = Field(DataSettings(), description="tables and limits")
    seed: NonNegativeInt = Field(0, description="of every draw")
    steps: PositiveInt | None = Field(None, description="optimizer steps (supervised) or rounds (RL); none: `epochs`")
    epochs: PositiveFloat = Field(1.0, description="passes over the data where `steps` is none")
    threads: PositiveInt | None = Field(None, description="of torch on a CPU; none: torch's own choice")
    device: str = Field("auto", description="auto: cuda where there is one, else cpu")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of forward and backward passes; trained weights are kept in float32"
    )
    final_dtype: Literal["base", "float32", "bfloat16", "float16"] = Field(
        "base", description="of the model folders `final/`, `best/` and `models/`; base: the starting model's"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="attention kernel")
    gradient_checkpointing: bool = Field(False, description="compute activations again in the backward pass")
    compile: bool = Field(
        False, description="decoder layers by torch.compile, in forward and backward passes; not in sampling"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model or tokenizer")
    lora: LoraSettings | None = Field(None, description="train adapters alone")
    batch: BatchSettings = Field(BatchSettings(), description="how rows become batches")
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="AdamW and its schedule")
    rollout: RolloutSettings = Field(RolloutSettings(), description="a round of RL")
    engine: EngineSettings = Field(EngineSettings(), description="what samples")
    teacher: TeacherSettings = Field(TeacherSettings(), description="teacher rows")
    on_policy: OnPolicySettings = Field(OnPolicySettings(), description="weight of sampled rows")
    advantage: AdvantageSettings = Field(AdvantageSettings(), description="of a row in its group")
    loss: LossSettings = Field(LossSettings(), description="reduction, KL, entropy, cloning")
    replay: ReplaySettings | None = Field(None, description="ExGRPO's replay; none: no replay")
    distill: DistillSettings | None = Field(None, description="on-policy distillation; none: no teacher model")
    dpo: DpoSettings = Field(DpoSettings(), description="preference pairs")
    checkpoint: CheckpointSettings = Field(CheckpointSettings(), description="when state is saved")
    evaluate: EvaluationSettings = Field(EvaluationSettings(), description="evaluation while the run goes on")
    log: LogSettings = Field(LogSettings(), description="metrics and trackers")
    parallel: ParallelSettings = Field(ParallelSettings(), description="several processes")
    stages: tuple[dict[str, Any], ...] = Field(
        (), description="tables laid over this record, one a stage; a stage starts from the one before"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        _check_model(self)
        if not self.stages:
            _check_data(self)
            _check_dropout(self)
            _check_groups(self)
        else:
            self.stage_settings()
        return self

    @property
    def teacher_rows(self) -> int:
        """Teacher rows of a group: those of luffy and rl_sft, none elsewhere."""
        if self.method not in TEACHER_ROLES or self.teacher.prefix.shared or self.teacher.branch:
            return 0
        return self.teacher.rows

    @property
    def needs_traces(self) -> bool:
        """Whether groups take anything from a teacher's traces."""
        return self.method in TEACHER_ROLES and bool(
            self.teacher.rows or self.teacher.prefix.shared or self.teacher.branch
        )

    @property
    def teacher_role(self) -> str:
        """What the teacher's tokens train."""
        return self.teacher.role or TEACHER_ROLES.get(self.method, "surrogate")

    @property
    def teacher_beside(self) -> bool:
        """Whether teacher rows stand beside a whole group of sampled rows, not in the place of some."""
        return self.method == "rl_sft" if self.teacher.beside is None else self.teacher.beside

    @property
    def compares_passes(self) -> bool:
        """Whether the loss compares log-probs of two passes of one model, so that dropout is off."""
        return self.method == "dpo" or self.method in POLICY

    @property
    def sampled_rows(self) -> int:
        """Rows of a group that are sampled from the policy where a teacher trace stands."""
        return self.rollout.group_size - (0 if self.teacher_beside else self.teacher_rows)

    def stage_settings(self) -> list[TrainSettings]:
        """The stages as runs of their own: `output`/1_sft, `output`/2_grpo, each starting from the one before."""
        shared = self.model_dump(exclude={"stages"}, exclude_unset=True)
        found: list[TrainSettings] = []
        for number, stage in enumerate(self.stages, 1):
            tree = lay_over(shared, stage)
            tree["output"] = self.output / f"{number}_{tree['method']}"
            if found:
                tree |= {"model": str(found[-1].output / "final"), "new_model": None}
            found.append(build_settings(TrainSettings, tree, f"stages[{number}]"))
        return found


def _check_model(settings: TrainSettings) -> None:
    if (settings.model is None) == (settings.new_model is None):
        raise ValueError("expected exactly one of model (a folder or hub name) and a [new_model] table.")
    if settings.attention == "flash_attention_2" and settings.dtype == "float32":
        raise ValueError("attention flash_attention_2 takes no float32; set dtype to bfloat16.")
    changes, longest = settings.model_changes, settings.data.prompt_tokens + settings.data.response_tokens
    if settings.new_model is not None and changes != ModelChanges():
        raise ValueError("model_changes are those of a model that stands; set [new_model]'s own keys.")
    if changes.max_positions is not None and longest > changes.max_positions:
        raise ValueError(
            f"model_changes.max_positions is {changes.max_positions}; prompt_tokens and response_tokens make {longest}."
        )
    if settings.engine.kind == "vllm-server" and (changes.rope_theta or changes.max_positions):
        raise ValueError(
            "model_changes do not reach a rollout server, which reads its model's own configuration; serve and name a "
            "folder that has them, such as the final/ of a run with them."
        )
    if settings.new_model is not None and settings.lora is not None:
        raise ValueError("lora adapts a trained model; a [new_model] has random weights. Take one of them out.")


def _check_data(settings: TrainSettings) -> None:
    if settings.method == "dpo" and settings.new_model is not None:
        raise ValueError("method dpo compares with the model it starts from; set model, not [new_model].")
    for name in TABLES[settings.method]:
        if getattr(settings.data, name) is None:
            raise ValueError(f"method {settings.method} needs data.{name}, the path of a Parquet table.")


def _check_dropout(settings: TrainSettings) -> None:
    if settings.lora is not None and settings.lora.dropout and settings.compares_passes:
        raise ValueError(
            f"lora.dropout is {settings.lora.dropout}; method {settings.method} compares the log-probs of two passes, "
            "which dropout would make differ. Set it to 0."
        )


def _check_groups(settings: TrainSettings) -> None:
    if settings.method not in POLICY:
        return
    rollout = settings.rollout
    if not settings.teacher_beside and settings.teacher_rows >= rollout.group_size:
        raise ValueError(
            f"teacher.rows is {settings.teacher.rows}; a group of {rollout.group_size} needs at least one sampled row."
        )
    if settings.replay is not None and settings.teacher_rows + settings.replay.rows >= rollout.group_size:
        raise ValueError("teacher.rows and replay.rows fill the whole group; leave at least one sampled row.")
    if rollout.prompts % min(rollout.mini_batch_prompts, rollout.prompts):
        raise ValueError(
            f"rollout.prompts is {rollout.prompts}; expected a multiple of mini_batch_prompts "
            f"({rollout.mini_batch_prompts})."
        )
    branch = settings.teacher.branch
    if list(branch) != sorted(set(branch)) or not all(0 < fraction < 1 for fraction in branch):
        raise ValueError(f"teacher.branch is {list(branch)}; expected growing fractions between 0 and 1.")
    if branch and settings.teacher.prefix.shared:
        raise ValueError("teacher.branch and teacher.prefix.shared both decide where a group starts; take one.")
    if settings.on_policy.weight_cap is not None and settings.on_policy.shape.kind != "none":
        raise ValueError("on_policy.weight_cap is a detached weight; set on_policy.shape.kind to none beside it.")
