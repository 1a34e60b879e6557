"""Recovery: train what is left to give the uncompressed vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from compress_rec.errors import CompressRecError
from compress_rec.recipe import Lesson, Recipe, cannot_follow, made_by
from compress_rec.recovery import WORDS, recover
from compress_rec.towers import Tower


@dataclass(frozen=True)
class Distill(Recipe):
    """Recovery: train the compressed tower until its vectors are the uncompressed ones again; it gets better, not smaller.

    The loss of a text is 1 - cosine between its vector and the uncompressed one, added over the roles that read it. Everything stored in
    float trains: both factors of a low-rank weight, neurons and heads that stayed, norms, embeddings, the output heads. AdamW with
    warm-up over the first tenth and linear decay to zero; batches are made of texts of like length and come in a drawn order.

    steps: gradient steps
    learning_rate: at its highest; lower for what is close already: behind `factorize` by ``fisher``, 1e-4 recovers and 5e-4 does harm
    batch: texts a step

    *Paper*: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531); on the vectors of a text
    encoder as in Reimers & Gurevych 2020 (arXiv 2004.09813).

    *When it helps*: after every recipe that removes something (`factorize`, `prune_neurons`, `prune_heads`, `drop_layers`), most of all
    where that one alone ruins the lists. It needs texts and the uncompressed model, no interactions.

    *When it does not*: on weights in int8 or stored sparse: it cannot train them, so those recipes come after it. It learns the training
    texts best; how much of it reaches texts that it never saw, such as cold items, has to be measured.

    *Cost*: nearly all of a chain's cost, linear in ``steps`` and ``batch``: about 0.65 CPU seconds a step of 32 texts of 13 to 32
    tokens on a MiniLM with half its linear parameters, so the default takes well over a minute.
    """

    steps: int = 120
    learning_rate: float = 2e-4
    batch: int = 32

    name: ClassVar[str] = "distill"
    shrinks: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for option, value in (("steps", self.steps), ("batch", self.batch)):
            if value < 1:
                raise CompressRecError(f"'{option}' of 'distill' must be at least 1, but {value} came")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise CompressRecError(f"'learning_rate' of 'distill' must be above 0, but {self.learning_rate} came: 2e-4 is usual")

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        _refuse_untrainable(self.name, tower)
        return recover(tower, lesson, self.name, self.steps, self.learning_rate, self.batch)


def _refuse_untrainable(recipe: str, tower: Tower) -> None:
    config = tower.encoder.config
    for name in (*config.linears(), WORDS):
        earlier = made_by(config.format(name), config)
        if earlier in ("quantize_int8", "prune_weights"):
            kind = "in int8" if earlier == "quantize_int8" else "stored sparse"
            reason = f"'{name}' is {kind} and cannot be trained"
            raise cannot_follow(recipe, earlier, reason, f"put '{recipe}' before '{earlier}': distil first, then make it smaller")
