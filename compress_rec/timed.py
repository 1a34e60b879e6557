"""Measures of time: what each ranker has to do, clocked in turns on one thread."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import Measure, NotApplicable, Samples
from compress_rec.timing import interleave
from compress_rec.variant import Variant

if TYPE_CHECKING:
    from compress_rec.trial import Ranker, Trial

Clock = Literal["cpu", "wall"]
# calls before the first one that counts, which allocate and are always slow
WARM_CALLS = 1


@dataclass(frozen=True)
class Work:
    """What is clocked. call: does one request, the next one at every call; warm: does enough of it to be ready; notes: for the reader."""

    call: Callable[[], Any]
    warm: Callable[[], Any]
    notes: Mapping[str, Any] = field(default_factory=dict)


class TimedMeasure(Measure):
    """A measure of time, of all rankers in one interleaved run, since the machine drifts.

    Every ranker does the same requests in the same order, one a round, so that a round can be paired. torch and the tokenizer run on one
    thread meanwhile. The caches are what the other rankers left in them, as on a machine that also does other things.

    repeats: rounds, one sample each
    clock: "cpu", the processor time of the process, which other programs disturb little, or "wall"
    """

    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    unit: ClassVar[str] = "ms"
    summary: ClassVar[Literal["mean", "median", "p95", "p99", "only"]] = "median"
    together: ClassVar[bool] = True
    repeats: int
    clock: Clock

    @abstractmethod
    def work(self, ranker: Ranker, trial: Trial) -> Work:
        """Return what ``ranker`` has to do; ``NotApplicable`` where it has nothing to do."""

    def value(self, milliseconds: float) -> float | None:
        """Return a round's time in the unit of this measure."""
        return milliseconds

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """Clock one ranker alone."""
        found = self.take_all({ranker.name: ranker}, trial)[ranker.name]
        if isinstance(found, CompressRecError):
            raise found
        return found

    def take_all(self, rankers: Mapping[str, Ranker], trial: Trial) -> Mapping[str, Samples | CompressRecError]:
        """Clock all rankers in turns: one value a round; a refusal stands in the place of its samples and leaves the others alone."""
        if self.repeats < 1:
            raise CompressRecError(f"{self.name} takes one sample a repeat, but repeats={self.repeats} came: set it to 1 or more")
        done: dict[str, Samples | CompressRecError] = {}
        ready: dict[str, Work] = {}
        with one_thread():
            for name, ranker in rankers.items():
                try:
                    work = self.work(ranker, trial)
                    work.warm()
                    ready[name] = work
                except CompressRecError as refusal:
                    done[name] = refusal
            sides = {name: work.call for name, work in ready.items()}
            times = interleave(sides, self.repeats, warmup=0, clock=self.clock)
        rounds = tuple(str(number) for number in range(self.repeats))
        for name, work in ready.items():
            notes = {"clock": self.clock, "threads": 1, **work.notes}
            done[name] = Samples(tuple(self.value(each) for each in times[name]), {"repeat": rounds}, trial.seed, notes)
        return {name: done[name] for name in rankers}


def encoding(variant: Variant, role: str, texts: Sequence[str], batch: int) -> Work:
    """Return the work of encoding ``texts`` (strings in, vectors out, the tokenizer included), ``batch`` a call, over and over."""
    if not 1 <= batch <= len(texts):
        raise CompressRecError(f"a batch has from 1 to {len(texts)} texts of the role '{role}', but batch={batch} came: choose another")
    pieces = cycle([texts[start : start + batch] for start in range(0, len(texts) - batch + 1, batch)])
    towers = variant.towers

    def call() -> None:
        towers.encode(next(pieces), role, batch)

    def warm() -> None:
        for _ in range(WARM_CALLS):
            call()

    return Work(call, warm, {"role": role, "batch": batch, "texts": len(texts), "runtime": towers.tower_of(role).backend})


def requests(variant: Variant, role: str, trial: Trial, count: int) -> list[str]:
    """Return ``count`` real texts of a role, drawn by the trial's seed: histories for the role ``text``, else items; some come again
    where there are fewer."""
    if count < 1:
        raise CompressRecError(f"at least one text must be encoded, but {count} of them were asked for: set batch to 1 or more")
    size = len(trial.histories) if role == "text" else len(trial.catalogue)
    generator = torch.Generator().manual_seed(trial.seed)
    drawn = torch.cat([torch.randperm(size, generator=generator) for _ in range(-(-count // size))])[:count].tolist()
    if role == "text":
        return trial.catalogue.history_texts([trial.histories[user] for user in drawn], variant.towers.history)
    return [trial.catalogue.texts[item] for item in drawn]


def encoder_of(ranker: Ranker, what: str) -> Variant:
    """Return the variant behind a ranker, or refuse where it encodes no text."""
    from compress_rec.trial import VariantRanker

    if not isinstance(ranker, VariantRanker):
        raise NotApplicable(f"'{ranker.name}' looks vectors up and encodes no text: there is no {what} to measure")
    return ranker.variant


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and the tokenizer use one thread in the block, and restore what was set."""
    threads, name = torch.get_num_threads(), "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    torch.set_num_threads(1)
    os.environ[name] = "false"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
