"""Hours and memory of a run before it is started: formulas over a configuration, a recipe and a machine.

Nothing here is a measurement. Floating-point operations are those of `trainer.planning.flops`, which torch's counter
confirms;
the seconds they take rest on the utilisations of `Hardware`, and the lengths of responses on `Workload`. Weights that
travel between trainer and engine, checkpoints, loading and a node's own faults are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn
from transformers import PreTrainedConfig

from tracekit.core.settings import Settings
from trainer.modeling.log_probs import CHUNK_ELEMENTS
from trainer.planning.flops import Again, ModelCost, causal_pairs, empty_model, model_cost
from trainer.settings import POLICY, TrainSettings

HOUR = 3600.0
FLOAT32 = 4  # bytes


class Hardware(Settings):
    """A machine. The defaults are 8 H100 SXM by their data sheet: dense bfloat16, HBM3, 80 GB.

    utilisation: share of peak_flops that forward and backward passes reach, what backward computes again counted;
    0.4 is what published runs of dense models reach without it (Chowdhery et al. 2022, arXiv 2204.02311, table 3: 21
    to 46 %). bandwidth_utilisation: share of bandwidth that decoding reaches. step_seconds: of a decoding step beside
    memory and arithmetic (launches, scheduling). verifications: a second, all processes together.
    """

    devices: PositiveInt = 8
    peak_flops: PositiveFloat = 989e12  # FLOP/s of one device
    bandwidth: PositiveFloat = 3.35e12  # bytes/s of one device's memory
    memory: PositiveFloat = 80e9  # bytes of one device
    utilisation: PositiveFloat = Field(default=0.4, le=1.0)
    bandwidth_utilisation: PositiveFloat = Field(default=0.6, le=1.0)
    step_seconds: NonNegativeFloat = 0.005
    verifications: PositiveFloat = 1000.0


#: By the makers' data sheets (SXM form, dense bfloat16). An H800 differs from an H100 in its links alone.
HARDWARE = {
    "a100": Hardware(peak_flops=312e12, bandwidth=2.04e12),
    "h100": Hardware(),
    "h800": Hardware(),
    "h200": Hardware(bandwidth=4.8e12, memory=141e9),
    # One core of a CPU in float32, AVX-512, so that utilisation · peak is the 30 GFLOP/s at which the full study's arms
    # were trained (studies/results/luffy/costs.parquet).
    "core": Hardware(devices=1, peak_flops=75e9, bandwidth=10e9, memory=8e9),
}


class Workload(Settings):
    """What the data and the policy bring, in tokens: means. The defaults are assumptions, not measurements.

    rows: of the table that `epochs` counts: examples, pairs of dpo, problems of RL. with_gradient: share of sampled
    rows that an update computes; 1 where an entropy or KL term asks for every row.
    """

    prompt_tokens: PositiveFloat = 250  # LUFFY's system prompt is some 170 of them
    response_tokens: PositiveFloat = 2000  # of a sampled response, over the whole run
    teacher_tokens: PositiveFloat = 4000  # of a teacher's trace
    rows: PositiveInt = 46_000
    with_gradient: PositiveFloat = Field(default=1.0, le=1.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the formulas know of a model: numbers of weights, and widths."""

    cost: ModelCost
    parameters: int
    trained: int  # weights with gradients: fewer with adapters
    root: int  # embedding, head and final norm: gathered for the whole of a pass
    layers: int
    hidden: int
    queries: int  # heads · head_dim
    keys: int  # key and value heads · head_dim
    inner: int  # width of the gated feed-forward
    vocabulary: int

    def cache_bytes(self, number_bytes: int) -> int:
        """Keys and values of one token in all layers: 2 · layers · kv_heads · head_dim numbers."""
        return 2 * self.layers * self.keys * number_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take. hours: by stage, of wall-clock time. flops: by stage, all devices together.

    memory: bytes of one device by part. peak: the most that stands in it at once.
    """

    parameters: int
    steps: int
    tokens_sampled: float
    tokens_trained: float
    flops: dict[str, float]
    hours: dict[str, float]
    memory: dict[str, float]
    peak: float
    devices: int

    @property
    def device_hours(self) -> float:
        """Hours of all stages times devices."""
        return self.devices * sum(self.hours.values())


def estimate(config: PreTrainedConfig, settings: TrainSettings, work: Workload, hardware: Hardware) -> Estimate:
    """Hours by stage and memory by part of a run without stages of its own (`settings.stage_settings()` has those).

    FLOPs ÷ (devices · peak_flops · utilisation) is the time of passes; `decoding_seconds` that of sampling; rows ÷
    verifications that of rewards.
    """
    shape, limit = shape_of(config, settings), settings.data.response_tokens
    longest = {"response_tokens": min(work.response_tokens, limit), "teacher_tokens": min(work.teacher_tokens, limit)}
    work = work.model_copy(update=longest)
    again = Again(settings.gradient_checkpointing, settings.batch.micro_tokens * shape.vocabulary > _chunk(settings))
    per_second = hardware.devices * hardware.peak_flops * hardware.utilisation
    if settings.method in POLICY:
        rollout = settings.rollout
        steps = settings.steps or math.ceil(settings.epochs * work.rows / rollout.prompts)
        flops, sampled, trained = _policy_flops(shape.cost, settings, work, again)
        problems = max(rollout.prompts / hardware.devices, 1.0)
        seconds = {name: amount / per_second for name, amount in flops.items()}
        seconds["rollout"] = decoding_seconds(shape, settings, work, hardware, problems)
        seconds["reward"] = rollout.prompts * (settings.sampled_rows + settings.teacher_rows) / hardware.verifications
    else:
        steps = settings.steps or math.ceil(settings.epochs * work.rows / settings.batch.rows)
        flops, sampled, trained = _supervised_flops(shape.cost, settings, work, again)
        seconds = {name: amount / per_second for name, amount in flops.items()}
    memory = memory_parts(shape, settings, work, hardware)
    return Estimate(
        parameters=shape.parameters,
        steps=steps,
        tokens_sampled=steps * sampled,
        tokens_trained=steps * trained,
        flops={name: steps * amount for name, amount in flops.items()},
        hours={name: steps * amount / HOUR for name, amount in seconds.items()},
        memory=memory,
        peak=_peak(memory, settings),
        devices=hardware.devices,
    )


def shape_of(config: PreTrainedConfig, settings: TrainSettings) -> Shape:
    """The numbers of a configuration, counted on a model without memory."""
    model, text = empty_model(config), config.get_text_config(decoder=True)
    cost, parameters = model_cost(model), sum(weight.numel() for weight in model.parameters())
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    root = {
        id(weight): weight.numel() for part in (head, embedding) if part is not None for weight in part.parameters()
    }
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    trained = parameters
    if settings.lora is not None:
        linear = [part for part in model.modules() if isinstance(part, nn.Linear) and part is not head]
        trained = sum(settings.lora.rank * (part.in_features + part.out_features) for part in linear)
    return Shape(
        cost=cost,
        parameters=parameters,
        trained=trained,
        root=sum(root.values()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        queries=text.num_attention_heads * head_dim,
        keys=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * head_dim,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
    )


# Floating-point operations of a step


def _policy_flops(
    cost: ModelCost, settings: TrainSettings, work: Workload, again: Again
) -> tuple[dict[str, float], float, float]:
    """FLOPs of a round by stage, tokens sampled and tokens trained on."""
    rollout, prompt, response = settings.rollout, round(work.prompt_tokens), round(work.response_tokens)
    own, whole, teacher = (
        settings.sampled_rows,
        round(prompt + work.response_tokens),
        round(prompt + work.teacher_tokens),
    )
    every = bool(settings.loss.entropy or settings.loss.kl) or not settings.batch.skip_zero_advantage
    kept = own if every else own * work.with_gradient
    teachers = settings.teacher_rows
    taught = (teacher, round(work.teacher_tokens))
    update = kept * cost.training([(whole, response)], again) + teachers * cost.training([taught], again)
    scored = own * cost.forward(whole, response, causal_pairs(whole))
    taught_forward = teachers * cost.forward(*taught, causal_pairs(teacher))
    flops = {
        "rollout": float(rollout.prompts * cost.sampling(prompt, [response] * own)),
        "log_probs": float(
            rollout.prompts * (_recomputes(settings) * scored + bool(settings.loss.kl) * (scored + taught_forward))
        ),
        "update": float(rollout.prompts * rollout.epochs * update),
    }
    trained = rollout.prompts * rollout.epochs * (kept * whole + teachers * teacher)
    return flops, float(rollout.prompts * own * response), float(trained)


def _supervised_flops(
    cost: ModelCost, settings: TrainSettings, work: Workload, again: Again
) -> tuple[dict[str, float], float, float]:
    """FLOPs of an optimizer step, no token sampled, and tokens trained on."""
    rows = settings.batch.rows
    if settings.method in ("pretrain", "cpt"):
        length = round(settings.data.pack_tokens or work.teacher_tokens)
        row = (length, length - 1)
    else:
        length = round(work.prompt_tokens + work.teacher_tokens)
        row = (length, round(work.teacher_tokens))
    update = rows * cost.training([row], again)
    if settings.method != "dpo":
        return {"update": float(update)}, 0.0, float(rows * length)
    reference = 2 * rows * cost.forward(*row, causal_pairs(length))
    return {"log_probs": float(reference), "update": 2.0 * update}, 0.0, 2.0 * rows * length


def _recomputes(settings: TrainSettings) -> bool:
    """Whether old log-probs take a pass of their own: as `trainer.rollouts.log_prob_scoring.open_scoring` decides."""
    rollout = settings.rollout
    if rollout.old_log_probs != "auto":
        return rollout.old_log_probs == "recompute"
    return settings.engine.kind != "embedded" or rollout.top_p < 1 or rollout.top_k > 0


# Seconds of decoding


def decoding_seconds(
    shape: Shape, settings: TrainSettings, work: Workload, hardware: Hardware, problems: float
) -> float:
    """Seconds in which one device samples the rows of `problems` problems; every device has all weights.

    A decoding step reads every weight once and the keys and values of each row in flight (Pope et al. 2022,
    arXiv 2211.05102, section 2). Some row of hundreds reaches the limit, so that a round has response_tokens steps;
    where the cache does not hold all rows at once, the waves before the last take the mean length each. Reading and
    arithmetic overlap, the slower of the two counts.
    """
    number, rows = _half(settings), problems * settings.sampled_rows
    prompt, response = work.prompt_tokens, work.response_tokens
    token = shape.cache_bytes(number)
    room = _cache_room(shape, settings, hardware)
    waves = max(1, math.ceil(rows * (prompt + response) * token / room))
    steps = settings.data.response_tokens + (waves - 1) * response
    read = steps * shape.parameters * number + rows * response * (prompt + response / 2) * token
    flops = problems * shape.cost.sampling(round(prompt), [round(response)] * settings.sampled_rows)
    reading = read / (hardware.bandwidth * hardware.bandwidth_utilisation)
    computing = flops / (hardware.peak_flops * hardware.utilisation)
    return max(reading, computing) + steps * hardware.step_seconds


def _cache_room(shape: Shape, settings: TrainSettings, hardware: Hardware) -> float:
    """Bytes for keys and values on a device: what vLLM has beside the weights; the embedded engine's rows."""
    longest = settings.data.prompt_tokens + settings.data.response_tokens
    if settings.engine.kind == "embedded":
        return float(settings.engine.rows * longest * shape.cache_bytes(_half(settings)))
    share = settings.engine.memory_fraction if settings.engine.kind == "vllm" else 0.9
    least = longest * shape.cache_bytes(_half(settings))  # vLLM refuses to start where no row fits
    return max(share * hardware.memory - shape.parameters * _half(settings), float(least))


# Memory


def memory_parts(shape: Shape, settings: TrainSettings, work: Workload, hardware: Hardware) -> dict[str, float]:
    """Bytes of one device by part.

    weights, gradients, optimizer: 4, 4 and 8 bytes (AdamW's two moments) a weight, divided by the devices under FSDP2.
    gathered: under FSDP2 the root and two layers in the dtype of passes, and the root's gradient; else autocast's
    copy of the weights. activations: of one forward pass of micro_tokens; with checkpointing a layer's input for each
    layer, and one layer whole (`layer_bytes`). logits: three chunks in float32 (logits, probabilities, gradient) and
    the head's gradient. engine: vLLM's share of the device, or the embedded engine's copy and cache.
    """
    half, ranks = _half(settings), hardware.devices if _sharded(settings, hardware) else 1
    layer = (shape.parameters - shape.root) / shape.layers
    tokens = max(settings.batch.micro_tokens, settings.data.prompt_tokens + settings.data.response_tokens)
    inside = layer_bytes(shape, half)
    kept = shape.layers * shape.hidden * half + inside if settings.gradient_checkpointing else shape.layers * inside
    if _sharded(settings, hardware):
        gathered = half * (2 * shape.root + 2 * layer)
    else:
        gathered = float(half * shape.parameters) if half < FLOAT32 else 0.0
    parts = {
        "weights": FLOAT32 * shape.parameters / ranks,
        "gradients": FLOAT32 * shape.trained / ranks,
        "optimizer": 2 * FLOAT32 * shape.trained / ranks,
        "gathered": gathered,
        "activations": float(tokens * kept),
        "logits": float(3 * FLOAT32 * min(_chunk(settings), tokens * shape.vocabulary) + FLOAT32 * shape.cost.head),
    }
    if settings.method in POLICY:
        parts["engine"] = _engine_bytes(shape, settings, hardware, work)
    return parts


def layer_bytes(shape: Shape, number: int) -> int:
    """Bytes a token that one gated decoder layer keeps for its backward pass, attention's scores not among them.

    Of 4 bytes: the input of each of the two norms. Of `number` bytes: what each norm makes, before and after its
    weight, 4 · hidden; query, key, value and the attention's result twice, 3 · queries + 2 · keys; gate, its
    activation, up, and their product, 4 · inner. After Korthikanti et al. 2022, arXiv 2205.05198, section 4, for
    gated layers and grouped queries.
    """
    return 2 * FLOAT32 * shape.hidden + number * (
        4 * shape.hidden + 3 * shape.queries + 2 * shape.keys + 4 * shape.inner
    )


def _engine_bytes(shape: Shape, settings: TrainSettings, hardware: Hardware, work: Workload) -> float:
    if settings.engine.kind == "vllm":
        return settings.engine.memory_fraction * hardware.memory
    if settings.engine.kind == "vllm-server":
        return 0.0
    half = _half(settings)
    in_flight = min(settings.engine.rows, settings.rollout.prompts * settings.sampled_rows / hardware.devices)
    longest = work.prompt_tokens + settings.data.response_tokens
    copy = half * shape.parameters if _sharded(settings, hardware) else 0
    return copy + in_flight * longest * shape.cache_bytes(half)


def _peak(memory: dict[str, float], settings: TrainSettings) -> float:
    """State, and the larger of what sampling and what an update needs beside it; vLLM sleeps in between if told to."""
    state = memory["weights"] + memory["gradients"] + memory["optimizer"]
    passing = memory["gathered"] + memory["activations"] + memory["logits"]
    engine = memory.get("engine", 0.0)
    if settings.engine.kind == "vllm" and settings.engine.sleep:
        return state + max(engine, passing)
    return state + engine + passing


def _half(settings: TrainSettings) -> int:
    """Bytes of a number in forward and backward passes."""
    return 2 if settings.dtype == "bfloat16" else FLOAT32


def _chunk(settings: TrainSettings) -> int:
    return CHUNK_ELEMENTS["cpu" if settings.device == "cpu" else "cuda"]


def _sharded(settings: TrainSettings, hardware: Hardware) -> bool:
    return bool(settings.parallel.fsdp) and hardware.devices > 1
