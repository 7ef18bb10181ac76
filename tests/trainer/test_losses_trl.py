"""TRL's own GRPOTrainer loss on drawn options and tensors. TRL takes long to import: outside the gate."""

import importlib.util
import itertools
import random
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KINDS = ("grpo", "dr_grpo", "bnpo", "dapo", "cispo")
LEVELS = ("token", "sequence")


@pytest.fixture(scope="module")
def ours():
    spec = importlib.util.spec_from_file_location("loss_parity", ROOT / "benchmarks" / "loss_parity.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["loss_parity"] = module
    spec.loader.exec_module(module)
    return module


def trl_loss(options, arrays):
    trainer_module = pytest.importorskip("trl.trainer.grpo_trainer")
    extra = options["args"]
    accelerator = SimpleNamespace(num_processes=1, sync_gradients=False, gather=lambda x: x, reduce=lambda x, **_: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        _get_per_token_logps_and_entropies=lambda *_, **__: (arrays["log_prob"], arrays["entropy"], None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=options["importance_sampling_level"],
        beta=options["beta"],
        args=SimpleNamespace(
            delta=extra.get("delta"),
            use_bias_correction_kl=extra.get("use_bias_correction_kl", False),
            steps_per_generation=1,
        ),
        loss_type=options["loss_type"],
        epsilon_low=options["epsilon_low"],
        epsilon_high=options["epsilon_high"],
        use_vllm=False,
        current_gradient_accumulation_steps=options["current_gradient_accumulation_steps"],
        max_completion_length=options["max_completion_length"],
        accelerator=accelerator,
        _entropy_bonus_enabled=options["entropy_coef"] != 0,
        use_adaptive_entropy=False,
        entropy_coef=options["entropy_coef"],
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    ids = torch.zeros_like(arrays["mask"], dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": arrays["mask"].long(),
        "advantages": arrays["advantages"],
        "old_per_token_logps": arrays["old_log_prob"] if options["old_given"] else None,
        "ref_per_token_logps": arrays["ref_log_prob"],
        "num_items_in_batch": arrays["mask"].sum(),
    }
    return trainer_module.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)


def draw(rng, kind, level):
    options = {
        "loss_type": kind,
        "importance_sampling_level": level,
        "old_given": rng.random() < 0.8,
        "epsilon_low": rng.choice([0.2, 0.1]),
        "epsilon_high": rng.choice([2.0, 5.0]) if kind == "cispo" else rng.choice([0.2, 0.28]),
        "beta": rng.choice([0.0, 0.04]),
        "entropy_coef": rng.choice([0.0, 0.01]),
        "current_gradient_accumulation_steps": rng.choice([1, 4]),
        "max_completion_length": 30,
        "args": rng.choice([{}, {"delta": 1.5}, {"use_bias_correction_kl": True}]),
    }
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    rows, length = rng.randint(1, 8), rng.randint(1, 20)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)

    def log_probs():
        return -torch.rand(rows, length, generator=generator).mul(3) - 1e-3

    old = log_probs()
    return options, {
        "log_prob": (old + 0.4 * torch.randn(rows, length, generator=generator)).requires_grad_(),
        "old_log_prob": old,
        "ref_log_prob": log_probs(),
        "entropy": torch.rand(rows, length, generator=generator),
        "advantages": torch.randn(rows, generator=generator),
        "mask": torch.arange(length) < lengths,
    }


@pytest.mark.parametrize(("kind", "level"), list(itertools.product(KINDS, LEVELS)))
def test_loss_and_gradient_are_trls(ours, kind, level):
    rng = random.Random(f"{kind}/{level}")
    for _ in range(50):
        options, arrays = draw(rng, kind, level)
        found, wanted = ours.trl(options, arrays)["loss"], trl_loss(options, arrays)
        assert ours.error(found, wanted.detach()) <= 1e-5, options
        gradients = [torch.autograd.grad(loss, arrays["log_prob"])[0] for loss in (found, wanted)]
        assert ours.error(*gradients) <= 1e-5, options
