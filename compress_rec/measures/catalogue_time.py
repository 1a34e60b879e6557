"""How long the catalogue takes to embed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress_rec.errors import CompressRecError
from compress_rec.timed import Clock, TimedMeasure, Work, encoder_of, requests
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class CatalogueTime(TimedMeasure):
    """Seconds to embed the catalogue's item texts, the tokenizer included, on one thread.

    This is what a new model version costs before it can serve. The time is that of the items really embedded and is never scaled up: the
    notes say how many they were. Edge cases: a ranker that encodes no text has none. Values: one a round.

    items: how many items are embedded, drawn by the seed; ``None`` for the whole catalogue; batch: texts a forward pass
    """

    name: ClassVar[str] = "catalogue_time"
    group: ClassVar[str] = "Time"
    unit: ClassVar[str] = "s"
    items: int | None = None
    batch: int = 64
    repeats: int = 1
    clock: Clock = "cpu"

    def work(self, ranker: Ranker, trial: Trial) -> Work:
        """Embed the catalogue, or the chosen part of it, once."""
        variant, size = encoder_of(ranker, "time to embed the catalogue"), len(trial.catalogue)
        if self.items is not None and not 1 <= self.items <= size:
            raise CompressRecError(f"{self.name} embeds from 1 to the catalogue's {size} items, but items={self.items} came: choose again")
        texts = list(trial.catalogue.texts) if self.items is None else requests(variant, "item", trial, self.items)
        towers = variant.towers
        return Work(
            call=lambda: towers.encode(texts, "item", self.batch),
            warm=lambda: towers.encode(texts[: self.batch], "item", self.batch),
            notes={"items": len(texts), "catalogue": size, "batch": self.batch},
        )

    def value(self, milliseconds: float) -> float | None:
        """Seconds."""
        return milliseconds / 1000
