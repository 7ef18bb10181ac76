"""Which problems stand in a benchmark: shared word n-grams, shown side by side.

The same matches as a Python set of lower-cased n-grams gives (n = 8 as in s1 and Open-R1), by hash join;
every hit's words are compared before it is reported.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tracekit.text.shingles import Hashes, Words, ngrams, normalise, words

#: An n-gram of a prompt template stands in at least so many prompts; fewer alike may be copies of a benchmark row.
LEAST_PROMPTS = 5
#: Prompts that templates are looked for in: of a longer set, so many evenly spread over it.
SAMPLE = 20_000
#: What stands for a template within a text. At either end of it nothing does.
GAP = "\x1e"

#: problem and benchmark are row numbers; `ngram` is the first words they share; `shared` counts distinct n-grams.
MATCHES: dict[str, pl.DataType | type[pl.DataType]] = {
    "problem": pl.Int64,
    "benchmark": pl.Int64,
    "shared": pl.Int64,
    "ngram": pl.String,
}


def contaminated(problems: pl.Series, benchmark: pl.Series, n: int = 8) -> pl.DataFrame:
    """Find the problems that share n words in a row with a benchmark.

    Parameters
    ----------
    problems, benchmark : polars.Series of String
        Texts. A benchmark text of fewer than n words matches a problem that is the same words.
    n : int
        Words in a row.

    Returns
    -------
    polars.DataFrame
        MATCHES: the rows of problem and benchmark, the number of shared n-grams and one of them.

    Examples
    --------
    >>> import polars as pl
    >>> from tracekit import contaminated
    >>> found = contaminated(pl.Series(["What is the sum of 2 and 3, in all?", "Name a prime."]),
    ...                      pl.Series(["Tell me: what is the sum of 2 and 3, in words?"]), n=5)
    >>> found["problem"].to_list()
    [0]
    """
    problems, benchmark = normalise(problems), normalise(benchmark)
    left, right = words(problems), words(benchmark)
    pairs = pl.concat([_shared_ngrams(left, right, n), _whole_texts(left, right, n)])
    shared = pairs.group_by("problem", "benchmark").agg(
        pl.col("hash").n_unique().cast(pl.Int64).alias("shared"), pl.col("first", "benchmark_first", "length").first()
    )
    shared = shared.sort("problem", "benchmark")
    rows = []
    for problem, row, count, first, other, length in shared.iter_rows():
        mine = _text_of(problems, left, problem, first, length)
        if mine == _text_of(benchmark, right, row, other, length):  # a collision of hashes is no match
            rows.append((problem, row, count, mine))
    return pl.DataFrame(rows, schema=MATCHES, orient="row")


def template_ngrams(problems: pl.Series, n: int, share: float) -> Hashes:
    """Hashes of the word n-grams that stand in more than `share` of the distinct problems: a prompt's fixed words.

    The hashes are sorted. share: in [0, 1]; an n-gram in fewer than LEAST_PROMPTS problems never counts.
    """
    texts = normalise(problems).unique(maintain_order=True)
    texts = texts.gather_every(max(1, len(texts) // SAMPLE))
    found = words(texts)
    hashes, first = ngrams(found, n)
    order = np.lexsort((found.text[first], hashes))
    hashes, text = hashes[order], found.text[first][order]
    once = np.concatenate([[True], (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1])])[: len(hashes)]
    values, counts = np.unique(hashes[once], return_counts=True)
    return values[counts >= max(LEAST_PROMPTS, share * len(texts) + 1e-9)]


def without_templates(texts: pl.Series, templates: Hashes, n: int) -> pl.Series:
    """Normalised texts without the words that a template's n-gram covers; a gap within a text leaves GAP.

    What is left of a problem is compared with what is left of a benchmark row, so that neither the template nor the
    first words after it ("... final answer. Find the value") make two problems alike.
    """
    texts = normalise(texts)
    if not len(templates):
        return texts
    found = words(texts)
    hashes, first = ngrams(found, n)
    covered = np.zeros(len(found.hashes) + 1, np.int64)
    starts = first[np.isin(hashes, templates)]
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + n, -1)
    inside = np.cumsum(covered)[:-1] > 0
    rows = np.unique(found.text[inside])
    bounds = np.searchsorted(found.text, np.arange(len(texts) + 1))
    stripped = [_uncovered(texts[int(row)], found, inside, range(bounds[row], bounds[row + 1])) for row in rows]
    return texts.scatter(rows, stripped) if len(rows) else texts


def _uncovered(text: str, found: Words, inside: np.ndarray, place: range) -> str:
    raw, kept = text.encode(), []
    for word in place:
        if not inside[word]:
            kept.append(raw[found.start[word] : found.end[word]].decode())
        elif kept and kept[-1] != GAP:
            kept.append(GAP)
    return " ".join(kept[:-1] if kept and kept[-1] == GAP else kept)


def _shared_ngrams(left: Words, right: Words, n: int) -> pl.DataFrame:
    mine, mine_first = ngrams(left, n)
    theirs, theirs_first = ngrams(right, n)
    sorted_theirs = np.unique(theirs)
    place = np.searchsorted(sorted_theirs, mine)
    place[place == len(sorted_theirs)] = 0
    hit = sorted_theirs[place] == mine if len(sorted_theirs) else np.zeros(len(mine), bool)
    return _join(mine[hit], left, mine_first[hit], theirs, right, theirs_first).with_columns(
        pl.lit(n, dtype=pl.Int64).alias("length")
    )


def _whole_texts(left: Words, right: Words, n: int) -> pl.DataFrame:
    """Texts of fewer than n words, whole against whole."""
    parts = [pl.DataFrame(schema={**_JOINED, "length": pl.Int64})]
    left_count, right_count = np.bincount(left.text), np.bincount(right.text)
    for length in range(1, n):
        mine, mine_first = ngrams(left, length)
        theirs, theirs_first = ngrams(right, length)
        mine_whole = left_count[left.text[mine_first]] == length
        theirs_whole = right_count[right.text[theirs_first]] == length
        if mine_whole.any() and theirs_whole.any():
            joined = _join(
                mine[mine_whole], left, mine_first[mine_whole], theirs[theirs_whole], right, theirs_first[theirs_whole]
            )
            parts.append(joined.with_columns(pl.lit(length, dtype=pl.Int64).alias("length")))
    return pl.concat(parts)


_JOINED: dict[str, type[pl.DataType]] = {
    "hash": pl.UInt64,
    "problem": pl.Int64,
    "first": pl.Int64,
    "benchmark": pl.Int64,
    "benchmark_first": pl.Int64,
}


def _join(
    mine: np.ndarray, left: Words, mine_first: np.ndarray, theirs: np.ndarray, right: Words, theirs_first: np.ndarray
) -> pl.DataFrame:
    a = pl.DataFrame({"hash": mine, "problem": left.text[mine_first], "first": mine_first})
    b = pl.DataFrame({"hash": theirs, "benchmark": right.text[theirs_first], "benchmark_first": theirs_first})
    b = b.filter(pl.col("hash").is_in(a["hash"].unique().implode()))
    return a.join(b, on="hash", how="inner", maintain_order="left_right").select(_JOINED.keys())


def _text_of(texts: pl.Series, found: Words, row: int, first: int, length: int) -> str:
    raw: bytes = texts[row].encode()
    return b" ".join(raw[found.start[w] : found.end[w]] for w in range(first, first + length)).decode()
