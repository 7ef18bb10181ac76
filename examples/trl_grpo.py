"""GRPO in TRL with our reward: `python examples/trl_grpo.py MODEL PROBLEMS.jsonl OUTPUT [STEPS]`.

MODEL is a folder or a hub name; PROBLEMS has `problem` and `answer`.
"""

import sys

import torch
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

from evaluators import accuracy_reward


def main(model: str, problems: str, output: str, steps: int = 100) -> None:
    """Train; the reward sees prompt, completion and the column `solution`."""
    rows = load_dataset("json", data_files=problems, split="train")
    rows = rows.map(lambda row: {"prompt": row["problem"], "solution": row["answer"]}, remove_columns=rows.column_names)
    settings = GRPOConfig(
        output_dir=output,
        max_steps=steps,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=64,
        report_to="none",
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = GRPOTrainer(model=model, reward_funcs=accuracy_reward, train_dataset=rows, args=settings)
    trainer.train()
    trainer.save_model(output)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]))
