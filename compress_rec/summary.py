"""Samples in, summaries out: the one place where means, percentiles, intervals and paired differences are computed.

The unit of resampling is what the samples belong to (users, items, repeats). All variants of a measure share the resample counts, so
that a difference between two variants is never a difference between two draws. Undefined values are counted and left out, never 0.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from compress_rec.errors import CompressRecError
from compress_rec.measure import Samples

Floats = NDArray[np.float64]
RESAMPLES = 10_000
# one value, which nothing can be drawn from
SINGLE = ("only", "once")
QUANTILES: Mapping[str, float] = {"median": 0.5, "p50": 0.5, "p95": 0.95, "p99": 0.99}
# two-sided 95 %: the first and last; one-sided 95 %: the two inside
LEVELS = np.array([0.025, 0.05, 0.95, 0.975])
# below this many units the jackknife's skewness is noise itself
BCA_UNITS = 10
_BATCH_CELLS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty.

    value: the figure itself
    low, high: the two-sided 95 % interval; ``None`` for a single value, which has none
    at_least, at_most: the one-sided 95 % bounds, each on its own
    method: "bca" (bias-corrected and accelerated), "percentile", or "single" where there is nothing to resample
    """

    value: float
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    method: Literal["bca", "percentile", "single"] = "single"


@dataclass(frozen=True)
class Paired:
    """A variant against the reference over the units that both have.

    difference: variant minus reference
    ratio: variant over reference; ``None`` where the reference is not above 0
    shared: how many samples both have
    margin: how far the one-sided 95 % bound lies from the difference, on the worse side: the smallest loss that these samples can show
    relative_margin: the same as a share of the reference; ``None`` without a ratio
    """

    difference: Estimate
    ratio: Estimate | None
    shared: int
    margin: float | None
    relative_margin: float | None


@dataclass(frozen=True)
class Summary:
    """What the samples of one variant come to.

    estimate: ``None`` where no value is defined
    count, undefined: how many values are defined, and how many are not
    units: how many users (items, repeats, …) the defined values come from, by unit
    paired: against the reference; ``None`` for the reference itself and where no sample is shared
    """

    estimate: Estimate | None
    count: int
    undefined: int
    units: Mapping[str, int]
    paired: Paired | None = None


def summarise(
    samples: Mapping[str, Samples],
    summary: str = "mean",
    better: str = "higher",
    reference: str = "reference",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Summary]:
    """Condense the samples of every variant for one measure, and pair each with the reference.

    samples: by variant; over one unit (several samples may share a unit: it is drawn as a whole) or over two crossed ones
    (both are drawn; further units only help pairing). Different variants may have different units; only like ones are paired.
    summary: "mean", "median", "p95", "p99", or "only" and "once" (the single value)

    Means over one unit get BCa intervals (Efron 1987), everything else percentile intervals: the jackknife is inconsistent for
    quantiles, and undefined over crossed units. Crossed units follow the pigeonhole bootstrap (Owen 2007).
    """
    if summary not in ("mean", *SINGLE, *QUANTILES):
        raise CompressRecError(
            f"a measure wants its samples condensed by '{summary}', which is not known: use mean, median, p95, p99, only or once"
        )
    groups: dict[tuple[str, ...], dict[str, Samples]] = {}
    for name, sample in samples.items():
        groups.setdefault(tuple(sample.units), {})[name] = sample
    done: dict[str, Summary] = {}
    for units, group in groups.items():
        done |= _Group(units, group, summary, better, resamples, seed).summaries(reference)
    return {name: done[name] for name in samples}


def percentiles(samples: Samples) -> dict[str, float]:
    """Return p50, p95 and p99 of the defined values: the smallest value that so many do not exceed, averaged at an exact tie.

    A percentile is left out where fewer than one value is expected above it, since it would only be the largest one: p95 wants 20 values,
    p99 wants 100.
    """
    if not samples.defined:
        return {}
    values = np.asarray(samples.defined)
    known = [name for name in ("p50", "p95", "p99") if name == "p50" or len(values) * (1 - QUANTILES[name]) >= 1 - 1e-9]
    return {name: float(np.quantile(values, QUANTILES[name], method="averaged_inverted_cdf")) for name in known}


def bca_levels(value: float, draws: Floats, left_out: Floats, levels: Floats = LEVELS) -> Floats | None:
    """Return the corrected levels at which to read the bootstrap distribution, or ``None`` where the correction is not defined.

    value: the statistic on all units; draws: (resamples,) the statistic on each resample; left_out: (units,) without each unit in turn
    Source: Efron, Better Bootstrap Confidence Intervals, JASA 1987; the same arithmetic as ``scipy.stats.bootstrap``.
    """
    # a tie is half below; sums in another order differ in the last place, which must not decide what a tie is
    slack = 1e-12 * max(abs(value), float(np.abs(draws).max()))
    below = ((draws < value - slack).sum() + (draws <= value + slack).sum()) / (2 * len(draws))
    apart = left_out.mean() - left_out
    spread = float((apart**2).sum())
    if not 0 < below < 1 or spread == 0:
        return None
    bias, acceleration = ndtri(below), float((apart**3).sum()) / (6 * spread**1.5)
    shifted = bias + ndtri(levels)
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)))


def weighted_quantile(values: Floats, weights: NDArray[Any], level: float) -> Floats:
    """Return the quantile of ``values`` as if each stood there ``weights`` times.

    values: (n,); weights: (resamples, n) whole numbers; result (resamples,), nan where a row weighs nothing
    Equals ``numpy.quantile(repeated, level, method="averaged_inverted_cdf")``: for the median of an even number, the usual mean of two.
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    cumulated = np.cumsum(weights[:, order], axis=1, dtype=np.int64)
    goal = level * cumulated[:, -1]
    last = len(values) - 1
    lower = np.minimum((cumulated < goal[:, None] - 1e-9).sum(axis=1), last)
    upper = np.minimum((cumulated <= goal[:, None] + 1e-9).sum(axis=1), last)
    return np.where(cumulated[:, -1] > 0, (ranked[lower] + ranked[upper]) / 2, np.nan)


@functools.lru_cache(maxsize=8)
def _counts(units: int, resamples: int, seed: int, axis: int) -> NDArray[np.uint8]:
    """Return (resamples, units): how often each unit was drawn. Two measures over equally many units share them."""
    generator = np.random.default_rng([seed, axis, units])
    parts = []
    step = max(1, _BATCH_CELLS // units)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(0, units, (rows, units)) + np.arange(rows)[:, None] * units
        parts.append(np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.uint8))
    return np.concatenate(parts)


class _Group:
    """The variants whose samples range over the same units, laid out on common cells (one per sample)."""

    def __init__(
        self, units: tuple[str, ...], samples: Mapping[str, Samples], summary: str, better: str, resamples: int, seed: int
    ) -> None:
        self.units, self.samples, self.summary, self.better = units, samples, summary, better
        self.resamples, self.seed = resamples, seed
        keys = {name: _keys(sample) for name, sample in samples.items()}
        self.cells = sorted({key for every in keys.values() for key in every})
        place = {key: number for number, key in enumerate(self.cells)}
        self.values = {name: np.full(len(self.cells), np.nan) for name in samples}
        for name, sample in samples.items():
            for key, value in zip(keys[name], sample.values, strict=True):
                self.values[name][place[key]] = np.nan if value is None else value
        # drawn are at most two units: a third one would be nested in these
        self.axes = [_numbered([key[0][axis] for key in self.cells]) for axis in range(min(2, len(units)))]
        self._draws: dict[tuple[str, bytes], Floats] = {}

    def summaries(self, reference: str) -> dict[str, Summary]:
        done = {}
        base = self.values.get(reference)
        for name, values in self.values.items():
            inside = ~np.isnan(values)
            paired = None
            if base is not None and name != reference and (inside & ~np.isnan(base)).any():
                paired = self._paired(name, reference, inside & ~np.isnan(base))
            done[name] = Summary(
                estimate=self._alone(name, inside) if inside.any() else None,
                count=int(inside.sum()),
                undefined=len(self.samples[name].values) - int(inside.sum()),
                units={
                    unit: len({key[0][axis] for key, kept in zip(self.cells, inside, strict=True) if kept})
                    for axis, unit in enumerate(self.units)
                },
                paired=paired,
            )
        return done

    def _alone(self, name: str, inside: NDArray[np.bool_]) -> Estimate:
        value = self._statistic(name, inside)
        if not self._resampled(inside):
            return Estimate(value)
        left_out = self._left_out(name, inside)
        return _estimate(value, self._draw(name, inside), left_out)

    def _paired(self, name: str, reference: str, inside: NDArray[np.bool_]) -> Paired:
        ours, theirs = self._statistic(name, inside), self._statistic(reference, inside)
        shared = int(inside.sum())
        if not self._resampled(inside):
            ratio = Estimate(ours / theirs) if theirs > 0 else None
            return Paired(Estimate(ours - theirs), ratio, shared, None, None)
        draws = self._draw(name, inside), self._draw(reference, inside)
        one, other = self._left_out(name, inside), self._left_out(reference, inside)
        both = one is not None and other is not None
        difference = _estimate(ours - theirs, draws[0] - draws[1], one - other if both else None)  # type: ignore[operator]
        ratio = None
        if theirs > 0:
            # a reference that a resample takes to 0 (a hit or two in all) has a ratio, but no interval for it
            sound = (draws[1] > 0).all() and (other is None or (other > 0).all())
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = _estimate(ours / theirs, draws[0] / draws[1], one / other if both else None) if sound else Estimate(ours / theirs)  # type: ignore[operator]
        margin = _margin(difference, self.better)
        return Paired(difference, ratio, shared, margin, margin / theirs if margin is not None and theirs > 0 else None)

    def _resampled(self, inside: NDArray[np.bool_]) -> bool:
        return self.summary not in SINGLE and bool(self.axes) and int(inside.sum()) > 1

    def _statistic(self, name: str, inside: NDArray[np.bool_]) -> float:
        values = self.values[name][inside]
        if self.summary in QUANTILES:
            return float(np.quantile(values, QUANTILES[self.summary], method="averaged_inverted_cdf"))
        return float(values.mean())

    def _draw(self, name: str, inside: NDArray[np.bool_]) -> Floats:
        """Return (resamples,): the statistic of ``name`` over ``inside`` on every resample."""
        key = inside.tobytes()
        if (name, key) not in self._draws:
            # every other variant that is defined on the same samples is drawn in the same pass
            names = [other for other, values in self.values.items() if not np.isnan(values[inside]).any()]
            columns = np.stack([self.values[other][inside] for other in names], axis=1)
            parts = []
            for weights in self._weights(inside):
                if self.summary in QUANTILES:
                    parts.append(np.stack([weighted_quantile(column, weights, QUANTILES[self.summary]) for column in columns.T], axis=1))
                else:
                    floats = weights.astype(np.float64)
                    with np.errstate(invalid="ignore"):
                        parts.append(floats @ columns / floats.sum(axis=1, keepdims=True))
            drawn = np.concatenate(parts)
            self._draws |= {(other, key): drawn[:, place] for place, other in enumerate(names)}
        return self._draws[name, key]

    def _weights(self, inside: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
        """Yield batches of (rows, cells inside): how often each sample stands in each resample."""
        counts = [_counts(len(names), self.resamples, self.seed, axis) for axis, (names, _) in enumerate(self.axes)]
        step = max(1, _BATCH_CELLS // int(inside.sum()))
        for start in range(0, self.resamples, step):
            drawn = (count[start : start + step] for count in counts)
            # one sample a unit, all of them defined, is the usual case: then the counts are the weights as they stand
            whole = inside.all() and len(self.axes) == 1 and len(self.axes[0][0]) == len(inside)
            taken = [part if whole else part[:, numbers[inside]] for part, (_, numbers) in zip(drawn, self.axes, strict=True)]
            yield taken[0] if len(taken) == 1 else taken[0].astype(np.uint16) * taken[1]

    def _left_out(self, name: str, inside: NDArray[np.bool_]) -> Floats | None:
        """Return (units,): the mean without each unit in turn; ``None`` where BCa is not well-behaved."""
        if self.summary != "mean" or len(self.axes) != 1:
            return None
        _, numbers = np.unique(self.axes[0][1][inside], return_inverse=True)
        units = int(numbers.max()) + 1
        if units < BCA_UNITS:
            return None
        values = self.values[name][inside]
        sums, counts = np.bincount(numbers, values, units), np.bincount(numbers, minlength=units)
        return np.asarray((values.sum() - sums) / (len(values) - counts))


def _keys(sample: Samples) -> list[tuple[tuple[str, ...], int]]:
    """Return what each value belongs to, with a running number where the same units come again."""
    seen: dict[tuple[str, ...], int] = {}
    keys = []
    rows: Sequence[tuple[str, ...]] = list(zip(*sample.units.values(), strict=True)) if sample.units else [()] * len(sample.values)
    for row in rows:
        seen[row] = seen.get(row, -1) + 1
        keys.append((row, seen[row]))
    return keys


def _numbered(names: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    known = sorted(set(names))
    place = {name: number for number, name in enumerate(known)}
    return known, np.array([place[name] for name in names], dtype=np.int64)


def _estimate(value: float, draws: Floats, left_out: Floats | None) -> Estimate:
    draws = draws[np.isfinite(draws)]  # a resample may hold none of the few units that are defined
    if not len(draws):
        return Estimate(value)
    levels = None if left_out is None else bca_levels(value, draws, left_out)
    low, at_least, at_most, high = (float(bound) for bound in np.quantile(draws, LEVELS if levels is None else levels))
    return Estimate(value, low, high, at_least, at_most, "percentile" if levels is None else "bca")


def _margin(difference: Estimate, better: str) -> float | None:
    if difference.at_least is None or difference.at_most is None:
        return None
    down, up = difference.value - difference.at_least, difference.at_most - difference.value
    return max(0.0, {"higher": down, "lower": up}.get(better, max(down, up)))
