"""Recall of the held-out item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec.hits import hit_ranks, per_user
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class Recall(Measure):
    """Whether the held-out item is among the first k: 1 or 0 a user.

    One item is relevant for each user, so recall and hit rate are the same. The whole catalogue minus the history is ranked. Edge
    cases: a held-out item that stands in the user's own history cannot be listed and counts 0; equal scores are ordered by the smaller
    id, as they are served. Values: one a user; always defined.

    k: length of the list; user: which user tower makes it
    """

    name: ClassVar[str] = "recall"
    group: ClassVar[str] = "Accuracy"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    k: int = 10
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a user with a held-out item."""
        return per_user(hit_ranks(ranker, trial, self.user, self.k).isfinite().double(), trial)
