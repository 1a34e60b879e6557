"""How long one request takes to encode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress_rec.timed import Clock, TimedMeasure, Work, encoder_of, encoding, requests
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class Latency(TimedMeasure):
    """Milliseconds from a request's text to its vector, the tokenizer included, on one thread.

    The texts are real: histories of held-out users for the role ``text``, item texts for the others, every variant the same ones in the
    same order, in one interleaved run. Percentiles come from the same samples: p99 wants 100 of them. Edge cases: a ranker that encodes
    no text has no latency. Values: one a round.

    role: what is encoded; batch: texts a request; repeats: requests; clock: "cpu" (processor time) or "wall"
    """

    name: ClassVar[str] = "latency"
    group: ClassVar[str] = "Time"
    role: str = "text"
    batch: int = 1
    repeats: int = 100
    clock: Clock = "cpu"

    def work(self, ranker: Ranker, trial: Trial) -> Work:
        """Encode the next ``batch`` texts."""
        variant = encoder_of(ranker, "latency")
        return encoding(variant, self.role, requests(variant, self.role, trial, self.repeats * self.batch), self.batch)
