"""Agreement of whole rankings with the uncompressed model's, the top weighing most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.hits import check_k
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class RankBiasedOverlap(Measure):
    """Rank-biased overlap with the uncompressed model's ranking, extrapolated from the first k places.

    With A(d) the share that both rankings' first d items have in common, RBO_ext = A(k)·pᵏ + (1 − p)/p · Σ A(d)·pᵈ over d = 1 … k: the
    agreement at depth k is taken to hold below. For p = 0.9 the first ten places carry 86 % of the weight, and those below place
    100 less than 0.003 %.

    Edge cases: where fewer than k items are left beside the history, k is their number; undefined (``None``) where none is left; equal
    scores are ordered by the smaller id, as they are served. Values: one a user, 0 … 1.

    p: how patient the reader is, above 0 and below 1; k: depth; user: which user tower ranks

    Source: Webber, Moffat and Zobel, A similarity measure for indefinite rankings, TOIS 2010, equation 30 (rankings of one depth).
    """

    name: ClassVar[str] = "rank_biased_overlap"
    group: ClassVar[str] = "Same lists"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    capped: ClassVar[bool] = True
    p: float = 0.9
    k: int = 100
    user: UserKind = "pooled"

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise CompressRecError(f"{self.name} needs p above 0 and below 1, but p={self.p} came: 0.9 puts 86 % on the first ten places")

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a user with a held-out item."""
        check_k(self.k)
        depth = min(self.k, len(trial.catalogue))
        wanted = trial.lists(trial.needs_reference(), self.user, depth)
        found = trial.lists(ranker, self.user, depth)
        values = tuple(rbo(one[one >= 0], other[other >= 0], self.p) for one, other in zip(found, wanted, strict=True))
        return Samples(values, {"user": trial.users}, trial.seed, {"depth": depth})


def rbo(one: Tensor, other: Tensor, p: float) -> float | None:
    """Return the extrapolated rank-biased overlap of two rankings (depth,) without repeats; ``None`` where they are empty."""
    depth = len(one)
    if not depth:
        return None
    # an item counts from the depth at which both have shown it
    places = torch.arange(1, depth + 1)
    same = one[:, None] == other[None, :]
    met = torch.maximum(places[:, None], places[None, :])[same]
    common = torch.bincount(met, minlength=depth + 1)[1:].cumsum(0)
    apart = 1 - common.double() / places
    weights = (1 - p) / p * p ** places.double()
    weights[-1] += p**depth
    # in terms of what is apart, so that equal rankings give 1 to the last bit: the weights add up to 1
    return float(1 - (weights * apart).sum())
