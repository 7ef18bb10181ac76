"""`tracekit preflight`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracekit.cli.arguments import print_json, split_words

if TYPE_CHECKING:
    from tracekit.study.preflight import PreflightSettings, Rates


def command_preflight(
    model: str, *settings: str, problems: str, output: Path = Path("runs/preflight"), json: bool = False
) -> None:
    """Forecast whether RL can begin from a model on a set of problems, before a GPU-day is spent.

    Samples the model, measures pass@1, 8 and 64, the share of groups with right and wrong rollouts, the share of
    readable answers and lengths, and reads a forecast off the published study's curve. It names what it rests on.

    Example: tracekit preflight Qwen/Qwen2.5-0.5B --problems gsm8k.jsonl take=64 group_size=8 rounds=100 engine=vllm

    Parameters
    ----------
    model
        A model folder or hub name.
    settings
        key=value: those of `tracekit evaluate`, and take, rounds, problems_per_round, group_size of the planned run.
    problems
        A PROBLEMS table, or a problem set in any layout that `tracekit curate` reads.
    output
        Folder of the completions; run again after a kill, it goes on.
    json
        Print one JSON object with rates and forecast.
    """
    from dataclasses import asdict

    from tracekit.core.progress import draw_progress
    from tracekit.core.settings import load_settings
    from tracekit.reading.readers import read_problems
    from tracekit.study.preflight import PreflightSettings, forecast, measure_rates
    from tracekit.study.published import published_result
    from trainer.evaluate import evaluate_model

    plan = load_settings(PreflightSettings, None, split_words(settings).settings)
    table = read_problems(problems).head(plan.take)
    with draw_progress() as progress:
        completions = evaluate_model(model, table, plan.asked(), output, progress)
    rates = measure_rates(completions, plan.group_size)
    lines = forecast(rates, plan, published_result("sealed")["ladder"]["grpo"])
    if json:
        print_json({"rates": asdict(rates), "forecast": lines})
        return
    _print_rates(rates, plan)
    for line in lines:
        print(f"- {line}")


def _print_rates(rates: Rates, plan: PreflightSettings) -> None:
    passes = ", ".join(f"pass@{k} {value:.3g}" for k, value in rates.pass_at.items())
    print(f"{rates.problems} problems, {rates.samples} samples each at temperature {plan.temperatures[0]:g}: {passes}")
    print(
        f"problems with a right sample {100 * rates.reached:.0f} %, groups of {plan.group_size} with signal "
        f"{100 * rates.signal:.0f} %, readable answers {100 * rates.formatted:.0f} %"
    )
    print(
        f"tokens: mean {rates.tokens_mean:.0f}, 95 % below {rates.tokens_95:.0f}, cut at {plan.max_tokens}: "
        f"{100 * rates.cut:.1f} %; not judged: {rates.unknown} samples"
    )
