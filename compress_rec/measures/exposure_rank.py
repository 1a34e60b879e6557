"""How far an item moves up in the lists after its text was edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from compress_rec.attack import attack
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class ExposureRank(Measure):
    """The mean of ln(rank before / rank after) over users: 0 is no gain, 0.69 is half the rank, below 0 the edit hurt the item.

    The whole catalogue minus the history is ranked. Unlike ``exposure`` it sees an item move that is shown to nobody before or after. Read
    it beside ``edit=benign_edit``; targets and edits are those of ``exposure``.

    Values: one a target item, the mean over the edit's draws and the users who have not used it. Undefined (``None``) where all have.
    A ranker that looks items up reads no text, and the measure does not apply.

    edit: which perturbation, options in brackets; targets: items to be promoted; user: which user tower makes the lists
    """

    name: ClassVar[str] = "exposure_rank"
    group: ClassVar[str] = "Attack"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    edit: str = "keyword_stuffing"
    targets: int = 30
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a target item."""
        found = attack(ranker, trial, self.edit, self.targets, self.user)
        values = tuple(log_lift(before, after) for before, after in zip(found.before, found.after, strict=True))
        return Samples(values, {"item": tuple(trial.catalogue.items[item] for item in found.targets)}, trial.seed)


def log_lift(before: Tensor, after: Tensor) -> float | None:
    """(users,), (edits, users) ranks, 0 for never -> the mean of ln(before / after); ``None`` where no user has a rank."""
    listed = before > 0
    if not bool(listed.any()):
        return None
    return float((before[listed].double().log() - after[:, listed].double().log()).mean())
