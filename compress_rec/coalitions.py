"""The user's vector over every subset of the history: the table on which explanations are exact.

A score is a cosine, and so linear in the user's unit vector: whatever is asked of a subset of the history is a product of its vector
with a query. One table a user answers for every item, every margin between two items, and every explainer that removes things.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.trial import Ranker, Trial

Floats = NDArray[np.float64]

UNITS = 12
# A coalition whose members cancel has no direction. Squared length against the sum of the members' own, far above float32's rounding.
CANCELLED = 1e-12


def units_of(history: Sequence[int], limit: int = UNITS) -> tuple[tuple[int, ...], ...]:
    """Return the places of a history that are explained as one unit each, the most recent first.

    history: item indexes, oldest first; limit: the largest number of units
    A history of up to ``limit`` events gives one unit an event. A longer one gives its last ``limit - 1`` events and, as the last
    unit, everything older together: so that the units always make up the whole user, and that there are never more than ``limit``.
    """
    places = range(len(history) - 1, -1, -1)
    if len(places) <= limit:
        return tuple((place,) for place in places)
    return (*((place,) for place in places[: limit - 1]), tuple(places[limit - 1 :]))


@dataclass(frozen=True, eq=False)
class CoalitionTable(ABC):
    """The unit vector of one user for every subset of the history's units: subset number m holds unit j where bit j of m is set.

    empty: (dimensions,) float64, what stands for a user of whom nothing is known, or whose events cancel: the mean of the ranker's
        own user vectors, not brought to unit length, so that a score of the empty set is the mean score that users give. (The cosine of
        the zero vector is undefined; a fixed 0 would be another thing in each ranker, since their cosines are shifted.)
    """

    empty: Floats

    @property
    @abstractmethod
    def n(self) -> int:
        """The number of units."""

    @abstractmethod
    def embeddings(self) -> Floats:
        """E: (2**n, dimensions) float64."""

    def values(self, queries: Floats) -> Floats:
        """(questions, dimensions) -> (2**n, questions): the readout of every subset for linear questions, an item's vector or a margin."""
        return np.asarray(self.embeddings() @ queries.T)

    def shapley(self) -> Floats:
        """Φ = W E: (n, dimensions). ``Φ @ q`` are the units' exact Shapley values for any linear readout q, such as an item's cosine."""
        return np.asarray(shapley_weights(self.n) @ self.embeddings())


@dataclass(frozen=True, eq=False)
class PooledTable(CoalitionTable):
    """The table of a user who is the normalised weighted sum of what they did, without any pass of the encoder.

    parts: (n, dimensions) float64, each unit's share of the sum; an event's weight belongs to it and stays when others are removed
    """

    parts: Floats

    @property
    def n(self) -> int:
        return len(self.parts)

    def embeddings(self) -> Floats:
        sums = subset_sums(self.parts)
        lengths = self._lengths()
        cancelled = lengths == 0
        vectors = sums / np.where(cancelled, 1, lengths)[:, None]
        vectors[cancelled] = self.empty
        return vectors

    def values(self, queries: Floats) -> Floats:
        lengths = self._lengths()
        cancelled = lengths == 0
        found = subset_sums(self.parts @ queries.T) / np.where(cancelled, 1, lengths)[:, None]
        found[cancelled] = self.empty @ queries.T
        return found

    def _lengths(self) -> Floats:
        """(2**n,): the length of every subset's sum from the Gram matrix alone; 0 where its members cancel."""
        gram = self.parts @ self.parts.T
        squares = np.zeros(1)
        for j in range(self.n):
            squares = np.concatenate([squares, squares + gram[j, j] + 2 * subset_sums(gram[j, :j])])
        own = subset_sums(np.diag(gram))
        return np.sqrt(np.where(squares > CANCELLED * own, squares, 0.0))


@dataclass(frozen=True, eq=False)
class MaskGame:
    """Questions put to one user's table, as a function of which units are present: what explainers (and ``shap``) work on.

    queries: (questions, dimensions) float64; key: what names this game, so that a random explainer draws the same in any order of users
    """

    table: CoalitionTable
    queries: Floats
    key: str = ""

    @functools.cached_property
    def values(self) -> Floats:
        """(2**n, questions): the readout of every subset."""
        return self.table.values(self.queries)

    @property
    def n(self) -> int:
        """The number of units."""
        return self.table.n

    def __call__(self, present: NDArray[Any]) -> Floats:
        """(subsets, n) of zeros and ones -> (subsets, questions)."""
        numbers = np.asarray(present).astype(bool) @ (1 << np.arange(self.n))
        return np.asarray(self.values[numbers])


def subset_sums(parts: Floats) -> Floats:
    """(n, …) -> (2**n, …): the sum over every subset, each by one addition to a smaller one."""
    sums = np.zeros((1, *parts.shape[1:]))
    for part in parts:
        sums = np.concatenate([sums, sums + part])
    return sums


@functools.lru_cache(maxsize=UNITS + 4)
def sizes(n: int) -> NDArray[np.int64]:
    """(2**n,): how many units each subset holds."""
    return subset_sums(np.ones(n)).astype(np.int64)


@functools.lru_cache(maxsize=UNITS + 4)
def shapley_weights(n: int) -> Floats:
    """W: (n, 2**n) such that ``W @ v`` are the Shapley values of the game v (Shapley 1953): +|S|!(n-1-|S|)!/n! with the unit, - without."""
    subsets, size = np.arange(2**n), sizes(n)
    share = np.array([1 / (n * comb(n - 1, s)) for s in range(n)])
    weights = np.empty((n, 2**n))
    for j in range(n):
        inside = (subsets >> j) & 1 == 1
        weights[j, inside] = share[size[inside] - 1]
        weights[j, ~inside] = -share[size[~inside]]
    weights.setflags(write=False)
    return weights


def unit_parts(events: Floats, recency: Tensor | None) -> tuple[Floats, tuple[tuple[int, ...], ...]]:
    """Return what each unit adds to the pooled user, (units, dimensions) float64, and the units themselves.

    events: (events, dimensions) float64, the vectors of what the user did, oldest first; recency: as in ``Towers``
    """
    ages = len(events) - 1 - np.arange(len(events))
    weights = np.ones(len(events))
    if recency is not None:
        fading = np.append(recency.double().numpy(), 0.0)
        weights = fading[np.minimum(ages, len(fading) - 1)]
    units = units_of(range(len(events)))
    shares = weights[:, None] * events
    return np.array([shares[list(unit)].sum(0) for unit in units]).reshape(len(units), events.shape[1]), units


def pooled_tables(ranker: Ranker, trial: Trial) -> Callable[[int], tuple[PooledTable, tuple[tuple[int, ...], ...]]]:
    """Return a function from a user's place in the trial to their table and their units (places in the history, most recent first).

    Refuses with ``NotApplicable`` where the ranker has no pooled user. Behaviours and the mean user are taken once for all users.
    """
    behaviours, recency = ranker.pooled_parts(trial.catalogue)
    vectors = behaviours.double().numpy()
    known = trial.user_vectors(ranker, "pooled").double().numpy()
    if not np.isfinite(vectors).all() or not np.isfinite(known).all():
        raise CompressRecError(f"'{ranker.name}' gives NaN or infinity for what users did: it cannot be explained; undo its last step")
    empty = known.mean(0)

    def table(user: int) -> tuple[PooledTable, tuple[tuple[int, ...], ...]]:
        history = list(trial.histories[user])
        parts, units = unit_parts(vectors[history] if history else vectors[:0], recency)
        return PooledTable(empty, parts), units

    return table
