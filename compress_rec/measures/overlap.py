"""How much of the uncompressed model's lists is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec.hits import check_k
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class Overlap(Measure):
    """The share of the uncompressed model's first k that stands among this one's first k, in whatever order.

    The whole catalogue minus the history is ranked, by both with the same kind of user tower. Edge cases: where fewer than k items are
    left beside the history, the share is of those; undefined (``None``) where none is left. Values: one a user, 0 … 1.

    k: length of the list; user: which user tower makes it
    """

    name: ClassVar[str] = "overlap"
    group: ClassVar[str] = "Same lists"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    k: int = 10
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a user with a held-out item."""
        check_k(self.k)
        wanted = trial.lists(trial.needs_reference(), self.user, self.k)
        found = trial.lists(ranker, self.user, self.k)
        valid = wanted >= 0
        kept = ((wanted[:, :, None] == found[:, None, :]).any(-1) & valid).sum(1).tolist()
        values = tuple(hits / of if of else None for hits, of in zip(kept, valid.sum(1).tolist(), strict=True))
        return Samples(values, {"user": trial.users}, trial.seed)
