"""Where the held-out item stands in each user's list: what NDCG, recall and MRR are functions of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.measure import Samples

if TYPE_CHECKING:
    from compress_rec.trial import Ranker, Trial, UserKind


def hit_ranks(ranker: Ranker, trial: Trial, user: UserKind, k: int) -> Tensor:
    """Return the rank of each user's held-out item among the whole catalogue minus the history, where it is at most k.

    returns: (users,) float64, 1 for the best, infinity where the item is not among the first k
    """
    check_k(k)
    found = trial.lists(ranker, user, k) == trial.targets[:, None]
    ranks = torch.where(found.any(1), found.int().argmax(1) + 1.0, torch.inf)
    return ranks.double()


def per_user(values: Tensor, trial: Trial) -> Samples:
    """Return (users,) numbers as samples over the users with a held-out item."""
    return Samples(tuple(values.tolist()), {"user": trial.users}, trial.seed)


def check_k(k: int) -> None:
    """Refuse a list of no length."""
    if k < 1:
        raise CompressRecError(f"k is the length of a list and must be at least 1, but {k} came: choose 1 or more")
