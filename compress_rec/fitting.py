"""The station that teaches: the teacher, then the text model; both are taken from the run folder where they are done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from compress_rec.errors import CompressRecError
from compress_rec.files import new_file
from compress_rec.huggingface import read_safetensors
from compress_rec.known_sets import fetch
from compress_rec.measures.ndcg import Ndcg
from compress_rec.registry import fields_of
from compress_rec.report import REFERENCE
from compress_rec.state import key_of
from compress_rec.stations import Bench, Data, kept_variant
from compress_rec.teacher import Teacher, TeacherSettings, teach_ids
from compress_rec.training import FitSettings, fit
from compress_rec.trial import Ranker, TableRanker, Trial, VariantRanker
from compress_rec.variant import Variant, load


@dataclass(frozen=True, eq=False)
class Models:
    """What fine-tuning leaves: the model as it came, the teacher, the uncompressed reference, and their keys."""

    raw: Variant
    raw_key: str
    teacher: Teacher
    reference: Variant
    key: str


def fitted(bench: Bench, data: Data) -> Models:
    """Teach the teacher and the text model, or take both from the run folder."""
    study = bench.study
    folder = fetch(study.model["name"]) if "name" in study.model else Path(study.model["path"])
    raw = load(folder)
    raw_key = _key_of_model(raw)
    # the first process teaches, the others read what it wrote
    with bench.processes.main_process_first():
        teacher, teacher_key = _teacher(bench, data, raw, raw_key, study.teacher, "teacher")
    key = key_of("fit", data.key, raw_key, teacher_key, fields_of(study.fit), study.fine_tune, study.seed)
    goal = bench.folder / "variants" / REFERENCE
    kept = bench.state.get("fit", key)
    if kept is not None and (made := kept_variant(bench, goal)) is not None:
        bench.say("the model is there" + (f" (validation NDCG@10 {kept['figure']:.4f})" if kept["figure"] is not None else ""))
        return Models(raw, raw_key, teacher, made, key)
    figure: float | None = None
    if not study.fine_tune:
        towers = raw.towers if raw.towers.recency is not None else replace(raw.towers, recency=teacher.recency)
        reference = Variant(REFERENCE, towers, raw.steps)
    else:
        towers, figure = taught(bench, data, raw, teacher, study.fit, "text model")
        reference = Variant(REFERENCE, towers)
    if bench.main:
        reference.save(goal)
        # what is measured is what was saved, in a first run as in a resumed one
        reference = Variant.load(goal)
        bench.state.put("fit", key, {"figure": figure})
    return Models(raw, raw_key, teacher, reference, key)


def id_teacher(bench: Bench, data: Data, models: Models) -> Teacher:
    """Teach a teacher of ids alone, for what must not have read any text, or take it from the run folder."""
    settings = replace(bench.study.teacher, map_learning_rate=0.0)
    return _teacher(bench, data, models.raw, models.raw_key, settings, "id teacher")[0]


def _key_of_model(model: Variant) -> str:
    towers = model.towers
    parts = [part for name, tower in sorted(towers.towers.items()) for part in (name, tower.to_json(), tower.tokens.to_json())]
    roles = {name: [role.tower, role.head, role.length] for name, role in towers.roles.items()}
    return key_of(*parts, roles, towers.history, *(tensor for _, tensor in sorted(model.tensors().items())))


def _teacher(bench: Bench, data: Data, raw: Variant, raw_key: str, settings: TeacherSettings, title: str) -> tuple[Teacher, str]:
    study = bench.study
    key = key_of(title, data.key, raw_key, fields_of(settings), study.fit.item_length, study.seed)
    piece = title.replace(" ", "-")
    path = bench.folder / f"{piece}.safetensors"
    kept = bench.state.get(piece, key)
    if kept is not None and path.exists():
        try:
            stored = read_safetensors(path)
        except CompressRecError as fault:
            bench.say(f"the {title} is made again: {fault}")
        else:
            bench.say(f"the {title} is there (validation NDCG@10 {kept['figure']:.4f})")
            maps = stored.get("item_map"), stored.get("behaviour_map")
            return Teacher(stored["items"], stored["behaviours"], stored["recency"], float(stored["scale"]), *maps), key

    def ranker(teacher: Teacher) -> TableRanker:
        items = teacher.items.clone()
        items[data.catalogue.cold] = 0
        return TableRanker(title, items, teacher.behaviours, teacher.recency)

    best = [0.0]

    def validate(teacher: Teacher) -> float:
        best[0] = max(best[0], figure := _ndcg(ranker(teacher), data.validation))
        return figure

    with bench.bar(title) as bar:
        bar(0, settings.epochs, "reading the catalogue")
        reads = bool(settings.map_learning_rate)
        features = raw.towers.tower_of("item").pooled(data.catalogue.texts, study.fit.item_length) if reads else None
        teacher = teach_ids(
            data.split.train,
            len(data.catalogue),
            validate,
            settings,
            study.seed,
            data.split.cold,
            features,
            lambda done, total, figure: bar(done, total, f"validation NDCG@10 {figure:.4f}"),
        )
    bench.say(f"{title}: validation NDCG@10 {best[0]:.4f}")
    with new_file(path) as aside:
        stored = {name: value for name, value in fields_of(teacher).items() if isinstance(value, torch.Tensor)}
        save_file({**stored, "scale": torch.tensor(teacher.scale, dtype=torch.float64)}, aside)
    bench.state.put(piece, key, {"figure": best[0]})
    return teacher, key


def taught(bench: Bench, data: Data, start: Variant, teacher: Teacher, settings: FitSettings, title: str) -> tuple[Any, float]:
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
