"""The command `train`."""

from __future__ import annotations

from pathlib import Path


def command_train(
    recipe: Path | None = None,
    *overrides: str,
    output: Path | None = None,
    dry_run: bool = False,
    hardware: str = "h100",
    json: bool = False,
) -> None:
    """Train a model by a recipe: pretrain, cpt, sft, dpo, grpo, luffy or rl_sft.

    Run again after a kill, it goes on where it stood. On several processes: torchrun --nproc-per-node 8 -m
    tracekit.cli train … .

    With --dry-run nothing is trained: the plan is printed, with hours and memory by formula. What it assumes can be
    set: work.response_tokens=3000, hardware.devices=16.

    Example: tracekit train luffy model=Qwen/Qwen2.5-Math-1.5B data.problems=problems.parquet output=runs/luffy

    Parameters
    ----------
    recipe
        A TOML file, or the name of one that comes with the package: luffy, grpo, sft, … .
    overrides
        Settings laid over it, as key.sub=value.
    output
        The run folder; the same as output=FOLDER.
    json
        Print one JSON object: the folder of the trained model; with --dry-run the plan.
    dry_run
        Read settings, model configuration, tokenizer and tables, and print what the run would take.
    hardware
        For the dry run: a100, h100, h800 or h200, 8 of them unless hardware.devices says otherwise.
    """
    from rich.console import Console

    from tracekit.cli.arguments import print_json, recipe_and_settings
    from tracekit.core.progress import draw_progress
    from tracekit.core.settings import load_settings

    found, settings = recipe_and_settings(recipe, overrides, "trainer", output)
    if dry_run:
        from trainer.planning.plan import plan_run, plan_table

        plans = plan_run(found, settings, hardware)
        if json:
            print_json({"stages": plans})
        else:
            Console().print(*(plan_table(plan) for plan in plans), sep="\n")
        return
    from trainer.settings import TrainSettings
    from trainer.train import train

    run = load_settings(TrainSettings, found, settings)
    with draw_progress() as progress:
        final = train(run, progress=progress)
    if json:
        print_json({"model": final})
    else:
        Console().print(f"{final}", soft_wrap=True, markup=False)
