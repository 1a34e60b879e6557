"""What is measured: a measure looks at a variant on held-out data and returns samples, never a summary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compress_rec.errors import CompressRecError
from compress_rec.registry import Registry, label

if TYPE_CHECKING:
    from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class Samples:
    """Values with what each of them belongs to, so that variants can be paired and resampled together.

    values: one number a sample, in the measure's unit; ``None`` where the measure is undefined, never 0 in its place
    units: ``{"user": ids}``, ``{"item": ids, "user": ids}``, ``{"repeat": …}``: as many entries as values; empty for a single value
    seed: what the values depend on
    notes: what a reader must know beside the values, such as which kernel served or which option was in force
    """

    values: tuple[float | None, ...]
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for unit, ids in self.units.items():
            if len(ids) != len(self.values):
                raise CompressRecError(
                    f"samples over '{unit}' need one id a value, but {len(ids)} ids came with {len(self.values)} values: give one id each"
                )

    @property
    def defined(self) -> tuple[float, ...]:
        """The values that are not ``None``."""
        return tuple(value for value in self.values if value is not None)


class Measure(ABC):
    """Something that can be measured of whatever ranks: a variant or a baseline.

    Subclasses are frozen dataclasses; their fields are the options, the file format and part of the label.

    name: how a study file calls it
    group: the title under which a report shows it, beside those that say the same; a new title makes a new group
    unit: what the values are in ("", "ms", "bytes", …)
    better: which direction is better
    summary: how the report condenses the values: the mean, a percentile, "only" for the one value that is the variant's own (its size), or
        "once" for one value that other users or another run would change: it has no interval, so that no gate is decided by it
    ideal: what the reference reaches against itself, or the best possible value; ``None`` where there is none
    together: whether all variants are measured in one interleaved run, since the machine drifts (clocks)
    capped: whether an option k above the catalogue means the whole catalogue; a study refuses such a k of all others
    """

    name: ClassVar[str]
    group: ClassVar[str] = "Other"
    unit: ClassVar[str] = ""
    better: ClassVar[Literal["higher", "lower", "neither"]]
    summary: ClassVar[Literal["mean", "median", "p95", "p99", "only", "once"]] = "mean"
    ideal: ClassVar[float | None] = None
    together: ClassVar[bool] = False
    capped: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The name with the options that differ from their defaults: ``ndcg@10``, ``latency[role=text]``."""
        return label(self, self.name)

    @abstractmethod
    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """Measure ``ranker`` on the held-out side of ``trial``; a pure function of both and the trial's seed.

        A measure that cannot be taken of this ranker (latency of a popularity list) raises ``NotApplicable`` with the reason.
        """

    def take_all(self, rankers: Mapping[str, Ranker], trial: Trial) -> Mapping[str, Samples | CompressRecError]:
        """Measure several rankers; measures of time override this to interleave them. A refusal stands in the place of its samples."""
        done: dict[str, Samples | CompressRecError] = {}
        for name, ranker in rankers.items():
            try:
                done[name] = self.take(ranker, trial)
            except CompressRecError as refusal:
                done[name] = refusal
        return done


class NotApplicable(CompressRecError):
    """The measure has no meaning for this ranker; the report leaves the cell empty and says why, which is not a failure."""


MEASURES: Registry[Measure] = Registry("compress_rec.measures", Measure, "measure")  # type: ignore[type-abstract]


def build(specs: Sequence[str | Mapping[str, Any] | Measure]) -> tuple[Measure, ...]:
    """Build the measures of a study file, refusing a label that stands twice."""
    built = tuple(MEASURES.build(spec) for spec in specs)
    labels = [measure.label for measure in built]
    for name in labels:
        if labels.count(name) > 1:
            raise CompressRecError(f"the measure '{name}' stands {labels.count(name)} times in the study: name it once")
    return built
