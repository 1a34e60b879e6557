"""What the stations of a study share, and the first of them, data. Each does only what its run folder does not hold yet."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from compress_rec.errors import CompressRecError
from compress_rec.examples import TrainingSide
from compress_rec.files import new_file
from compress_rec.interactions import Interactions
from compress_rec.interactions import load as load_interactions
from compress_rec.split import Split, split_from
from compress_rec.state import State, key_of
from compress_rec.study import Study
from compress_rec.trial import Catalogue, Trial
from compress_rec.variant import Variant

Bar = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Bench:
    """What every station needs: the study, its run folder, what is done, and where progress is shown."""

    study: Study
    folder: Path
    state: State
    console: Console
    processes: PartialState

    @property
    def main(self) -> bool:
        """Whether this is the process that writes; the others of an ``accelerate launch`` only help to fit."""
        return bool(self.processes.is_main_process)

    @contextmanager
    def station(self, name: str) -> Iterator[None]:
        """Print a station's beginning, and at its end what it took beside its budget in CPU minutes (``null`` where none is set)."""
        budget = self.study.budget.get(name)
        allowed = f", budget {budget:g} CPU minutes" if budget is not None else ""
        self.console.print(f"[bold]{name}[/bold]{allowed}")
        wall, cpu = time.perf_counter(), _cpu_seconds()
        yield
        wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
        over = " (over the budget)" if budget is not None and cpu > 60 * budget else ""
        self.console.print(f"  {name} took {cpu / 60:.1f} CPU minutes{over}, {wall:.0f} s on the clock", highlight=False)

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:
        """Show a progress bar; the yielded function takes what is done, out of how many, and a word on where it stands."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(title, total=None, note="")

            def show(done: int, total: int, note: str = "") -> None:
                progress.update(task, completed=done, total=total, note=note)

            yield show

    def say(self, text: str) -> None:
        """Print one indented line."""
        self.console.print(f"  {text}", highlight=False, markup=False)


def _cpu_seconds() -> float:
    """CPU seconds of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True, eq=False)
class Data:
    """The loaded data and everything that is derived from it without a model."""

    interactions: Interactions
    split: Split
    catalogue: Catalogue
    validation: Trial
    test: Trial
    key: str

    @property
    def side(self) -> TrainingSide:
        return TrainingSide(self.catalogue, self.split.train)


def data(bench: Bench) -> Data:
    """Load, check and split the data; print what was dropped and why."""
    study = bench.study
    interactions = load_interactions(study.data)
    split = split_from(interactions, study.data, study.seed)
    catalogue = Catalogue.of(split)
    test, validation = Trial.of(split, catalogue, "test", study.seed), Trial.of(split, catalogue, "validation", study.seed)
    bench.say(
        f"{interactions.name}: {len(interactions.users)} users, {len(interactions.items)} items, {len(interactions.event_users)} events"
    )
    for dropped in interactions.dropped:
        bench.say(f"left out: {dropped.count} × {dropped.reason}")
    for note in split.notes:
        bench.say(note)
    bench.say(f"test: {len(test.users)} users with a warm held-out item, {len(test.cold_users)} users with cold ones")
    arrays = (interactions.event_users, interactions.event_items, split.cold, split.test, split.validation)
    # threads decide how sums are split, and with it the last bits of everything that follows
    threads = study.threads or torch.get_num_threads()
    key = key_of(list(interactions.users), list(interactions.items), list(catalogue.texts), *arrays, study.seed, threads)
    if bench.main:
        with new_file(bench.folder / "catalogue.json") as aside:
            whole = {"items": catalogue.items, "texts": catalogue.texts, "cold": catalogue.cold.tolist()}
            aside.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    return Data(interactions, split, catalogue, validation, test, key)


def reason(fault: Exception) -> str:
    """Return why something failed, as its row tells it: a refusal's own sentence, or what kind of fault came."""
    return str(fault) if isinstance(fault, CompressRecError) else f"{type(fault).__name__}: {fault}"


def kept_variant(bench: Bench, goal: Path) -> Variant | None:
    """Load what an earlier run left in ``goal``; ``None`` where there is nothing, or nothing whole: that is said and removed."""
    if not goal.exists():
        return None
    try:
        return Variant.load(goal)
    except CompressRecError as fault:
        bench.say(f"{goal.name} is made again: {fault}")
        shutil.rmtree(goal, ignore_errors=True)
        return None
