"""What this machine can do at most, one thread: the yardstick that the kernels' figures stand beside.

Operations count a multiplication and an addition as two. ``fma``: float32. ``maddubs``: products of bytes, each pair widened by ``madd``
before it is added; ``maddubs_pairs`` and ``maddubs_fours`` add two and four such results in 16 bits first, which is quicker and holds
only with weights packed for it. ``l2``, ``l3``, ``memory``: reading 256 KB, 8 MB and 512 MB again and again.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from compress_rec.timing import interleave

STEPS = 500_000  # of arithmetic, to a sample: one or two milliseconds
READ = {"l2": 256 << 10, "l3": 8 << 20, "memory": 512 << 20}
UNITS = {"fma": "GFLOP/s", "maddubs": "GOP/s", "maddubs_pairs": "GOP/s", "maddubs_fours": "GOP/s"} | dict.fromkeys(READ, "GB/s")


@dataclass(frozen=True)
class Limit:
    """One loop that reaches a limit.

    work: operations, or bytes read, a step
    run: runs so many steps
    steps: enough for a sample
    """

    work: float
    run: Callable[[int], Any]
    steps: int

    def rate(self, milliseconds: float, steps: int | None = None) -> float:
        """Return thousands of millions a second."""
        return self.work * (self.steps if steps is None else steps) / milliseconds / 1e6


def loops() -> Mapping[str, Limit]:
    """Return the loops this machine can run, by name; none without the extension or without AVX2 (``why_not`` says which)."""
    extension = _extension()
    if extension is None or not extension.limits():
        return {}
    found = {name: Limit(work, partial(extension.run_limit, name), STEPS) for name, work in extension.limits().items()}
    for name, size in READ.items():
        memory = np.ones(size // 4, dtype=np.float32)
        found[name] = Limit(size, partial(extension.read_memory, memory), max(1, (32 << 20) // size))
    return found


def why_not() -> str | None:
    """Return in a sentence why there are no limits to stand beside, or ``None``."""
    extension = _extension()
    if extension is None:
        return "the machine's limits are not measured: the compiled extension is not there"
    return None if extension.limits() else "the machine's limits are not measured: their loops need AVX2 and FMA"


def measure(rounds: int = 9) -> Mapping[str, tuple[float, ...]]:
    """Return ``rounds`` samples of every limit in its unit; takes about a second."""
    found = loops()
    taken = interleave({name: partial(limit.run, limit.steps) for name, limit in found.items()}, rounds)
    return {name: tuple(found[name].rate(one) for one in samples) for name, samples in taken.items()}


def told(samples: Mapping[str, tuple[float, ...]]) -> str:
    """Return one line of medians."""
    return ", ".join(f"{name} {statistics.median(rates):.0f} {UNITS[name]}" for name, rates in samples.items())


def _extension() -> Any:
    try:
        return importlib.import_module("compress_rec._C")
    except ImportError:
        return None
