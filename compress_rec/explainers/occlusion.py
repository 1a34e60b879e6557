"""Leaving one unit out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compress_rec.coalitions import Floats, MaskGame
from compress_rec.explainer import Explainer


@dataclass(frozen=True)
class Occlusion(Explainer):
    """How far the score falls when one unit alone is left out.

    n + 1 evaluations in place of 2**n; units that stand in for each other all get little.
    Source: Zeiler and Fergus, ECCV 2014.
    """

    name: ClassVar[str] = "occlusion"

    def explain(self, game: MaskGame, seed: int) -> Floats:
        whole = len(game.values) - 1
        return np.asarray(game.values[whole] - game.values[whole - (1 << np.arange(game.n))])
