"""The station that makes what is compared: the planned variants, and the baselines that keep a report honest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from compress_rec.errors import DiskFault
from compress_rec.fitting import Models, id_teacher, taught
from compress_rec.recipe import Lesson, Step
from compress_rec.recipes.static import Static
from compress_rec.registry import fields_of
from compress_rec.report import REFERENCE
from compress_rec.state import key_of
from compress_rec.stations import Bench, Data, kept_variant, reason
from compress_rec.study import STATIC_AVERAGE, ZERO_SHOT
from compress_rec.trial import Ranker, VariantRanker
from compress_rec.variant import Variant, lessons_of


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
    if bench.state.get(f"variants/{name}", key) is not None and (there := kept_variant(bench, goal)) is not None:
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


def baselines(bench: Bench, data: Data, models: Models, average: Made | None) -> tuple[Made, ...]:
    """Make the rows that keep a report honest: tables without text, the model before fine-tuning, and the static word-piece average."""
    study = bench.study
    done = []
    for baseline in study.tables:
        try:
            teacher = id_teacher(bench, data, models) if baseline.ids_alone else models.teacher
            ranker = baseline.fit(data.catalogue, data.split.train, data.interactions.attributes, teacher)
        except DiskFault:
            raise
        except Exception as fault:
            bench.say(f"{baseline.row} could not be made: {reason(fault)}")
            done.append(Made(baseline.row, "baseline", (), key_of("baseline", baseline.row, models.key), None, reason(fault)))
            continue
        key = key_of("baseline", baseline.row, models.key, ranker.items, ranker.behaviours)
        done.append(Made(baseline.row, "baseline", (), key, ranker))
    if study.zero_shot:
        done.append(Made(ZERO_SHOT, "baseline", (), key_of(ZERO_SHOT, models.key), VariantRanker(_untaught(models))))
    return (*done, average) if average is not None else tuple(done)


def _untaught(models: Models) -> Variant:
    """The model as it came, with the teacher's recency and the reference's lengths, so that only its weights differ."""
    pooled = replace(models.raw.towers, recency=models.teacher.recency, history=models.reference.towers.history)
    lengths = {
        name: replace(role, length=min(role.length, models.reference.towers.role(name).length)) for name, role in pooled.roles.items()
    }
    return Variant(ZERO_SHOT, replace(pooled, roles=lengths), models.raw.steps)


def static_average(bench: Bench, data: Data, models: Models) -> Made | None:
    """A weighted average of word-piece vectors, taught by the same teacher: how much of the task needs no transformer at all.

    ``None`` where the study does not ask for it. All processes of an ``accelerate launch`` fit it together, as they do the text model.
    """
    study = bench.study
    if not study.static_average:
        return None
    raw = _untaught(models)
    settings = replace(
        study.fit,
        method="teacher",
        optimizer="adamw",
        steps=0,
        accumulate=1,
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
    key = key_of(STATIC_AVERAGE, models.key, fields_of(settings), fields_of(start), study.histories)
    goal = bench.folder / "variants" / "static-average"
    if bench.state.get("variants/static-average", key) is not None and (there := kept_variant(bench, goal)) is not None:
        bench.say(f"{STATIC_AVERAGE} is there")
        return Made(STATIC_AVERAGE, "baseline", (), key, VariantRanker(there))
    texts = training_texts(data, study.histories, raw.towers.history, study.seed)
    try:
        begun = raw.then(Step(start), lessons_of(raw.towers, texts, study.seed))
        towers, _ = taught(bench, data, begun, models.teacher, settings, STATIC_AVERAGE)
        made = Variant(STATIC_AVERAGE, towers)
        if bench.main:
            made.save(goal)
            made = Variant.load(goal)
    except DiskFault:
        raise
    except Exception as fault:
        bench.say(f"{STATIC_AVERAGE} could not be made: {reason(fault)}")
        return Made(STATIC_AVERAGE, "baseline", (), key, None, reason(fault))
    if bench.main:
        bench.state.put("variants/static-average", key, {})
    return Made(STATIC_AVERAGE, "baseline", (), key, VariantRanker(made))
