"""What a compressed text model must beat: rankers that need no text encoder at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.registry import Registry, label
from compress_rec.trial import Catalogue, TableRanker


class Vectors(Protocol):
    """What a baseline may take over from the teacher: items, behaviours (items, dimensions) float32, unit length, and recency
    (positions,), the weights of a user's last behaviours, the most recent first. Rows of cold items have no meaning."""

    @property
    def items(self) -> Tensor: ...

    @property
    def behaviours(self) -> Tensor: ...

    @property
    def recency(self) -> Tensor: ...


class Baseline(ABC):
    """A way to rank without reading text when serving. Subclasses are frozen dataclasses.

    name: how a study file calls it
    ids_alone: whether its teacher must know ids alone, since the row stands for a model that reads no text
    """

    name: ClassVar[str]
    ids_alone: ClassVar[bool] = False

    @property
    def row(self) -> str:
        """How reports call it: ``attribute ridge``, with the options that differ from their defaults."""
        return label(self, self.name.replace("_", " "))

    @abstractmethod
    def fit(
        self, catalogue: Catalogue, train: Sequence[np.ndarray], attributes: Sequence[Mapping[str, str]], teacher: Vectors
    ) -> TableRanker:
        """Learn from the training side alone and return the ranker.

        train: each user's training events, item numbers, oldest first; attributes: of each item, column to text
        teacher: the id two-tower's vectors, learned on the warm items
        """


BASELINES: Registry[Baseline] = Registry("compress_rec.baselines", Baseline, "baseline")  # type: ignore[type-abstract]


def check_rows(catalogue: Catalogue, teacher: Vectors) -> None:
    """Refuse a teacher of another catalogue."""
    for what, vectors in (("item", teacher.items), ("behaviour", teacher.behaviours)):
        if len(vectors) != len(catalogue):
            raise CompressRecError(
                f"the teacher has {len(vectors)} {what} vectors and the catalogue {len(catalogue)} items: take both from one study"
            )
