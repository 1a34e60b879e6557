"""A planted clock and variants that move it, so that measures of time are tested without waiting for time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from compress_rec.towers import Towers
from compress_rec.trial import Catalogue, Ranker, Trial, VariantRanker
from tests.models import small_texts, small_variant


class Clock:
    """Moves by ``step`` nanoseconds at every look and by what somebody adds; keeps what was encoded, and under what settings."""

    def __init__(self, step: int = 0) -> None:
        self.time, self.step = 0, step
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.threads: list[tuple[int, str | None]] = []

    def now(self) -> int:
        self.time += self.step
        return self.time

    def module(self) -> SimpleNamespace:
        """What stands in the place of the module ``time``."""
        return SimpleNamespace(process_time_ns=self.now, perf_counter_ns=self.now)


def clocked(monkeypatch: pytest.MonkeyPatch, clock: Clock, costs: Mapping[str, int]) -> dict[str, Ranker]:
    """Return small real variants by name; a call of their ``encode`` also moves the clock, by the name's cost in nanoseconds a text."""
    names: dict[int, str] = {}
    rankers: dict[str, Ranker] = {}
    for name in costs:
        variant = replace(small_variant(), name=name)
        names[id(variant.towers)] = name
        rankers[name] = VariantRanker(variant)
    real = Towers.encode

    def encode(self: Towers, texts: Sequence[str], role: str = "item", batch: int = 64) -> Tensor:
        clock.calls.append((names[id(self)], tuple(texts)))
        clock.threads.append((torch.get_num_threads(), os.environ.get("TOKENIZERS_PARALLELISM")))
        clock.time += costs[names[id(self)]] * len(texts)
        return real(self, texts, role, batch)

    monkeypatch.setattr(Towers, "encode", encode)
    return rankers


def served(clock: Clock, count: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return the last ``count`` calls: those that were clocked, since all warm up before."""
    return clock.calls[-count:]


def world(items: int = 24) -> Trial:
    """Return a trial over real texts with six users and no cold item."""
    shelf = Catalogue(
        tuple(f"i{item}" for item in range(items)), small_texts(items), torch.zeros(items, dtype=torch.bool), torch.ones(items)
    )
    histories = tuple((user, user + 3, 2 * user) for user in range(1, 7))
    return Trial(shelf, tuple(f"u{user}" for user in range(6)), histories, torch.full((6,), items - 1))
