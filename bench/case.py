"""One case of the kernel benchmark: what runs side by side, how it is clocked, the line it prints and the row it leaves."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from bench.limits import READ, UNITS, Limit
from compress_rec.timing import interleave

SAMPLE = 1.0  # ms: shorter calls are repeated to make a sample
RAMP = 4  # samples' worth of a loop before the limits' own samples
HOPELESS, LONG = 4.0, 50.0  # a peer whose first call takes so many times the best peer's, and so many ms, is left out of the rounds


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    call: does it, and returns the result
    role: ``"ours"``; ``"peer"``, what ours is compared with; ``"lossy ours"`` and ``"lossy peer"``, the same with an approximate
        answer; ``"beside"``, what is shown and not compared
    limit: for ours, the arithmetic limit it stands beside, such as ``"fma"``
    bytes: for ours, what it must read from memory at least
    notes: figures printed beside the time, such as a recall
    profile: for ours, gives the milliseconds of its steps, taken apart from the rounds
    """

    call: Callable[[], Any]
    role: Literal["ours", "lossy ours", "peer", "lossy peer", "beside"]
    limit: str | None = None
    bytes: float = 0.0
    notes: Mapping[str, float] = field(default_factory=dict)
    profile: Callable[[], Mapping[str, float]] | None = None

    @property
    def ours(self) -> bool:
        return self.role.endswith("ours")

    @property
    def peer(self) -> bool:
        return self.role.endswith("peer")

    @property
    def lossy(self) -> bool:
        return self.role.startswith("lossy")


@dataclass(frozen=True)
class Case:
    """op: the op's name; shape: what tells its cases apart; operations: a multiplication and an addition are two."""

    op: str
    shape: Mapping[str, int | str]
    operations: float
    sides: Mapping[str, Side]
    backend: str
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """The limits' loops, the medians of this run's own measurement, and why there are none."""

    loops: Mapping[str, Limit]
    medians: Mapping[str, float]
    why_not: str | None


def first_calls(sides: Mapping[str, Side]) -> dict[str, float]:
    """Warm every side up and return the milliseconds of its second call, or of the first where that took long."""
    taken = {}
    for name, side in sides.items():
        for _ in range(2):
            start = time.process_time_ns()
            side.call()
            taken[name] = (time.process_time_ns() - start) / 1e6
            if taken[name] > LONG:
                break
    return taken


def clock(case: Case, machine: Machine, rounds: int) -> dict[str, Any]:
    """Run all sides in turns and return the row: samples, medians, ratios, rates, and how near each of ours came to its limit.

    Ours is compared with the quickest peer that gives an exact answer; a lossy one of ours with the quickest of all.
    """
    with torch.inference_mode():
        first = first_calls(case.sides)
        best = min((first[name] for name, side in case.sides.items() if side.peer), default=math.inf)
        left_out = {name: first[name] for name, side in case.sides.items() if side.peer and first[name] > max(LONG, HOPELESS * best)}
        running = {name: side for name, side in case.sides.items() if name not in left_out}
        repeats = max(1, math.ceil(SAMPLE / max(1e-3, min(first[name] for name in running))))
        wanted = sorted({side.limit for side in running.values() if side.limit is not None and side.limit in machine.loops})
        # the loops of arithmetic touch no memory, so that no side finds its data gone
        calls: dict[str, Callable[[], Any]] = {name: side.call for name, side in running.items()}
        steps = {name: max(1000, machine.loops[name].steps // repeats) for name in wanted}
        if wanted:  # behind a peer that waits for memory the clock is low, for longer than a sample takes
            calls["ramp"] = partial(machine.loops[wanted[0]].run, RAMP * steps[wanted[0]])
        calls |= {f"limit:{name}": partial(machine.loops[name].run, steps[name]) for name in wanted}
        samples = dict(interleave(calls, rounds, warmup=0, repeats=repeats))
        samples.pop("ramp", None)
    limits = {name: machine.loops[name].rate(statistics.median(samples.pop(f"limit:{name}")), steps[name]) for name in wanted}
    medians = {name: statistics.median(values) for name, values in samples.items()}
    row: dict[str, Any] = {
        "op": case.op,
        "shape": dict(case.shape),
        "backend": case.backend,
        "unit": "ms",
        "clock": "process CPU time, one thread",
        "repeats": repeats,
        "operations": case.operations,
        "roles": {name: side.role for name, side in case.sides.items()},
        "notes": {name: dict(side.notes) for name, side in case.sides.items() if side.notes},
        "samples": samples,
        "medians": medians,
        "left_out": left_out,
        "skipped": dict(case.skipped),
        "profiles": {name: _profile(side.profile) for name, side in running.items() if side.profile is not None},
        "limits": {**{name: rate for name, rate in machine.medians.items() if name in READ}, **limits},
        "ours": {},
    }
    for name, side in running.items():
        if side.ours:
            row["ours"][name] = _standing(side, medians[name], case, running, medians, row["limits"])
    return row


def _profile(take: Callable[[], Mapping[str, float]], times: int = 9) -> dict[str, float]:
    taken = [take() for _ in range(times)]
    return {step: statistics.median(one[step] for one in taken) for step in taken[0]}


def _standing(
    side: Side, median: float, case: Case, running: Mapping[str, Side], medians: Mapping[str, float], limits: Mapping[str, float]
) -> dict[str, Any]:
    found: dict[str, Any] = {"rate": case.operations / median / 1e6, "unit": UNITS.get(side.limit or "", "GOP/s")}
    found["ratios"] = {name: medians[name] / median for name, other in running.items() if not other.ours}
    peers = [name for name, other in running.items() if other.peer and (side.lossy or not other.lossy)]
    if peers:
        best = min(peers, key=medians.__getitem__)
        found |= {"best_peer": best, "ratio": medians[best] / median}
    if side.limit is not None and side.limit in limits:
        ideal = {side.limit: case.operations / limits[side.limit] / 1e6}
        if side.bytes:
            place = next((name for name, size in READ.items() if side.bytes <= 2 * size), "memory")
            ideal[place] = side.bytes / limits[place] / 1e6
        bound = max(ideal, key=lambda name: ideal[name])
        found |= {"bound": bound, "fraction": ideal[bound] / median}
    return found


def lines(row: Mapping[str, Any]) -> str:
    """Return the line of a case, and one more for each of ours: all medians, then ratio, rate and the fraction of the limit."""
    shape = "  ".join(f"{value}" if isinstance(value, str) else f"{name}={value}" for name, value in row["shape"].items())
    told = []
    for name, median in row["medians"].items():
        notes = ", ".join(f"{what} {value:.4g}" for what, value in row["notes"].get(name, {}).items())
        told.append(f"{name} {median:.3f}" + (f" ({notes})" if notes else ""))
    told += [f"{name} {once:.3f} once and left out" for name, once in row["left_out"].items()]
    text = f"{row['op']} [{row['backend']}]  {shape}:  {', '.join(told)} ms"
    for name, standing in row["ours"].items():
        ratio = f"× {standing['ratio']:.2f} over {standing['best_peer']}, " if "ratio" in standing else ""
        text += f"\n    {name}: {ratio}{standing['rate']:.1f} {standing['unit']}"
        if "fraction" in standing:
            text += f", {standing['fraction']:.0%} of {standing['bound']}"
    return text + "".join(f"\n    {name} left out: {reason}" for name, reason in row["skipped"].items())
