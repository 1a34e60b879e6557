"""The teacher's own vectors, served as a table."""

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
    """The teacher's item and behaviour vectors in a table: the perfect compression of a text model for items that everybody knows.

    It knows nothing of cold items: theirs is the zero vector, whose cosine with everything is 0. They all tie, and ranked among
    themselves get what chance gives.
    """

    name: ClassVar[str] = "id_lookup"

    def fit(
        self, catalogue: Catalogue, train: Sequence[np.ndarray], attributes: Sequence[Mapping[str, str]], teacher: Vectors
    ) -> TableRanker:
        """Copy the teacher's tables without the cold rows."""
        check_rows(catalogue, teacher)

        def known(vectors: Tensor) -> Tensor:
            return vectors.detach().float().masked_fill(catalogue.cold[:, None], 0.0)

        return TableRanker(self.row, known(teacher.items), known(teacher.behaviours), teacher.recency.detach().float().clone())
