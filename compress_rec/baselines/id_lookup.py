"""A teacher of ids alone, its vectors served as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from compress_rec.baseline import Baseline, Vectors, check_rows
from compress_rec.trial import Catalogue, TableRanker


@dataclass(frozen=True)
class IdLookup(Baseline):
    """The vectors of a teacher of ids alone in a table: the perfect compression of a text model for items that everybody knows.

    It knows nothing of items that nobody used in training, cold ones among them: theirs is the zero vector, whose cosine with everything is
    0. They all tie, and ranked among themselves get what chance gives.
    """

    name: ClassVar[str] = "id_lookup"
    ids_alone: ClassVar[bool] = True

    def fit(
        self, catalogue: Catalogue, train: Sequence[np.ndarray], attributes: Sequence[Mapping[str, str]], teacher: Vectors
    ) -> TableRanker:
        """Copy the teacher's tables without the rows that nothing was learned for."""
        check_rows(catalogue, teacher)

        def known(vectors: Tensor) -> Tensor:
            return vectors.detach().float().masked_fill((catalogue.cold | (catalogue.uses == 0))[:, None], 0.0)

        return TableRanker(self.row, known(teacher.items), known(teacher.behaviours), teacher.recency.detach().float().clone())
