"""How much of a list goes to little-used items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.hits import check_k
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class TailShare(Measure):
    """The share of a user's first k that goes to the tail: the least-used ``share`` of the catalogue, cold items included.

    Neither direction is better by itself: read it beside the uncompressed model's, since compression tends to move lists towards what is
    popular. A list drawn at random has ``share`` in expectation. Edge cases: items with as many uses as the last one of the tail belong
    to it by the same fraction, so that the order of the ids does not matter; undefined (``None``) where no item is left beside the history.
    Values: one a user, 0 … 1.

    k: length of the list; share: of the catalogue that is called the tail, above 0 and below 1; user: which user tower makes the list
    """

    name: ClassVar[str] = "tail_share"
    group: ClassVar[str] = "Same lists"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    k: int = 10
    share: float = 0.8
    user: UserKind = "pooled"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise CompressRecError(f"{self.name} needs a share above 0 and below 1, but share={self.share} came: 0.8 is usual")

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a user with a held-out item."""
        check_k(self.k)
        lists = trial.lists(ranker, self.user, self.k)
        belongs, valid = tail(trial.catalogue.uses, self.share), lists >= 0
        sums = (belongs[lists.clamp_min(0)] * valid).sum(1).tolist()
        values = tuple(found / of if of else None for found, of in zip(sums, valid.sum(1).tolist(), strict=True))
        return Samples(values, {"user": trial.users}, trial.seed, {"share": self.share})


def tail(uses: Tensor, share: float) -> Tensor:
    """Return how far each item belongs to the tail: (items,) float64, 1 or 0, and a fraction for those that tie at its border.

    uses: (items,) how often each was used; the values add up to ``share`` of the items.
    """
    _, group, counts = uses.unique(return_inverse=True, return_counts=True)
    room = share * len(uses) - (counts.cumsum(0) - counts).double()
    return (room / counts).clamp(0, 1)[group]
