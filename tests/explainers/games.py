"""Games with known answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compress_rec.coalitions import Floats, MaskGame, PooledTable
from compress_rec.explainer import Explainer
from compress_rec.explainers.shapley import Shapley


def game(n: int, questions: int = 2, seed: int = 0, key: str = "user") -> MaskGame:
    """Return a game of a random user with ``n`` units."""
    generator = np.random.default_rng([seed, n])
    table = PooledTable(generator.normal(size=16) / 10, generator.normal(size=(n, 16)))
    return MaskGame(table, generator.normal(size=(questions, 16)), key)


@dataclass(frozen=True)
class Negated(Explainer):
    """The worst reasons first: a planted bad explainer."""

    name: ClassVar[str] = "negated"

    def explain(self, game: MaskGame, seed: int) -> Floats:
        return -Shapley().explain(game, seed)
