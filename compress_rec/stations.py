"""The stations of a study, in order: data, fit, variants, measures. Each does only what its run folder does not hold yet."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file

from compress_rec.errors import CompressRecError, DiskFault
from compress_rec.examples import TrainingSide
from compress_rec.files import new_file
from compress_rec.huggingface import read_safetensors
from compress_rec.interactions import Interactions
from compress_rec.interactions import load as load_interactions
from compress_rec.known_sets import fetch
from compress_rec.measures.ndcg import Ndcg
from compress_rec.recipe import Lesson, Step
from compress_rec.recipes.static import Static
from compress_rec.registry import fields_of
from compress_rec.report import REFERENCE
from compress_rec.split import Split, split_from
from compress_rec.state import State, key_of
from compress_rec.study import STATIC_AVERAGE, ZERO_SHOT, Study
from compress_rec.teacher import Teacher, teach_ids
from compress_rec.training import FitSettings, fit
from compress_rec.trial import Catalogue, Ranker, TableRanker, Trial, VariantRanker
from compress_rec.variant import Variant, lessons_of, load

Bar = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Bench:
    """What every station needs: the study, its run folder, what is done, and where progress is shown."""

    study: Study
    folder: Path
    state: State
    console: Console

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
    key = key_of(list(interactions.users), list(catalogue.texts), *arrays, study.seed)
    with new_file(bench.folder / "catalogue.json") as aside:
        cold = catalogue.cold.tolist()
        aside.write_text(
            json.dumps({"items": catalogue.items, "texts": catalogue.texts, "cold": cold}, ensure_ascii=False), encoding="utf-8"
        )
    return Data(interactions, split, catalogue, validation, test, key)


@dataclass(frozen=True, eq=False)
class Models:
    """What fine-tuning leaves: the model as it came, the teacher, the uncompressed reference, and their keys."""

    raw: Variant
    teacher: Teacher
    reference: Variant
    key: str


def fitted(bench: Bench, data: Data) -> Models:
    """Teach the teacher and the text model, or take both from the run folder."""
    study = bench.study
    folder = fetch(study.model["name"]) if "name" in study.model else Path(study.model["path"])
    raw = load(folder)
    raw_key = key_of(*(tensor for _, tensor in sorted(raw.tensors().items())))
    teacher, teacher_key = _teacher(bench, data, raw, raw_key)
    key = key_of("fit", data.key, raw_key, teacher_key, fields_of(study.fit), study.fine_tune, study.seed)
    goal = bench.folder / "variants" / REFERENCE
    kept = bench.state.get("fit", key)
    if kept is not None and (made := _kept_variant(bench, goal)) is not None:
        bench.say("the model is there" + (f" (validation NDCG@10 {kept['figure']:.4f})" if kept["figure"] is not None else ""))
        return Models(raw, teacher, made, key)
    figure: float | None = None
    if not study.fine_tune:
        towers = raw.towers if raw.towers.recency is not None else replace(raw.towers, recency=teacher.recency)
        reference = Variant(REFERENCE, towers, raw.steps)
    else:
        towers, figure = _taught(bench, data, raw, teacher, study.fit, "text model")
        reference = Variant(REFERENCE, towers)
    reference.save(goal)
    # what is measured is what was saved, in a first run as in a resumed one
    reference = Variant.load(goal)
    bench.state.put("fit", key, {"figure": figure})
    return Models(raw, teacher, reference, key)


def _teacher(bench: Bench, data: Data, raw: Variant, raw_key: str) -> tuple[Teacher, str]:
    study = bench.study
    key = key_of("teacher", data.key, raw_key, fields_of(study.teacher), study.fit.item_length, study.seed)
    path = bench.folder / "teacher.safetensors"
    kept = bench.state.get("teacher", key)
    if kept is not None and path.exists():
        try:
            stored = read_safetensors(path)
        except CompressRecError as fault:
            bench.say(f"the teacher is made again: {fault}")
        else:
            bench.say(f"the teacher is there (validation NDCG@10 {kept['figure']:.4f})")
            maps = stored.get("item_map"), stored.get("behaviour_map")
            return Teacher(stored["items"], stored["behaviours"], stored["recency"], float(stored["scale"]), *maps), key

    def ranker(teacher: Teacher) -> TableRanker:
        items = teacher.items.clone()
        items[data.catalogue.cold] = 0
        return TableRanker("teacher", items, teacher.behaviours, teacher.recency)

    best = [0.0]

    def validate(teacher: Teacher) -> float:
        best[0] = max(best[0], figure := _ndcg(ranker(teacher), data.validation))
        return figure

    features = raw.towers.tower_of("item").pooled(data.catalogue.texts, study.fit.item_length)
    with bench.bar("teacher") as bar:
        teacher = teach_ids(
            data.split.train,
            len(data.catalogue),
            validate,
            study.teacher,
            study.seed,
            data.split.cold,
            features,
            lambda done, total, figure: bar(done, total, f"validation NDCG@10 {figure:.4f}"),
        )
    bench.say(f"teacher: validation NDCG@10 {best[0]:.4f}")
    with new_file(path) as aside:
        stored = {name: value for name, value in fields_of(teacher).items() if isinstance(value, torch.Tensor)}
        save_file({**stored, "scale": torch.tensor(teacher.scale, dtype=torch.float64)}, aside)
    bench.state.put("teacher", key, {"figure": best[0]})
    return teacher, key


def _taught(bench: Bench, data: Data, start: Variant, teacher: Teacher, settings: FitSettings, title: str) -> tuple[Any, float]:
    best = [0.0]

    def validate(towers: Any) -> float:
        best[0] = max(best[0], figure := _ndcg(VariantRanker(Variant(title, towers)), data.validation))
        return figure

    note = [""]
    with bench.bar(title) as bar:

        def show(progress: Any) -> None:
            if progress.figure is not None:
                note[0] = f"validation NDCG@10 {progress.figure:.4f}"
            bar(progress.step, progress.steps, f"loss {progress.loss:.3f} {note[0]}")

        done = fit(start.towers, data.side, validate, settings, teacher, bench.study.seed, show)
    bench.say(f"{title}: validation NDCG@10 {best[0]:.4f}" + (", stopped early" if done.stopped else ""))
    return done.towers, best[0]


def _ndcg(ranker: Ranker, trial: Trial) -> float:
    values = Ndcg(k=min(10, len(trial.catalogue))).take(ranker, trial).values
    return float(np.mean([value or 0.0 for value in values]))


def training_texts(data: Data, histories: int, last: int, seed: int) -> dict[str, list[str]]:
    """Return what recipes may learn from: the texts of warm items, and histories' texts at random training positions."""
    catalogue = data.catalogue
    warm = [catalogue.texts[item] for item in torch.nonzero(~catalogue.cold & (catalogue.uses > 0))[:, 0].tolist()]
    positions = data.side.positions()
    chosen = np.random.default_rng(seed).permutation(len(positions))[:histories]
    return {"item": warm, "behaviour": warm, "text": data.side.texts_of(positions[np.sort(chosen)], last)}


@dataclass(frozen=True, eq=False)
class Made:
    """A row of the report to be: what ranks, how it was made, its key, and why it could not be made where it could not."""

    name: str
    kind: str
    steps: tuple[Any, ...]
    key: str
    ranker: Ranker | None
    failure: str | None = None


def reason(fault: Exception) -> str:
    """Return why something failed, as its row tells it: a refusal's own sentence, or what kind of fault came."""
    return str(fault) if isinstance(fault, CompressRecError) else f"{type(fault).__name__}: {fault}"


def _kept_variant(bench: Bench, goal: Path) -> Variant | None:
    """Load what an earlier run left in ``goal``; ``None`` where there is nothing, or nothing whole: that is said and removed."""
    if not goal.exists():
        return None
    try:
        return Variant.load(goal)
    except CompressRecError as fault:
        bench.say(f"{goal.name} is made again: {fault}")
        shutil.rmtree(goal, ignore_errors=True)
        return None


def variants(bench: Bench, data: Data, models: Models) -> tuple[Made, ...]:
    """Make every planned variant; those that share their first steps share them here too. A refusal becomes a row."""
    study = bench.study
    texts = training_texts(data, study.histories, models.reference.towers.history, study.seed)
    lessons = lessons_of(models.reference.towers, texts, study.seed)
    done = [Made(REFERENCE, "variant", (), models.key, VariantRanker(models.reference))]
    prefixes: dict[str, Variant] = {models.key: models.reference}
    for name, steps in study.plans.items():
        done.append(_variant(bench, name, steps, models, lessons, prefixes, (study.histories,)))
    return tuple(done)


def _variant(
    bench: Bench,
    name: str,
    steps: tuple[Step, ...],
    models: Models,
    lessons: Mapping[str, Lesson],
    prefixes: dict[str, Variant],
    salt: tuple[Any, ...],
) -> Made:
    keys = [models.key]
    for step in steps:
        keys.append(key_of(keys[-1], step.to_json(), *salt))
    goal, plan = bench.folder / "variants" / name, tuple(step.to_json() for step in steps)
    # two plans may be the same steps under two names
    key = key_of(keys[-1], name)
    if bench.state.get(f"variants/{name}", key) is not None and (there := _kept_variant(bench, goal)) is not None:
        bench.say(f"{name} is there")
        variant = prefixes[keys[-1]] = there
        return Made(name, "variant", plan, key, VariantRanker(variant))
    start = max(place for place, known in enumerate(keys) if known in prefixes)
    variant = prefixes[keys[start]]
    began = time.perf_counter()
    try:
        with bench.bar(name) as bar:
            for place in range(start, len(steps)):
                bar(place, len(steps), steps[place].recipe.label)
                variant = variant.then(steps[place], lessons)
                prefixes[keys[place + 1]] = variant
        named = replace(variant, name=name, steps=steps)
        named.save(goal)
        named = Variant.load(goal)
    except DiskFault:
        # the next one would find the disk no emptier
        raise
    except Exception as fault:
        # one plan that breaks must not cost a night's run: it is a row with its reason
        bench.say(f"{name} could not be made: {reason(fault)}")
        return Made(name, "variant", plan, key, None, reason(fault))
    seconds = time.perf_counter() - began
    bench.state.put(f"variants/{name}", key, {"seconds": seconds})
    bench.say(f"{name}: {' → '.join(step.recipe.label for step in steps)} ({seconds:.0f} s)")
    return Made(name, "variant", plan, key, VariantRanker(named))


def baselines(bench: Bench, data: Data, models: Models) -> tuple[Made, ...]:
    """Make the rows that keep a report honest: tables without text, the model before fine-tuning, and a static word-piece average."""
    study = bench.study
    done = []
    for baseline in study.tables:
        ranker = baseline.fit(data.catalogue, data.split.train, data.interactions.attributes, models.teacher)
        key = key_of("baseline", baseline.row, models.key, ranker.items, ranker.behaviours)
        done.append(Made(baseline.row, "baseline", (), key, ranker))
    pooled = replace(models.raw.towers, recency=models.teacher.recency, history=models.reference.towers.history)
    lengths = {
        name: replace(role, length=min(role.length, models.reference.towers.role(name).length)) for name, role in pooled.roles.items()
    }
    raw = Variant(ZERO_SHOT, replace(pooled, roles=lengths), models.raw.steps)
    if study.zero_shot:
        done.append(Made(ZERO_SHOT, "baseline", (), key_of(ZERO_SHOT, models.key), VariantRanker(raw)))
    if study.static_average:
        done.append(_static_average(bench, data, models, raw))
    return tuple(done)


def _static_average(bench: Bench, data: Data, models: Models, raw: Variant) -> Made:
    """A weighted average of word-piece vectors, taught by the same teacher: how much of the task needs no transformer at all."""
    study = bench.study
    settings = replace(
        study.fit,
        passes=40,
        evaluate_every=5,
        patience=2,
        learning_rate=5e-3,
        dropout=0.0,
        word_learning_rate=5e-3,
        histories=study.fit.batch,
        batch=128,
    )
    start = Static()
    key = key_of(STATIC_AVERAGE, models.key, fields_of(settings), fields_of(start))
    goal = bench.folder / "variants" / "static-average"
    if bench.state.get("variants/static-average", key) is not None and (there := _kept_variant(bench, goal)) is not None:
        bench.say(f"{STATIC_AVERAGE} is there")
        return Made(STATIC_AVERAGE, "baseline", (), key, VariantRanker(there))
    texts = training_texts(data, study.histories, raw.towers.history, study.seed)
    try:
        begun = raw.then(Step(start), lessons_of(raw.towers, texts, study.seed))
        towers, _ = _taught(bench, data, begun, models.teacher, settings, STATIC_AVERAGE)
        Variant(STATIC_AVERAGE, towers).save(goal)
    except DiskFault:
        raise
    except Exception as fault:
        bench.say(f"{STATIC_AVERAGE} could not be made: {reason(fault)}")
        return Made(STATIC_AVERAGE, "baseline", (), key, None, reason(fault))
    bench.state.put("variants/static-average", key, {})
    return Made(STATIC_AVERAGE, "baseline", (), key, VariantRanker(Variant.load(goal)))
