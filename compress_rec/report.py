"""What a study leaves behind: one row per variant and measure, with its samples, and the machine it was taken on.

As JSON lines it is a stable format for other tools: the first line holds the environment, every further line one row.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from compress_rec.errors import CompressRecError, nearest
from compress_rec.files import new_file
from compress_rec.measure import Samples
from compress_rec.summary import Summary, summarise

SCHEMA = 1
REFERENCE = "reference"
# the measure under which a study files a variant that could not be made at all
BUILD = "build"
# the baseline without a layer, which a report sets beside the model on warm and cold items
STATIC_AVERAGE = "static average"
Kind = Literal["variant", "baseline"]


@dataclass(frozen=True)
class Row:
    """One measure of one variant.

    steps: how the variant was made, as a study file writes it: names or tables (``Step.to_json``)
    samples: ``None`` where the measure failed (``failure`` says why) or has no meaning for this variant (``not_applicable`` says why)
    summary: how the samples are condensed (see ``Measure.summary``)
    kind: baselines stand apart from variants
    group: the title under which the report shows the measure (``Measure.group``); "" in reports that do not say
    """

    variant: str
    steps: tuple[Any, ...]
    measure: str
    unit: str
    better: str
    samples: Samples | None
    failure: str | None = None
    kind: Kind = "variant"
    summary: str = "mean"
    not_applicable: str | None = None
    group: str = ""

    def __post_init__(self) -> None:
        given = [self.samples is not None, self.failure is not None, self.not_applicable is not None]
        if sum(given) != 1:
            raise CompressRecError(
                f"the row of '{self.variant}' for '{self.measure}' must hold samples, a failure or a reason why it does not apply, "
                f"but {sum(given)} of them came: give exactly one"
            )


@dataclass(frozen=True)
class Report:
    """Everything that was measured in one study.

    environment: machine, versions, commit, which kernel serves each op
    rows: in the order in which variants and measures should be shown
    extras: what a page shows beside the table, as JSON values: "title", "about", "data", "explanations", "gates", "remarks", and "notes"
        by variant
    """

    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)
    _summaries: dict[tuple[str, str], dict[str, Summary]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen: set[tuple[str, str]] = set()
        for row in self.rows:
            if (row.variant, row.measure) in seen:
                raise CompressRecError(f"the report holds '{row.measure}' of '{row.variant}' twice: measure each once, or name them apart")
            seen.add((row.variant, row.measure))

    @functools.cached_property
    def cells(self) -> Mapping[tuple[str, str], Row]:
        """Rows by (variant, measure)."""
        return {(row.variant, row.measure): row for row in self.rows}

    @functools.cached_property
    def measures(self) -> tuple[str, ...]:
        """Labels in order of appearance, without the rows of variants that could not be made."""
        return tuple(dict.fromkeys(row.measure for row in self.rows if row.measure != BUILD))

    @functools.cached_property
    def variants(self) -> tuple[str, ...]:
        """Names in order, the reference first, baselines last."""
        names = dict.fromkeys(row.variant for row in self.rows)
        baselines = {row.variant for row in self.rows if row.kind == "baseline"}
        return tuple(sorted(names, key=lambda name: (name in baselines, name != REFERENCE)))

    @functools.cached_property
    def baselines(self) -> frozenset[str]:
        """The names that are baselines, not variants of the model."""
        return frozenset(row.variant for row in self.rows if row.kind == "baseline")

    def summaries(self, measure: str, of: str = REFERENCE) -> dict[str, Summary]:
        """Return the summary of every variant that has samples for ``measure``, paired with ``of``."""
        rows = [row for row in self.rows if row.measure == measure]
        if not rows:
            raise CompressRecError(f"the report holds no measure called '{measure}'{nearest(measure, self.measures)}")
        if (measure, of) not in self._summaries:
            samples = {row.variant: row.samples for row in rows if row.samples is not None}
            self._summaries[measure, of] = summarise(samples, rows[0].summary, rows[0].better, of)
        return self._summaries[measure, of]


def write(report: Report, path: Path | str) -> None:
    """Write the report as JSON lines; every row also carries its summary under "result", for tools that want no samples."""
    with new_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for line in lines(report):
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def lines(report: Report) -> list[dict[str, Any]]:
    """Return the lines of the report as plain JSON values."""
    done = [{"schema": SCHEMA, "environment": _plain(report.environment), "extras": _plain(report.extras)}]
    for row in report.rows:
        samples, result = None, None
        notes: Mapping[str, Any] = {} if row.not_applicable is None else {"not_applicable": row.not_applicable}
        if row.samples is not None:
            units = {unit: list(ids) for unit, ids in row.samples.units.items()}
            samples = {"values": _plain(row.samples.values), "units": units, "seed": row.samples.seed}
            notes = row.samples.notes
            result = asdict(report.summaries(row.measure)[row.variant])
        line = {
            "schema": SCHEMA,
            "variant": row.variant,
            "steps": row.steps,
            "measure": row.measure,
            "unit": row.unit,
            "better": row.better,
            "group": row.group,
        }
        line |= {"samples": samples, "failure": row.failure, "kind": row.kind, "summary": row.summary, "notes": notes, "result": result}
        done.append(_plain(line))
    return done


def read(path: Path | str) -> Report:
    """Read what ``write`` wrote; unknown keys are passed over, so that older tools read newer rows of the same schema."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CompressRecError(f"there is no report at {file}: run the study first, or name its report.jsonl") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise CompressRecError(f"{file} cannot be read as a report: {fault}; name a report.jsonl that a study wrote") from fault
    parsed = [_parsed(line, f"{file}, line {number}") for number, line in enumerate(text.splitlines(), start=1)]
    if not parsed or "environment" not in parsed[0]:
        raise CompressRecError(f"{file} must begin with a line that holds the environment, which is missing: run the study again")
    rows = tuple(_row(line, f"{file}, line {number}") for number, line in enumerate(parsed[1:], start=2))
    return Report(parsed[0]["environment"], rows, parsed[0].get("extras") or {})


def _plain(value: Any) -> Any:
    """Return JSON values: not-a-number and infinity are null, mappings and sequences are copied, anything else is its text."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "item"):  # a numpy number
        return _plain(value.item())
    return str(value)


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as fault:
        raise CompressRecError(
            f"{where} breaks off or is not JSON ({fault.msg}): run the study again, what is done is not done twice"
        ) from None
    if not isinstance(value, dict):
        raise CompressRecError(f"{where} must be a JSON object, but {type(value).__name__} came: name a report.jsonl that a study wrote")
    if value.get("schema") != SCHEMA:
        raise CompressRecError(
            f"{where} says schema {value.get('schema')!r}, but this version reads schema {SCHEMA}: "
            "use the version that wrote it, or run the study again"
        )
    return value


def _row(line: Mapping[str, Any], where: str) -> Row:
    wanted: dict[str, tuple[type, ...]] = {
        "variant": (str,),
        "steps": (list,),
        "measure": (str,),
        "unit": (str,),
        "better": (str,),
        "samples": (dict, type(None)),
        "failure": (str, type(None)),
    }
    for key, kinds in wanted.items():
        if key not in line or not isinstance(line[key], kinds):
            came = "nothing" if key not in line else type(line[key]).__name__
            raise CompressRecError(f"{where} needs '{key}' as {kinds[0].__name__}, but {came} came: run the study again")
    notes, kind = line.get("notes") or {}, line.get("kind", "variant")
    if kind not in get_args(Kind):
        raise CompressRecError(f"{where} says kind '{kind}', but variant or baseline was wanted: run the study again")
    samples = line["samples"]
    try:
        if samples is not None:
            values = tuple(None if value is None else float(value) for value in samples["values"])
            units = {unit: tuple(map(str, ids)) for unit, ids in samples["units"].items()}
            samples = Samples(values, units, int(samples["seed"]), notes)
        return Row(
            line["variant"],
            tuple(line["steps"]),
            line["measure"],
            line["unit"],
            line["better"],
            samples,
            line["failure"],
            kind,
            line.get("summary", "mean"),
            notes.get("not_applicable") if samples is None else None,
            str(line.get("group") or ""),
        )
    except CompressRecError as fault:
        raise CompressRecError(f"{where}: {fault}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise CompressRecError(
            f"{where} holds samples that are not values, units and a seed ({type(fault).__name__}: {fault}): run the study again"
        ) from None
