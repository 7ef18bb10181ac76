"""Verify one response against one gold: extract, read, compare."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from numbers import Number
from time import perf_counter
from typing import Any, NamedTuple

from evaluators.comparison.compare import Comparison
from evaluators.comparison.question_form import as_option, gold_for_question, policy_for
from evaluators.comparison.restated import restates
from evaluators.comparison.sampling import witness_of_numbers
from evaluators.extraction.boxes import LAST
from evaluators.extraction.candidates import Extracted
from evaluators.extraction.doubt import both_truths, claims_both
from evaluators.extraction.names import concludes_on, name_of
from evaluators.extraction.options import Options, chosen_in_prose, mentions, read_options
from evaluators.extraction.question import without_question
from evaluators.extraction.ranking import candidates
from evaluators.extraction.response import after_thinking, extract, final_answer, last_boxes
from evaluators.extraction.thinking import opens_thinking
from evaluators.extraction.unmarked import second_reading
from evaluators.parsing.golds import acceptable_golds, read_gold_text
from evaluators.parsing.normalize import words
from evaluators.parsing.read_answer import Answer, read_answer
from evaluators.parsing.tree import DeadlineExceeded, Unreadable
from evaluators.parsing.units import content_words
from evaluators.verdict import Asked, Grounds, Outcome, Policy, Verdict, verdict_of

DEFAULT = Policy()
Decision = tuple[Outcome, str | None, str, Grounds]
"""Outcome, prediction, method, and what the reason is written from."""
_GOLD_CACHE = 16_384  # golds kept as read
_TRUTHS = frozenset(("yes", "no", "true", "false"))
_MARKED = frozenset(("box", "boxes", "hashes", "statement"))
_BOXED = frozenset(("box", "boxes", "hashes"))
_YES_OR_NO = re.compile(r"\W{0,9}(yes|no|true|false)\b(?:[.,:;!*]|\s?[—–]|\s-)", re.IGNORECASE)
_MAX_CLAIM = 2000  # characters of a response in which a second claim is looked for
_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # two numbers are not one
_MAX_SHOWN = 200  # characters of an answer that is the gold without being read
_NO_ANSWER = Grounds("The response gives no final answer.")
_AS_WRITTEN = "The answer is the gold as written."
_IS_NOT = "{} is not {}."
_OF_PERSON = "The last sentence says it of the person that the gold names."


def verify(
    response: Any,
    gold: Any,
    *,
    policy: Policy = DEFAULT,
    prompt: str | None = None,
    think_open: bool | None = None,
    options: Sequence[str] | Mapping[str, str] | None = None,
) -> Verdict:
    r"""Decide whether a response's final answer equals the gold.

    Parameters
    ----------
    response : str, bytes or number
        Model output, with or without a think block (`<think>` and the other notations of
        `evaluators.extraction.thinking`). Anything else is NO_ANSWER.
    gold : str, number or list
        The reference answer, or a solution with the answer in a box or behind `####`. A list, also as JSON text, gives
        several acceptable golds.
    policy : Policy
        What counts as equal where mathematics alone does not say.
    prompt : str, optional
        The question as the model saw it. An answer that has the gold's value and is a part of the question, or keeps
        the question's form and not the gold's, is then RESTATED.
    think_open : bool, optional
        Whether the prompt opened a think block: the response then thinks until the closing tag, and has no answer where
        there is none. None: decided from the end of `prompt`.
    options : sequence of str or mapping, optional
        The options of a multiple-choice question: their texts in order, their letters, or texts by letter. The gold
        and the answer may then each be a letter or an option's text, and a choice in prose is read: "I would go with
        (B)". A response that names two options has no answer. ValueError for fewer than 2 options or more than 26.

    Returns
    -------
    Verdict
        Never an exception, whatever the response contains.

    Examples
    --------
    >>> from evaluators import verify
    >>> verify(r"So $x = \boxed{\tfrac12}$.", "0.5").correct
    True
    >>> verify(r"\boxed{x > 2}", r"(1, \infty)").witness is not None
    True
    >>> verify(r"\boxed{\sqrt{242}}", r"11\sqrt2", prompt=r"Simplify $\sqrt{242}$.").outcome
    <Outcome.RESTATED: 'restated'>
    """
    started = perf_counter()
    if think_open is None:
        think_open = prompt is not None and opens_thinking(prompt)
    golds = acceptable_golds(gold)
    if golds is not None:
        return _verify_any(response, golds, policy=policy, prompt=prompt, think_open=think_open, options=options)
    response_text = response if isinstance(response, str) else as_text(response)
    gold_text = gold if isinstance(gold, str) else as_text(gold)
    if gold_text is None:
        decision: Decision = Outcome.UNPARSED_GOLD, None, "extract", Grounds(_not_text("gold", gold))
    elif response_text is None:
        decision = Outcome.NO_ANSWER, None, "extract", Grounds(_not_text("response", response))
    elif options is not None:
        decision = _decide_choice(response_text, gold_text, policy, prompt, think_open, read_options(options))
    else:
        decision = _decide(response_text, gold_text, policy, prompt, think_open)
    outcome, prediction, method, grounds = decision
    shown = repr(type(gold)) if gold_text is None else gold_text
    asked = (candidates, response_text or "", prompt, think_open, policy)
    return verdict_of(outcome, prediction, shown, method, perf_counter() - started, grounds, asked)


def origin_of(response: Any, gold: Any, prompt: str | None, think_open: bool | None, policy: Policy) -> Asked:
    """What the candidates of a verdict from another process are worked out from; the fields are those of `verify`."""
    opened = prompt is not None and opens_thinking(prompt) if think_open is None else think_open
    return candidates, as_text(response) or "", prompt, opened, policy


_RANK = tuple(Outcome(name) for name in ("correct", "restated", "timeout", "unparsed_prediction", "wrong"))


def _verify_any(response: Any, golds: list[Any], **settings: Any) -> Verdict:
    """The best verdict on several acceptable golds: WRONG only where the answer is none of those that can be read."""
    verdicts = [verify(response, gold, **settings) for gold in golds]
    return min(verdicts, key=lambda verdict: _RANK.index(verdict.outcome) if verdict.outcome in _RANK else len(_RANK))


def as_text(value: Any) -> str | None:
    """A response or gold as text, None where it is no text, bytes or number."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    if isinstance(value, int) and value.bit_length() > 10_000:
        return None
    return str(value) if isinstance(value, Number) else None


def _not_text(name: str, value: Any) -> str:
    return f"The {name} is {type(value).__name__}; expected text."


@lru_cache(maxsize=_GOLD_CACHE)
def read_gold(gold: str) -> Answer:
    """A gold as read, once: the content of its box or what follows `####` where it has one, else itself."""
    if len(gold) < 12 and "\\" not in gold:
        return read_gold_text(gold)
    gold = gold[-LAST:]
    if "\\boxed" in gold or "\\fbox" in gold:
        boxed = last_boxes(gold, DEFAULT)[1]
        if boxed is not None:
            return read_answer(boxed.text)
    if "####" in gold:
        return read_gold_text(gold[gold.rfind("####") + 4 :])
    if "\n" in gold and "\\begin" not in gold:
        found = extract(gold, DEFAULT)
        if found is not None:
            return read_answer(found.text)
    return read_gold_text(gold)


class Gold(NamedTuple):
    """A gold as read, and what decides how a response is read for it.

    is_truth: it is yes, no, true or false. holds_number: it has a value, as words and choices have none.
    name: the person that it names, None where it is no name.
    """

    answer: Answer
    is_truth: bool
    holds_number: bool
    name: str | None


@lru_cache(maxsize=_GOLD_CACHE)
def known_gold(gold: str) -> Gold:
    """A gold with what is asked of it for every response, once."""
    answer = read_gold(gold)
    tree = answer.tree
    holds_number = tree is not None and tree.op not in ("text", "choice", "set")
    return Gold(answer, tree is not None and tree.value in _TRUTHS, holds_number, name_of(answer.source))


def _decide(response: str, gold: str, policy: Policy, prompt: str | None, think_open: bool) -> Decision:
    expected = known_gold(gold)
    source = expected.answer.source
    if not expected.answer.key:
        return Outcome.UNPARSED_GOLD, None, "extract", Grounds("The gold is empty.")
    if response == gold and len(gold) < _MAX_SHOWN and not policy.require_box and not think_open:
        return Outcome.CORRECT, source, "text", Grounds("The response is the gold.", rule="whole")
    text = after_thinking(response, policy, think_open)
    if text is None:
        return Outcome.NO_ANSWER, None, "extract", _NO_ANSWER
    if prompt and not text.isspace():
        text = without_question(text, prompt)
        if not text or text.isspace():
            return Outcome.RESTATED, None, "extract", Grounds("The response is the question.")
    found = final_answer(text, policy, source)
    if expected.is_truth and (found is None or found.rule not in _MARKED):
        if claims_both(text[:_MAX_CLAIM]) or (len(text.split()) <= 4 and both_truths(text)):
            return Outcome.NO_ANSWER, None, "extract", Grounds("The response says both yes and no.")
        opening = None if policy.require_box else _YES_OR_NO.match(text)
        found = found if opening is None else Extracted(opening[1], "opening")
    named = expected.name is not None and not policy.require_box and (found is None or found.rule not in _BOXED)
    if named and concludes_on(text, expected.name or ""):
        return Outcome.CORRECT, source, "text", Grounds(_OF_PERSON, rule="name")
    if found is None:
        return Outcome.NO_ANSWER, None, "extract", _NO_ANSWER
    prediction = found.text
    if prediction == source and len(prediction) <= _MAX_SHOWN:
        return Outcome.CORRECT, prediction, "text", Grounds(_AS_WRITTEN, rule=found.rule)
    answer = read_answer(prediction)
    if found.rule == "whole" and expected.holds_number and (answer.tree is None or answer.tree.op == "text"):
        again = second_reading(last_boxes(text, policy)[0])
        if again is not None:
            found, answer = again, read_answer(again.text)
    return _compare(found, answer, expected, policy, prompt)


def _decide_choice(
    response: str, gold: str, policy: Policy, prompt: str | None, think_open: bool, options: Options
) -> Decision:
    """The option chosen against the gold's; where no option is chosen, the answer against the gold option's text."""
    source = read_gold(gold).source
    letters = options.letters_of(source)
    right = _option_of(source, options, policy) if not letters else letters.pop() if len(letters) == 1 else None
    if right is None:
        reason = f"The gold is none of the options {', '.join(options.texts)}."
        return Outcome.UNPARSED_GOLD, None, "extract", Grounds(reason)
    text = after_thinking(response, policy, think_open)
    if text is None:
        return Outcome.NO_ANSWER, None, "extract", _NO_ANSWER
    if prompt:
        text = without_question(text, prompt)
    chosen, rule = _chosen(text, options, policy)
    if not chosen:
        other = options.texts[right]
        return _decide(text, other, policy, None, False) if other else (Outcome.NO_ANSWER, None, "extract", _NO_ANSWER)
    if len(chosen) > 1:
        return Outcome.NO_ANSWER, None, "extract", Grounds("The response leaves open which option it chooses.")
    (letter,) = chosen
    if letter == right:
        return Outcome.CORRECT, letter, "text", Grounds("The response chooses {}.", (letter,), None, rule)
    witness = f"The choices are {right} and {letter}"
    return Outcome.WRONG, letter, "text", Grounds(_IS_NOT, (letter, right), witness, rule)


def _chosen(text: str, options: Options, policy: Policy) -> tuple[set[str], str]:
    """The options that a response chooses, and the rule that found them."""
    found = final_answer(text, policy)
    if found is not None and found.rule in _MARKED:
        letters = options.letters_of(found.text)
        letter = None if letters else _option_of(found.text, options, policy)
        if letters or letter is not None:
            return letters or {str(letter)}, found.rule
        if found.rule in _BOXED:
            return {name for name, denied in mentions(found.text, options) if not denied}, found.rule
    if policy.require_box:
        return set(), ""
    prose = chosen_in_prose(text, options)
    if prose or found is None:
        return prose, "choice"
    letter = _option_of(found.text, options, policy)
    return (set() if letter is None else {letter}), found.rule


def _option_of(answer: str, options: Options, policy: Policy) -> str | None:
    """The only option whose text says the same as an answer, word by word or in value."""
    named = options.named_by(answer)
    tree = read_answer(answer).tree if named is None else None
    if tree is None or tree.op in ("text", "choice"):
        return named
    equal = []
    for letter, text in options.texts.items():
        other = read_answer(text).tree if text else None
        try:
            if other is not None and Comparison(policy).equal(other, tree):
                equal.append(letter)
        except (Unreadable, DeadlineExceeded):
            continue
    return equal[0] if len(equal) == 1 else None


def _compare(found: Extracted, answer: Answer, gold: Gold, policy: Policy, prompt: str | None) -> Decision:
    prediction, rule, expected = found.text, found.rule, gold.answer
    if answer.key and answer.key == expected.key:
        return Outcome.CORRECT, prediction, "text", Grounds(_AS_WRITTEN, rule=rule)
    if expected.tree is None or answer.tree is None:
        return _compare_words(found, answer, expected, policy)
    if rule == "whole" and answer.tree.op == "text" and gold.holds_number:
        return Outcome.NO_ANSWER, None, "extract", _NO_ANSWER
    gold_tree, answer_tree = expected.tree, answer.tree
    if gold_tree.op == answer_tree.op == "num" and gold_tree.value != answer_tree.value:  # what the tiers would find
        witness = partial(witness_of_numbers, gold_tree.value, answer_tree.value)
        return Outcome.WRONG, prediction, "rational", Grounds(_IS_NOT, (prediction, expected.source), witness, rule)
    if prompt:
        policy = policy_for(policy, expected.source, prediction, prompt)
        gold_tree = gold_for_question(gold_tree, answer, prompt)
        answer_tree = as_option(answer, gold_tree, prompt) or answer_tree
    comparison = Comparison(policy, _countable(expected.source, prompt))
    try:
        same = comparison.equal(gold_tree, answer_tree)
    except DeadlineExceeded:
        reason = f"The symbolic tier had no answer within {policy.deadline_seconds:g} s of CPU time."
        return Outcome.TIMEOUT, prediction, "symbolic", Grounds(reason, rule=rule)
    except Unreadable as error:
        reason = _verbatim(f"The comparison is undecided: {error}.")
        return Outcome.UNPARSED_PREDICTION, prediction, comparison.method, Grounds(reason, rule=rule)
    method, texts = comparison.method, (prediction, expected.source)
    if same and prompt and restates(answer, expected._replace(tree=gold_tree), prompt, policy):
        reason = "{} has the value of the gold in the question's form, not in the gold's."
        return Outcome.RESTATED, prediction, method, Grounds(reason, texts[:1], None, rule)
    if same:
        return Outcome.CORRECT, prediction, method, Grounds("{} equals {}.", texts, None, rule)
    if same is None or comparison.witness is None:
        reason = "Whether {} equals the gold is undecided."
        return Outcome.UNPARSED_PREDICTION, prediction, method, Grounds(reason, texts[:1], None, rule)
    return Outcome.WRONG, prediction, method, Grounds(_IS_NOT, texts, comparison.witness, rule)


NO_WORDS: frozenset[str] = frozenset()


@lru_cache(maxsize=_GOLD_CACHE)
def _countable(gold: str, prompt: str | None) -> frozenset[str]:
    """The words of the gold and of the question: what a number may count."""
    return content_words(gold) | (content_words(prompt) if prompt else NO_WORDS)


def _compare_words(found: Extracted, answer: Answer, expected: Answer, policy: Policy) -> Decision:
    """Where one side cannot be read, only equal words decide."""
    prediction, rule = found.text, found.rule
    if _key(answer, policy) == _key(expected, policy) and _key(answer, policy):
        return Outcome.CORRECT, prediction, "text", Grounds("The answer is the gold in the same words.", rule=rule)
    if expected.tree is None:
        grounds = Grounds(f"The gold {{}} {_because(expected)}.", (expected.source,), None, rule)
        return Outcome.UNPARSED_GOLD, prediction, "text", grounds
    if expected.tree.op in ("text", "choice"):
        grounds = Grounds("Whether {} means {} is undecided.", (prediction, expected.source), None, rule)
        return Outcome.UNPARSED_PREDICTION, prediction, "text", grounds
    grounds = Grounds(f"The answer {{}} {_because(answer)}.", (prediction,), None, rule)
    return Outcome.UNPARSED_PREDICTION, prediction, "text", grounds


def _because(answer: Answer) -> str:
    return _verbatim(f"cannot be read: {answer.error}")


def _verbatim(text: str) -> str:
    """A text as part of a template, in which braces mark places."""
    return text.replace("{", "{{").replace("}", "}}")


def _key(answer: Answer, policy: Policy) -> str:
    if len(answer.key) > 5000:
        return answer.key
    key = _SPACE.sub("", answer.key).replace("\\left", "").replace("\\right", "").replace("\\,", "").replace("\\!", "")
    return words(key) if policy.ignore_case and answer.tree is not None else key
