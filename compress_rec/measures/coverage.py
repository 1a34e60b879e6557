"""How much of the catalogue is shown to anybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec.hits import check_k
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class Coverage(Measure):
    """The share of the catalogue, cold items included, that stands in at least one user's first k.

    It grows with the number of users: compare it over the same ones only. The notes give the most that so many lists can hold. It is a
    property of all lists together: what one user adds depends on who came before, and users drawn twice show nothing new, so that
    resampling them would understate it. It therefore has no interval and decides no gate. Edge cases: always defined. Values: a single
    one, 0 … 1.

    k: length of the list; user: which user tower makes it
    """

    name: ClassVar[str] = "coverage"
    group: ClassVar[str] = "Same lists"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    summary: ClassVar[Literal["mean", "median", "p95", "p99", "only", "once"]] = "once"
    k: int = 10
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """A single value."""
        check_k(self.k)
        lists = trial.lists(ranker, self.user, self.k)
        shown, items = lists[lists >= 0].unique(), len(trial.catalogue)
        notes = {"items": len(shown), "users": len(trial.users), "most": min(1.0, len(trial.users) * self.k / items)}
        return Samples((len(shown) / items,), {}, trial.seed, notes)
