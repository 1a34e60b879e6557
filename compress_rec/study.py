"""A study file: which data, which model, which plans and which measures, readable by someone who knows no Python."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from compress_rec import verdict
from compress_rec.baseline import BASELINES, Baseline
from compress_rec.errors import CompressRecError, nearest
from compress_rec.known_sets import KNOWN_SETS
from compress_rec.measure import Measure
from compress_rec.measure import build as build_measures
from compress_rec.recipe import Step, read_plan
from compress_rec.registry import checked
from compress_rec.report import REFERENCE
from compress_rec.report import STATIC_AVERAGE as STATIC_AVERAGE
from compress_rec.teacher import TeacherSettings
from compress_rec.training import FitSettings

T = TypeVar("T")
TABLES = (
    "name",
    "title",
    "seed",
    "threads",
    "compiled",
    "data",
    "model",
    "teacher",
    "fit",
    "lesson",
    "baselines",
    "variants",
    "measures",
    "show",
    "gates",
    "budget",
)
STATIONS = ("data", "fit", "variants", "measures", "report")
# the sets that are a folder of a model, with its configuration and tokenizer
MODELS = tuple(name for name, known in KNOWN_SETS.items() if {"config.json", "tokenizer.json"} <= known.files.keys())
ZERO_SHOT = "zero-shot"
DEFAULT_MEASURES = (
    "ndcg@10",
    "recall@10",
    "cold_recall@10",
    "overlap@10",
    "latency",
    "disk_bytes",
    "faithfulness",
    "exposure",
)


@dataclass(frozen=True)
class Study:
    """What a study file says, checked.

    data: the ``[data]`` table, read by ``interactions.load`` and ``split.split_from``; model: ``name`` of a known set or ``path`` of a
    folder; fine_tune: whether the model is fine-tuned at all; histories: history texts that recipes learn from; tables: baselines without a
    text encoder; zero_shot, static_average: baselines with one; plans: variant -> steps; show: users whose explanations the page shows;
    compiled: whether variants are measured on the compiled encoder, as they would be served, or on torch's modules; budget: CPU minutes
    a station, printed beside what it took
    """

    name: str
    title: str
    seed: int
    threads: int
    compiled: bool
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    teacher: TeacherSettings
    fit: FitSettings
    fine_tune: bool
    histories: int
    tables: tuple[Baseline, ...]
    zero_shot: bool
    static_average: bool
    plans: Mapping[str, tuple[Step, ...]]
    measures: tuple[Measure, ...]
    show: int
    gates: Mapping[str, Any]
    budget: Mapping[str, float]


def read(path: Path | str) -> Study:
    """Read and check a study file before any long work begins; whatever cannot be used is refused in one sentence."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise CompressRecError(f"the study file {path} does not exist: check the path; studies/demo.toml is one to start from") from fault
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise CompressRecError(f"the study file {path} cannot be read as TOML ({fault}): mend that place") from fault
    return parse(table, path.stem)


def parse(table: Mapping[str, Any], name: str = "study") -> Study:
    """Check what ``read`` found in a file."""
    for key in table:
        if key not in TABLES:
            raise CompressRecError(f"a study file has no part '{key}'{nearest(key, TABLES)}")
    if "data" not in table:
        raise CompressRecError('the study file has no [data]: name a known set, such as name = "ml-100k", or tables of your own')
    for part in ("data", "model", "teacher", "fit", "lesson", "baselines", "variants", "measures", "gates", "budget"):
        if not isinstance(table.get(part, {}), Mapping):
            raise CompressRecError(f"[{part}] of the study file must be a table, but {table[part]!r} came")
    fit = dict(table.get("fit", {}))
    fine_tune = fit.pop("fine_tune", True)
    if not isinstance(fine_tune, bool):
        raise CompressRecError(f"'fine_tune' of [fit] must be true or false, but {fine_tune!r} came")
    chosen = _options(table.get("baselines", {}), "baselines", {"tables": list, "zero_shot": bool, "static_average": bool})
    lesson = _options(table.get("lesson", {}), "lesson", {"histories": int})
    if lesson.get("histories", 0) < 0:
        raise CompressRecError(f"'histories' of [lesson] must be at least 0, but {lesson['histories']} came")
    taken = _options(table.get("measures", {}), "measures", {"take": list})
    budget = _options(table.get("budget", {}), "budget", dict.fromkeys(STATIONS, float))
    plans, measures = _plans(table.get("variants", {})), build_measures(taken.get("take", DEFAULT_MEASURES))
    tables = tuple(BASELINES.build(spec) for spec in chosen.get("tables", ["popularity", "id_lookup", "attribute_ridge"]))
    named = {ZERO_SHOT: chosen.get("zero_shot", True), STATIC_AVERAGE: chosen.get("static_average", True)}
    gates = dict(table.get("gates", {}))
    rows = [REFERENCE, *plans, *(baseline.row for baseline in tables), *(name for name, wanted in named.items() if wanted)]
    _check_gates(verdict.parse(gates), rows, [measure.label for measure in measures])
    return Study(
        name=_plain(table, "name", str, name),
        title=_plain(table, "title", str, ""),
        seed=_count(table, "seed", 0),
        threads=_count(table, "threads", 0),
        compiled=_flag(table, "compiled", True),
        data=dict(table["data"]),
        model=_model(table.get("model", {"name": "minilm-l6"})),
        teacher=_settings(table.get("teacher", {}), TeacherSettings, "teacher"),
        fit=_settings(fit, FitSettings, "fit"),
        fine_tune=fine_tune,
        histories=lesson.get("histories", 512),
        tables=tables,
        zero_shot=named[ZERO_SHOT],
        static_average=named[STATIC_AVERAGE],
        plans=plans,
        measures=measures,
        show=_count(table, "show", 3),
        gates=gates,
        budget=budget,
    )


def _plain(table: Mapping[str, Any], key: str, kind: type[T], default: T) -> T:
    value = table.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CompressRecError(f"'{key}' of the study file must be of type {kind.__name__}, but {value!r} came")
    return value


def _flag(table: Mapping[str, Any], key: str, default: bool) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise CompressRecError(f"'{key}' of the study file must be true or false, but {value!r} came")
    return value


def _count(table: Mapping[str, Any], key: str, default: int) -> int:
    value = _plain(table, key, int, default)
    if value < 0:
        raise CompressRecError(f"'{key}' of the study file must be at least 0, but {value} came")
    return value


def _options(table: Mapping[str, Any], part: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    for key, value in table.items():
        if key not in kinds:
            raise CompressRecError(f"[{part}] has no option '{key}'{nearest(key, kinds)}")
        wanted = (int, float) if kinds[key] is float else kinds[key]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kinds[key] is not bool):
            raise CompressRecError(f"'{key}' of [{part}] must be of type {kinds[key].__name__}, but {value!r} came")
    return dict(table)


def _settings(table: Mapping[str, Any], cls: type[T], part: str) -> T:
    return cls(**checked(table, cls, f"[{part}]"))


def _model(table: Mapping[str, Any]) -> Mapping[str, Any]:
    done = _options(table, "model", {"name": str, "path": str})
    if len(done) != 1:
        raise CompressRecError('[model] needs either name = "minilm-l6" or path = "folder of a model", one of them')
    if "name" in done and done["name"] not in MODELS:
        raise CompressRecError(f"there is no known model called '{done['name']}'{nearest(done['name'], MODELS)}")
    return done


def _plans(table: Mapping[str, Any]) -> dict[str, tuple[Step, ...]]:
    plans: dict[str, tuple[Step, ...]] = {}
    taken = {re.sub("[-_]", " ", name) for name in (REFERENCE, ZERO_SHOT, STATIC_AVERAGE, *BASELINES.classes())}
    for name, plan in table.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
            raise CompressRecError(f"the variant's name '{name}' becomes a folder: use letters, digits, '.', '_', '+' and '-'")
        # the rows of baselines, and the folders that they are kept in
        if re.sub("[-_]", " ", name).lower() in taken:
            raise CompressRecError(f"the variant's name '{name}' is taken by a row of every report: choose another")
        try:
            plans[name] = read_plan(plan if isinstance(plan, list) else [plan])
        except CompressRecError as refusal:
            raise CompressRecError(f"the plan of the variant '{name}' cannot be used: {refusal}") from refusal
    return plans


def _check_gates(gates: Sequence[verdict.Gate], rows: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse a gate on what the report will not have: a night's run should not end in a spelling mistake."""
    for gate in gates:
        if gate.measure not in labels:
            raise CompressRecError(
                f"the gate on '{gate.measure}' judges a measure that the study does not take{nearest(gate.measure, labels)}"
            )
        for name in (*(gate.variants or ()), *([gate.of] if gate.of is not None else [])):
            if name not in rows:
                raise CompressRecError(
                    f"the gate on '{gate.measure}' names '{name}', which the report of this study will not hold{nearest(name, rows)}"
                )
