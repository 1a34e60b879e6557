"""How often an item is recommended after its text was edited, against before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from compress_rec.attack import attack
from compress_rec.hits import check_k
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class Exposure(Measure):
    """The lift of exposure that an edit of an item's text gains: 1 is no gain, 2 is twice as many lists.

    Exposure is the share of the held-out users in whose first k the item stands; the lift is (after + 1/users) / (before + 1/users), the
    one user more keeping an item that nobody was shown from dividing by 0. Read it beside ``edit=benign_edit``: only what an attack
    gains above the same number of random words is its own. The edits know the catalogue's texts and training counts and no user, so
    all users are for the measuring. Where exposure is 0 before and after, ``exposure_rank`` still sees the item move.

    Values: one a target item, the mean over the edit's draws; always defined. The targets are the same for every ranker. A ranker that
    looks items up reads no text, and the measure does not apply.

    k: length of the list; edit: which perturbation, options in brackets; targets: items to be promoted, drawn outside the most used fifth;
    user: which user tower makes the lists

    Source: Zhang et al., Stealthy Attack on LLM-based Recommendation, ACL 2024 (exposure).
    """

    name: ClassVar[str] = "exposure"
    group: ClassVar[str] = "Attack"
    unit: ClassVar[str] = "×"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    k: int = 10
    edit: str = "keyword_stuffing"
    targets: int = 30
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a target item."""
        check_k(self.k)
        found = attack(ranker, trial, self.edit, self.targets, self.user)
        values = tuple(lift(before, after, self.k) for before, after in zip(found.before, found.after, strict=True))
        return Samples(values, {"item": tuple(trial.catalogue.items[item] for item in found.targets)}, trial.seed)


def lift(before: Tensor, after: Tensor, k: int) -> float:
    """(users,), (edits, users) ranks, 0 for never -> the mean smoothed ratio of the numbers of users with a rank from 1 to k."""
    shown = int(((before > 0) & (before <= k)).sum())
    then = ((after > 0) & (after <= k)).sum(1).double()
    return float(((then + 1) / (shown + 1)).mean())
