"""What an order of units is worth: removing or keeping the first ones, the best order there is, and the average over all orders.

v is a table of values over subsets, (2**n, questions): see ``coalitions``. An order is (n, questions): unit numbers, the first to go first.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from compress_rec.coalitions import UNITS, Floats, sizes

Order = NDArray[np.int64]


def order_of(attributions: Floats) -> Order:
    """(n, questions) -> (n, questions): units by falling attribution; of equal ones the more recent (the smaller number) comes first."""
    return np.argsort(-attributions, axis=0, kind="stable")


def prefixes(order: Order) -> NDArray[np.int64]:
    """(n, questions) -> (n, questions): the subset of the first k units of each order, for k = 1 … n."""
    return np.cumsum(1 << order, axis=0)


def comprehensiveness(values: Floats, order: Order) -> Floats:
    """(questions,): how far the value falls when the first k units are removed, v(N) - v(N∖T_k), on average over k = 1 … n.

    Source: DeYoung et al., ERASER, ACL 2020; the average over k is the area over the perturbation curve (AOPC).
    """
    whole = len(values) - 1
    return np.asarray((values[-1] - np.take_along_axis(values, whole - prefixes(order), axis=0)).mean(0))


def sufficiency(values: Floats, order: Order) -> Floats:
    """(questions,): how far the value lies below the whole with only the first k units kept, v(N) - v(T_k), on average over k = 1 … n."""
    return np.asarray((values[-1] - np.take_along_axis(values, prefixes(order), axis=0)).mean(0))


def best_comprehensiveness(values: Floats) -> Floats:
    """(questions,): the largest ``comprehensiveness`` that any order reaches, exactly.

    An order is a path through the lattice of subsets, so the best one is a longest path: D[R] = drop(R) + max over j in R of D[R∖j],
    in n 2**n steps in place of n! orders. The bound makes models comparable: Edin et al., Normalized AOPC, ACL 2025.
    """
    n = len(values).bit_length() - 1
    drop = values[-1] - values[::-1]  # the complement of subset R has the number 2**n - 1 - R
    best = np.zeros_like(values)
    for subsets, smaller in _layers(n):
        best[subsets] = drop[subsets] + best[smaller].max(axis=1)
    return np.asarray(best[-1] / max(n, 1))


def mean_comprehensiveness(values: Floats) -> Floats:
    """(questions,): the mean ``comprehensiveness`` over all n! orders, exactly: what attributions without any meaning reach."""
    size = sizes(len(values).bit_length() - 1)
    n = int(size[-1])
    kept = np.stack([values[size == k].mean(0) for k in range(n)]) if n else values[:0]
    return np.asarray(values[-1] - kept.mean(0)) if n else np.zeros(values.shape[1])


@functools.lru_cache(maxsize=UNITS + 4)
def _layers(n: int) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]:
    """The subsets of each size 1 … n, (subsets,), and those with one unit fewer, (subsets, size)."""
    size, done = sizes(n), []
    for k in range(1, n + 1):
        subsets = np.flatnonzero(size == k)
        bits = 1 << np.nonzero((subsets[:, None] >> np.arange(n)) & 1)[1].reshape(len(subsets), k)
        done.append((subsets, subsets[:, None] - bits))
    return tuple(done)
