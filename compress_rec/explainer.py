"""What an explainer is: shares of a score given to the units of a history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from compress_rec.coalitions import Floats, MaskGame
from compress_rec.registry import Registry, label


class Explainer(ABC):
    """A way of giving each unit of a history its share of a score.

    Subclasses are frozen dataclasses; their fields are the options, the file format and part of the label.

    name: how a study file calls it
    """

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """The name with the options that differ from their defaults."""
        return label(self, self.name)

    @abstractmethod
    def explain(self, game: MaskGame, seed: int) -> Floats:
        """Return the attributions, (n, questions) float64; the larger, the more the unit speaks for the recommendation.

        A pure function of the game, its key and the seed.
        """


EXPLAINERS: Registry[Explainer] = Registry("compress_rec.explainers", Explainer, "explainer")  # type: ignore[type-abstract]
