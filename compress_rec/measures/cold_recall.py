"""Recall of items that were held out of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from compress_rec.cold import cold_columns, scores_of_cold_users
from compress_rec.hits import check_k
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, UserKind


@dataclass(frozen=True)
class ColdRecall(Measure):
    """Of the cold items a user came to use, the share among the first k when only cold items are ranked.

    Hits / min(k, relevant), so that 1 can be reached by everybody. Ranking the cold items alone is the one exception to ranking the
    whole catalogue: it asks whether the model tells held-out items apart, not whether it places them above the others (``cold_rank`` does).

    Edge cases: items with equal scores share their places, and the value is the expected one over all orders of them. A ranker that
    knows nothing of cold items (a popularity list, a lookup table) thereby gets what chance gives, and neither luck nor harm from the
    order of the ids. Where there are no cold items or nobody used one, the measure does not apply. Values: one a user, 0 … 1.

    k: length of the list; user: which user tower makes it
    """

    name: ClassVar[str] = "cold_recall"
    group: ClassVar[str] = "Cold items"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    k: int = 10
    user: UserKind = "pooled"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a user who used cold items."""
        check_k(self.k)
        scores = scores_of_cold_users(ranker, trial, self.user, self.name)
        columns = cold_columns(trial)
        among = scores[:, columns]
        values = []
        for row, own, answers in zip(among, scores, trial.cold_answers, strict=True):
            relevant = own[torch.tensor(answers)]
            better = (row[None, :] > relevant[:, None]).sum(1).double()
            tied = (row[None, :] == relevant[:, None]).sum(1).double()
            chance = ((self.k - better) / tied).clamp(0, 1)
            values.append(float(chance.sum()) / min(self.k, len(answers)))
        # a random order finds k of the cold items' share of the relevant ones; divided as above, this is more where k are fewer than these
        reachable = [len(answers) / min(self.k, len(answers)) for answers in trial.cold_answers]
        chance = min(1.0, self.k / len(columns)) * sum(reachable) / len(reachable)
        notes = {"cold_items": len(columns), "chance": chance}
        return Samples(tuple(values), {"user": trial.cold_users}, trial.seed, notes)
