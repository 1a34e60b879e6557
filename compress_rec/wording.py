"""Numbers and findings in words: the same text in the page, the Markdown and the verdict, built only from measured rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from compress_rec.report import BUILD, REFERENCE, STATIC_AVERAGE, Report
from compress_rec.summary import Estimate, Paired, Summary

# title -> the beginnings of names, the most telling first: which of a group's measures is looked at first, and where a measure stands in
# reports that do not say (``Row.group``); a measure that fits none comes behind those that do
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Cold items": ("cold_recall", "cold_"),
    "Accuracy": ("ndcg", "recall", "mrr", "hit", "precision", "map"),
    "Same lists": ("overlap", "rank_biased_overlap", "score_", "coverage", "tail_", "gini", "popularity", "churn", "drift"),
    "Time": ("latency", "throughput", "catalogue_time", "online_user_time", "item_time", "time_"),
    "Size": ("disk_bytes", "parameters", "peak_memory", "memory", "index_", "operations"),
    "Explanations": ("attribution_", "faithfulness", "comprehensiveness", "sufficiency", "explanation", "transfer"),
    "Attack": ("exposure", "attack", "lift", "benign", "stuffing"),
}
ORDER = ("Accuracy", "Cold items", "Same lists", "Time", "Size", "Explanations", "Attack")
ACRONYMS = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}
NAMES = {"disk_bytes": "size on disk"}


def base(measure: str) -> str:
    """Return the name of a label without its options: ``latency`` of ``latency[role=text]``."""
    return re.split(r"[@\[]", measure, maxsplit=1)[0]


def group_of(measure: str, told: str = "") -> str:
    """Return the title of the group under which a measure stands: what its rows tell, else what its name suggests."""
    if told:
        return told
    name = base(measure)
    for title, beginnings in GROUPS.items():
        if name.startswith(beginnings):
            return title
    return "Other"


def grouped(report: Report) -> dict[str, list[str]]:
    """Return the measures of a report by group, each group's most telling first; every measure stands in exactly one."""
    told = {row.measure: row.group for row in reversed(report.rows)}
    titles = {measure: group_of(measure, told[measure]) for measure in report.measures}
    done: dict[str, list[str]] = {title: [] for title in (*ORDER, *titles.values(), "Other")}
    for measure, title in titles.items():
        done[title].append(measure)
    for title, measures in done.items():
        beginnings = GROUPS.get(title, ())
        rank = {
            measure: next((n for n, start in enumerate(beginnings) if base(measure).startswith(start)), len(beginnings))
            for measure in measures
        }
        measures.sort(key=lambda measure, rank=rank: rank[measure])  # type: ignore[misc]
    return {title: measures for title, measures in done.items() if measures}


def headlines(report: Report) -> dict[str, str]:
    """Return one measure a group, the one to look at first: the first that the reference itself has samples for."""
    done = {}
    for title, measures in grouped(report).items():
        telling = [
            measure for measure in measures if (cell := report.cells.get((REFERENCE, measure))) is not None and cell.samples is not None
        ]
        done[title] = (telling or measures)[0]
    return done


def pretty(measure: str) -> str:
    """Return a label as words: ``NDCG@10``, ``cold recall@10``, ``latency (text, batch 1)``."""
    match = re.fullmatch(r"([^@\[]+)(@\d+)?(?:\[(.*)\])?", measure)
    if match is None:
        return measure
    name, suffix, options = match.group(1), match.group(2) or "", match.group(3) or ""
    words = [ACRONYMS.get(word, word) for word in NAMES.get(name, name.replace("_", " ")).split(" ")]
    shown = []
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        shown.append(f"{value}" if key in ("role", "user") else f"{key} {value}")
    return " ".join(words) + suffix + (f" ({', '.join(shown)})" if shown else "")


def figure(value: float, unit: str = "", signed: bool = False) -> str:
    """Return a number as a reader wants it: three significant digits and its unit, four decimals for scores, grouped thousands."""
    sign = "+" if signed and value > 0 else ""
    if unit == "bytes":
        return sign + _scaled(value, 1000.0, ("B", "kB", "MB", "GB", "TB"))
    if unit == "×":
        return f"{sign}{_significant(value)}×"
    if unit == "ratio":
        return f"{sign}{value:.3f}" if abs(value) < 100 else sign + _significant(value)
    if unit in ("", "1"):
        if abs(value) >= 1000:
            return sign + _scaled(value, 1000.0, ("", "thousand", "million", "billion")) if abs(value) >= 100_000 else f"{sign}{value:,.0f}"
        if 0 < abs(value) < 0.001:
            return f"{sign}{value:.2g}"
        return f"{sign}{value:.4f}" if abs(value) < 1 else sign + _significant(value, 4)
    if unit == "parameters":
        return sign + _scaled(value, 1000.0, ("", "thousand", "million", "billion"))
    return f"{sign}{_significant(value)} {unit}"


def interval(estimate: Estimate, unit: str = "", signed: bool = False) -> str:
    """Return `` [low, high]``, or nothing where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = figure(estimate.low, unit, signed), figure(estimate.high, unit, signed)
    if " " in low and low.split(" ", 1)[1] == high.split(" ", 1)[-1]:
        low = low.split(" ", 1)[0]  # the unit once is enough
    return f" [{low}, {high}]"


def percent(share: float) -> str:
    """Return a share as per cent, with a decimal where it is small."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 or share == 0 else f"{100 * share:.1f} %"


def listed(parts: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""


def steps_text(steps: Sequence[Any]) -> str:
    """Return how a variant was made, as a study file would write it."""
    done = []
    for step in steps:
        if isinstance(step, Mapping):
            options = dict(step)
            name = str(options.pop("recipe", options.pop("name", "")))
            shown = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
            done.append(f"{name} ({shown})" if shown and name else name or shown)
        elif isinstance(step, list | tuple):
            done.append(" on ".join(map(str, step)))
        else:
            done.append(str(step))
    return ", then ".join(done)


def about(report: Report) -> str:
    """Return what was compared, and on what, in one sentence."""
    if report.extras.get("about"):
        return str(report.extras["about"])
    variants = [name for name in report.variants if name != REFERENCE and name not in report.baselines]
    text = f"{len(variants)} compressed variant{'s' if len(variants) != 1 else ''} of one recommender"
    text += f" and {len(report.baselines)} baselines" if report.baselines else ""
    text += " against the uncompressed reference"
    data = report.extras.get("data")
    if isinstance(data, Mapping) and data.get("name"):
        text += f" on {data['name']}"
    measure = headlines(report).get("Accuracy")
    users = _users(report, measure) if measure else 0
    return text + (f", judged by {pretty(str(measure))} over {users:,} users." if users else ".")


def sentence(report: Report, name: str) -> str:
    """Return what the rows say about one variant, in one plain sentence."""
    built = report.cells.get((name, BUILD))
    if built is not None and built.failure is not None:
        return f"could not be made: {built.failure}."
    parts = []
    for title, measure in headlines(report).items():
        row = report.cells.get((name, measure))
        if row is None or row.samples is None:
            continue
        summary = report.summaries(measure)[name]
        # the reference is compared with nothing, least of all with its own lists
        if summary.estimate is not None and title != "Other" and not (title == "Same lists" and name == REFERENCE):
            parts.append(_finding(title, measure, summary, row.unit, row.better))
    failed = [row.measure for row in report.rows if row.variant == name and row.failure is not None]
    if failed:
        parts.append(f"{len(failed)} measure{'s' if len(failed) > 1 else ''} failed ({', '.join(failed)})")
    if not parts:
        return "nothing was measured."
    notes = (report.extras.get("notes") or {}).get(name) or ()
    return "; ".join([", ".join(parts), *map(str, notes)]) + "."


def smallest_losses(report: Report) -> list[str]:
    """Return, for the headline measures over users, the smallest loss that these data can show."""
    done = []
    for title in ("Accuracy", "Cold items", "Same lists"):
        measure = headlines(report).get(title)
        if measure is None:
            continue
        margins = [
            summary.paired.relative_margin
            for name, summary in report.summaries(measure).items()
            if name not in report.baselines and summary.paired is not None and summary.paired.relative_margin
        ]
        users = _users(report, measure)
        if margins and users:
            low, high = percent(min(margins)), percent(max(margins))
            span = low if low == high else f"{low} to {high}, by variant,"
            done.append(
                f"{pretty(measure)}: the smallest loss that {users:,} users can show is {span} of the reference's (one-sided 95 %); "
                "a smaller one may be there unseen."
            )
    return done


def warm_and_cold(report: Report) -> str | None:
    """Return what warm and cold items say about a static word average beside the model, or ``None`` where that was not measured."""
    heads = headlines(report)
    warm, cold = heads.get("Accuracy"), heads.get("Cold items")
    static = next((name for name in report.variants if name in report.baselines and name == STATIC_AVERAGE), None)
    if warm is None or cold is None or static is None:
        return None
    ours, theirs = report.summaries(warm), report.summaries(cold)
    needed = [table[name].estimate for table in (ours, theirs) for name in (static, REFERENCE) if name in table]
    if len(needed) != 4 or None in needed:
        return None
    paired_warm, paired_cold = ours[static].paired, theirs[static].paired
    if paired_warm is None or paired_cold is None:
        return None
    near, far = _side(paired_warm, "higher"), _side(paired_cold, report.cells[REFERENCE, cold].better)
    text = f"On warm items the static word-piece average reaches {pretty(warm)} {_shown(ours[static])}, "
    text += {"same": "not to be told apart from", "worse": "below", "better": "above"}[near] + f" the reference's {_shown(ours[REFERENCE])}"
    text += f" (difference {figure(paired_warm.difference.value, '', True)}{interval(paired_warm.difference, '', True)}); "
    text += {
        ("same", "worse"): "only cold items tell them apart",
        ("better", "worse"): "only cold items speak for the model",
        ("worse", "worse"): "cold items show it too",
    }.get((near, far), "cold items do not speak for the model")
    text += f": {pretty(cold)} {_shown(theirs[static])} for the average, {_shown(theirs[REFERENCE])} for the reference"
    rest = [
        f"{figure(summary.estimate.value)} for {name}"
        for name, summary in theirs.items()
        if name in report.baselines and name != static and summary.estimate is not None
    ]
    return text + (f", {listed(rest)}." if rest else ".")


def side(paired: Paired, better: str) -> str:
    """Return "better", "worse", or "same" where the 95 % interval of the difference holds 0 or the measure has no direction."""
    return _side(paired, better)


def _side(paired: Paired, better: str) -> str:
    low, high = paired.difference.low, paired.difference.high
    if low is None or high is None:
        low = high = paired.difference.value
    if better not in ("higher", "lower") or low <= 0 <= high:
        return "same"
    return "better" if (low > 0) == (better == "higher") else "worse"


def _finding(title: str, measure: str, summary: Summary, unit: str, better: str) -> str:
    assert summary.estimate is not None
    plain = f"{pretty(measure)} {figure(summary.estimate.value, unit)}"
    ratio = summary.paired.ratio if summary.paired is not None else None
    if title == "Same lists" and base(measure) == "overlap":
        return f"{percent(summary.estimate.value)} of the same top-{measure.partition('@')[2] or 'k'}" if summary.paired else plain
    if title in ("Accuracy", "Cold items"):
        if ratio is None:
            return plain + interval(summary.estimate, unit)
        span = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
        return f"{ratio.value:.2f} of the reference's {pretty(measure)}{span}"
    if title == "Time" and ratio is not None:
        gain = ratio.value if better == "higher" else 1 / ratio.value
        low, high = (ratio.value, ratio.value) if ratio.low is None or ratio.high is None else (ratio.low, ratio.high)
        if low <= 1 <= high:
            return "no faster or slower than the clock can tell"
        return f"{_times(gain)} faster" if gain > 1 else f"{_times(1 / gain)} slower"
    if title == "Size" and ratio is not None:
        if ratio.value == 1:
            return "the same size"
        return f"{_times(1 / ratio.value)} smaller" if ratio.value < 1 else f"{_times(ratio.value)} larger"
    return plain


def _times(factor: float) -> str:
    return f"{factor:.2f}×" if factor < 1.2 else f"{factor:.1f}×" if factor < 100 else f"{factor:,.0f}×"


def _shown(summary: Summary) -> str:
    assert summary.estimate is not None
    return figure(summary.estimate.value) + interval(summary.estimate)


def _users(report: Report, measure: str) -> int:
    return report.summaries(measure)[REFERENCE].units.get("user", 0) if REFERENCE in report.summaries(measure) else 0


def _significant(value: float, digits: int = 3) -> str:
    if value == 0:
        return "0"
    # trailing zeros are digits too, except of a whole number
    text = f"{value:.{digits}g}" if value == round(value) else f"{value:#.{digits}g}".rstrip(".")
    if "e" in text:
        text = f"{value:,.0f}" if abs(value) >= 1 else f"{value:.1e}"
    return text


def _scaled(value: float, step: float, names: Sequence[str]) -> str:
    place = 0
    while abs(value) >= step and place < len(names) - 1:
        value, place = value / step, place + 1
    return f"{_significant(value)} {names[place]}".strip()
