"""Rewards in the call shape of every trainer, and rewards to compose with accuracy.

A reward of accuracy is 1.0 for CORRECT and 0.0 where the response is at fault (WRONG, NO_ANSWER,
UNPARSED_PREDICTION). UNPARSED_GOLD and TIMEOUT say nothing of the response: TRL gets None, which it leaves out of
its means. Trainers that take numbers alone get 0 with a logged warning, since neither may end a run. Every adapter
takes `on_unparsed_gold`: "raise", "skip" (None where the trainer knows it) or "zero".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from evaluators.batch import verify_batch, warn_of_unparsed_golds
from evaluators.extraction.thinking import find_tags, split_thinking
from evaluators.verdict import Outcome, Policy, Verdict
from evaluators.verify import verify

logger = logging.getLogger("evaluators")

#: What a timeout scores where the trainer has no word for "don't know": a bomb must not pay.
TIMEOUT_REWARD = 0.0

#: TRL's reward: (prompts, completions, **columns) -> one number or None a completion.
Reward = Callable[..., list[float | None]]


#: What an adapter does with a gold that cannot be read.
OnUnparsedGold = Literal["raise", "skip", "zero"]


class UnparsedGold(ValueError):
    """The gold cannot be read and the caller asked for an error: mend or drop the row."""


def reward_of(verdict: Verdict) -> float | None:
    """1.0 for CORRECT, 0.0 where the response is at fault, None where nothing can be said."""
    if verdict.outcome in (Outcome.UNPARSED_GOLD, Outcome.TIMEOUT):
        return None
    return 1.0 if verdict.correct else 0.0


def number_of(verdict: Verdict, on_unparsed_gold: OnUnparsedGold = "zero") -> float:
    """`reward_of` for trainers that take numbers alone.

    on_unparsed_gold: "zero" and "skip" score 0 with a logged warning, for a trainer that takes numbers alone cannot
        skip; "raise" raises UnparsedGold.
    """
    if verdict.outcome is Outcome.UNPARSED_GOLD:
        problem = (
            f"the gold {verdict.gold!r:.120} cannot be read ({verdict.reason}); mend or drop the row: "
            "`tracekit audit-gold FILE` lists all such golds"
        )
        if on_unparsed_gold == "raise":
            raise UnparsedGold(problem)
        logger.warning("%s; it scores 0", problem)
        return 0.0
    if verdict.outcome is Outcome.TIMEOUT:
        logger.warning("a verification timed out and scores %g: gold %.80r", TIMEOUT_REWARD, verdict.gold)
        return TIMEOUT_REWARD
    return 1.0 if verdict.correct else 0.0


def rewards_of(verdicts: Sequence[Verdict], on_unparsed_gold: OnUnparsedGold = "skip") -> list[float | None]:
    """`reward_of` of every verdict, where None says "leave out"; unreadable golds as `on_unparsed_gold` says."""
    if on_unparsed_gold == "skip":
        return [reward_of(verdict) for verdict in verdicts]
    unread = Outcome.UNPARSED_GOLD
    return [
        number_of(verdict, on_unparsed_gold) if verdict.outcome is unread else reward_of(verdict)
        for verdict in verdicts
    ]


def text_of(completion: Any) -> str:
    """The text of a completion, plain or a conversation: what its assistant's last message says.

    Raises ValueError for anything else.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, dict):
        completion = [completion]
    if isinstance(completion, Sequence):
        said = [message for message in completion if message.get("role", "assistant") == "assistant"]
        content = said[-1].get("content") if said else ""
        if isinstance(content, list):  # content in parts, text and images
            content = "".join(part.get("text") or "" for part in content)
        return content or ""
    raise ValueError(f"found a completion of type {type(completion).__name__}; expected text or a list of messages")


def question_of(prompt: Any) -> str | None:
    """The question of a prompt: the text itself, or the last user message of a conversation; None for neither."""
    if isinstance(prompt, str) or not isinstance(prompt, Sequence):
        return prompt if isinstance(prompt, str) else None
    said = [message for message in prompt if isinstance(message, Mapping) and message.get("role") == "user"]
    return text_of([{**said[-1], "role": "assistant"}]) if said else None


# --- TRL 1.16: reward_funcs=[accuracy_reward, …] -----------------------------------------------------------------


def accuracy_reward(
    prompts: Sequence[Any] | None = None,
    completions: Sequence[Any] = (),
    *,
    solution: Sequence[Any],
    policy: Policy | None = None,
    think_open: bool | None = None,
    on_unparsed_gold: OnUnparsedGold = "skip",
    **columns: Any,
) -> list[float | None]:
    r"""Reward the completions whose answer equals the column `solution`; a TRL reward function.

    Parameters
    ----------
    prompts, completions : sequence of str or of conversations
        Of a conversation the last user or assistant message is read.
    solution : sequence
        One gold a completion, as `verify` takes it.
    policy : Policy, optional
        What counts as equal.
    think_open : bool, optional
        Whether the chat template opened a think block behind the prompts. None: decided from the end of the prompts'
        texts; for conversations, which do not show what their template adds, from the completions: those of a template
        that opens the block close one that they never opened.
    on_unparsed_gold : {"skip", "raise", "zero"}
        What a gold that cannot be read gives: None, an UnparsedGold error, or 0.0.

    Returns
    -------
    list of float or None
        1.0 for CORRECT; 0.0 for WRONG, RESTATED, NO_ANSWER and UNPARSED_PREDICTION; None, which TRL leaves out of its
        means, for TIMEOUT and UNPARSED_GOLD.

    Warns
    -----
    UnparsedGoldWarning
        Once for the golds that cannot be read, with their rows.

    Examples
    --------
    >>> from evaluators import accuracy_reward
    >>> accuracy_reward(["1 + 1 = ?"] * 2, [r"\boxed{2}", r"\boxed{3}"], solution=["2", "2"])
    [1.0, 0.0]
    """
    texts = [text_of(completion) for completion in completions]
    if think_open is None and prompts is not None and not any(isinstance(prompt, str) for prompt in prompts):
        think_open = opened_by_template(texts)
    verdicts = verify_batch(
        texts,
        solution,
        prompts=None if prompts is None else [question_of(prompt) for prompt in prompts],
        think_open=think_open,
        policy=policy,
        workers=1,
    )
    log_metric = columns.get("log_metric")
    if log_metric is not None and verdicts:
        for outcome in Outcome:
            log_metric(f"verifier/{outcome}", sum(v.outcome is outcome for v in verdicts) / len(verdicts))
    return rewards_of(verdicts, on_unparsed_gold)


def opened_by_template(completions: Sequence[str]) -> bool | None:
    """Whether a batch's completions show that their template opens a think block; None where they do not.

    Such completions close a block that they never opened. A quarter of a batch must do so, and none open one itself,
    so that a single stray tag does not turn its neighbours into thoughts.

    >>> opened_by_template(["2 + 2 = 4</think>4", "It is, well,"])
    True
    """
    first = [tags[0].opens for text in completions if (tags := find_tags(text))]
    closing = first.count(False)
    return True if closing and closing == len(first) and 4 * closing >= len(completions) else None


def format_reward(
    prompts: Sequence[Any] | None = None, completions: Sequence[Any] = (), **columns: Any
) -> list[float | None]:
    """Reward completions that are one think block followed by an answer; a TRL reward function.

    The opening tag may stand in the prompt, where the templates of several models put it.

    Parameters
    ----------
    prompts, completions : sequence of str or of conversations
        Prompts are not read.

    Returns
    -------
    list of float
        1.0 or 0.0 a completion.

    Examples
    --------
    >>> from evaluators import format_reward
    >>> format_reward(completions=["<think>2 + 2 = 4</think>It is 4.", "It is 4."])
    [1.0, 0.0]
    """
    return [1.0 if _thinks_then_answers(text_of(completion)) else 0.0 for completion in completions]


def _thinks_then_answers(text: str) -> bool:
    """Whether a text is one think block, of any notation, and an answer: no text before it, no tag behind it."""
    parts = split_thinking(text)
    if parts.thought is None or not parts.closed or not text[slice(*parts.answer)].strip():
        return False
    tags = find_tags(text)
    opened = [tag for tag in tags if tag.opens]
    if len(tags) - len(opened) != 1 or len(opened) > 1:
        return False
    return not opened or not text[: opened[0].start].strip()


def length_reward(soft_limit: int, hard_limit: int) -> Reward:
    """Make a TRL reward function that penalises long completions (DAPO, arXiv:2503.14476, eq. 13).

    The reward is 0.0 up to `soft_limit`, falls linearly, and is -1.0 from `hard_limit` on.

    Parameters
    ----------
    soft_limit, hard_limit : int
        In tokens where the trainer passes `completion_ids`, else in characters.

    Raises
    ------
    ValueError
        Unless 0 <= soft_limit < hard_limit.

    Examples
    --------
    >>> from evaluators import length_reward
    >>> length_reward(2, 4)(completions=["ab", "abc", "abcdefg"])
    [0.0, -0.5, -1.0]
    """
    if not 0 <= soft_limit < hard_limit:
        raise ValueError(f"found limits {soft_limit} and {hard_limit}; expected 0 <= soft_limit < hard_limit")

    def length_reward(
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] = (),
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        counted: Sequence[Any] = completion_ids if completion_ids is not None else [text_of(c) for c in completions]
        over = [(len(item) - soft_limit) / (hard_limit - soft_limit) for item in counted]
        return [0.0 - min(1.0, max(0.0, share)) for share in over]

    return length_reward


def repetition_reward(words: int = 8, worst: float = -1.0) -> Reward:
    """Make a TRL reward function that penalises repeated n-grams of words.

    The reward is `worst` times 1 - distinct / all n-grams, a share in [0, 1).

    Parameters
    ----------
    words : int
        Words of an n-gram, at least 1.
    worst : float
        The limit of the reward, at most 0.

    Raises
    ------
    ValueError
        Where words < 1 or worst > 0.

    Examples
    --------
    >>> from evaluators import repetition_reward
    >>> repetition_reward(words=2)(completions=["a b a b a b"])
    [-0.6]
    """
    if words < 1 or worst > 0:
        raise ValueError(f"found words={words}, worst={worst}; expected words >= 1 and worst <= 0")

    def repetition_reward(
        prompts: Sequence[Any] | None = None, completions: Sequence[Any] = (), **columns: Any
    ) -> list[float | None]:
        return [worst * repeated_share(text_of(completion), words) for completion in completions]

    return repetition_reward


def repeated_share(text: str, words: int) -> float:
    """Share of the text's n-grams of `words` words that stood before, in [0, 1); 0 for shorter texts."""
    said = text.lower().split()
    total = len(said) - words + 1
    if total < 1:
        return 0.0
    return 1 - len({tuple(said[i : i + words]) for i in range(total)}) / total


def combined_reward(*rewards: tuple[Reward, float]) -> Reward:
    """Make a TRL reward function that is a weighted sum of others.

    Parameters
    ----------
    *rewards : tuple of (reward, float)
        TRL reward functions with their weights.

    Returns
    -------
    callable
        Its value is None where any part is None: the sum of the other parts would be another quantity.

    Raises
    ------
    ValueError
        Where no reward is given.

    Examples
    --------
    >>> from evaluators import accuracy_reward, combined_reward, format_reward
    >>> reward = combined_reward((accuracy_reward, 1.0), (format_reward, 0.2))
    >>> reward(prompts=["1 + 1 = ?"], completions=["<think>Sum.</think>2"], solution=["2"])
    [1.2]
    """
    if not rewards:
        raise ValueError("found no reward; give pairs (reward, weight)")

    def combined_reward(
        prompts: Sequence[Any] | None = None, completions: Sequence[Any] = (), **columns: Any
    ) -> list[float | None]:
        parts = [(reward(prompts=prompts, completions=completions, **columns), weight) for reward, weight in rewards]
        return [_weighted_sum([(values[i], weight) for values, weight in parts]) for i in range(len(completions))]

    return combined_reward


def _weighted_sum(parts: list[tuple[float | None, float]]) -> float | None:
    known = [value * weight for value, weight in parts if value is not None]
    return math.fsum(known) if len(known) == len(parts) else None


# --- verl: reward.custom_reward_function.path=…/evaluators/rewards.py, reward.custom_reward_function.name=compute_score
# (without `reward.` before verl's pull request 5255 of February 2026, which still reads the earlier names) -----------


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Any = None,
    *,
    think_open: bool | None = None,
    on_unparsed_gold: OnUnparsedGold = "zero",
    **_: Any,
) -> float:
    """verl: 1.0 or 0.0 for a response text against `reward_model.ground_truth`.

    extra_info: the row's `extra_info`; its `question`, `problem` or `prompt` is the question.
    think_open: whether the prompt opened a think block; also read from `extra_info["think_open"]`.
    """
    info = extra_info if isinstance(extra_info, Mapping) else {}
    opened = info.get("think_open") if think_open is None else think_open
    verdict = verify(solution_str, ground_truth, prompt=question_in(info), think_open=opened)
    return number_of(verdict, on_unparsed_gold)


# --- OpenRLHF 0.8: --remote_rm_url …/evaluators/rewards.py ---------------------------------------------------------


def reward_func(
    queries: Sequence[str],
    prompts: Sequence[str],
    labels: Sequence[str],
    *,
    think_open: bool | None = None,
    on_unparsed_gold: OnUnparsedGold = "zero",
    **_: Any,
) -> dict[str, Any]:
    """OpenRLHF: tensors (len(queries),) of rewards, and of scores for its dynamic filtering.

    queries: each its prompt and the response; labels: the golds.
    think_open: whether the prompts opened a think block; None: as they end.
    """
    import torch

    responses = [query.removeprefix(prompt) for query, prompt in zip(queries, prompts)]
    verdicts = verify_batch(responses, labels, prompts=prompts, think_open=think_open, workers=1)
    rewards = torch.tensor([number_of(verdict, on_unparsed_gold) for verdict in verdicts], dtype=torch.float32)
    timeouts = torch.tensor([float(verdict.outcome is Outcome.TIMEOUT) for verdict in verdicts])
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"timeouts": timeouts}}


# --- verifiers: Rubric(funcs=[rubric_accuracy]) --------------------------------------------------------------------


def rubric_accuracy(
    completion: Any,
    answer: Any,
    prompt: Any = None,
    think_open: bool | None = None,
    on_unparsed_gold: OnUnparsedGold = "zero",
    **_: Any,
) -> float:
    """verifiers (Rubric of 0.1): 1.0 or 0.0 for a completion against the column `answer`."""
    verdict = verify(text_of(completion), answer, prompt=question_of(prompt), think_open=think_open)
    return number_of(verdict, on_unparsed_gold)


# --- lm-evaluation-harness 0.4: process_results: !function evaluators.rewards.process_results ----------------------


def process_results(
    doc: Mapping[str, Any], results: Sequence[str], *, prompt: str | None = None, think_open: bool | None = None
) -> dict[str, float]:
    """lm-evaluation-harness: {"accuracy", "unknown"} of a document's first result.

    The gold is the document's `answer`, else `gold`, `solution` or `target`, the first that it has; the question, in
    whose own form an answer is RESTATED, its `question`, `problem` or `prompt`. Where the model's template opens a
    think block, the document says so as `think_open`, or a function of your own passes it on. accuracy is NaN where
    nothing can be said, for which `unknown` is 1.0: aggregate with `mean_of_known`.
    Raises ValueError where the document has no gold.
    """
    column = next((name for name in ("answer", "gold", "solution", "target") if name in doc), None)
    if column is None:
        raise ValueError(f"the document has {', '.join(doc)}; expected its gold as answer, gold, solution or target")
    if prompt is None:
        prompt = question_in(doc)
    if think_open is None:
        think_open = doc.get("think_open")
    verdict = verify(results[0], doc[column], prompt=prompt, think_open=think_open)
    if verdict.outcome is Outcome.UNPARSED_GOLD:
        warn_of_unparsed_golds([verdict])
    reward = reward_of(verdict)
    return {"accuracy": math.nan if reward is None else reward, "unknown": float(reward is None)}


def question_in(row: Mapping[str, Any]) -> str | None:
    """The question of a row: its `question`, `problem` or `prompt`, as text or a conversation; None without one."""
    for name in ("question", "problem", "prompt"):
        if row.get(name) is not None:
            return question_of(row[name])
    return None


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; NaN where none is. The aggregation for `process_results`."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
