"""How many multiplications the linear weights cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec.measure import Measure, Samples
from compress_rec.timed import encoder_of
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class Operations(Measure):
    """Multiplications a token in the encoder's linear weights, as they are executed; no clock is involved.

    A sparse weight that runs dense counts in full, a product of two factors counts both. Attention between tokens, which grows with the
    text, and the head, which runs once a text, are left out; the notes give the head's. Edge cases: 0 for a model without a layer; a
    ranker that encodes no text has none. Values: a single one.

    role: whose tower
    """

    name: ClassVar[str] = "operations"
    group: ClassVar[str] = "Size"
    unit: ClassVar[str] = ""
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    summary: ClassVar[Literal["mean", "median", "p95", "p99", "only"]] = "only"
    role: str = "item"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """A single value."""
        towers = encoder_of(ranker, "number of operations").towers
        tower, head = towers.tower_of(self.role), towers.role(self.role).head
        count = sum(form.operations() for _, form in tower.encoder.forms())
        return Samples((float(count),), {}, trial.seed, {"head": sum(form.operations() for form in tower.head(head).forms())})
