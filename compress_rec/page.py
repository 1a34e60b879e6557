"""The report as one HTML file that opens offline: nothing in it is loaded from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from compress_rec import markdown, plots, report_table, verdict, wording
from compress_rec.errors import CompressRecError
from compress_rec.files import new_file
from compress_rec.report import BUILD, REFERENCE, Report, write

# strong enough to be seen, weak enough that dark text stays readable on it
_STRONGEST = 0.62
_FOR, _AGAINST = "200, 60, 45", "40, 105, 190"


def render(report: Report) -> str:
    """Return the whole page."""
    whole = report_table.whole(report)
    drawn = {"pareto": plots.pareto(report), "clocks": None}
    heads = wording.headlines(report)
    clocks = report_table.clocks(report)
    if clocks:
        first = next((measure for measure, *_ in clocks if measure == heads.get("Time")), clocks[0][0])
        drawn["clocks"] = plots.spread(report, first)
    judgements = verdict.judge(report, verdict.parse(report.extras["gates"])) if report.extras.get("gates") else ()
    return _template().render(
        title=str(report.extras.get("title") or "Compressed variants against the reference"),
        about=wording.about(report),
        sentences=[(name, name in report.baselines, wording.sentence(report, name)) for name in report.variants],
        warm_and_cold=wording.warm_and_cold(report),
        losses=wording.smallest_losses(report),
        judgements=judgements,
        glance=report_table.glance(report),
        whole=whole,
        clocks=[(wording.pretty(measure), unit, rows) for measure, unit, rows in clocks],
        throughput=_throughput(report),
        timed=[name for name in report.variants if any(name == timed for *_, rows in clocks for timed, _ in rows)],
        numbers={title: number for number, (title, _) in enumerate(whole.groups)},
        figure=wording.figure,
        percentile=report_table.level,
        few_note=report_table.FEW_NOTE if any("p99" not in found for *_, rows in clocks for _, found in rows) else "",
        plots=drawn,
        plot_values={name: _embedded(plot) for name, plot in drawn.items() if plot is not None},
        explanations=explanations(report.extras.get("explanations") or ()),
        failures=[
            (row.variant, "" if row.measure == BUILD else wording.pretty(row.measure), row.failure) for row in report.rows if row.failure
        ],
        environment=report_table.flat(report.environment),
        data=report_table.flat(report.extras.get("data") or {}),
        remarks=[*report_table.remarks(report), *map(str, report.extras.get("remarks") or ())],
        reference=REFERENCE,
        plotly=Markup(get_plotlyjs() if any(drawn.values()) else ""),
    )


def write_all(report: Report, folder: Path | str) -> tuple[Path, Path, Path]:
    """Write report.jsonl, report.md and report.html into ``folder``; return the three paths."""
    goals = (Path(folder) / "report.jsonl", Path(folder) / "report.md", Path(folder) / "report.html")
    write(report, goals[0])
    for goal, text in ((goals[1], markdown.render(report)), (goals[2], render(report))):
        with new_file(goal) as aside:
            aside.write_text(text, encoding="utf-8")
    return goals


def explanations(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arrange explanations by user and item: one line for the reference and one for each variant, the same units in the same order.

    given: {"user", "item_title", "variant", "units": titles, "reference": attributions, "variant_values": attributions}
    Each line's colours are scaled by its own strongest attribution, since magnitudes of different models do not compare.
    """
    panels: dict[tuple[str, str, tuple[str, ...]], dict[str, Any]] = {}
    for number, one in enumerate(given):
        try:
            user, item, variant = str(one["user"]), str(one["item_title"]), str(one["variant"])
            units, before, after = tuple(map(str, one["units"])), list(one["reference"]), list(one["variant_values"])
        except (KeyError, TypeError) as fault:
            raise CompressRecError(
                f"explanation {number} of the report lacks {fault}: give user, item_title, variant, units, reference and variant_values"
            ) from None
        if not len(units) == len(before) == len(after):
            raise CompressRecError(
                f"explanation {number} of the report has {len(units)} units, {len(before)} and {len(after)} attributions: "
                "give one a unit in both"
            )
        panel = panels.setdefault((user, item, units), {"user": user, "item": item, "lines": [_line(REFERENCE, units, before, None)]})
        panel["lines"].append(_line(variant, units, after, before))
    return list(panels.values())


def _line(name: str, units: Sequence[str], values: Sequence[float | None], before: Sequence[float | None] | None) -> dict[str, Any]:
    strongest = max((abs(value) for value in values if value is not None), default=0.0)
    decimals = 3 if strongest == 0 else max(1, 1 - math.floor(math.log10(strongest)))  # two significant digits of the strongest
    chips = []
    for unit, value in zip(units, values, strict=True):
        strength = 0.0 if value is None or strongest == 0 else _STRONGEST * abs(value) / strongest
        colour = _FOR if (value or 0) > 0 else _AGAINST
        text = "undefined" if value is None else f"{value:+.{decimals}f}".replace("-", "−")
        chips.append({"unit": unit, "text": text, "background": f"rgba({colour}, {strength:.2f})"})
    told = ""
    if before is not None and _first(values) is not None and _first(before) is not None:
        same = _first(values) == _first(before)
        kept = len(_top(values, 3) & _top(before, 3))
        told = f"{'same strongest reason' if same else 'another strongest reason'}, {kept} of the {min(3, len(units))} strongest kept"
    return {"name": name, "chips": chips, "told": told}


def _top(values: Sequence[float | None], k: int) -> set[int]:
    known = [(-value, place) for place, value in enumerate(values) if value is not None]
    return {place for _, place in sorted(known)[:k]}


def _first(values: Sequence[float | None]) -> int | None:
    return next(iter(_top(values, 1)), None)


def _throughput(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    done = []
    for measure in report.measures:
        if wording.base(measure) == "throughput":
            rows = [row for row in report.rows if row.measure == measure and row.samples is not None]
            found = report.summaries(measure)
            shown = [
                (row.variant, wording.figure(estimate.value, row.unit) + wording.interval(estimate, row.unit))
                for row in rows
                if (estimate := found[row.variant].estimate) is not None
            ]
            done.append((wording.pretty(measure), shown))
    return done


def _embedded(plot: Mapping[str, Any]) -> Markup:
    # "<" is escaped so that no title can close the script element
    text = json.dumps({"data": plot["data"], "layout": plot["layout"]}, allow_nan=False, ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c"))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("compress_rec", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2")
