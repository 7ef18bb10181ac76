"""Verify a list with a pool of worker interpreters: order kept, no case lost to another's crash."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluators.verdict import Outcome, Policy, Verdict, with_origin
from evaluators.verify import origin_of, verify
from evaluators.workers.pool import DeadlineExceeded, Worker, WorkerDied

if TYPE_CHECKING:
    from evaluators.service.judge import Judge

#: A list is begun in this process. What is left after the trial goes to workers where it would take longer than
#: their start and the pipes cost: half a second and about 20 µs a pair, measured.
TRIAL_SECONDS = 1.0
WORTH_SECONDS = 4.0
#: (timeouts of a batch, CPU seconds that a case may use from then on), the most timeouts first. An honest integral
#: takes about 0.1 s.
BREAKER_STEPS = ((256, 0.1), (16, 0.25))
#: Pairs a worker is sent at once: enough that the pipe costs little beside the verdicts.
CHUNK = 64
#: A verdict takes at most the policy's budget of CPU time and a little; a worker that is silent for this much longer,
#: with LOAD_FACTOR processes on each core, is stuck.
GRACE_SECONDS = 30.0
LOAD_FACTOR = 8.0
#: Address space of one batch worker.
MEMORY_BYTES = 4 * 1024**3

#: Called by long work as progress(stage, done, total, note).
Progress = Callable[[str, int, int, str], None]


class UnparsedGoldWarning(UserWarning):
    """Golds that cannot be read: no response to them can be scored."""


def verify_batch(
    responses: Sequence[Any],
    golds: Sequence[Any],
    *,
    prompts: Sequence[str | None] | None = None,
    think_open: bool | None = None,
    policy: Policy | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    judge: Judge | None = None,
) -> list[Verdict]:
    r"""Verify many responses; verdicts come in the order given.

    A worker that dies is replaced and its case tried once more; a case that ends two workers is a TIMEOUT.

    Parameters
    ----------
    responses, golds : sequence
        Of equal length, as `verify` takes them.
    prompts : sequence of str or None, optional
        The question of each pair.
    think_open : bool, optional
        Whether the prompts opened a think block. None: decided from the end of each prompt.
    policy : Policy, optional
        What counts as equal.
    workers : int, optional
        Processes; 0 or 1: this process alone. None: begin in this process, and share the rest among one a core where it
        would take longer than WORTH_SECONDS.
    progress : callable, optional
        Called as progress("verify", done, total, note) on the calling thread, at most ten times a second.
    judge : Judge, optional
        A model that is asked about the undecided verdicts alone.

    Returns
    -------
    list of Verdict

    Raises
    ------
    ValueError
        Where the lengths differ.

    Warns
    -----
    UnparsedGoldWarning
        Once for the golds that cannot be read, with their rows.

    Examples
    --------
    >>> from evaluators import verify_batch
    >>> [verdict.correct for verdict in verify_batch([r"\boxed{1/2}", "The answer is 3."], ["0.5", "4"])]
    [True, False]
    """
    if len(responses) != len(golds):
        raise ValueError(f"found {len(responses)} responses and {len(golds)} golds; give one gold a response")
    if prompts is not None and len(prompts) != len(golds):
        raise ValueError(f"found {len(prompts)} prompts and {len(golds)} golds; give one prompt a response")
    policy = policy or Policy()
    pairs = [Pair(*pair, think_open) for pair in zip(responses, golds, prompts or [None] * len(golds))]
    report = _Reporter(progress, len(golds))
    verdicts: list[Verdict] = []
    if workers is None or workers <= 1:
        trial = TRIAL_SECONDS if workers is None and (os.cpu_count() or 1) > 1 else None
        _verify_here(pairs, policy, report, verdicts, trial)
    if len(verdicts) < len(golds):
        rest = _Batch(pairs[len(verdicts) :], policy)
        verdicts += rest.run(workers or os.cpu_count() or 1, report, len(verdicts))
    report(len(golds), last=True)
    warn_of_unparsed_golds(verdicts)
    return verdicts if judge is None else judge.resolve_all(verdicts, prompts)


class Pair(NamedTuple):
    """What one verification reads; the fields are those of `verify`."""

    response: Any
    gold: Any
    prompt: str | None = None
    think_open: bool | None = None

    def verify(self, policy: Policy) -> Verdict:
        """Return the verdict on this pair."""
        return verify(self.response, self.gold, policy=policy, prompt=self.prompt, think_open=self.think_open)


class Breaker:
    """Cuts the symbolic budget of a batch whose cases keep using it up, so that they cannot starve their neighbours.

    After each number of timeouts in BREAKER_STEPS the cases that follow have no more than the seconds beside it.
    Verdicts of the cheaper tiers, and of honest symbolic cases, which take less, stay as they are.
    """

    def __init__(self, policy: Policy, timeouts: int = 0) -> None:
        self.policy, self.timeouts = policy, timeouts

    def verify(self, pair: Pair) -> Verdict:
        """Return the verdict on a pair within the budget that is left."""
        seconds = next((limit for count, limit in BREAKER_STEPS if self.timeouts >= count), math.inf)
        reduced = seconds < self.policy.deadline_seconds
        verdict = pair.verify(replace(self.policy, deadline_seconds=seconds) if reduced else self.policy)
        self.timeouts += verdict.outcome is Outcome.TIMEOUT
        return verdict


def _verify_here(
    pairs: Sequence[Pair],
    policy: Policy,
    report: _Reporter,
    verdicts: list[Verdict],
    trial_seconds: float | None,
) -> None:
    """Append verdicts until all are there, or until the trial says that workers would be worth their start."""
    started = time.monotonic()
    breaker = Breaker(policy)
    for pair in pairs:
        verdicts.append(breaker.verify(pair))
        report(len(verdicts))
        if trial_seconds is not None and len(verdicts) % CHUNK == 0:
            taken = time.monotonic() - started
            if taken > trial_seconds:
                if taken * (len(pairs) / len(verdicts) - 1) > WORTH_SECONDS:
                    return
                trial_seconds = None


def warn_of_unparsed_golds(verdicts: Sequence[Verdict], shown: int = 5) -> None:
    """Warn once, with the first few rows, where golds could not be read."""
    rows = [row for row, verdict in enumerate(verdicts) if verdict.outcome is Outcome.UNPARSED_GOLD]
    if not rows:
        return
    examples = "; ".join(f"row {row}: {verdicts[row].gold!r:.80} ({verdicts[row].reason})" for row in rows[:shown])
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    warnings.warn(
        f"{len(rows)} of {len(verdicts)} golds cannot be read, nothing can be scored against them: {examples}{more}. "
        "Mend or drop these rows; `tracekit audit-gold` lists them all.",
        UnparsedGoldWarning,
        stacklevel=3,
    )


class _Reporter:
    """Calls `progress` now and then."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.next_time = progress, total, 0.0

    def __call__(self, done: int, last: bool = False) -> None:
        now = time.monotonic()
        if self.progress is not None and (last or now >= self.next_time):
            self.progress("verify", done, self.total, "")
            self.next_time = now + 0.1


class _Batch:
    """One list on its way through the workers. A thread a worker feeds it chunk by chunk."""

    def __init__(self, pairs: Sequence[Pair], policy: Policy) -> None:
        self.pairs, self.policy = pairs, policy
        self.verdicts: list[Verdict | None] = [None] * len(pairs)
        self.chunks = iter(range(0, len(pairs), CHUNK))
        self.lock = threading.Lock()
        self.done = 0
        self.fault: BaseException | None = None

    def run(self, workers: int, report: _Reporter, done_before: int) -> list[Verdict]:
        threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(min(workers, len(self.pairs)))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.05)
                    report(done_before + self.done)
        except BaseException as interruption:
            self.fault = interruption  # the threads stop at their next chunk
            raise
        if self.fault is not None:
            raise self.fault
        complete = [verdict for verdict in self.verdicts if verdict is not None]
        assert len(complete) == len(self.pairs)
        return complete

    def _feed(self) -> None:
        lane = _Lane(self.policy)
        try:
            while self.fault is None:
                with self.lock:
                    start = next(self.chunks, None)
                if start is None:
                    return
                rows = range(start, min(start + CHUNK, len(self.pairs)))
                plain = [row for row in rows if type(self.pairs[row].response) is type(self.pairs[row].gold) is str]
                for row in set(rows) - set(plain):  # answered by the check of its type, and no matter for JSON
                    self.verdicts[row] = self.pairs[row].verify(self.policy)
                for row, verdict in zip(plain, lane.verify([self.pairs[row] for row in plain])):
                    self.verdicts[row] = verdict
                with self.lock:
                    self.done += len(rows)
        except BaseException as fault:  # carried to the caller's thread
            self.fault = fault
        finally:
            lane.close()


class _Lane:
    """One worker, and another in its place whenever it dies."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.timeouts = 0
        self.worker: Worker | None = None

    def verify(self, pairs: list[Pair]) -> list[Verdict]:
        """Verdicts of the pairs. Where the worker dies over them, each is asked for alone."""
        if not pairs:
            return []
        for _ in range(2 if len(pairs) == 1 else 1):
            started = time.monotonic()
            try:
                return self._ask(pairs)
            except (WorkerDied, DeadlineExceeded) as end:
                self.close()
                reason, seconds = f"the case ended two workers: {end}", time.monotonic() - started
        if len(pairs) > 1:
            return [verdict for pair in pairs for verdict in self.verify([pair])]
        return [Verdict(Outcome.TIMEOUT, None, pairs[0].gold, "batch", reason, seconds)]

    def _ask(self, pairs: list[Pair]) -> list[Verdict]:
        if self.worker is None:
            self.worker = Worker("verify", MEMORY_BYTES)
            self.worker.wait_ready()
        self.worker.send([asdict(self.policy), pairs, self.timeouts])
        allowed = (self.policy.deadline_seconds * len(pairs) + GRACE_SECONDS) * LOAD_FACTOR
        kind, value = self.worker.receive(time.monotonic() + allowed)
        if kind == "memory":
            raise DeadlineExceeded("it needs more memory than a worker may use")
        if kind == "error":
            raise RuntimeError(f"verify raised in a worker, which it never should: {value}")
        verdicts = [
            with_origin(Verdict(Outcome(outcome), *rest), rule, origin_of(*pair, self.policy))
            for pair, (rule, outcome, *rest) in zip(pairs, value)
        ]
        self.timeouts += sum(verdict.outcome is Outcome.TIMEOUT for verdict in verdicts)
        return verdicts

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker = None
