"""Table rows → token rows → micro-batches.

A row is prompt and response in one, padded on the right only: attention is then plainly causal, no mask
is needed, and the fast kernels are taken.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tracekit.core.prompts import (
    Prompt,
    PromptError,
    bos_ids,
    encode_texts,
    make_prompts,
    opened_characters,
    print_prompts,
    stop_ids,
)
from tracekit.core.tables import Schema, TableError, read_table
from trainer.objectives.batch import Batch, Role
from trainer.settings import DataSettings

#: Rows of a table that are tokens as Python's lists at one time.
ENCODED_AT_ONCE = 1024


class SequenceError(ValueError):
    """A row cannot be made into tokens: the message says which, why, and which setting decides it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: prompt and response tokens, and what RL knows of the response.

    token_ids: prompt, then response with EOS; of rows made from a table an array of 32-bit integers, 4 bytes a token.
    prompt_length: tokens of the prompt, BOS counted; 0 < it for
    all but language modelling, where token 0 has nothing before it and is never scored.
    off_policy: leading response tokens that the policy did not write (a teacher's or a replayed row: all of them).
    replayed: the off-policy tokens are an earlier policy's own, whose log-probs are old_log_probs.
    advantage: of the row. Log-probs: one a response token, None where not known; a teacher's row has no old ones.
    documents: of a packed row, (start, first scored token) of each; () for one document.
    role, teacher_role: of the tokens that the policy wrote, and of the leading ones that it did not. weight,
    clone_weight, entropy_exponent: as in Batch. masked: a truncated response, left out of the loss and not counted in
    a mean over tokens.
    """

    token_ids: Sequence[int]
    prompt_length: int
    off_policy: int = 0
    advantage: float = 0.0
    old_log_probs: Sequence[float] | None = None
    ref_log_probs: Sequence[float] | None = None
    recorded_log_probs: Sequence[float] | None = None  # the teacher's own
    importance: Sequence[float] | None = None  # weight of each response token: truncated trainer ÷ engine probability
    teacher_log_probs: Sequence[float] | None = None  # another model's, of this row's tokens
    replayed: bool = False
    documents: tuple[tuple[int, int], ...] = ()
    role: Role = Role.SURROGATE
    teacher_role: Role = Role.SURROGATE
    weight: float = 1.0
    clone_weight: float = 1.0
    entropy_exponent: float = 0.0
    masked: bool = False

    @property
    def response_length(self) -> int:
        """Tokens of the response, EOS counted."""
        return len(self.token_ids) - self.prompt_length

    @property
    def surrogate_tokens(self) -> int:
        """Response tokens that the reductions of the policy gradient count: all but a teacher's outside of it."""
        return self.response_length - (0 if self.teacher_role.acts else self.off_policy)

    @property
    def cloned_tokens(self) -> int:
        """Response tokens whose −log p is minimised."""
        return self.off_policy if self.teacher_role.clones else 0

    @property
    def has_gradient(self) -> bool:
        """Whether policy gradient or cloning move a weight by this row."""
        acts = self.role.acts if self.off_policy < self.response_length else False
        acts = acts or (self.teacher_role.acts and self.off_policy > 0)
        moved = self.advantage != 0 or self.teacher_log_probs is not None
        return (acts and moved and self.weight != 0) or self.cloned_tokens * self.clone_weight != 0

    @property
    def left_out(self) -> bool:
        """Whether no token of the row trains, by entropy and KL neither."""
        own_out = self.role is Role.LEFT_OUT or self.off_policy == self.response_length
        return own_out and (self.teacher_role is Role.LEFT_OUT or not self.off_policy)

    @property
    def scored_tokens(self) -> int:
        """Tokens that a loss can see: the response's, less those with nothing before them."""
        return len(self.token_ids) - sum(scored - start for start, scored in self.parts)

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(start, first scored token) of each document; token 0 has nothing before it and is never scored."""
        return self.documents or ((0, max(self.prompt_length, 1)),)


# Text → tokens


def prompts_ids(
    tokenizer: PreTrainedTokenizerBase, problems: Sequence[str], data: DataSettings
) -> tuple[list[str], list[list[int]]]:
    """Return each prompt's printed text and its tokens, as `tracekit.core.prompts` makes them."""
    prompts = _prompts(tokenizer, problems, data)
    return [prompt.text for prompt in prompts], [prompt.token_ids for prompt in prompts]


def _prompts(tokenizer: PreTrainedTokenizerBase, problems: Sequence[str], data: DataSettings) -> list[Prompt]:
    try:
        return make_prompts(tokenizer, problems, data.prompt)
    except PromptError as error:
        raise SequenceError(f"data: {error}") from error


def prompt_text(tokenizer: PreTrainedTokenizerBase, problem: str, data: DataSettings) -> str:
    """Return the prompt as the chat template prints it, up to where the response begins; the problem without one."""
    try:
        return print_prompts(tokenizer, [problem], data.prompt)[0]
    except PromptError as error:
        raise SequenceError(f"data: {error}") from error


def responses_ids(
    tokenizer: PreTrainedTokenizerBase, responses: Sequence[str], printed: Sequence[str], data: DataSettings
) -> list[list[int]]:
    """Each response's tokens with one end of turn behind them.

    printed: the prompts' texts. Where one ends in an opening think tag, its response's own is stripped, once.
    """
    ends = response_ends(tokenizer, data)
    found = []
    own = [response[opened_characters(prompt, response) :] for response, prompt in zip(responses, printed)]
    for ids in encode_texts(tokenizer, own):
        while ids and ids[-1] in ends:
            ids.pop()
        found.append([*ids, ends[0]])
    return found


def response_ends(
    tokenizer: PreTrainedTokenizerBase, data: DataSettings, generation_ends: Sequence[int] = ()
) -> tuple[int, ...]:
    """The ids that end a response, the one that targets end with first.

    generation_ends: those of the model's generation configuration. Raises SequenceError where there is none at all.
    """
    try:
        ends = stop_ids(tokenizer, data.prompt, generation_ends)
    except PromptError as error:
        raise SequenceError(f"data: {error}") from error
    if not ends:
        raise SequenceError("the tokenizer has no eos_token; set one, or no response can end.")
    return ends


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that ends a response. Raises SequenceError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise SequenceError("the tokenizer has no eos_token; set one, or no response can end.")
    return int(tokenizer.eos_token_id)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills rows up; the EOS where the tokenizer has no own. No loss ever sees it."""
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else eos_id(tokenizer)


# Tables → rows


def read_input(path: Path, schema: Schema, name: str) -> pl.DataFrame:
    """Read a table of `[data]`. Raises TableError, which names `tracekit curate` for a published data set."""
    try:
        return read_table(path, schema, name)
    except TableError as error:
        if not path.is_file() or "no column problem_id" not in str(error):
            raise
        raise TableError(
            f"data.{name} is {path}, a data set as it is published and no {name} table. Make problems.parquet and "
            f"curated.parquet from it: tracekit curate data={path}. ({error})"
        ) from error


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows made from a table: row i from table row `origin[i]`; what was left out and why, counted.

    think_open: of problems' rows, whether each prompt ends inside a think block that it opened.
    """

    rows: list[Row]
    origin: list[int]
    skipped: Counter[str]
    think_open: list[bool] = field(default_factory=list)


def encode_curated(
    curated: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, data: DataSettings, *, recorded: bool = False
) -> Encoded:
    """A row for each CURATED row that is within the limits; those over are skipped and counted, or an error.

    recorded: take the teacher's token_log_probs along; a row without them, or with another number than the
    response has tokens, is skipped and counted too.
    """
    rows, origin, skipped = [], [], Counter[str]()
    for start in range(0, curated.height, ENCODED_AT_ONCE):
        part = curated.slice(start, ENCODED_AT_ONCE)
        printed, prompts = prompts_ids(tokenizer, part["problem"].to_list(), data)
        targets = responses_ids(tokenizer, part["response"].to_list(), printed, data)
        named = part.select("trace_id", "token_log_probs").iter_rows()
        for index, ((trace, written), prompt, target) in enumerate(zip(named, prompts, targets), start):
            log_probs = _aligned(written, len(target)) if recorded else None
            reason = over_long(len(prompt), len(target), data)
            if reason is None and recorded and log_probs is None:
                reason = "no recorded log-probs, or not one a token"
            if reason is not None:
                _skip(f"trace {trace}", reason, data, skipped)
                continue
            rows.append(_curated_row(prompt, target, log_probs))
            origin.append(index)
    return Encoded(rows, origin, skipped)


def _curated_row(prompt: Sequence[int], target: Sequence[int], log_probs: Sequence[float] | None) -> Row:
    recorded = None if log_probs is None else array("f", log_probs)
    return Row(token_array([*prompt, *target]), len(prompt), off_policy=len(target), recorded_log_probs=recorded)


def token_array(ids: Iterable[int]) -> array[int]:
    """Token ids as 32-bit integers: 4 bytes each, where a list of Python's takes 36."""
    return array("i", ids)


def encode_problems(problems: Sequence[str], tokenizer: PreTrainedTokenizerBase, data: DataSettings) -> Encoded:
    """A row of the prompt alone for each problem that is within data.prompt_tokens."""
    rows, origin, skipped, think_open = [], [], Counter[str](), []
    for index, (problem, prompt) in enumerate(zip(problems, _prompts(tokenizer, problems, data))):
        reason = over_long(len(prompt.token_ids), 0, data)
        if reason is not None:
            _skip(f"problem {problem[:60]!r}", reason, data, skipped)
            continue
        rows.append(Row(token_array(prompt.token_ids), len(prompt.token_ids)))
        origin.append(index)
        think_open.append(prompt.think_open)
    return Encoded(rows, origin, skipped, think_open)


def encode_text(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, data: DataSettings) -> Encoded:
    """Documents for language modelling: BOS where the tokenizer has one, the text, EOS; packed where asked for.

    The limit of a document is prompt_tokens + response_tokens, or pack_tokens.
    """
    before, end = bos_ids(tokenizer), eos_id(tokenizer)
    limit = data.pack_tokens or data.prompt_tokens + data.response_tokens
    rows, origin, skipped = [], [], Counter[str]()
    for index, ids in enumerate(encode_texts(tokenizer, texts)):
        ids = [*before, *ids, end]
        if len(ids) > limit or len(ids) < 2:
            reason = f"document over {limit} tokens" if len(ids) > limit else "empty document"
            _skip(f"document {index}", reason, data, skipped)
            continue
        rows.append(Row(token_array(ids), 0))
        origin.append(index)
    if data.pack_tokens is not None:
        return pack(Encoded(rows, origin, skipped), data.pack_tokens)
    return Encoded(rows, origin, skipped)


def pack(encoded: Encoded, tokens: int) -> Encoded:
    """Whole documents in rows of at most `tokens`, in the order of the table; `origin` is the first document's.

    A document goes into the first of the last sixteen open rows that has room: rows are some 97 % full, and
    neighbours of the table stay neighbours.
    """
    open_rows: list[tuple[int, list[int]]] = []
    done: list[list[int]] = []
    for index, row in enumerate(encoded.rows):
        length = len(row.token_ids)
        place = next((i for i, (used, _) in enumerate(open_rows) if used + length <= tokens), None)
        if place is None:
            open_rows.append((length, [index]))
            if len(open_rows) > 16:
                done.append(open_rows.pop(0)[1])
        else:
            used, members = open_rows[place]
            open_rows[place] = (used + length, [*members, index])
    done += [members for _, members in open_rows]
    rows = [join([encoded.rows[i] for i in members]) for members in done]
    return Encoded(rows, [encoded.origin[members[0]] for members in done], encoded.skipped)


def join(rows: Sequence[Row]) -> Row:
    """Rows laid one after another in one; attention and positions stay inside each. Log-probs are not carried over."""
    ids: list[int] = []
    documents: list[tuple[int, int]] = []
    for row in rows:
        documents += [(len(ids) + start, len(ids) + scored) for start, scored in row.parts]
        ids.extend(row.token_ids)
    return Row(token_array(ids), 0, documents=tuple(documents))


def preference_pairs(curated: pl.DataFrame, per_problem: int, seed: int) -> list[tuple[int, int]]:
    """(chosen, rejected) row numbers of `curated`: right × wrong traces of a problem, in a seeded order.

    At most `per_problem` a problem. Problems without both kinds give none.
    """
    by_problem: dict[str, tuple[list[int], list[int]]] = {}
    for index, (problem, correct) in enumerate(curated.select("problem_id", "correct").iter_rows()):
        if correct is not None:
            by_problem.setdefault(problem, ([], []))[0 if correct else 1].append(index)
    pairs = []
    for problem, (right, wrong) in by_problem.items():
        crossed = [(chosen, rejected) for chosen in right for rejected in wrong]
        random.Random(f"pairs/{seed}/{problem}").shuffle(crossed)
        pairs += crossed[:per_problem]
    return pairs


def over_long(prompt: int, response: int, data: DataSettings) -> str | None:
    """Why a row of so many tokens is over its limits, or None."""
    if prompt > data.prompt_tokens:
        return f"prompt over {data.prompt_tokens} tokens"
    if response > data.response_tokens:
        return f"response over {data.response_tokens} tokens"
    return None


def _skip(what: str, reason: str, data: DataSettings, skipped: Counter[str]) -> None:
    if data.over_long == "error":
        raise SequenceError(f"{what}: {reason}; raise the limit under [data], or set data.over_long to skip.")
    skipped[reason] += 1


def _aligned(written: Sequence[float] | None, tokens: int) -> list[float] | None:
    if written is None or len(written) not in (tokens, tokens - 1):
        return None
    return [*written, *[0.0] * (tokens - len(written))]  # an EOS that was not recorded is taken as certain


# Rows → batches


def until_eos(token_ids: Tensor, eos: int) -> Tensor:
    """True up to the first EOS of each row, itself counted; the whole row where there is none: (B, T) → (B, T)."""
    ended = (token_ids == eos).long().cumsum(-1) - (token_ids == eos).long()
    return ended == 0


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in groups, longest first, such that rows × longest row ≤ budget; a longer row stands alone."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def without_padding(rows: Sequence[Row], tokens: int) -> list[Row]:
    """The rows laid into one another's padding: joined rows of at most `tokens`, longest first, first fit."""
    bins: list[tuple[int, list[Row]]] = []
    for row in sorted(rows, key=lambda row: -len(row.token_ids)):
        length = len(row.token_ids)
        for place, (used, members) in enumerate(bins):
            if used + length <= tokens:
                members.append(row)
                bins[place] = (used + length, members)
                break
        else:
            bins.append((length, [row]))
    return [join(members) for _, members in bins]


def collate(rows: Sequence[Row], pad: int, device: torch.device | str = "cpu") -> Batch:
    """Rows side by side, padded on the right with `pad`."""
    longest = max(len(row.token_ids) for row in rows)
    lengths = torch.tensor([len(row.token_ids) for row in rows])
    off = torch.tensor([row.prompt_length + row.off_policy for row in rows])
    column = torch.arange(longest)
    completion = column < lengths[:, None]
    for index, row in enumerate(rows):
        for start, scored in row.parts:
            completion[index, start:scored] = False
    packed = any(row.documents for row in rows)
    off_policy = completion & (column < off[:, None])
    batch = Batch(
        input_ids=_padded([row.token_ids for row in rows], longest, pad),
        completion_mask=completion,
        off_policy_mask=off_policy,
        replay_mask=torch.tensor([[row.replayed] for row in rows]),
        advantage=torch.tensor([[row.advantage] for row in rows]),
        position_ids=torch.stack([_positions(row, longest) for row in rows]) if packed else None,
        old_log_prob=_per_token(rows, "old_log_probs", longest),
        ref_log_prob=_per_token(rows, "ref_log_probs", longest),
        recorded_log_prob=_per_token(rows, "recorded_log_probs", longest),
        importance=_per_token(rows, "importance", longest),
        teacher_log_prob=_per_token(rows, "teacher_log_probs", longest),
        surrogate_mask=_tokens_that(rows, completion, off_policy, "acts", usual=True),
        cloned_mask=_tokens_that(rows, completion, off_policy, "clones", usual=False),
        weight=_per_row(rows, "weight", usual=1.0),
        clone_weight=_per_row(rows, "clone_weight", usual=1.0),
        entropy_exponent=_per_row(rows, "entropy_exponent", usual=0.0),
    )
    return to_device(batch, device)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The same batch on a device."""
    if str(device) == "cpu":
        return batch
    moved: dict[str, Any] = {
        name: None if (value := getattr(batch, name)) is None else value.to(device, non_blocking=True)
        for name in Batch.__slots__
    }
    return Batch(**moved)


def _padded(lists: Iterable[Sequence[int]], longest: int, pad: int) -> Tensor:
    return torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in lists])


def _positions(row: Row, longest: int) -> Tensor:
    starts = torch.zeros(longest, dtype=torch.long)
    begun = [start for start, _ in row.parts]
    for start in (*begun, len(row.token_ids)):  # the padding is a document of its own
        starts[start:] = start
    return torch.arange(longest) - starts


def _tokens_that(
    rows: Sequence[Row], completion: Tensor, off_policy: Tensor, what: str, *, usual: bool
) -> Tensor | None:
    """(B, L), True on completion tokens whose role `acts` or `clones`; None where the usual answer holds for all."""
    teacher = [getattr(row.teacher_role, what) if row.off_policy else usual for row in rows]
    own = [getattr(row.role, what) for row in rows]
    if all(answer is usual for answer in (*teacher, *own)):
        return None
    return completion & torch.where(off_policy, torch.tensor(teacher)[:, None], torch.tensor(own)[:, None])


def _per_row(rows: Sequence[Row], name: str, *, usual: float) -> Tensor | None:
    """(B, 1), or None where all rows have the usual number."""
    values = [getattr(row, name) for row in rows]
    return None if all(value == usual for value in values) else torch.tensor(values)[:, None]


def _per_token(rows: Sequence[Row], name: str, longest: int) -> Tensor | None:
    if all(getattr(row, name) is None for row in rows):
        return None
    found = torch.zeros(len(rows), longest)
    for index, row in enumerate(rows):
        values = getattr(row, name)
        if values is not None:
            found[index, row.prompt_length : len(row.token_ids)] = torch.tensor(values, dtype=torch.float32)
        elif row.off_policy < row.response_length and name != "recorded_log_probs":
            raise SequenceError(f"a row with on-policy tokens has no {name} beside rows that have; compute them first.")
    return found
