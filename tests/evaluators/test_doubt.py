"""What a response takes back, denies, guesses, strikes out or answers twice does not score."""

import pytest

from evaluators import verify

NO_ANSWER = [
    (r"\boxed{2} is wrong.", "2"),
    (r"$\boxed{2}$ is incorrect.", "2"),
    (r"\[\boxed{2}\] This is not correct.", "2"),
    (r"\boxed{5} is not the answer.", "5"),
    (r"\boxed{5} isn't the right answer.", "5"),
    (r"\boxed{5}. No.", "5"),
    (r"\boxed{5} - that's wrong!", "5"),
    (r"It is certainly not \boxed{2}.", "2"),
    (r"The answer cannot be \boxed{2}.", "2"),
    (r"It is anything rather than \boxed{2}.", "2"),
    (r"\boxed{2?}", "2"),
    (r"\boxed{A?}", "A"),
    (r"\boxed{\text{Paris?}}", "\\text{Paris}"),
    (r"\boxed{2}? I doubt it, so 3.", "2"),
    (r"Maybe \boxed{2}.", "2"),
    (r"One candidate is \boxed{2}, another candidate is \boxed{3}.", "3"),
    (r"\boxed{\text{yes, No}}", "yes"),
    (r"\boxed{\text{(C)} \text{ or } 17}", "(C)"),
    (r"\boxed{yes \text{ or } 17}", "yes"),
    (r"\boxed{True; however False}", "True"),
    ("Yes... no wait, No", "yes"),
    ("Yes! Or No.", "yes"),
    ("No, but actually Yes.", "no"),
    ("The answer is 12\u0338", "12"),
    ("\\boxed{1\u03362}", "12"),
    ("\\boxed{1\u200e2}", "12"),
    (r"\boxed{\cancel{12}}", "12"),
    ("The answer is ~~12~~ 13.", "12"),
    ("The answer 12 is wrong.", "12"),
    ("The answer is 12? No.", "12"),
    ("答案不是42。", "42"),
    ("答案是42是错误的。", "42"),
    ("答えは42ではない。", "42"),
    ("Ответ не 42.", "42"),
    ("La respuesta no es 42.", "42"),
    ("Die Antwort ist nicht 42.", "42"),
    ("La réponse n'est pas 42.", "42"),
    ("答案是3或4。", "4"),
    ("Ответ: 3 или 4", "4"),
    ("Die Antwort ist 3 oder 4.", "4"),
    (r"\boxed{5错}", "5"),
    (r"\boxed{5打}", "5"),
    ("Ответ: 42 неверно", "42"),
    (r"\boxed{2} \quad \text{or} \quad \boxed{6}", "6"),
]
ANSWERED = [
    (r"\boxed{7}. Note that \boxed{5} is not the answer.", "7"),
    (r"It is not \boxed{2}; the answer is 3.", "3"),
    (r"Could it be \boxed{2}? Yes.", "2"),
    (r"\boxed{5}. Wait, let me check: 2 + 3 = 5, so it is right.", "5"),
    (r"\boxed{7}, which is not even.", "7"),
    ("The answer is ~~12~~ 13.", "13"),
    ("Yes, because no prime divides it.", "yes"),
    ("No. There are no such primes, yes-men aside.", "no"),
    ("x \u2260 3, so the answer is =\u0338 5 or rather 4? The answer is 4.", "4"),
]


@pytest.mark.parametrize(("response", "gold"), NO_ANSWER)
def test_what_is_taken_back_does_not_score(response, gold):
    assert not verify(response, gold).correct


@pytest.mark.parametrize(("response", "gold"), ANSWERED)
def test_what_stands_scores(response, gold):
    assert verify(response, gold).correct
