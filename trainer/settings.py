"""Every setting of a training run, its default and its meaning, once.

A recipe is a TOML file read by `tracekit.core.settings.load_settings(TrainSettings, recipe, overrides)`.
Strings are turned into functions in `objective.py` alone; no loss sees this file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tracekit.core.prompts import PromptSettings
from tracekit.core.settings import Settings, build_settings, lay_over

Method = Literal["pretrain", "cpt", "sft", "dpo", "grpo", "luffy", "rl_sft"]

SUPERVISED: tuple[Method, ...] = ("pretrain", "cpt", "sft", "dpo")
POLICY: tuple[Method, ...] = ("grpo", "luffy", "rl_sft")

#: What teacher rows train where `teacher.role` does not say; a method that is not here has none.
TEACHER_ROLES: dict[Method, str] = {"luffy": "surrogate", "rl_sft": "cloned"}


class NewModelSettings(Settings):
    """A Llama made from nothing: random weights under the run's seed. The vocabulary is the tokenizer's."""

    tokenizer: Path  # folder of a Hugging Face tokenizer
    hidden_size: PositiveInt = 96
    layers: PositiveInt = 3
    heads: PositiveInt = 4
    kv_heads: PositiveInt | None = None  # None: as many as heads
    intermediate_size: PositiveInt | None = None  # None: 4 × hidden_size
    max_positions: PositiveInt = 1024
    rope_theta: PositiveFloat = 10_000.0
    tie_embeddings: bool = True


class ModelChanges(Settings):
    """What a run changes in the model it starts from, before the first step; its checkpoints keep it.

    LUFFY's authors took Qwen2.5-Math, whose window is 4,096, to 16,384 by a rope theta of 40,000 in place of 10,000,
    and gave it a chat template of their own.
    """

    rope_theta: PositiveFloat | None = None
    max_positions: PositiveInt | None = None  # the window, in tokens
    chat_template: str | None = None  # name of one that comes with the package (luffy), or path of a Jinja file


class LoraSettings(Settings):
    """Low-rank adapters through peft; `final/` holds the merged model."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: NonNegativeFloat = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class DataSettings(Settings):
    """The tables a run reads, and the limits of a row in tokens."""

    text: Path | None = None  # Parquet with a `text` column: pretrain, cpt
    curated: Path | None = None  # CURATED: sft, dpo; teacher rows of luffy and rl_sft
    problems: Path | None = None  # PROBLEMS: grpo, luffy, rl_sft
    system_prompt: str | None = None  # needs a chat template that takes a system message
    chat_template: bool = True  # False: the problem's plain text, whatever the tokenizer carries
    template_arguments: dict[str, Any] = Field(default_factory=dict)  # names that the chat template reads
    prompt_tokens: PositiveInt = 1024  # longest prompt
    response_tokens: PositiveInt = 8192  # longest response, EOS counted
    pack_tokens: PositiveInt | None = None  # pretrain, cpt: whole documents in rows of this many; None: one a row
    over_long: Literal["skip", "error"] = "skip"  # what a row over its limit meets; skips are counted and logged

    @property
    def prompt(self) -> PromptSettings:
        """How problems are printed."""
        return PromptSettings(
            system_prompt=self.system_prompt,
            chat_template=self.chat_template,
            template_arguments=self.template_arguments,
        )


class BatchSettings(Settings):
    """How rows are grouped. No loss depends on `micro_tokens` or on the number of ranks."""

    rows: PositiveInt = 128  # rows of an optimizer step, all ranks together (supervised); pairs of dpo
    micro_tokens: PositiveInt = 16_384  # rows × longest row of one forward pass, padding counted
    skip_zero_advantage: bool = True  # RL: leave rows without gradient out of forward and backward
    share_prompts: bool = True  # RL: compute a prompt once for its rows in the updates where that saves arithmetic


class OptimizerSettings(Settings):
    """AdamW and its schedule."""

    lr: PositiveFloat = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final_lr_ratio: NonNegativeFloat = 0.0  # lr at the last step ÷ lr


class RolloutSettings(Settings):
    """One round of RL: problems, completions of each, and how they are drawn."""

    prompts: PositiveInt = 128  # problems of a round, all ranks together
    mini_batch_prompts: PositiveInt = 64  # problems of an optimizer step: LUFFY updates twice a round
    epochs: PositiveInt = 1  # passes over a round's rows
    group_size: PositiveInt = 8  # rows of a problem, teacher rows counted
    temperature: PositiveFloat = 1.0
    top_p: PositiveFloat = Field(default=1.0, le=1.0)
    top_k: NonNegativeInt = 0  # 0: every token
    drop_all_right: bool = False  # leave out a group whose rows (teacher's counted) all earn 1
    drop_all_wrong: bool = False  # leave out a group whose rows (teacher's counted) all earn 0
    resample_rounds: NonNegativeInt = 0  # draw again up to so often until `prompts` groups stand (DAPO)
    old_log_probs: Literal["auto", "engine", "recompute"] = "auto"
    # auto: the engine's where it is exact (embedded), recomputed elsewhere; not needed for one update a round
    importance: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "token_truncate"
    # weight by trainer ÷ engine probability, for engines that are not exact: of each token or of the whole response,
    # held at the cap or, outside of the bounds, 0
    importance_cap: PositiveFloat = 2.0
    importance_floor: NonNegativeFloat = 0.0  # lower bound of the two masks
    random_reward: float | None = Field(default=None, ge=0.0, le=1.0)
    # probability that a row is paid 1 whatever it answers, a control (Shao et al. 2025, 2506.10947); None: verified
    verifier_seconds: PositiveFloat = 2.0  # deadline of one verification


class EngineSettings(Settings):
    """Which rollout engine, and what it needs. A kind alone may stand in place of the table: engine = "vllm"."""

    kind: Literal["embedded", "vllm", "vllm-server"] = "embedded"
    rows: PositiveInt = 512  # embedded: completions in flight at once
    urls: tuple[str, ...] = ("http://127.0.0.1:8000",)  # vllm-server
    weights: Literal["disk", "gloo", "nccl"] = "disk"  # vllm-server: the way of an update; the last two by memory
    memory_fraction: PositiveFloat = Field(default=0.4, le=1.0)  # vllm: of the device's memory
    tensor_parallel: PositiveInt = 1  # vllm
    eager: bool = False  # vllm: neither compilation nor CUDA graphs: starts sooner, samples slower
    sleep: bool = True  # vllm: give the cache's memory back during updates

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


#: Settings of an engine that decide where and how fast it runs, and not what it says: a run goes on with others.
ENGINE_CONNECTION = ("engine.urls", "engine.weights", "engine.memory_fraction", "engine.eager", "engine.sleep")


#: Settings on which no result depends: a run goes on with others, wherever its folder and its tables lie now (what
#: the tables hold is compared by digest).
NEUTRAL = (*ENGINE_CONNECTION, "log", "checkpoint", "threads", "output", "data.text", "data.curated", "data.problems")


class ShapeSettings(Settings):
    """Shaping f of a ratio or probability x.

    none: x. gamma: x/(x+gamma) (LUFFY, eq. 7). sqrt: √x. power: x^exponent. log: weight·log x.
    identity_log: x + weight·log x.
    """

    kind: Literal["none", "gamma", "sqrt", "power", "log", "identity_log"] = "none"
    gamma: PositiveFloat = 0.1
    exponent: PositiveFloat = 0.5
    weight: PositiveFloat = 1.0


class ScheduleSettings(Settings):
    """A number in [0, 1] that moves from `start` to `end` over `steps` rounds and stays."""

    start: float = Field(default=1.0, ge=0.0, le=1.0)
    end: float = Field(default=1.0, ge=0.0, le=1.0)
    steps: NonNegativeInt = 0
    kind: Literal["linear", "cosine"] = "linear"

    def at(self, number: int) -> float:
        """The value in round `number`, counted from 0."""
        done = 1.0 if self.steps == 0 else min(number / self.steps, 1.0)
        if self.kind == "cosine":
            return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


class PrefixSettings(ScheduleSettings):
    """Fraction of the teacher's trace that a teacher row takes; the policy continues from there.

    1.0: the whole trace with EOS, which leaves the policy nothing to continue.
    """

    lowest: float | None = Field(default=None, ge=0.0, le=1.0)
    # draw the fraction of each problem uniformly between this and the value (Prefix-RFT); None: the value
    slices: NonNegativeInt = 0
    # draw the fraction of each problem as Binomial(slices, value) ÷ slices (UFT); 0: the value
    shared: bool = False  # True: every row of the group continues from one prefix, never the whole trace (UFT)


class TeacherSettings(Settings):
    """Teacher (off-policy) rows of luffy and rl_sft: how many, what they train, and their weight.

    `role` and `beside` say what the two methods differ in; None takes the method's: luffy is surrogate in place of
    a sampled row, rl_sft is cloned beside a whole group.
    """

    rows: NonNegativeInt = 1  # of a group
    role: Literal["surrogate", "cloned", "both", "left_out"] | None = None  # of the teacher's tokens
    beside: bool | None = None  # True: the teacher's rows stand beside `group_size` sampled ones
    weight: NonNegativeFloat = 1.0  # of its rows' policy gradient; 0: a row counts in the group's mean alone
    right_at_most: NonNegativeInt | None = None
    # HPT's gate: where at most so many sampled rows are right, only the teacher's rows train; elsewhere only the
    # sampled ones. None: all rows train
    top_entropy: float | None = Field(default=None, gt=0.0, le=1.0)
    # share of a row's teacher tokens, those of highest entropy, that the policy gradient takes; None: all (Prefix-RFT)
    branch: tuple[float, ...] = ()
    # BREAD: where no sampled row is right, sample the group anew from these fractions of a trace, one after another
    # until a row is right; the prefix has `role`
    probability: Literal["one", "recorded"] = "one"  # q in p/q: 1 (LUFFY), or the trace's own token_log_probs
    shape: ShapeSettings = ShapeSettings(kind="gamma")
    ratio_min: NonNegativeFloat | None = None  # bounds of the shaped ratio
    ratio_max: PositiveFloat | None = None
    prefix: PrefixSettings = PrefixSettings()


class OnPolicySettings(Settings):
    """Weight of on-policy rows: ratio → shape → clip, or a capped detached weight (CISPO)."""

    ratio: Literal["token", "sequence"] = "token"  # sequence: GSPO
    shape: ShapeSettings = ShapeSettings()
    clip: bool = True  # PPO's; LUFFY's mixed rows have none
    clip_low: NonNegativeFloat = 0.2  # ratio ≥ 1 − clip_low
    clip_high: NonNegativeFloat = 0.2  # ratio ≤ 1 + clip_high; DAPO: 0.28
    delta: PositiveFloat | None = None  # cap of the unclipped ratio (two-sided clipping)
    weight_cap: PositiveFloat | None = None  # CISPO: −min(ratio, cap)·A·log p, weight detached; no clip then
    right_weight: PositiveFloat = 1.0  # of right sampled rows (SRFT: 0.1)
    right_entropy: float = 0.0  # c of a further factor e^(cH) of theirs, H the row's mean entropy (SRFT: 1)


class AdvantageSettings(Settings):
    """Reward minus the group's mean, over the group's standard deviation or not."""

    std: bool = False
    baseline: Literal["all", "on_policy"] = "all"  # rows whose mean and deviation are taken


class LossSettings(Settings):
    """How tokens become one number, and the terms beside the surrogate."""

    reduction: Literal["constant", "token_mean", "sequence_mean"] = "constant"
    # constant: Σ tokens ÷ (rows × response_tokens); token_mean: Σ ÷ tokens; sequence_mean: mean of the rows' means
    entropy: float = 0.0  # coefficient of the entropy bonus
    kl: NonNegativeFloat = 0.0  # coefficient of the KL to the starting model
    kl_in: Literal["loss", "reward"] = "loss"
    # loss: kl · kl_kind beside each token's surrogate. reward: a sampled row's reward − kl · Σ (log p_old − log p_ref)
    kl_kind: Literal["k1", "k2", "k3"] = "k2"
    # of the loss term, whose gradient matters: k2's is the reverse KL's, k3's (its log-ratio held at ±20) is not, and
    # the mean of k1's is 0 (docs/losses.md)
    sft: NonNegativeFloat = 1.0  # coefficient of the cloned tokens' mean of −log p
    sft_weight: Literal["one", "phi", "entropy"] = "one"
    # of a cloned token, detached; phi: p·(1 − p) (CHORD-φ). entropy: e^(−H), H the row's mean entropy (SRFT)
    mu: ScheduleSettings | None = None  # CHORD: policy gradient times 1 − mu, cloned tokens times mu
    drop_above: PositiveFloat | None = None  # leave out tokens whose probability is above it


class ReplaySettings(Settings):
    """ExGRPO: the model's own past correct traces come back as off-policy rows of a group.

    Zhan et al. 2025, arXiv 2510.02245: problems by a Gaussian over their share of right rollouts, the trace
    of lowest entropy under the policy, half of a batch, once the batch's reward has passed `start_reward`.
    """

    share: float = Field(default=0.5, ge=0.0, le=1.0)  # of a round's problems that are replayed ones
    start_reward: float = Field(default=0.35, ge=0.0, le=1.0)  # mean on-policy reward of a round that opens replay
    rows: PositiveInt = 1  # replayed rows of a group
    traces_per_problem: PositiveInt = 10  # kept in the buffer
    centre: float = Field(default=0.5, ge=0.0, le=1.0)  # of the Gaussian over the share of right rollouts
    width: PositiveFloat = 1.0
    shape: ShapeSettings = ShapeSettings(kind="gamma")  # f of exp(log_prob − log_prob when it was sampled)


class DistillSettings(Settings):
    """On-policy distillation: each sampled token's advantage is `weight` · (log q − log p_old) + `reward` · A.

    q is the teacher's probability of the token, so that the gradient is that of the reverse KL from policy to
    teacher on the policy's own samples (Agarwal et al. 2024, arXiv 2306.13649).
    """

    model: str | None = None  # folder or hub name of the teacher; its tokenizer must be the policy's
    scorer: str | None = None  # or "module:function", (problem, response tokens) → log q of each response token
    weight: PositiveFloat = 1.0
    reward: NonNegativeFloat = 0.0  # of the group's advantage; 0: the teacher alone decides

    @model_validator(mode="after")
    def _one_teacher(self) -> DistillSettings:
        if (self.model is None) == (self.scorer is None):
            raise ValueError("distill: expected exactly one of model (a folder or hub name) and scorer.")
        return self


class DpoSettings(Settings):
    """Direct preference optimisation; the reference is the starting model."""

    beta: PositiveFloat = 0.1
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)  # cDPO
    pairs_per_problem: PositiveInt = 4  # at most; correct × wrong rows in a seeded order


class CheckpointSettings(Settings):
    """When a run's state is saved; steps are those of `steps`."""

    every: PositiveInt = 100
    keep: PositiveInt = 2  # newest ones that stay
    models_at: tuple[PositiveInt, ...] = ()  # steps whose model folder stays in models/step-N for good


class LogSettings(Settings):
    """What is written while a run goes on."""

    every: PositiveInt = 1  # steps between rows of metrics.parquet
    flush_seconds: PositiveFloat = 10.0  # metrics reach the disk at least so often
    completions_every: NonNegativeInt = 1  # RL: rounds between completions tables; 0: none
    trackers: tuple[str, ...] = ()  # accelerate's, beside Parquet and TensorBoard: "wandb", "trackio"


class ParallelSettings(Settings):
    """Beyond one process: started by torchrun or accelerate launch."""

    fsdp: bool = False  # fully_shard over all ranks
    reshard_after_forward: bool = True
    cpu_offload: bool = False


class TrainSettings(Settings):
    """One training run: method, model, data, and a table for each part of the loop."""

    method: Method
    output: Path
    model: str | None = None  # folder or hub name to start from; None where [new_model] stands
    model_changes: ModelChanges = ModelChanges()
    new_model: NewModelSettings | None = None
    ref_model: str | None = None  # KL and DPO's reference; None: the starting model
    data: DataSettings = DataSettings()
    seed: NonNegativeInt = 0
    steps: PositiveInt | None = None  # optimizer steps (supervised) or rollout rounds (RL); None: `epochs`
    epochs: PositiveFloat = 1.0  # passes over the data, where steps is None
    threads: PositiveInt | None = None  # of torch on CPU; None: torch's own choice
    device: str = "auto"  # "auto": cuda where there is one
    dtype: Literal["float32", "bfloat16"] = "float32"  # of forward and backward; master weights stay float32
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False
    compile: bool = False  # decoder layers by torch.compile, for forward and backward passes; sampling is not
    trust_remote_code: bool = False
    lora: LoraSettings | None = None
    batch: BatchSettings = BatchSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    rollout: RolloutSettings = RolloutSettings()
    engine: EngineSettings = EngineSettings()
    teacher: TeacherSettings = TeacherSettings()
    on_policy: OnPolicySettings = OnPolicySettings()
    advantage: AdvantageSettings = AdvantageSettings()
    loss: LossSettings = LossSettings()
    replay: ReplaySettings | None = None
    distill: DistillSettings | None = None
    dpo: DpoSettings = DpoSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()
    parallel: ParallelSettings = ParallelSettings()
    stages: tuple[dict[str, Any], ...] = ()  # each laid over this record; a stage starts from the one before

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
    needs = {
        "pretrain": ("text",),
        "cpt": ("text",),
        "sft": ("curated",),
        "dpo": ("curated",),
        "grpo": ("problems",),
        "luffy": ("problems", "curated"),
        "rl_sft": ("problems", "curated"),
    }[settings.method]
    for name in needs:
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
