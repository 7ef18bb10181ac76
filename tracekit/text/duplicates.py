"""Exact and near duplicates.

Near: one-permutation MinHash (Li, Owen and Zhang, 2012) with optimal densification (Shrivastava, 2017),
banding for candidates, and the exact Jaccard index of word n-grams for every candidate: precision is 1 by
construction, recall is the banding's.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracekit.text.shingles import Hashes, changes, distinct, mix, ngrams, normalise, words

#: left < right are row numbers.
PAIRS: dict[str, pl.DataType | type[pl.DataType]] = {"left": pl.Int64, "right": pl.Int64, "jaccard": pl.Float64}

#: 128 bins in 32 bands of 4: two texts of Jaccard 0.8 miss each other with probability (1 - 0.8^4)^32 = 5e-8,
#: of 0.5 with 0.13.
BINS, ROWS = 128, 4
#: Texts hashed at a time, by each thread, to bound memory.
CHUNK = 1000
#: Texts whose shingles are held at a time.
SIGNED_AT_ONCE = 20_000
#: A bucket with more members than this is paired with its first member alone: a boilerplate text that stands
#: a thousand times would else make half a million pairs.
MAX_BUCKET = 64

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


def exact_duplicates(texts: pl.Series, groups: pl.Series | None = None) -> pl.DataFrame:
    """PAIRS of every text that stands before (in its group) with its first occurrence; jaccard is 1."""
    frame = pl.DataFrame(
        {"text": texts, "group": groups if groups is not None else pl.repeat(0, len(texts), eager=True)}
    )
    frame = frame.with_row_index("right").with_columns(pl.col("right").first().over("text", "group").alias("left"))
    repeated = frame.filter(pl.col("left") != pl.col("right"))
    return repeated.select(pl.col("left", "right").cast(pl.Int64), pl.lit(1.0).alias("jaccard"))


def near_duplicates(
    texts: pl.Series, *, threshold: float = 0.8, n: int = 5, groups: pl.Series | None = None
) -> pl.DataFrame:
    """Find the pairs of texts whose word n-grams overlap, by MinHash and then exactly.

    Parameters
    ----------
    texts : polars.Series of String
        The texts.
    threshold : float
        Least Jaccard index of a pair, in (0, 1]. Recall is measured for 0.7 and above.
    n : int
        Words of an n-gram; case is ignored.
    groups : polars.Series, optional
        Only texts of one group are paired, such as the traces of one problem.

    Returns
    -------
    polars.DataFrame
        PAIRS: left, right (row numbers, left < right) and jaccard, sorted.

    Examples
    --------
    >>> import polars as pl
    >>> from tracekit import near_duplicates
    >>> texts = pl.Series(["one two three four five six seven", "one two three four five six seven", "eight nine"])
    >>> near_duplicates(texts, n=3).rows()
    [(0, 1, 1.0)]
    """
    seed = np.zeros(len(texts), np.uint64) if groups is None else groups.hash().to_numpy()
    keys, usable = _band_keys(texts, n, seed)
    candidates = _candidates(keys, np.flatnonzero(usable))
    jaccard = np.concatenate([np.zeros(0), *_of_candidates(texts, candidates, n)])
    pairs = candidates.with_columns(pl.Series("jaccard", jaccard, dtype=pl.Float64))
    return pairs.filter(pl.col("jaccard") >= threshold).sort("left", "right")


def _band_keys(texts: pl.Series, n: int, seed: Hashes) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(N, bands): two texts that agree in a band are candidates; and which texts have a shingle at all.

    Shingles and signatures are held for some thousand texts at a time: they take several times what the keys take.
    """
    keys = np.zeros((len(texts), BINS // ROWS), np.uint64)
    usable = np.zeros(len(texts), bool)
    for start in range(0, len(texts), SIGNED_AT_ONCE):
        part = slice(start, start + SIGNED_AT_ONCE)
        sets = _shingle_sets(texts[part], n)
        signatures = _signatures(sets)
        usable[part] = [len(some) > 0 for some in sets]
        for band in range(BINS // ROWS):
            key = seed[part].copy()
            for column in range(band * ROWS, (band + 1) * ROWS):
                key = mix(key * np.uint64(31) + signatures[:, column])
            keys[part, band] = key
    return keys, usable


def _of_candidates(texts: pl.Series, candidates: pl.DataFrame, n: int) -> Iterator[NDArray[np.float64]]:
    """The Jaccard indices of candidate pairs, some thousand at a time; their shingles are made anew."""
    for start in range(0, candidates.height, SIGNED_AT_ONCE):
        some = candidates[start : start + SIGNED_AT_ONCE]
        rows = pl.concat([some["left"], some["right"]]).unique().sort()
        sets = dict(zip(rows, _shingle_sets(texts[rows], n), strict=True))
        yield np.array([_jaccard(sets[left], sets[right]) for left, right in some.iter_rows()])


def keep_first(rows: int, pairs: pl.DataFrame) -> NDArray[np.int64]:
    """For each row -1 where it is kept, else the kept row it duplicates.

    Greedy in row order: a row goes only where a *kept* row is its duplicate, so a chain a~b~c of which a and c
    differ keeps both ends. A copy (Jaccard index 1) of a row that goes, goes with it: only the first of several copies
    is held against the others.
    """
    duplicate_of = np.full(rows, -1, np.int64)
    earlier: dict[int, list[tuple[int, bool]]] = {}
    for left, right, jaccard in pairs.select("left", "right", "jaccard").iter_rows():
        earlier.setdefault(max(left, right), []).append((min(left, right), jaccard == 1.0))
    for row in sorted(earlier):
        kept = [other for other, _ in earlier[row] if duplicate_of[other] < 0]
        kept += [int(duplicate_of[other]) for other, copy in earlier[row] if copy and duplicate_of[other] >= 0]
        if kept:
            duplicate_of[row] = min(kept)
    return duplicate_of


def _shingle_sets(texts: pl.Series, n: int) -> list[Hashes]:
    """Distinct n-gram hashes of each text, sorted; a text of fewer than n words is one shingle of all its words."""
    chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:  # numpy lets go of the interpreter in what takes the time
        return [hashes for sets in pool.map(partial(_sets_of_chunk, n=n), chunks) for hashes in sets]


def _sets_of_chunk(chunk: pl.Series, n: int) -> list[Hashes]:
    chunk = normalise(chunk)
    found = words(chunk)
    hashes, first = ngrams(found, n)
    bounds = np.searchsorted(found.text[first], np.arange(len(chunk) + 1))
    word_bounds = np.searchsorted(found.text, np.arange(len(chunk) + 1))
    sets: list[Hashes] = []
    for row in range(len(chunk)):
        some = distinct(hashes[bounds[row] : bounds[row + 1]])
        if not len(some):
            short = found.hashes[word_bounds[row] : word_bounds[row + 1]]
            some = mix(np.sum(short * np.arange(1, len(short) + 1, dtype=np.uint64), keepdims=True, dtype=np.uint64))
            some = some[: len(short)]
        sets.append(some)
    return sets


def _signatures(sets: list[Hashes]) -> NDArray[np.uint64]:
    """(N, BINS): the least hash in each bin of the hash's top bits, empty bins borrowed from full ones."""
    shift = np.uint64(64 - (BINS - 1).bit_length())
    signatures = np.full((len(sets), BINS), _EMPTY, np.uint64)
    for row, hashes in enumerate(sets):
        # Sorted hashes: the first of each bin is its least.
        bins = hashes >> shift
        first = changes(bins)
        signatures[row, bins[first].astype(np.int64)] = hashes[first]
    return _densify(signatures)


def _densify(signatures: NDArray[np.uint64]) -> NDArray[np.uint64]:
    full = signatures != _EMPTY
    empty_rows, empty_bins = np.nonzero(~full & full.any(axis=1, keepdims=True))
    attempt = np.uint64(0)
    while len(empty_rows):
        attempt += np.uint64(1)
        # The donor depends on bin and attempt alone, so two equal sets borrow alike.
        donor = (mix(empty_bins.astype(np.uint64) * np.uint64(BINS * 4096) + attempt) % np.uint64(BINS)).astype(
            np.int64
        )
        found = full[empty_rows, donor]
        signatures[empty_rows[found], empty_bins[found]] = signatures[empty_rows[found], donor[found]]
        empty_rows, empty_bins = empty_rows[~found], empty_bins[~found]
    return signatures


def _candidates(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> pl.DataFrame:
    """Pairs of rows that agree in a band; bands are gathered one after the other, each pair once."""
    found = pl.DataFrame(schema={"left": pl.Int64, "right": pl.Int64})
    for band in range(keys.shape[1]):
        pairs = pl.DataFrame(_pairs(keys[rows, band], rows), schema=found.schema, orient="row")
        found = pl.concat([found, pairs]).unique()
    return found.sort("left", "right")


def _pairs(key: Hashes, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    order = np.argsort(key, kind="stable")
    key, rows = key[order], rows[order]
    edges = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1], [True]]))
    pairs: list[tuple[int, int]] = []
    for start, end in pairwise(edges):
        if end - start > 1:
            pairs += _of_bucket([int(r) for r in rows[start:end]])
    return pairs


def _of_bucket(members: list[int]) -> Iterator[tuple[int, int]]:
    firsts = members[:-1] if len(members) <= MAX_BUCKET else members[:1]
    for place, left in enumerate(firsts):
        for right in members[place + 1 :]:
            yield left, right


def _jaccard(a: Hashes, b: Hashes) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)
