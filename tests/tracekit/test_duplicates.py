import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.text.contamination import contaminated
from tracekit.text.duplicates import exact_duplicates, keep_first, near_duplicates
from tracekit.text.shingles import ngrams, normalise, words


def grams(text: str, n: int) -> set[str]:
    parts = text.lower().split()
    return {" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)}


def jaccard(a: str, b: str, n: int = 5) -> float:
    left, right = grams(a, n), grams(b, n)
    return len(left & right) / len(left | right)


def some_texts(count: int = 200, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(500)]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(60, 200))) for _ in range(count // 2)]
    for original in list(texts):
        changed = original.split()
        for place in rng.sample(range(len(changed)), k=rng.randint(0, 4)):
            changed[place] = "X"
        texts.append(" ".join(changed))
    return texts


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="aB ä你\n\t\u00a0\u2003\x1c.", max_size=30), min_size=1, max_size=6), st.integers(1, 4)
)
def test_hashed_ngrams_are_equal_where_the_ngrams_are(texts: list[str], n: int) -> None:
    found = words(normalise(pl.Series(texts)))
    assert np.bincount(found.text, minlength=len(texts)).tolist() == [len(t.lower().split()) for t in texts]
    hashes, first = ngrams(found, n)
    of_text = [{int(h) for h, f in zip(hashes, first) if found.text[f] == row} for row in range(len(texts))]
    for i, a in enumerate(texts):
        for j, b in enumerate(texts):
            assert len(of_text[i] & of_text[j]) == len(grams(a, n) & grams(b, n))


def test_near_duplicates_are_those_of_brute_force() -> None:
    texts = some_texts()
    truth = {(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts)) if jaccard(texts[i], texts[j]) >= 0.8}
    pairs = near_duplicates(pl.Series(texts), threshold=0.8)
    assert {(a, b) for a, b, _ in pairs.iter_rows()} == truth
    assert len(truth) > 50
    for a, b, value in pairs.head(20).iter_rows():
        assert value == pytest.approx(jaccard(texts[a], texts[b]))


def test_near_duplicates_hold_all_that_datasketch_finds() -> None:
    datasketch = pytest.importorskip("datasketch")
    texts = some_texts(100, seed=1)
    index = datasketch.MinHashLSH(threshold=0.8, num_perm=128)
    theirs = set()
    for row, text in enumerate(texts):
        sketch = datasketch.MinHash(num_perm=128)
        sketch.update_batch([g.encode() for g in grams(text, 5)])
        theirs |= {(other, row) for other in index.query(sketch)}
        index.insert(row, sketch)
    ours = {(a, b) for a, b, _ in near_duplicates(pl.Series(texts), threshold=0.8).iter_rows()}
    assert {(a, b) for a, b in theirs if jaccard(texts[a], texts[b]) >= 0.8} <= ours


def test_only_texts_of_one_group_are_paired() -> None:
    text = " ".join(f"w{i}" for i in range(30))
    pairs = near_duplicates(pl.Series([text, text, text]), groups=pl.Series(["a", "b", "a"]))
    assert pairs.rows() == [(0, 2, 1.0)]
    assert exact_duplicates(pl.Series([text, text, text]), pl.Series(["a", "b", "a"])).rows() == [(0, 2, 1.0)]


def test_short_and_empty_texts_match_whole_or_not_at_all() -> None:
    assert near_duplicates(pl.Series(["two words", "two  Words", "words two", "", "", None])).rows() == [(0, 1, 1.0)]


def test_a_chain_keeps_both_ends() -> None:
    pairs = pl.DataFrame({"left": [0, 1], "right": [1, 2], "jaccard": [0.9, 0.9]})
    assert keep_first(3, pairs).tolist() == [-1, 0, -1]


def test_a_copy_of_a_row_that_goes_goes_with_it() -> None:
    pairs = pl.DataFrame({"left": [0, 1], "right": [1, 2], "jaccard": [0.9, 1.0]})
    assert keep_first(3, pairs).tolist() == [-1, 0, 0]


def test_contamination_finds_what_a_set_of_ngrams_finds() -> None:
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(300)]
    questions = [" ".join(rng.choices(vocabulary, k=rng.randint(8, 40))) for _ in range(60)]
    problems = [" ".join(rng.choices(vocabulary, k=rng.randint(8, 60))) for _ in range(200)]
    for row in range(0, 200, 9):
        part = rng.choice(questions).split()
        start = rng.randrange(max(1, len(part) - 8))
        problems[row] += " \n\u00a0" + "\t ".join(part[start : start + 9]).upper()
    truth = {
        (p, q): len(both)
        for p, problem in enumerate(problems)
        for q, question in enumerate(questions)
        if (both := grams(problem, 8) & grams(question, 8))
    }
    found = contaminated(pl.Series(problems), pl.Series(questions))
    assert {(p, q): shared for p, q, shared, _ in found.iter_rows()} == truth
    assert len(truth) >= 20
    assert all(len(ngram.split()) == 8 for ngram in found["ngram"])


def test_a_benchmark_question_shorter_than_the_ngram_matches_whole() -> None:
    found = contaminated(pl.Series(["What is 2 + 2 ?", "what IS  2 + 2 ? please"]), pl.Series(["what is 2 + 2 ?"]))
    assert found.select("problem", "benchmark", "ngram").rows() == [(0, 0, "what is 2 + 2 ?")]
