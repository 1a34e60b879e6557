"""May this be shipped: the gates of a study, judged on what its report can show.

A gate passes when its one-sided 95 % bound clears it, fails when the opposite bound lies beyond it, and is not established when the
data cannot tell. "No significant loss" is no proof of equality: a small study that shows nothing is not established. What is a property of
the variant itself (its size, its operations) is judged by its figure; any other figure without an interval is not established.
The bounds are per gate, not adjusted for their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from compress_rec.errors import CompressRecError, nearest
from compress_rec.report import BUILD, REFERENCE, Report
from compress_rec.summary import Estimate, Summary
from compress_rec.wording import figure, interval

# below this many users a bootstrap bound is not to be trusted with a decision
MINIMUM_USERS = 100
Outcome = Literal["pass", "fail", "not established"]


@dataclass(frozen=True)
class Gate:
    """One line of a study's ``[gates]``.

    measure: the label of a measure in the report
    at_least, at_most: what the figure must reach, or must not exceed: exactly one of them
    of: judge the figure relative to this variant's ("reference"); absent: the figure itself
    by: with ``of``, "ratio" (figure over figure) or "difference" (figure minus figure)
    margin: how far the one-sided 95 % bound may lie on the wrong side of the limit, while the figure itself keeps it
    variants: judged are these; absent: every variant except ``of`` and the reference
    """

    measure: str
    at_least: float | None = None
    at_most: float | None = None
    of: str | None = None
    by: str = "ratio"
    margin: float = 0.0
    variants: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Judgement:
    """What one gate says about one variant; ``estimate`` is what was judged, ``None`` where there is none."""

    gate: Gate
    variant: str
    outcome: Outcome
    estimate: Estimate | None
    text: str


def parse(table: Mapping[str, Any]) -> tuple[Gate, ...]:
    """Read a study's ``[gates]`` table, one table of options a measure or a list of them, refusing unknown keys and wrong kinds."""
    return tuple(_gate(measure, options) for measure, given in table.items() for options in (given if isinstance(given, list) else [given]))


def _gate(measure: str, options: Any) -> Gate:
    known = [one.name for one in fields(Gate) if one.name != "measure"]
    if not isinstance(options, Mapping):
        raise CompressRecError(
            f"the gate on '{measure}' must be a table such as {{ at_least = 0.98, of = \"reference\" }}, but {options!r} came"
        )
    for key, value in options.items():
        if key not in known:
            raise CompressRecError(f"the gate on '{measure}' has no option '{key}'{nearest(key, known)}")
        _check(measure, key, value)
    if ("at_least" in options) == ("at_most" in options):
        raise CompressRecError(
            f"the gate on '{measure}' needs exactly one of at_least and at_most, but {'both' if 'at_least' in options else 'none'} came"
        )
    if "by" in options and "of" not in options:
        raise CompressRecError(
            f'the gate on \'{measure}\' says by = "{options["by"]}" but not of what: add of = "{REFERENCE}", or leave out by'
        )
    given = dict(options)
    if "variants" in given:
        given["variants"] = tuple(given["variants"])
    return Gate(measure, **given)


def judge(report: Report, gates: Sequence[Gate]) -> tuple[Judgement, ...]:
    """Judge every gate for every variant it names. A figure that is missing is not established, never passed."""
    done = []
    for gate in gates:
        if gate.of is not None and gate.of not in report.variants:
            raise CompressRecError(
                f"the gate on '{gate.measure}' compares with '{gate.of}', which the report does not hold{nearest(gate.of, report.variants)}"
            )
        names = gate.variants
        if names is None:
            names = tuple(name for name in report.variants if name not in (gate.of, REFERENCE) and name not in report.baselines)
        for name in names:
            if name not in report.variants:
                raise CompressRecError(
                    f"the gate on '{gate.measure}' names '{name}', which the report does not hold{nearest(name, report.variants)}"
                )
            done.append(_judged(report, gate, name))
    return tuple(done)


def exit_code(judgements: Sequence[Judgement]) -> int:
    """Return 1 if a gate failed, else 3 if one is not established (or none was judged), else 0."""
    outcomes = {judgement.outcome for judgement in judgements}
    if "fail" in outcomes:
        return 1
    return 0 if outcomes == {"pass"} else 3


def main_lines(report: Report, table: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Return what ``compress-rec verdict`` prints, one line a gate and variant and one for all, and the exit code."""
    gates = parse(table)
    if not gates:
        raise CompressRecError(
            'the study has no [gates]: add a line such as "ndcg@10" = { at_least = 0.98, of = "reference", margin = 0.03 }'
        )
    judgements = judge(report, gates)
    code = exit_code(judgements)
    counts = {outcome: sum(judgement.outcome == outcome for judgement in judgements) for outcome in ("pass", "fail", "not established")}
    total = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing was judged"
    return (*(judgement.text for judgement in judgements), f"verdict: {['pass', 'fail', '', 'not established'][code]} ({total})"), code


def _check(measure: str, key: str, value: Any) -> None:
    if key in ("at_least", "at_most", "margin"):
        sound, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        sound = sound and not (key == "margin" and value < 0)
    elif key == "by":
        sound, wanted = value in ("ratio", "difference"), '"ratio" or "difference"'
    elif key == "of":
        sound, wanted = isinstance(value, str), "the name of a variant"
    else:
        sound, wanted = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value), "a list of names"
    if not sound:
        raise CompressRecError(
            f"option '{key}' of the gate on '{measure}' must be {wanted}{' not below 0' if key == 'margin' else ''}, but {value!r} came"
        )


def _judged(report: Report, gate: Gate, name: str) -> Judgement:
    limit, word = (gate.at_least, "at least") if gate.at_least is not None else (gate.at_most, "at most")
    assert limit is not None  # parse saw to it
    unit = next((row.unit for row in report.rows if row.measure == gate.measure), "")
    relative = gate.of is not None and gate.by == "ratio"
    shown = figure(limit, "ratio" if relative else unit)
    goal = f"{word} {shown}" + (f" of {gate.of}'s" if relative else f" against {gate.of}" if gate.of else "")
    goal += f", margin {figure(gate.margin, 'ratio' if relative else unit)}" if gate.margin else ""
    estimate, reason = _figure(report, gate, name)
    outcome: Outcome = "not established"
    if estimate is not None and reason is None:
        outcome = _outcome(estimate, gate)
        if outcome == "not established":
            reason = "the interval holds both sides of the limit"
    text = f"{outcome}: {name}, {gate.measure} {goal}"
    if estimate is not None:
        text += f": {figure(estimate.value, 'ratio' if relative else unit)}{interval(estimate, 'ratio' if relative else unit)}"
        bound = estimate.at_most if gate.at_most is not None else estimate.at_least
        if bound is not None:
            text += f", one-sided 95 % bound {figure(bound, 'ratio' if relative else unit)}"
    return Judgement(gate, name, outcome, estimate, text + (f" ({reason})" if reason else ""))


def _figure(report: Report, gate: Gate, name: str) -> tuple[Estimate | None, str | None]:
    """Return what is judged, and why it cannot be."""
    row = report.cells.get((name, gate.measure))
    if row is None:
        built = report.cells.get((name, BUILD))
        if built is not None and built.failure is not None:
            return None, f"the variant could not be made: {built.failure}"
        hint = "" if gate.measure in report.measures else nearest(gate.measure, report.measures)
        return None, f"not measured{hint}"
    if row.failure is not None or row.samples is None:
        return None, row.failure or f"does not apply: {row.not_applicable}"
    summary = report.summaries(gate.measure, gate.of or REFERENCE)[name]
    estimate = summary.estimate if gate.of is None else _relative(summary, gate)
    if estimate is None:
        if summary.estimate is None:
            return None, f"none of its {summary.undefined} values is defined"
        return None, f"there is nothing shared with '{gate.of}' to compare, or its figure is not above 0"
    few = summary.units.get("user")
    if few is not None and few < MINIMUM_USERS:
        return estimate, f"{few} users are too few to judge by, {MINIMUM_USERS} are wanted"
    # "only" is a property of the variant, such as its size; any other figure would be another with other users or in another run
    if estimate.at_least is None and row.summary != "only":
        return estimate, "a figure that other users or another run would change, and it has no interval"
    return estimate, None


def _relative(summary: Summary, gate: Gate) -> Estimate | None:
    if summary.paired is None:
        return None
    return summary.paired.ratio if gate.by == "ratio" else summary.paired.difference


def _outcome(estimate: Estimate, gate: Gate) -> Outcome:
    sign = 1.0 if gate.at_least is not None else -1.0
    limit = sign * (gate.at_least if gate.at_least is not None else gate.at_most or 0.0)
    value = sign * estimate.value
    bounds = [bound for bound in (estimate.at_least, estimate.at_most) if bound is not None]
    worst, best = min((sign * bound for bound in bounds), default=value), max((sign * bound for bound in bounds), default=value)
    if value >= limit and worst >= limit - gate.margin:
        return "pass"
    return "fail" if best < limit else "not established"
