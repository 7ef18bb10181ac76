"""Hashes of word n-grams of many texts at once, straight from their UTF-8 bytes: numpy, no loop over words.

A word's hash is a polynomial over its bytes modulo 2^64, read off a running sum (Karp and Rabin, 1987):
with H[i] = Σ_{j<i} b_j P^j, the word at bytes [s, e) hashes to (H[e] - H[s]) P^{-s}. P is odd, so it has an
inverse. An n-gram's hash is the same polynomial over its words' hashes, mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

_P = np.uint64(0x9E3779B97F4A7C15)  # odd
_Q = np.uint64(0xC2B2AE3D27D4EB4F)
#: Bytes hashed at a time: a block's running sums and powers stay in the processor's cache.
BLOCK = 1 << 18

# What str.split() parts words at, as far as it is more than one byte long; replaced before hashing.
_WIDE_SPACE = "[\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_IS_SPACE = np.zeros(256, dtype=bool)
_IS_SPACE[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32]] = True


@dataclass(frozen=True)
class Words:
    """The words of a column of texts, in order.

    hashes: (W,), one a word.
    text: (W,), which text it stands in.
    start, end: (W,), its bytes in that text's normalised form.
    """

    hashes: Hashes
    text: Indices
    start: Indices
    end: Indices


def normalise(texts: pl.Series) -> pl.Series:
    """Lower case, and every wide white space a blank; nulls are empty texts."""
    return texts.fill_null("").str.to_lowercase().str.replace_all(_WIDE_SPACE, " ")


def words(texts: pl.Series) -> Words:
    """Words of normalised texts, parted at white space as `str.split()` parts them."""
    offsets = np.concatenate([[0], np.cumsum(texts.str.len_bytes().to_numpy().astype(np.int64) + 1)])
    # A newline after every text keeps the last word of one apart from the first of the next.
    buffer = np.frombuffer(("\n".join(texts.to_list()) + "\n").encode(), dtype=np.uint8)
    space = _IS_SPACE[buffer]
    edges = np.diff(space.astype(np.int8), prepend=np.int8(1))
    start = np.flatnonzero(edges == -1)
    end = np.flatnonzero(edges == 1)
    end = end[len(end) - len(start) :]
    text = np.searchsorted(offsets, start, side="right") - 1
    return Words(_hash_spans(buffer, start, end), text, start - offsets[text], end - offsets[text])


def ngrams(found: Words, n: int) -> tuple[Hashes, Indices]:
    """Hashes of all n-grams, and the index of each one's first word. Texts of fewer than n words have none."""
    count = len(found.hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    inside = np.flatnonzero(found.text[:count] == found.text[n - 1 :])
    total = found.hashes[:count].copy()
    for offset in range(1, n):
        total *= _Q
        total += found.hashes[offset : count + offset]
    return mix(total[inside]), inside


def distinct(hashes: Hashes) -> Hashes:
    """Sorted and without repetition; for the few thousand hashes of a text, three times as fast as np.unique."""
    ordered = np.sort(hashes)
    return ordered[changes(ordered)]


def changes(ordered: Hashes) -> NDArray[np.bool_]:
    """True where a sorted array's value is not the one before."""
    new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return new


def mix(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_spans(buffer: NDArray[np.uint8], start: Indices, end: Indices) -> Hashes:
    hashes = np.empty(len(start), np.uint64)
    first = 0
    while first < len(start):
        base = start[first]
        last = max(int(np.searchsorted(end, base + BLOCK, side="right")), first + 1)
        block = buffer[base : end[last - 1]]
        powers, inverses = _powers(max(BLOCK, 1 << (len(block) - 1).bit_length()))
        running = np.empty(len(block) + 1, np.uint64)
        running[0] = 0
        # Bytes count from 1, so that a leading zero byte is seen.
        np.cumsum((block.astype(np.uint64) + np.uint64(1)) * powers[: len(block)], out=running[1:])
        left, right = start[first:last] - base, end[first:last] - base
        hashes[first:last] = (running[right] - running[left]) * inverses[left]
        first = last
    return mix(hashes)


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    inverse = np.uint64(pow(int(_P), -1, 1 << 64))
    return _running_product(_P, length), _running_product(inverse, length)


def _running_product(base: np.uint64, length: int) -> Hashes:
    product = np.full(length, base, np.uint64)
    product[0] = 1
    return np.cumprod(product, dtype=np.uint64)
