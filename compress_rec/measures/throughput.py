"""How many texts are encoded in a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec.timed import Clock, TimedMeasure, Work, encoder_of, encoding, requests
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class Throughput(TimedMeasure):
    """Texts a second, in batches, the tokenizer included, on one thread.

    The same run as ``latency`` with full batches; a batch is padded to its longest text. Edge cases: a ranker that encodes no text has no
    throughput; undefined (``None``) for a round that the clock could not tell from no time. Values: one a round.

    role: what is encoded; batch: texts a batch; repeats: batches; clock: "cpu" (processor time) or "wall"
    """

    name: ClassVar[str] = "throughput"
    group: ClassVar[str] = "Time"
    unit: ClassVar[str] = "texts/s"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    role: str = "text"
    batch: int = 32
    repeats: int = 3
    clock: Clock = "cpu"

    def work(self, ranker: Ranker, trial: Trial) -> Work:
        """Encode the next ``batch`` texts."""
        variant = encoder_of(ranker, "throughput")
        return encoding(variant, self.role, requests(variant, self.role, trial, self.repeats * self.batch), self.batch)

    def value(self, milliseconds: float) -> float | None:
        """Texts a second."""
        return self.batch * 1000 / milliseconds if milliseconds > 0 else None
