"""Parity of losses, advantages, KL and gradients with reference values.

    python benchmarks/loss_parity.py ../shared/oracle/losses.json

FILE.json lists cases (function, options, names of arrays, reference scalars), FILE.npz beside it holds the arrays
under ID/NAME. Every case goes through the project's public functions, gradients through autograd. The error
of an array or scalar is max|a−b| / max(max|b|, 1e-6). Exits 1 above 1e-5, or when any case's loss,
advantages, KL or gradients were not compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.sequences import until_eos
from trainer.modeling.log_probs import from_logits
from trainer.objectives import losses
from trainer.objectives.advantage import centred, standardised
from trainer.objectives.losses import masked_mean

LIMIT = 1e-5

Options = dict[str, Any]
Arrays = dict[str, Tensor]
Found = dict[str, Tensor]


class UnknownOption(ValueError):
    """A case asks for what no public function of ours does."""


@dataclass
class Tally:
    """What was compared of one function."""

    cases: int = 0
    values: int = 0
    gradients: int = 0
    metrics: int = 0
    worst: float = 0.0
    worst_at: str = ""
    worst_metric: float = 0.0
    skipped: list[str] = field(default_factory=list)  # what should have been compared
    undefined: int = 0  # cases whose reference loss is NaN

    def compare(self, case: str, name: str, found: Tensor, wanted: Tensor) -> None:
        """Count one value and remember the worst."""
        self.values += 1
        off = error(found, wanted)
        if off >= self.worst:
            self.worst, self.worst_at = off, f"{case}/{name}"


# What each reference function is in ours


def advantages(options: Options, arrays: Arrays, *, split: bool) -> Found:
    rewards = arrays["token_level_rewards"].sum(-1)
    mask, group = arrays["eos_mask"], arrays["group"].long()
    group = torch.unique(group, return_inverse=True)[1]
    baseline = arrays["on_policy_mask"].bool() if split else torch.ones_like(group, dtype=torch.bool)
    if options["use_std"]:
        found = standardised(rewards, group, baseline, options["epsilon"], unit_when_constant=split)
    else:
        found = centred(rewards, group, baseline)
    return {"advantages": found[:, None] * mask}


def reshape(name: str, weight: float, exponent: float) -> losses.Shape:
    """LUFFY's name of a shape f → our function of log x."""
    if name.startswith("p_div_p_"):
        return partial(losses.over_gamma, gamma=float(name.removeprefix("p_div_p_")))
    shapes: dict[str, losses.Shape] = {
        "no_reshape": losses.identity,
        "logp": partial(losses.logarithm, weight=weight),
        "p_logp": partial(losses.identity_and_logarithm, weight=weight),
        "square_root": partial(losses.power, exponent=0.5),
        "pow": partial(losses.power, exponent=exponent),
    }
    if name not in shapes:
        raise UnknownOption(f"reshape {name}")
    return shapes[name]


def reduce_luffy(options: Options, mask: Tensor, tokens: Tensor) -> Tensor:
    """The reference's reductions: the micro-batch's sum over a constant, or its token mean."""
    if options.get("loss_remove_token_mean", False):
        return losses.constant_weights(mask, rows=1, length=mask.shape[-1])
    return losses.token_mean_weights(mask, int(tokens))


def on_policy_ratio(options: Options, log_prob: Tensor, old: Tensor) -> Tensor:
    name = options.get("on_policy_reshape", "no_reshape")
    weight, exponent = options.get("on_policy_reshape_weight", 1.0), options.get("on_policy_reshape_pow_exp", 0.5)
    if name == "logp":  # on ratios the reference leaves the weight out
        weight = 1.0
    shape = reshape(name, weight, exponent)
    if name.startswith("p_div_p_"):
        return losses.shaped_quotient(log_prob, old, shape)
    return shape(losses.token_log_ratio(log_prob, old))


def off_policy_ratio(options: Options, arrays: Arrays) -> Tensor:
    log_prob = arrays["log_prob"]
    weight, exponent = options.get("off_policy_reshape_weight", 1.0), options.get("off_policy_reshape_pow_exp", 0.5)
    shape = reshape(options.get("off_policy_reshape", "no_reshape"), weight, exponent)
    if "target_probs" in arrays:
        log_ratio, shape = losses.recorded_log_ratio(log_prob, arrays["target_probs"]), losses.identity
    elif options["variant"] == "exgrpo":
        log_ratio = losses.token_log_ratio(log_prob, arrays["old_log_prob"])
    elif options["variant"] == "luffy":
        log_ratio = log_prob
    else:
        raise UnknownOption(f"variant {options['variant']}")
    return losses.bounded(shape(log_ratio), options.get("off_min_clip"), options.get("off_max_clip"))


def on_policy_loss(options: Options, ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """Token losses, and where the clip acted."""
    if options.get("loss_remove_clip", False):
        return losses.surrogate(ratio, advantage), torch.zeros_like(ratio)
    low = 1 - options["cliprange"]
    high = max(options.get("clip_upper_bound", 1.0), 1 + options["cliprange"])
    clipped = losses.clipped_tokens(ratio, advantage, low, high)
    return losses.clipped_surrogate(ratio, advantage, low, high), clipped.float()


def on_off_policy(options: Options, arrays: Arrays) -> Found:
    log_prob, old, advantage = arrays["log_prob"], arrays["old_log_prob"], arrays["advantages"]
    mask, prefix = arrays["eos_mask"].bool(), arrays["prefix_mask"].bool()
    ratio = on_policy_ratio(options, log_prob, old)
    on_loss, clipped = on_policy_loss(options, ratio, advantage)
    off_ratio = off_policy_ratio(options, arrays)
    off_loss = losses.surrogate(off_ratio, advantage)
    token_loss = losses.mixed(on_loss, off_loss, prefix)
    acted_on = mask
    if options.get("all_max_clip") is not None:
        acted_on = losses.without_likely(mask, log_prob, options["all_max_clip"])
    loss = losses.weighted_sum(token_loss, reduce_luffy(options, acted_on, acted_on.sum()))
    on, off = mask & ~prefix, mask & prefix
    found = {
        "pg_loss": loss,
        "off_pg_loss": masked_mean(off_loss, off),
        "on_pg_loss": masked_mean(on_loss, on),
        "on_pg_clipfrac": masked_mean(clipped, mask),
        "off_pg_clipfrac": torch.tensor(0.0),
        "ppo_kl": masked_mean(losses.kl_k1(old, log_prob), mask),
        "off_policy_prob": masked_mean(log_prob.exp(), off),
        "on_policy_prob": masked_mean(old.exp(), on),
        "off_ratio_mean": masked_mean(off_ratio, off),
    }
    if options["variant"] == "luffy":
        for name in ("max", "min"):
            bound = options.get(f"off_{name}_clip")
            at = torch.zeros_like(off_ratio) if bound is None else (off_ratio == bound).float()
            found[f"off_ratio_{name}_clip_frac"] = masked_mean(at, off)
    return found


def ppo(options: Options, arrays: Arrays) -> Found:
    log_prob, old, advantage = arrays["log_prob"], arrays["old_log_prob"], arrays["advantages"]
    mask = arrays["eos_mask"].bool()
    ratio = losses.token_log_ratio(log_prob, old).exp()
    token_loss, _ = on_policy_loss(options, ratio, advantage)
    loss = losses.weighted_sum(token_loss, reduce_luffy(options, mask, mask.sum()))
    found = {"pg_loss": loss, "ppo_kl": masked_mean(losses.kl_k1(old, log_prob), mask)}
    if options.get("loss_remove_clip", False):  # with the clip on, the reference counts after the maximum: always 0
        low, high = 1 - options["cliprange"], 1 + options["cliprange"]
        found["pg_clipfrac"] = masked_mean(losses.clipped_tokens(ratio, advantage, low, high).float(), mask)
    return found


def rl_plus_sft(options: Options, arrays: Arrays) -> Found:
    teacher = arrays["prefix_mask"].bool().any(-1)
    on = {name: array[~teacher] for name, array in arrays.items() if array.shape[:1] == teacher.shape}
    policy = ppo(options, on)["pg_loss"]
    cloned = arrays["eos_mask"].bool() & teacher[:, None]
    weights = losses.token_mean_weights(cloned, int(cloned.sum()))
    sft = losses.weighted_sum(losses.cross_entropy(arrays["log_prob"]), weights)
    return {"loss": policy + options["sft_loss_coef"] * sft, "sft_loss": sft, "pg_loss": policy}


def sft(options: Options, arrays: Arrays) -> Found:
    mask = arrays["eos_mask"].bool()
    weights = losses.token_mean_weights(mask, int(mask.sum()))
    return {"loss": losses.weighted_sum(losses.cross_entropy(arrays["log_prob"]), weights)}


def kl(options: Options, arrays: Arrays) -> Found:
    kinds = {
        "kl": losses.kl_k1,
        "abs": losses.kl_absolute,
        "mse": losses.kl_k2,
        "low_var_kl": losses.kl_k3_clamped,
    }
    if options["kind"] not in kinds:
        raise UnknownOption(f"KL {options['kind']}")
    return {"kl": kinds[options["kind"]](arrays["log_prob"], arrays["ref_log_prob"])}


def from_scaled_logits(options: Options, arrays: Arrays) -> Found:
    """The loss from logits that the temperature already divides."""
    log_prob, entropy = from_logits(arrays["scaled_logits"], arrays["labels"].long())
    found = on_off_policy({"variant": "luffy", **options}, {**arrays, "log_prob": log_prob})
    mean_entropy = masked_mean(entropy, arrays["eos_mask"].bool())
    loss = found["pg_loss"] - options["entropy_coeff"] * mean_entropy
    return {**found, "loss": loss, "entropy": mean_entropy, "log_prob": log_prob, "token_entropy": entropy}


def eos_mask(options: Options, arrays: Arrays) -> Found:
    return {"mask": until_eos(arrays["response_ids"].long(), options["eos_token"])}


def trl(options: Options, arrays: Arrays) -> Found:
    log_prob, mask = arrays["log_prob"], arrays["mask"].bool()
    old = arrays["old_log_prob"] if options["old_given"] else log_prob.detach()
    advantage = arrays["advantages"][:, None]
    level = options.get("importance_sampling_level", "token")
    if level == "sequence":
        ratio = losses.sequence_log_ratio(log_prob, old, mask).exp()
    elif level == "token":
        ratio = losses.token_log_ratio(log_prob, old).exp()
    else:
        raise UnknownOption(f"importance sampling level {level}")
    low, high = 1 - options["epsilon_low"], 1 + options["epsilon_high"]
    kind, extra = options["loss_type"], options.get("args", {})
    found: Found = {}
    if kind == "cispo":
        token_loss = losses.capped_weight_surrogate(ratio, log_prob, advantage, options["epsilon_high"])
        capped = ((ratio > options["epsilon_high"]) & (advantage > 0)).float()
        found["cispo_clip_ratio"] = masked_mean(capped, mask if level == "token" else capped >= 0)
    else:
        token_loss = losses.clipped_surrogate(ratio, advantage, low, high, extra.get("delta"))
        found |= trl_clip_metrics(
            ratio if "delta" not in extra else ratio.clamp(max=extra["delta"]), advantage, mask, low, high
        )
    if options.get("beta"):
        token_kl = losses.kl_k3(log_prob, arrays["ref_log_prob"])
        if extra.get("use_bias_correction_kl"):
            token_kl = token_kl * ratio
        found["kl"] = masked_mean(token_kl, mask)
        token_loss = token_loss + options["beta"] * token_kl
    policy = losses.weighted_sum(token_loss, trl_weights(kind, mask, options["max_completion_length"]))
    entropy = masked_mean(arrays["entropy"], mask)
    accumulated = options.get("current_gradient_accumulation_steps", 1)
    loss = (policy - options.get("entropy_coef", 0.0) * entropy) / accumulated
    return {**found, "loss": loss, "policy_loss": policy, "entropy": entropy}


def trl_weights(kind: str, mask: Tensor, length: int) -> Tensor:
    if kind == "grpo":
        return losses.sequence_mean_weights(mask, len(mask))
    if kind == "dr_grpo":
        return losses.constant_weights(mask, len(mask), length)
    if kind in ("bnpo", "dapo", "cispo"):
        return losses.token_mean_weights(mask, int(mask.sum()))
    raise UnknownOption(f"loss_type {kind}")


def trl_clip_metrics(ratio: Tensor, advantage: Tensor, mask: Tensor, low: float, high: float) -> Found:
    if ratio.shape[-1] == 1:  # one ratio a row: the reference counts rows, not tokens
        mask = torch.ones_like(ratio, dtype=torch.bool)
    below = ((ratio < low) & (advantage < 0)).float()
    above = ((ratio > high) & (advantage > 0)).float()
    return {
        "clip_ratio_low_mean": masked_mean(below, mask),
        "clip_ratio_high_mean": masked_mean(above, mask),
        "clip_ratio_region_mean": masked_mean(below + above, mask),
        "clip_ratio_low_min": ((below * mask).sum(-1) / mask.sum(-1)).min(),
        "clip_ratio_high_max": ((above * mask).sum(-1) / mask.sum(-1)).max(),
    }


FUNCTIONS: dict[str, Callable[[Options, Arrays], Found]] = {
    "grpo_advantage": partial(advantages, split=False),
    "grpo_advantage_split": partial(advantages, split=True),
    "on_off_policy_loss": on_off_policy,
    "policy_loss": ppo,
    "rl_plus_sft_loss": rl_plus_sft,
    "sft_loss": sft,
    "kl_penalty": kl,
    "actor_loss_from_logits": from_scaled_logits,
    "eos_mask": eos_mask,
    "trl_loss": trl,
}

#: Options that each function reads, or of which the reference says that they change nothing.
_CLIP = {"cliprange", "loss_remove_token_mean", "loss_remove_clip"}
_MIXED = _CLIP | {
    *("clip_upper_bound", "off_cliprange", "off_normalize", "off_abs_cliprange", "off_max_clip", "off_min_clip"),
    *("off_policy_reshape", "off_policy_reshape_weight", "off_policy_reshape_pow_exp", "all_max_clip"),
    *("on_policy_reshape", "on_policy_reshape_weight", "on_policy_reshape_pow_exp", "target_probs"),
    *("variant", "name", "off"),
}
KNOWN: dict[str, set[str]] = {
    "grpo_advantage": {"use_std", "n", "kind", "epsilon"},
    "grpo_advantage_split": {"use_std", "n", "kind", "epsilon"},
    "on_off_policy_loss": _MIXED,
    "policy_loss": _CLIP,
    "rl_plus_sft_loss": _CLIP | {"sft_loss_coef"},
    "sft_loss": set(),
    "kl_penalty": {"kind"},
    "actor_loss_from_logits": _MIXED | {"entropy_coeff", "temperature"},
    "eos_mask": {"eos_token"},
    "trl_loss": {
        *("loss_type", "name", "old_given", "epsilon_low", "epsilon_high", "max_completion_length", "beta", "args"),
        *("current_gradient_accumulation_steps", "entropy_coef", "importance_sampling_level"),
    },
}
KNOWN_ARGS = {"delta", "use_bias_correction_kl"}  # of trl_loss's `args`

LOSSES = ("loss", "pg_loss")  # the scalar that is minimised; the other scalars are metrics
RESULTS = ("advantages", "kl", "mask", "log_prob", "token_entropy")  # arrays that a case may ask for


def error(found: Tensor, wanted: Tensor) -> float:
    """max|a−b| / max(max|b|, 1e-6); infinite where shapes differ or a value is not finite."""
    found, wanted = found.detach().double(), wanted.double()
    if found.shape != wanted.shape or not found.isfinite().all():
        return float("inf")
    if not wanted.numel():
        return 0.0
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))


def check_case(case: dict[str, Any], stored: Any, tally: Tally) -> None:
    """Compare one case; what cannot be compared goes to `tally.skipped`."""
    tally.cases += 1
    name = case["fn"]
    options = {key: value for key, value in case["opts"].items() if value is not None}
    unknown = (options.keys() - KNOWN[name]) | (options.get("args", {}).keys() - KNOWN_ARGS)
    if unknown:
        tally.skipped.append(f"{case['id']}: unknown options {sorted(unknown)}")
        return
    if any(key in LOSSES and value is None for key, value in case["out"].items()):
        tally.undefined += 1
        return
    arrays = {key: torch.from_numpy(np.asarray(stored[f"{case['id']}/{key}"])) for key in case["arrays"]}
    if "logits" in arrays:
        arrays["scaled_logits"] = arrays["logits"] / options["temperature"]
    gradients = {key.removeprefix("grad_"): array for key, array in arrays.items() if key.startswith("grad_")}
    results = {key: arrays[key] for key in RESULTS if key in arrays and not _is_input(name, key)}
    inputs = {key: array for key, array in arrays.items() if not key.startswith("grad_") and key not in results}
    for key in gradients:
        inputs[key] = inputs[key].clone().requires_grad_()
    try:
        found = FUNCTIONS[name](options, inputs)
    except UnknownOption as fault:
        tally.skipped.append(f"{case['id']}: {fault}")
        return
    for key, wanted in results.items():
        tally.compare(case["id"], key, found[key], wanted)
    _compare_scalars(case, found, tally)
    loss = next((found[key] for key in LOSSES if key in found), None)
    for key, wanted in gradients.items():
        assert loss is not None
        tally.compare(case["id"], f"grad_{key}", torch.autograd.grad(loss, inputs[key], retain_graph=True)[0], wanted)
        tally.gradients += 1


def _is_input(name: str, key: str) -> bool:
    return (
        (key == "advantages" and "advantage" not in name)
        or (key == "log_prob" and name != "actor_loss_from_logits")
        or (key == "mask" and name == "trl_loss")
    )


def _compare_scalars(case: dict[str, Any], found: Found, tally: Tally) -> None:
    for key, wanted in case["out"].items():
        value = torch.tensor(float("nan") if wanted is None else wanted)
        if key in LOSSES:
            tally.compare(case["id"], key, found[key], value)
        elif wanted is not None and key in found:
            tally.metrics += 1
            tally.worst_metric = max(tally.worst_metric, error(found[key], value))


def run(path: Path) -> dict[str, Tally]:
    """Every case of a file, tallied by function."""
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    tallies: dict[str, Tally] = defaultdict(Tally)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        for case in cases:
            if case["fn"] not in FUNCTIONS:
                tallies[case["fn"]].cases += 1
                tallies[case["fn"]].skipped.append(f"{case['id']}: unknown function")
                continue
            check_case(case, stored, tallies[case["fn"]])
    return dict(tallies)


def main() -> int:
    """Print the table; 1 where a value is off or was not compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="cases as JSON, their arrays in the .npz beside it")
    tallies = run(parser.parse_args().file)
    columns = ("function", "cases", "values", "gradients", "worst", "at", "metrics", "worst", "skipped", "undefined")
    print("{:<24}{:>6}{:>8}{:>10}{:>9}  {:<24}{:>8}{:>9}{:>9}{:>10}".format(*columns))
    for name, tally in sorted(tallies.items()):
        print(
            f"{name:<24}{tally.cases:>6}{tally.values:>8}{tally.gradients:>10}{tally.worst:>9.1e}  {tally.worst_at:<24}"
            f"{tally.metrics:>8}{tally.worst_metric:>9.1e}{len(tally.skipped):>9}{tally.undefined:>10}"
        )
    skipped = [reason for tally in tallies.values() for reason in tally.skipped]
    for reason in skipped:
        print(f"skipped {reason}")
    worst = max((tally.worst for tally in tallies.values()), default=float("inf"))
    undefined = sum(tally.undefined for tally in tallies.values())
    compared = sum(tally.cases for tally in tallies.values()) - len(skipped) - undefined
    print(
        f"worst error {worst:.2e} (limit {LIMIT:.0e}); {compared} cases compared, {len(skipped)} skipped, "
        f"{undefined} without a reference value"
    )
    return int(worst > LIMIT or bool(skipped))


if __name__ == "__main__":
    sys.exit(main())
