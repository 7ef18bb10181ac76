"""Think blocks: every notation split the same way, by the verifier and by the segmenter."""

import pytest

from evaluators import Outcome, verify
from evaluators.extraction.thinking import THINK_BLOCKS, opens_thinking, split_thinking, thought_and_answer
from tracekit.text.segment import split_response

BLOCKS = [(block.openings[0], closing) for block in THINK_BLOCKS for closing in block.closings]
HARMONY = "<|channel|>analysis<|message|>add 2<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(("opening", "closing"), BLOCKS)
class TestEveryNotation:
    def test_the_answer_stands_behind_the_block(self, opening, closing):
        response = f"{opening}It is \\boxed{{3}}.{closing}It is 4."
        thought, answer, closed = thought_and_answer(response)
        assert (thought, answer, closed) == ("It is \\boxed{3}.", "It is 4.", True)
        assert verify(response, "4").correct

    def test_an_unclosed_block_has_no_answer(self, opening, closing):
        assert verify(f"{opening}It is \\boxed{{4}}.", "4").outcome is Outcome.NO_ANSWER

    def test_a_block_that_the_prompt_opened_needs_no_opening_tag(self, opening, closing):
        response = f"It is \\boxed{{3}}.{closing}It is 4."
        assert verify(response, "4", think_open=True).correct
        assert verify(response, "4").correct

    def test_the_prompt_opened_it(self, opening, closing):
        assert opens_thinking(f"What is 2 + 2?\nAssistant: {opening}\n")
        assert not opens_thinking(f"What is 2 + 2?\nAssistant: {opening}\n{closing}")

    def test_the_segmenter_splits_alike(self, opening, closing):
        response = f"{opening}Add.{closing}It is 4."
        assert (split_response(response).think, split_response(response).answer) == split_thinking(response)[:2]


def test_thought_without_a_closing_tag_is_no_answer_where_the_prompt_opened_it():
    assert verify(r"It is \boxed{4}.", "4").correct
    assert verify(r"It is \boxed{4}.", "4", think_open=True).outcome is Outcome.NO_ANSWER
    assert verify("4", "4", think_open=True).outcome is Outcome.NO_ANSWER


@pytest.mark.parametrize(
    ("response", "answer", "closed"),
    [
        ("<think>a</reasoning> 5", "", False),  # another notation's tag closes nothing
        ("<think>a</think>5<think>b", "", False),
        ("<think>a</think>5<think>b</think>6", "6", True),
        (HARMONY + "It is 42.<|return|>", "It is 42.", True),
        ("analysisadd 2assistantfinal42", "42", True),
        ("<|begin_of_thought|>a<|end_of_thought|>\n\n<|begin_of_solution|> 42 <|end_of_solution|>", " 42", True),
        ("no tags", "no tags", True),
    ],
)
def test_blocks_that_are_not_plain(response, answer, closed):
    assert thought_and_answer(response)[1:] == (answer, closed)


def test_many_tags_cost_little():
    response = "<think></think>" * 50_000
    assert split_thinking(response).answer == (len(response), len(response))


@pytest.mark.parametrize("padding", ["x" * 1_500_000, "<think></think>" * 100_000])
def test_a_response_of_megabytes_is_split_like_a_short_one(padding):
    assert verify(f"<think>{padding}</think>It is 4.", "4").correct
    assert verify(f"<think>{padding.replace('</think>', '')}It is 4.", "4").outcome is Outcome.NO_ANSWER
    assert verify(f"{padding} It is 4.", "4", think_open="</think>" not in padding).correct is ("</think>" in padding)
