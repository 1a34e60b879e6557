"""Small trials with known right answers, and rankers whose scores are planted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compress_rec.measure import Measure, Samples
from compress_rec.trial import Catalogue, Ranker, Trial, UserKind


class Scored(Ranker):
    """Ranks by planted scores: items are the axes, a user is the row of scores, scaled to length 1, which keeps every order and tie.

    scores: (users, items), by kind of user tower where they differ; cold: the same for the users who used cold items
    """

    def __init__(self, name: str, scores: Tensor, cold: Tensor | None = None, text: Tensor | None = None) -> None:
        self.name, self.scores, self.cold, self.text = name, scores, cold, text

    def item_vectors(self, catalogue: Catalogue) -> Tensor:
        return torch.eye(len(catalogue))

    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        rows = self.cold if self.cold is not None and len(histories) == len(self.cold) else self.scores
        if kind == "text" and self.text is not None:
            rows = self.text
        assert len(rows) == len(histories)
        return F.normalize(rows.float(), dim=-1)


def catalogue(items: int, cold: Sequence[int] = (), uses: Sequence[int] | None = None) -> Catalogue:
    """Return a catalogue of ``items`` items with the given cold ones; uses: 1 for each warm item where none are given."""
    frozen = torch.zeros(items, dtype=torch.bool)
    frozen[list(cold)] = True
    counts = torch.tensor(uses) if uses is not None else (~frozen).long()
    return Catalogue(tuple(f"i{item}" for item in range(items)), tuple(f"red river {item}" for item in range(items)), frozen, counts)


def trial(histories: Sequence[Sequence[int]], targets: Sequence[int], items: int, reference: Ranker | None = None, **rest: object) -> Trial:
    """Return a trial over ``items`` items with one user a history; ``cold``, ``uses`` go to the catalogue, the rest to ``Trial``."""
    shelf = catalogue(items, rest.pop("cold", ()), rest.pop("uses", None))  # type: ignore[arg-type]
    users = tuple(f"u{user}" for user in range(len(histories)))
    return Trial(shelf, users, tuple(map(tuple, histories)), torch.tensor(targets), reference=reference, **rest)  # type: ignore[arg-type]


def descending(orders: Sequence[Sequence[int]], items: int) -> Tensor:
    """Return (users, items) scores that rank each user's items in the order given, unnamed ones below all of them by their number."""
    rows = []
    for order in orders:
        whole = [*order, *(item for item in range(items) if item not in order)]
        row = torch.empty(items)
        row[whole] = torch.arange(items, 0, -1, dtype=torch.float32)
        rows.append(row)
    return torch.stack(rows)


def values(measure: Measure, ranker: Ranker, world: Trial) -> tuple[float | None, ...]:
    """Return the values of a measure after checking that each stands for one user, once."""
    samples: Samples = measure.take(ranker, world)
    users = samples.units["user"]
    assert len(set(users)) == len(users)
    assert set(users) in ({*world.users}, {*world.cold_users})
    return samples.values
