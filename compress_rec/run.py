"""Running a study: plans × measures → report. What is done is not done again; a failure becomes a row."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console

from compress_rec import environment, execution, explanations, page
from compress_rec.errors import CompressRecError
from compress_rec.files import new_file
from compress_rec.fitting import fitted
from compress_rec.making import Made, baselines, static_average, variants
from compress_rec.measure import Measure, NotApplicable, Samples
from compress_rec.registry import fields_of
from compress_rec.report import BUILD, Report, Row
from compress_rec.state import State, key_of
from compress_rec.stations import Bench, Data, data, reason
from compress_rec.study import Study, read
from compress_rec.trial import Trial, VariantRanker


@dataclass(frozen=True)
class Finished:
    """Where a run left its report."""

    html: Path
    markdown: Path
    lines: Path
    report: Report


def run(path: Path | str, folder: Path | str | None = None, console: Console | None = None) -> Finished | None:
    """Run the study file at ``path`` in ``folder`` (``runs/<name>`` where none is given) and write its three reports.

    Resumes what the folder already holds. Under ``accelerate launch`` all processes fit together and the first one does the rest: the
    others return ``None``. Raises ``CompressRecError`` for what cannot be used; a variant or measure that fails is a row.
    """
    study = read(path)
    goal = Path(folder) if folder is not None else Path("runs") / study.name
    processes = PartialState(cpu=not torch.cuda.is_available())
    bench = Bench(study, goal, State(goal / "state"), console or Console() if processes.is_main_process else Console(quiet=True), processes)
    if bench.main:
        _keep_study(Path(path), goal)
    with _threads(study.threads):
        with bench.station("data"):
            found = data(bench)
            _check_depths(study.measures, len(found.catalogue))
        with bench.station("fit"):
            models = fitted(bench, found)
        with bench.station("variants"):
            average = static_average(bench, found, models)
            if not bench.main:
                return None
            made = _served((*variants(bench, found, models), *baselines(bench, found, models, average)), study.compiled)
        with bench.station("measures"):
            reference = made[0].ranker
            assert reference is not None
            trial = found.test.against(reference)
            rows = measured(bench, found, trial, made)
        with bench.station("report"):
            report = Report(environment.facts(), tuple(rows), _extras(study, found, trial, made))
            lines, markdown, html = page.write_all(report, goal)
    return Finished(html, markdown, lines, report)


def _served(made: Sequence[Made], compiled: bool) -> tuple[Made, ...]:
    """Let every variant be encoded as it would be served: by the compiled encoder, where it has one."""
    if not compiled:
        return tuple(made)
    return tuple(
        replace(piece, ranker=VariantRanker(piece.ranker.variant.compile())) if isinstance(piece.ranker, VariantRanker) else piece
        for piece in made
    )


def _check_depths(measures: Sequence[Measure], items: int) -> None:
    """Refuse a list longer than the catalogue before any long work."""
    for measure in measures:
        k = getattr(measure, "k", None)
        if k is not None and k > items and not measure.capped:
            raise CompressRecError(f"k of the measure '{measure.label}' is {k}, but the catalogue has {items} items: choose a smaller k")


def measured(bench: Bench, found: Data, trial: Trial, made: Sequence[Made]) -> list[Row]:
    """Take every measure of everything that was made; measures of time run all variants in one interleaved round."""
    rows: dict[tuple[str, str], Row] = {}
    for piece in made:
        if piece.failure is not None:
            rows[piece.name, BUILD] = Row(piece.name, piece.steps, BUILD, "", "neither", None, piece.failure, piece.kind)  # type: ignore[arg-type]
    alive = [piece for piece in made if piece.ranker is not None]
    machine = environment.facts()
    # a last bit may differ where another kernel or processor serves
    served = [machine.get("cpu"), str(machine.get("ops")), bench.study.compiled]
    with bench.bar("measures") as bar:
        total = len(bench.study.measures) * len(alive)
        for place, measure in enumerate(bench.study.measures):
            bar(place * len(alive), total, measure.label)
            step = lambda number, place=place, measure=measure: bar(place * len(alive) + number, total, measure.label)  # noqa: E731
            for piece, row in _taken(bench, found, trial, alive, measure, served, step):
                rows[piece.name, measure.label] = row
    names = [piece.name for piece in made]
    labels = [BUILD, *(measure.label for measure in bench.study.measures)]
    return [rows[name, label] for name in names for label in labels if (name, label) in rows]


def _taken(
    bench: Bench, found: Data, trial: Trial, alive: Sequence[Made], measure: Measure, served: Sequence[Any], step: Callable[[int], None]
) -> Iterator[tuple[Made, Row]]:
    parents = [found.key, alive[0].key, measure.name, fields_of(measure), bench.study.seed, *served]
    if measure.together:
        # a clock's figures belong to one machine and one interleaved run: all of them are taken again when one is new
        parents.append([piece.key for piece in alive])
    keys = {piece.name: key_of(*parents, piece.key) for piece in alive}
    pieces = {piece.name: f"rows/{_folder(piece.name)}/{_folder(measure.label)}" for piece in alive}
    kept = {piece.name: bench.state.get(pieces[piece.name], keys[piece.name]) for piece in alive}
    missing = [piece for piece in alive if kept[piece.name] is None]
    if measure.together and missing:
        missing = list(alive)
        results: Mapping[str, Any] = _guarded(lambda: measure.take_all({piece.name: _ranker(piece) for piece in alive}, trial), alive)
    for number, piece in enumerate(alive):
        step(number)
        if piece not in missing:
            yield piece, _row(piece, measure, kept[piece.name])
            continue
        taken = results[piece.name] if measure.together else _guarded_one(measure, piece, trial)
        value = _value(taken)
        if not isinstance(taken, Exception) or isinstance(taken, NotApplicable):
            bench.state.put(pieces[piece.name], keys[piece.name], value)
        else:
            bench.say(f"{measure.label} of {piece.name} failed: {taken}")
        yield piece, _row(piece, measure, value)


def _ranker(piece: Made) -> Any:
    assert piece.ranker is not None
    return piece.ranker


def _guarded(take: Callable[[], Mapping[str, Any]], alive: Sequence[Made]) -> Mapping[str, Any]:
    try:
        return take()
    except Exception as fault:
        # one measure that breaks must not cost a night's run: it is a row with its reason
        return {piece.name: fault for piece in alive}


def _guarded_one(measure: Measure, piece: Made, trial: Trial) -> Samples | Exception:
    try:
        return measure.take(_ranker(piece), trial)
    except Exception as fault:
        return fault


def _value(taken: Samples | Exception) -> dict[str, Any]:
    if isinstance(taken, NotApplicable):
        return {"not_applicable": str(taken)}
    if isinstance(taken, Exception):
        return {"failure": reason(taken)}
    units = {unit: list(ids) for unit, ids in taken.units.items()}
    return {"values": list(taken.values), "units": units, "seed": taken.seed, "notes": dict(taken.notes)}


def _row(piece: Made, measure: Measure, value: Mapping[str, Any] | None) -> Row:
    assert value is not None
    samples = None
    if "values" in value:
        units = {unit: tuple(ids) for unit, ids in value["units"].items()}
        samples = Samples(tuple(value["values"]), units, value["seed"], value["notes"])
    return Row(
        piece.name,
        piece.steps,
        measure.label,
        measure.unit,
        measure.better,
        samples,
        value.get("failure"),
        piece.kind,  # type: ignore[arg-type]
        measure.summary,
        value.get("not_applicable"),
        measure.group,
    )


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._+-@=," else "-" for letter in name)


def _extras(study: Study, found: Data, trial: Trial, made: Sequence[Made]) -> dict[str, Any]:
    rankers = {piece.name: piece.ranker for piece in made[1:] if isinstance(piece.ranker, VariantRanker) and piece.kind == "variant"}
    shown = dict(list(rankers.items())[:4])
    facts = {
        "data": found.interactions.name,
        "users": len(found.interactions.users),
        "items": len(found.interactions.items),
        "events": len(found.interactions.event_users),
        "left out": {dropped.reason: dropped.count for dropped in found.interactions.dropped},
        "split": found.split.how,
        "seed": study.seed,
        "users with a warm held-out item": len(trial.users),
        "cold items": int(trial.catalogue.cold.sum()),
        "users with cold items": len(trial.cold_users),
        # a report is handed on: where the model lay on this machine is nobody's business
        "model": study.model["name"] if "name" in study.model else Path(study.model["path"]).absolute().name,
    }
    return {
        "title": study.title,
        "data": facts,
        "gates": dict(study.gates),
        "notes": {name: list(told) for name, ranker in rankers.items() if (told := execution.notes(ranker.variant.towers))},
        "remarks": [*found.interactions.notes, *found.split.notes, *_remark_on(shown, rankers)],
        "explanations": explanations.panel(trial, shown, study.show) if study.show and shown else [],
    }


def _remark_on(shown: Mapping[str, Any], rankers: Mapping[str, Any]) -> list[str]:
    if len(shown) == len(rankers):
        return []
    return [f"explanations are shown for {', '.join(shown)}; the measures of explanations are taken of all variants"]


def _keep_study(path: Path, goal: Path) -> None:
    """Keep a copy of the study file with its run."""
    with new_file(goal / "study.toml") as aside:
        shutil.copyfile(path, aside)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set torch's threads for the length of a run; 0 leaves them. The count decides how sums are split, and with it the last bits."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
