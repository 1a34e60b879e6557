"""Worlds whose recommendations have known reasons: item i is recommended because of item i - 1 in the history."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress_rec.trial import TableRanker, Trial
from tests.measures.worlds import trial

ITEMS, USERS, EVENTS = 60, 80, 9


def vectors(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return items and behaviours, (items, dimensions): an item lies close to the behaviour of the item before it."""
    generator = torch.Generator().manual_seed(seed)
    behaviours = F.normalize(torch.randn(ITEMS, 48, generator=generator), dim=-1)
    return F.normalize(behaviours.roll(1, 0) + 0.05 * torch.randn(ITEMS, 48, generator=generator), dim=-1), behaviours


def ranker(name: str = "reference", seed: int = 0, recency: Tensor | None = None) -> TableRanker:
    """Return a table of these vectors; another seed knows the rule too, but shares no direction."""
    return TableRanker(name, *vectors(seed), recency)


def chance(name: str, seed: int) -> TableRanker:
    """Return a table of random vectors: it knows no rule."""
    generator = torch.Generator().manual_seed(seed)
    return TableRanker(name, *(F.normalize(torch.randn(ITEMS, 48, generator=generator), dim=-1) for _ in range(2)))


def world(reference: TableRanker | None = None, histories: list[list[int]] | None = None, users: int = USERS) -> Trial:
    """Return a trial of users with random histories and the reference given."""
    drawn = np.random.default_rng(0)
    given = histories or [drawn.choice(ITEMS, EVENTS, replace=False).tolist() for _ in range(users)]
    return trial(given, [0] * len(given), ITEMS, reference or ranker())
