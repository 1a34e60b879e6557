"""Attributions that mean nothing."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compress_rec.coalitions import Floats, MaskGame
from compress_rec.explainer import Explainer


@dataclass(frozen=True)
class Random(Explainer):
    """Numbers drawn from a normal distribution: what every explainer has to beat.

    Drawn by the seed and the game's key, so that the order of users does not matter.
    """

    name: ClassVar[str] = "random"

    def explain(self, game: MaskGame, seed: int) -> Floats:
        generator = np.random.default_rng([seed, zlib.crc32(game.key.encode())])
        return generator.standard_normal((game.n, len(game.queries)))
