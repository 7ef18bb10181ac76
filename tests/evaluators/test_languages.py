"""Answers in seven languages, and how base models and chat templates end them."""

import pytest

from evaluators import verify
from evaluators.extraction.languages import LANGUAGES, without_counter

CORRECT = [
    ("答案是3页。", "3"),
    ("答案：5个", "5"),
    ("所以答案为42个苹果。", "42"),
    ("最终答案是 $\\frac{1}{2}$。", "1/2"),
    ("因此，体重是192公斤。", "192"),
    ("因此，体重是192公斤。", "192\\text{ kg}"),
    ("一共有3 + 10 = 13只鸟。", "13"),
    ("这本书有 **3页**。", "3"),
    ("\\boxed{3页}", "3"),
    ("答案是3万。", "30000"),
    ("答：25元", "25"),
    ("故选B。", "B"),
    ("答えは42です。", "42"),
    ("答えは、42個です。", "42"),
    ("よって、答えは 1/2 となります。", "\\frac12"),
    ("合計は42円です。", "42"),
    ("Ответ: 42", "42"),
    ("Ответ: 42 яблока.", "42"),
    ("Итак, ответ равен $\\frac{3}{4}$.", "3/4"),
    ("Ответ: 3,5", "3.5"),
    ("Всего получилось 17 книг.", "17"),
    ("La réponse est 42.", "42"),
    ("Réponse : 42", "42"),
    ("La réponse finale est donc 3,5.", "3.5"),
    ("La respuesta es 42.", "42"),
    ("Respuesta final: 42 manzanas", "42"),
    ("El resultado es $x = 4$.", "4"),
    ("Die Antwort ist 42.", "42"),
    ("Die Antwort lautet also 42 Äpfel.", "42"),
    ("Das Ergebnis beträgt 1.234,5.", "1234.5"),
    ("Antwort: 50 Prozent", "50\\%"),
]
WRONG = [
    ("答案是3万。", "3"),
    ("因此，长度是5厘米。", "5\\text{ m}"),
    ("Antwort: 5 Dutzend", "5"),
    ("Ответ: 5 тысяч", "5"),
]
ENGLISH = [
    ("The answer is 72, in total, so the farmer earns that much.", "72"),
    ("The answer is the number that satisfies the equation, which is 5.", "5"),
    ("Final Answer: The maximum number of points that could be in the domain is 19.", "19"),
    ("The final answer is that there are 8 ways.", "8"),
    ("$\\boxed{2} \\quad \\text{and} \\quad \\boxed{6}$", "2,6"),
    ("$\\boxed{2}, \\quad \\boxed{6}$", "2,6"),
    ("\\boxed{35 cm} ++++++ \\boxed{4}", "4"),
    ("So the answer is \\box{A}", "A"),
    ("Both data point to bearing wear.\n\nC", "C"),
    ("Both data point to bearing wear.\n\n(C)", "C"),
    ("#### 18\n\nQuestion: How many?\nAnswer: 3 + 4 = 7\n#### 7", "18"),
    ("#### 18\n\nJohn has 3 apples and gets 4. How many has he?\nHe has 7.\n#### 7", "18"),
    ("The answer is 18.\n\nQ: How many?\nA: The answer is 7.", "18"),
    ("#### 17\nWait, that is wrong. Is it 18? Yes.\n#### 18", "18"),
    ("Question: What is 9 + 9?\nAnswer: 18", "18"),
    ("42<|endoftext|>", "42"),
    ("42</s>", "42"),
    ("The answer is 42.<|im_end|>\n<|im_start|>user\nWhat is 3 + 4? 7", "42"),
    ("<|im_start|>assistant\nThe answer is 42.<|im_end|>", "42"),
    ("cot(pi/20)+cot(pi/24)", "\\cot\\frac{\\pi}{20}+\\cot\\frac{\\pi}{24}"),
]


@pytest.mark.parametrize(("response", "gold"), CORRECT + ENGLISH)
def test_the_answer_is_found(response, gold):
    assert verify(response, gold).correct


@pytest.mark.parametrize(("response", "gold"), WRONG)
def test_words_that_change_the_number_are_no_counters(response, gold):
    assert not verify(response, gold).correct


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("cot(pi/20)+cot(pi/24)-cot(pi/10)", "10"),
        ("csc(6*x)^2*(7*sin(6*x)*cos(7*x)-6*cos(6*x)*sin(7*x))", "7"),
    ],
)
def test_a_plain_formula_is_no_prose(response, gold):
    assert not verify(response, gold).correct


def test_every_language_is_there_once():
    assert len({language.name for language in LANGUAGES}) == len(LANGUAGES) == 7


@pytest.mark.parametrize("text", ["5错", "5吗", "42 неверно", "5或6", "x页"])
def test_what_counts_nothing_stays(text):
    assert without_counter(text) == text
