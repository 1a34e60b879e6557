"""An edit without an aim: as many words as an attack adds, drawn at random."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compress_rec.errors import CompressRecError
from compress_rec.perturbation import Perturbation, vocabulary, words_of
from compress_rec.trial import Catalogue


@dataclass(frozen=True)
class BenignEdit(Perturbation):
    """Append words of the catalogue drawn at random: the control beside ``keyword_stuffing``, the same kind of edit without its intent.

    What a model's lists move under it is not an attack's success but the model's unrest.

    words: how many words are appended, as many as the attack's; draws: edits an item, over which figures are averaged
    """

    name: ClassVar[str] = "benign_edit"
    words: int = 5
    draws: int = 3

    def __post_init__(self) -> None:
        if self.words < 1 or self.draws < 1:
            raise CompressRecError(f"benign_edit appends words, but words={self.words}, draws={self.draws} came: choose 1 or more of both")

    def edits(self, item: int, catalogue: Catalogue, seed: int) -> tuple[str, ...]:
        own = set(words_of(catalogue.texts[item]))
        others = [word for word in vocabulary(catalogue.texts) if word not in own]
        generator = np.random.default_rng([seed, zlib.crc32(catalogue.items[item].encode())])
        drawn = (generator.choice(len(others), min(self.words, len(others)), replace=False) if others else () for _ in range(self.draws))
        return tuple(" ".join([catalogue.texts[item], *(others[place] for place in places)]) for places in drawn)
