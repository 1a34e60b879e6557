"""The report as tables of text: what the page and the Markdown both print, so that they cannot differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compress_rec.report import BUILD, REFERENCE, Report, Row
from compress_rec.summary import Summary, percentiles
from compress_rec.wording import figure, grouped, headlines, interval, pretty, side, steps_text

# how a column's values were condensed, where the word alone would not say it
SUMMARIES: Mapping[str, str] = {"once": "taken once"}
# a percentile that has too few samples, and what says so below the table
TOO_FEW, FEW_NOTE = "–", "– where there are too few samples for a percentile: p95 wants 20 of them, p99 wants 100."


@dataclass(frozen=True)
class Column:
    """One measure: its label, its name in words, and what it means to read it."""

    measure: str
    title: str
    group: str
    unit: str
    better: str
    summary: str


@dataclass(frozen=True)
class Cell:
    """One measure of one variant as text.

    kind: "value", "failed", "not applicable", "undefined" or "missing"
    value, interval: the figure and its 95 % interval; difference, ratio: against the reference, with their intervals
    side: "better", "worse" or "same" by the paired interval; "" where nothing was compared
    note: the number of the footnote that says why there is no figure; undefined: how many values were left out
    """

    kind: str
    value: str = ""
    interval: str = ""
    difference: str = ""
    ratio: str = ""
    side: str = ""
    note: int | None = None
    undefined: int = 0


@dataclass(frozen=True)
class Line:
    """One variant or baseline with its cells, one a column."""

    name: str
    baseline: bool
    steps: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Columns, lines, and the reasons behind the cells without a figure, numbered from 1."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    reasons: tuple[str, ...] = field(default=())

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Group titles with how many columns each spans."""
        counts: dict[str, int] = {}
        for column in self.columns:
            counts[column.group] = counts.get(column.group, 0) + 1
        return tuple(counts.items())


def whole(report: Report) -> Table:
    """Return every measure of every variant."""
    return _table(report, [(title, measure) for title, measures in grouped(report).items() for measure in measures])


def glance(report: Report) -> Table:
    """Return one measure a group: the table to look at first."""
    return _table(report, [(title, measure) for title, measure in headlines(report).items() if title != "Other"])


def clocks(report: Report) -> list[tuple[str, str, list[tuple[str, dict[str, float]]]]]:
    """Return, for every latency, its label, its unit and p50, p95 and p99 of each variant: those that its samples are enough for."""
    done = []
    for measure in report.measures:
        rows = [row for row in report.rows if row.measure == measure and row.samples is not None]
        if rows and rows[0].unit in ("ms", "s", "us") and any(len(row.samples.defined) > 1 for row in rows if row.samples):
            done.append(
                (measure, rows[0].unit, [(row.variant, percentiles(row.samples)) for row in rows if row.samples and row.samples.defined])
            )
    return done


def level(found: Mapping[str, float], name: str, unit: str) -> str:
    """Return a percentile as text, or a dash where there are too few samples for it."""
    return figure(found[name], unit) if name in found else TOO_FEW


def remarks(report: Report) -> list[str]:
    """Return the notes that the samples carry: once where all variants agree, else with the variants that each holds for."""
    done = []
    for measure in report.measures:
        rows = [row for row in report.rows if row.measure == measure and row.samples is not None]
        keys = dict.fromkeys(key for row in rows for key in (row.samples.notes if row.samples else ()))
        for key in keys:
            by_value: dict[str, list[str]] = {}
            for row in rows:
                if row.samples is not None and key in row.samples.notes:
                    by_value.setdefault(_note(row.samples.notes[key]), []).append(row.variant)
            for value, names in by_value.items():
                where = "" if len(names) == len(rows) else f" ({', '.join(names)})"
                done.append(f"{pretty(measure)}: {key.replace('_', ' ')} {value}{where}")
    return list(dict.fromkeys(done))


def flat(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a nested mapping as (name, text) pairs, in order; what is ``None`` or empty is left out."""
    done = [
        (str(key).replace("_", " "), figure(inner, "bytes") if key == "memory" and isinstance(inner, int | float) else _note(inner))
        for key, inner in value.items()
    ]
    return [(name, text) for name, text in done if text]


def _table(report: Report, chosen: Sequence[tuple[str, str]]) -> Table:
    first = {row.measure: row for row in reversed(report.rows)}
    columns = tuple(
        Column(
            measure,
            pretty(measure),
            title,
            first[measure].unit,
            first[measure].better,
            SUMMARIES.get(first[measure].summary, first[measure].summary),
        )
        for title, measure in chosen
    )
    reasons: dict[str, int] = {}
    lines = []
    for name in report.variants:
        rows = [row for row in report.rows if row.variant == name]
        cells = tuple(_cell(report, name, column, reasons) for column in columns)
        lines.append(Line(name, name in report.baselines, steps_text(rows[0].steps), cells))
    return Table(columns, tuple(lines), tuple(reasons))


def _cell(report: Report, name: str, column: Column, reasons: dict[str, int]) -> Cell:
    row = report.cells.get((name, column.measure))
    built = report.cells.get((name, BUILD))
    if row is None and built is not None and built.failure is not None:
        return Cell("failed", note=_number(reasons, f"{name} could not be made: {built.failure}"))
    if row is None:
        return Cell("missing")
    if row.failure is not None:
        return Cell("failed", note=_number(reasons, row.failure))
    if row.samples is None:
        return Cell("not applicable", note=_number(reasons, row.not_applicable or ""))
    return _value(row, report.summaries(column.measure)[name])


def _value(row: Row, summary: Summary) -> Cell:
    if summary.estimate is None:
        return Cell("undefined", undefined=summary.undefined)
    difference = ratio = told = ""
    if summary.paired is not None and row.variant != REFERENCE:
        gap = summary.paired.difference
        difference = figure(gap.value, row.unit, True) + interval(gap, row.unit, True)
        told = side(summary.paired, row.better)
        if summary.paired.ratio is not None:
            ratio = figure(summary.paired.ratio.value, "ratio") + interval(summary.paired.ratio, "ratio")
    span = interval(summary.estimate, row.unit)
    return Cell("value", figure(summary.estimate.value, row.unit), span.strip(), difference, ratio, told, None, summary.undefined)


def _number(reasons: dict[str, int], reason: str) -> int:
    return reasons.setdefault(reason, len(reasons) + 1)


def _note(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        nested = any(isinstance(inner, Mapping) for inner in value.values())
        return ("; " if nested else ", ").join(f"{key} {text}" for key, inner in value.items() if (text := _note(inner)))
    if isinstance(value, list | tuple):
        return ", ".join(map(_note, value))
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
