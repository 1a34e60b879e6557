"""Normalised discounted cumulative gain of the held-out item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec.hits import hit_ranks, per_user
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class Ndcg(Measure):
    """How high the held-out item stands: 1 / log2(rank + 1) within the first k, 0 below them.

    One item is relevant for each user, so the ideal gain is 1 and no further normalisation is needed. The whole catalogue minus the
    history is ranked. Edge cases: a held-out item that stands in the user's own history cannot be listed and counts 0; equal scores are
    ordered by the smaller id, as they are served. Values: one a user, 0 … 1; always defined.

    k: length of the list; user: which user tower makes it

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002.
    """

    name: ClassVar[str] = "ndcg"
    group: ClassVar[str] = "Accuracy"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    k: int = 10
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a user with a held-out item."""
        return per_user(1 / (hit_ranks(ranker, trial, self.user, self.k) + 1).log2(), trial)
