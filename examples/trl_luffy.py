"""LUFFY inside TRL: `python examples/trl_luffy.py MODEL CURATED.parquet OUTPUT [STEPS]`.

CURATED is what `tracekit curate` writes. Other recipes: hpt, chord_phi, srft and more; on several processes:
accelerate launch.
"""

import sys

import torch
from trl import GRPOConfig

from evaluators import accuracy_reward
from trainer.adapters.trl import LuffyTrainer, luffy_dataset


def main(model: str, curated: str, output: str, steps: int = 100) -> None:
    """Train; the last row of each group is the teacher's trace."""
    settings = GRPOConfig(
        output_dir=output,
        max_steps=steps,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=256,
        report_to="none",
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = LuffyTrainer(
        model, recipe="luffy", reward_funcs=accuracy_reward, args=settings, train_dataset=luffy_dataset(curated)
    )
    trainer.train()
    trainer.save_model(output)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]))
