"""Timing several things side by side, so that a drifting machine treats them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from compress_rec.errors import CompressRecError


def interleave(
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warmup: int = 1,
    repeats: int = 1,
    clock: Literal["cpu", "wall"] = "cpu",
) -> Mapping[str, tuple[float, ...]]:
    """Run every side once a round, in turn, and return the milliseconds of one call, by side, ``rounds`` of them.

    sides: what to call, by name, without arguments; a side's result is thrown away before the next one starts
    rounds: how many samples of each side. The order turns by one place each round, so that no side always follows the same other
    warmup: rounds that are run first and not counted
    repeats: calls to a sample, for what is too quick for one call to be measured; the sample is their mean
    clock: ``"cpu"``, the processor time of the whole process (all threads added up: run one thread), which other programs on the
        machine disturb little; ``"wall"``, the time that passes

    The garbage collector rests while the sides run. Samples of one round belong together: compare sides by their ratio within rounds.
    """
    if rounds < 1 or repeats < 1 or warmup < 0:
        raise CompressRecError(
            f"interleave needs at least one round and one repeat, but rounds={rounds}, repeats={repeats}, warmup={warmup} came: raise them"
        )
    if clock not in ("cpu", "wall"):
        raise CompressRecError(f"interleave knows the clocks 'cpu' and 'wall', but '{clock}' came: name one of them")
    now = time.process_time_ns if clock == "cpu" else time.perf_counter_ns
    names = list(sides)
    samples: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warmup + rounds):
            first = turn % max(1, len(names))
            for name in names[first:] + names[:first]:
                call = sides[name]
                start = now()
                for _ in range(repeats):
                    call()
                took = now() - start
                if turn >= warmup:
                    samples[name].append(took / repeats / 1e6)
    finally:
        if collecting:
            gc.enable()
    return {name: tuple(values) for name, values in samples.items()}
