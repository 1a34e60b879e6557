"""The page's plots as plain plotly values: what stands in them, never how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compress_rec.report import REFERENCE, Report
from compress_rec.summary import percentiles
from compress_rec.wording import base, figure, headlines, interval, pretty

INK, MUTED, ACCENT, BASELINE = "#1b2733", "#5b6b7a", "#0b6e69", "#a65e00"
_LARGEST_MARKER = 46.0
# pixels of the plot's inside on a wide screen, and of its small letters: only where labels go depends on them
_PLOT_WIDTH, _PLOT_HEIGHT, _LETTER, _LINE = 1120.0, 400.0, 6.3, 14.0
_PLACES = {
    "top center": (-0.5, -1),
    "bottom center": (-0.5, 1),
    "middle right": (0.0, 0),
    "middle left": (-1.0, 0),
    "top right": (0.0, -1),
    "bottom right": (0.0, 1),
    "top left": (-1.0, -1),
    "bottom left": (-1.0, 1),
}


def pareto(report: Report) -> dict[str, Any] | None:
    """Return latency against accuracy, size as area, and the line of what nothing else beats at both; ``None`` if not measured.

    x: the headline latency's summary (logarithmic where it spans more than a decade); y: the headline accuracy with its 95 % interval
    """
    heads = headlines(report)
    time, accuracy = heads.get("Time"), heads.get("Accuracy")
    if time is None or accuracy is None:
        return None
    size = next((measure for measure in report.measures if base(measure) == "disk_bytes"), None)
    # the accuracy of the same user tower whose clock is shown, where it was measured
    beside = f"{accuracy}[user=text]"
    if base(time) == "latency" and ("role=" not in time or "role=text" in time) and beside in report.measures:
        accuracy = beside
    clock, quality = report.summaries(time), report.summaries(accuracy)
    sizes = report.summaries(size) if size is not None else {}
    unit = report.cells[REFERENCE, time].unit if (REFERENCE, time) in report.cells else ""
    points = []
    for name in report.variants:
        x, y = clock.get(name), quality.get(name)
        if x is None or y is None or x.estimate is None or y.estimate is None:
            continue
        weight = sizes[name].estimate if name in sizes else None
        text = f"<b>{name}</b><br>{pretty(accuracy)} {figure(y.estimate.value)}{interval(y.estimate)}"
        text += f"<br>{pretty(time)} {figure(x.estimate.value, unit)}{interval(x.estimate, unit)}"
        text += f"<br>{figure(weight.value, 'bytes')}" if weight is not None else ""
        points.append((name, x.estimate.value, y.estimate, weight.value if weight is not None else None, text))
    if len(points) < 2:
        return None
    known = [weight for *_, weight, _ in points if weight is not None]
    largest = max(known, default=1.0)
    across = [x for _, x, *_ in points]
    logarithmic = min(across) > 0 and max(across) / min(across) > 10
    edges = [bound for *_, y, _, _ in points for bound in (y.value, y.low, y.high) if bound is not None]
    left, right = (math.log(min(across)), math.log(max(across))) if logarithmic else (0.0, max(across))
    places = label_places(
        {
            name: (
                _PLOT_WIDTH * ((math.log(x) if logarithmic else x) - left) / ((right - left) or 1),
                _PLOT_HEIGHT * (max(edges) - y.value) / ((max(edges) - min(edges)) or 1),
                _LARGEST_MARKER / 2 * (weight / largest) ** 0.5 if weight is not None else 4.0,
            )
            for name, x, y, weight, _ in points
        }
    )
    traces = []
    kinds = {
        "reference": (lambda name: name == REFERENCE, INK, "circle"),
        "variants": (lambda name: name != REFERENCE and name not in report.baselines, ACCENT, "circle"),
        "baselines": (lambda name: name in report.baselines, BASELINE, "diamond"),
    }
    for title, (belongs, colour, symbol) in kinds.items():
        chosen = [point for point in points if belongs(point[0])]
        if not chosen:
            continue
        error = {
            "type": "data",
            "symmetric": False,
            "array": [(point[2].high if point[2].high is not None else point[2].value) - point[2].value for point in chosen],
            "arrayminus": [point[2].value - (point[2].low if point[2].low is not None else point[2].value) for point in chosen],
            "thickness": 1,
            "width": 0,
            "color": "rgba(91,107,122,0.45)",
        }
        # a size that was not measured gets a small cross in place of an area
        marks = [_LARGEST_MARKER**2 * point[3] / largest if point[3] is not None else 60.0 for point in chosen]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": title,
                "x": [point[1] for point in chosen],
                "y": [point[2].value for point in chosen],
                "text": [point[0] for point in chosen],
                "textposition": [places[point[0]] for point in chosen],
                "textfont": {"size": 11, "color": colour},
                "hovertext": [point[4] for point in chosen],
                "hoverinfo": "text",
                "error_y": error,
                "marker": {
                    "color": colour,
                    "opacity": 0.55,
                    "symbol": [symbol if point[3] is not None else "x" for point in chosen],
                    "size": [mark**0.5 for mark in marks],
                    "sizemin": 4,
                    "line": {"width": 1, "color": colour},
                },
            }
        )
    edge = front([(name, x, y.value) for name, x, y, *_ in points])
    at = {name: (x, y.value) for name, x, y, *_ in points}
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "name": "not beaten at both",
        "x": [at[name][0] for name in edge],
        "y": [at[name][1] for name in edge],
    }
    line |= {"line": {"shape": "hv", "dash": "dot", "color": MUTED, "width": 1.5}, "hoverinfo": "skip"}
    x_axis: dict[str, Any] = {"title": {"text": f"{pretty(time)}, {unit} (left is better)"}, "type": "log" if logarithmic else "linear"}
    if not logarithmic:
        x_axis["rangemode"] = "tozero"
    return {
        "data": [line, *traces],
        "layout": _layout(x_axis, {"title": {"text": f"{pretty(accuracy)} (up is better)"}}, 520),
        "front": edge,
    }


def front(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Return the names of (name, cost, gain) that no other point beats in one of the two without losing in the other, by rising cost."""
    done: list[str] = []
    best = float("-inf")
    for name, _, gain in sorted(points, key=lambda point: (point[1], -point[2])):
        if gain > best:
            done.append(name)
            best = gain
    return done


def label_places(discs: Mapping[str, tuple[float, float, float]]) -> dict[str, str]:
    """Return on which side of its disc each name stands, so that names cover as little of each other and of other discs as possible.

    discs: name -> (x, y downwards, radius) in pixels; one name after the other takes the best place that is left
    """
    taken: list[tuple[float, float, float, float]] = []
    done = {}
    for name, (x, y, radius) in discs.items():
        width = _LETTER * len(name)
        options = {}
        for place, (share, down) in _PLACES.items():
            start = x + share * width + (radius if share == 0 else -radius if share == -1 else 0) * (0.7 if down else 1)
            middle = y + down * (radius + _LINE / 2)
            box = (start, middle - _LINE / 2, start + width, middle + _LINE / 2)
            others = [(a - r, b - r, a + r, b + r) for other, (a, b, r) in discs.items() if other != name]
            outside = max(0.0, box[2] - _PLOT_WIDTH - 60) + max(0.0, -box[0])
            options[place] = sum(_overlap(box, one) for one in taken) * 2 + sum(_overlap(box, one) for one in others) + 50 * outside, box
        best = min(options, key=lambda place, options=options: options[place][0])  # type: ignore[misc]
        taken.append(options[best][1])
        done[name] = best
    return done


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    return max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))


def spread(report: Report, measure: str) -> dict[str, Any] | None:
    """Return p50, p95 and p99 of a latency as one line a variant, as far as its samples go; ``None`` where there is only one."""
    rows = [row for row in report.rows if row.measure == measure and row.samples is not None and len(row.samples.defined) > 1]
    if not rows:
        return None
    found: Mapping[str, dict[str, float]] = {row.variant: percentiles(row.samples) for row in rows if row.samples is not None}
    names = [name for name in reversed(report.variants) if name in found]
    lines: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": [], "y": [], "showlegend": False, "hoverinfo": "skip"}
    for name in names:
        # to the highest percentile that its samples are enough for
        lines["x"] += [found[name]["p50"], max(found[name].values()), None]
        lines["y"] += [name, name, None]
    lines["line"] = {"color": "#b8c4ce", "width": 3}
    traces = [lines]
    for level, colour, symbol in (("p50", ACCENT, "circle"), ("p95", BASELINE, "diamond"), ("p99", "#9b1c31", "line-ns")):
        shown = [name for name in names if level in found[name]]
        if not shown:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": level,
                "x": [found[name][level] for name in shown],
                "y": shown,
                "marker": {"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}},
                "hovertext": [f"{name}: {level} {figure(found[name][level], rows[0].unit)}" for name in shown],
                "hoverinfo": "text",
            }
        )
    x_axis = {"title": {"text": f"{pretty(measure)}, {rows[0].unit}"}, "rangemode": "tozero"}
    return {"data": traces, "layout": _layout(x_axis, {"automargin": True, "type": "category"}, 90 + 26 * len(names))}


def _layout(x_axis: Mapping[str, Any], y_axis: Mapping[str, Any], height: int) -> dict[str, Any]:
    x_axis, y_axis = (
        {**axis, **({"title": {**axis["title"], "font": {"size": 13}}} if "title" in axis else {})} for axis in (x_axis, y_axis)
    )
    shared = {"gridcolor": "#e6ebef", "zeroline": False, "linecolor": "#b8c4ce", "automargin": True}
    return {
        "height": height,
        "margin": {"l": 70, "r": 20, "t": 40, "b": 60},
        "font": {"family": "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "itemsizing": "constant"},
        "xaxis": {**shared, **x_axis},
        "yaxis": {**shared, **y_axis},
    }
