"""Exact Shapley values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compress_rec.coalitions import Floats, MaskGame, shapley_weights
from compress_rec.explainer import Explainer


@dataclass(frozen=True)
class Shapley(Explainer):
    """Exact Shapley values: a unit's mean contribution over all orders in which the history could come together.

    They add up to the whole score minus the empty history's. Exact because every subset is in the table; nothing is sampled.
    Source: Shapley 1953; Lundberg and Lee, NeurIPS 2017.
    """

    name: ClassVar[str] = "shapley"

    def explain(self, game: MaskGame, seed: int) -> Floats:
        return np.asarray(shapley_weights(game.n) @ game.values)
