"""Cold items: those held out of training, and the users who came to use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress_rec.measure import NotApplicable

if TYPE_CHECKING:
    from compress_rec.trial import Ranker, Trial, UserKind


def cold_columns(trial: Trial) -> Tensor:
    """(cold items,) int64: the cold items' numbers, ascending."""
    return torch.nonzero(trial.catalogue.cold).flatten()


def scores_of_cold_users(ranker: Ranker, trial: Trial, user: UserKind, measure: str) -> Tensor:
    """(cold users, items): the cosines of the whole catalogue for the users who used cold items, ``NotApplicable`` where there are none.

    Items with the same vector get the same bits for a user: a matrix product may round the columns of its edge otherwise, which would
    break ties at random.
    """
    if not len(cold_columns(trial)):
        raise NotApplicable(f"{measure} ranks cold items, and the data holds none out: set cold_items in [data]")
    if not trial.cold_users:
        raise NotApplicable(f"{measure} needs users who came to use a cold item, and there are none: hold more items out with cold_items")
    scores = trial.cold_scores(ranker, user)
    _, same = torch.unique(trial.items(ranker), dim=0, return_inverse=True)
    first = torch.full((int(same.max()) + 1,), len(same), dtype=torch.int64)
    first = first.scatter_reduce(0, same, torch.arange(len(same)), "amin")
    return scores[:, first[same]]
