"""The report as Markdown: the same figures as the page and the JSON lines, for a terminal or a pull request."""

from __future__ import annotations

from compress_rec import report_table, wording
from compress_rec.report import BUILD, REFERENCE, Report
from compress_rec.report_table import Cell, Table


def render(report: Report) -> str:
    """Return the whole report as Markdown."""
    parts = [f"# {report.extras.get('title') or 'Compressed variants against the reference'}", wording.about(report)]
    parts.append("\n".join(f"- **{name}**: {wording.sentence(report, name)}" for name in report.variants))
    parts += [text for text in (wording.warm_and_cold(report),) if text]
    parts += ["\n".join(f"- {text}" for text in wording.smallest_losses(report))]
    parts += ["## At a glance", glance(report)]
    whole = report_table.whole(report)
    for title, _ in whole.groups:
        keep = [place for place, column in enumerate(whole.columns) if column.group == title]
        lines = tuple(
            report_table.Line(line.name, line.baseline, line.steps, tuple(line.cells[place] for place in keep)) for line in whole.lines
        )
        parts += [f"## {title}", _grid(Table(tuple(whole.columns[place] for place in keep), lines), details=True)]
    for measure, unit, rows in report_table.clocks(report):
        header = f"| {wording.pretty(measure)} | p50 | p95 | p99 |\n|---|--:|--:|--:|"
        body = "\n".join(
            f"| {_text(variant)} | " + " | ".join(report_table.level(found, name, unit) for name in ("p50", "p95", "p99")) + " |"
            for variant, found in rows
        )
        parts.append(f"{header}\n{body}")
        if any("p99" not in found for _, found in rows):
            parts.append(report_table.FEW_NOTE)
    if whole.reasons:
        parts += ["## Cells without a figure", "\n".join(f"{number}. {reason}" for number, reason in enumerate(whole.reasons, start=1))]
    failed = [row for row in report.rows if row.failure is not None]
    if failed:
        parts += [
            "## Failures",
            "\n".join(f"- {row.variant}{'' if row.measure == BUILD else f', {row.measure}'}: {row.failure}" for row in failed),
        ]
    facts = [("Data", report.extras.get("data")), ("Machine", report.environment)]
    for title, facts_of in facts:
        if facts_of:
            parts += [f"## {title}", "\n".join(f"- {name}: {text}" for name, text in report_table.flat(facts_of))]
    notes = [*report_table.remarks(report), *map(str, report.extras.get("remarks") or ())]
    if notes:
        parts += ["## Remarks", "\n".join(f"- {note}" for note in notes)]
    parts.append(
        "Square brackets hold 95 % bootstrap intervals over users, items or repeats; differences (Δ) and ratios (×) are paired with the "
        "reference. A figure that was not measured is not shown."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def glance(report: Report) -> str:
    """Return the table to look at first: one measure a group, one line a variant."""
    return _grid(report_table.glance(report), details=False)


def _grid(shown: Table, details: bool) -> str:
    header = "| variant | " + " | ".join(f"{column.title}{_direction(column.better)}" for column in shown.columns) + " |"
    rule = "|---|" + "--:|" * len(shown.columns)
    rows = [
        f"| {f'*{_text(line.name)}*' if line.baseline else f'**{_text(line.name)}**' if line.name == REFERENCE else _text(line.name)} | "
        + " | ".join(_cell(cell, details) for cell in line.cells)
        + " |"
        for line in shown.lines
    ]
    return "\n".join([header, rule, *rows])


def _cell(cell: Cell, details: bool) -> str:
    if cell.kind == "value":
        text = f"{cell.value} {cell.interval}".strip()
        if details and cell.difference:
            text += f"<br>Δ {cell.difference}" + (f"<br>× {cell.ratio}" if cell.ratio else "")
        elif cell.ratio:
            text += f" (×{cell.ratio.split(' ')[0]})"
        return text + (f"<br>{cell.undefined} undefined" if cell.undefined and details else "")
    if cell.kind == "missing":
        return "not measured"
    if cell.kind == "undefined":
        return f"undefined ({cell.undefined})"
    return ("failed" if cell.kind == "failed" else "n/a") + (f" ({cell.note})" if details else "")


def _direction(better: str) -> str:
    return {"higher": " ↑", "lower": " ↓"}.get(better, "")


def _text(name: str) -> str:
    return name.replace("|", "\\|")
