"""Where the whole catalogue's ranking puts items that were held out of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from compress_rec.cold import cold_columns, scores_of_cold_users
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class ColdRank(Measure):
    """The relative rank, in the whole catalogue, of the cold items a user came to use: 0 is first, 1 is last, 0.5 is what chance gives.

    Each of a user's cold items is ranked among everything the user did not use: the history and the user's other cold items stand
    aside. Its relative rank is the share of those items that score higher, ties counted by half; the value is the mean over the user's
    cold items, which is 1 − AUC. Edge cases: undefined (``None``) where the user used everything; where there are no cold items or nobody
    used one, the measure does not apply. Values: one a user, 0 … 1.

    user: which user tower ranks
    """

    name: ClassVar[str] = "cold_rank"
    group: ClassVar[str] = "Cold items"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    ideal: ClassVar[float | None] = 0.0
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a user who used cold items."""
        scores = scores_of_cold_users(ranker, trial, self.user, self.name).double()
        values: list[float | None] = []
        for own, history, answers in zip(scores, trial.cold_histories, trial.cold_answers, strict=True):
            others = torch.ones(len(own), dtype=torch.bool)
            others[torch.tensor((*history, *answers))] = False
            relevant, rest = own[torch.tensor(answers)], own[others]
            if not len(rest):
                values.append(None)
                continue
            higher = (rest[None, :] > relevant[:, None]).double() + (rest[None, :] == relevant[:, None]).double() / 2
            values.append(float(higher.mean()))
        notes = {"cold_items": len(cold_columns(trial)), "items": len(trial.catalogue), "chance": 0.5}
        return Samples(tuple(values), {"user": trial.cold_users}, trial.seed, notes)
