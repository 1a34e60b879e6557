"""What everybody uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compress_rec.baseline import Baseline, Vectors
from compress_rec.trial import Catalogue, TableRanker, UserKind


@dataclass(frozen=True)
class Popularity(Baseline):
    """The most used items, for every user the same, without the user's history.

    An item's vector is (c, √(1 − c²)) with c from 0 to 1 by the rank of its training count among the different counts, a user's is (1, 0):
    the cosine rises with the count and ties where the counts tie. Cold items were never used and all tie at the bottom.
    """

    name: ClassVar[str] = "popularity"

    def fit(
        self, catalogue: Catalogue, train: Sequence[np.ndarray], attributes: Sequence[Mapping[str, str]], teacher: Vectors
    ) -> TableRanker:
        """Count the training events; neither the attributes nor the teacher are looked at."""
        counts = np.bincount(np.concatenate([np.empty(0, dtype=np.int64), *train]), minlength=len(catalogue))
        # ranks, not counts, so that neighbours stay apart in float32 however large the counts; a count of 0 is always the lowest
        place = np.unique(np.append(counts, 0), return_inverse=True)[1][:-1]
        cosine = place / max(1, int(place.max()))
        return Popular(self.row, torch.from_numpy(np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)).float())


class Popular(TableRanker):
    """A table whose user is the same for everybody, whatever the history, also an empty one."""

    def __init__(self, name: str, items: Tensor) -> None:
        super().__init__(name, items, torch.tensor([[1.0, 0.0]]).repeat(len(items), 1))

    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        if kind == "text":
            return super().user_vectors(catalogue, histories, kind)  # refuses
        return torch.tensor([[1.0, 0.0]]).repeat(len(histories), 1)
