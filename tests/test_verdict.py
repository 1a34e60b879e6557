from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress_rec import verdict
from compress_rec.errors import CompressRecError
from compress_rec.measure import Samples
from compress_rec.report import BUILD, Report, Row

USERS = tuple(f"u{number:04d}" for number in range(400))


def built(**shares: float) -> Report:
    """Variants that keep a share of the reference's gain, give or take a little noise; and a size."""
    generator = np.random.default_rng(0)
    base = (generator.random(len(USERS)) < 0.3) * generator.random(len(USERS))
    rows = [Row("reference", (), "ndcg@10", "", "higher", Samples(tuple(base), {"user": USERS}))]
    rows.append(Row("reference", (), "disk_bytes", "bytes", "lower", Samples((100.0,)), summary="only"))
    for name, share in shares.items():
        values = base * share + (base > 0) * generator.normal(0, 0.03, len(USERS))
        rows.append(Row(name, (), "ndcg@10", "", "higher", Samples(tuple(values), {"user": USERS})))
        rows.append(Row(name, (), "disk_bytes", "bytes", "lower", Samples((25.0,)), summary="only"))
    return Report({}, tuple(rows))


def outcome(report: Report, table: dict[str, Any]) -> dict[str, str]:
    return {judgement.variant: judgement.outcome for judgement in verdict.judge(report, verdict.parse(table))}


def test_pass_fail_and_not_established_come_from_the_bound() -> None:
    report = built(good=1.0, bad=0.8, close=0.951)
    gate = {"ndcg@10": {"at_least": 0.95, "of": "reference"}}
    assert outcome(report, gate) == {"good": "pass", "bad": "fail", "close": "not established"}
    for judgement in verdict.judge(report, verdict.parse(gate)):
        assert judgement.estimate is not None
        assert judgement.estimate.at_least is not None
        assert judgement.estimate.at_most is not None
        wanted = "pass" if judgement.estimate.at_least >= 0.95 else "fail" if judgement.estimate.at_most < 0.95 else "not established"
        assert judgement.outcome == wanted
        assert f"{judgement.estimate.value:.3f} [{judgement.estimate.low:.3f}, {judgement.estimate.high:.3f}]" in judgement.text
        assert f"one-sided 95 % bound {judgement.estimate.at_least:.3f}" in judgement.text


def test_a_margin_excuses_the_bound_but_not_the_figure() -> None:
    report = built(close=0.96, short=0.94)
    assert outcome(report, {"ndcg@10": {"at_least": 0.952, "of": "reference"}})["close"] == "not established"
    found = outcome(report, {"ndcg@10": {"at_least": 0.952, "of": "reference", "margin": 0.05}})
    assert found["close"] == "pass"
    assert found["short"] != "pass"


def test_absolute_gates_and_upper_limits() -> None:
    report = built(small=1.0)
    assert outcome(report, {"disk_bytes": {"at_most": 25}}) == {"small": "pass"}
    assert outcome(report, {"disk_bytes": {"at_most": 24}}) == {"small": "fail"}
    assert outcome(report, {"disk_bytes": {"at_most": 0.25, "of": "reference"}}) == {"small": "pass"}
    assert outcome(report, {"disk_bytes": {"at_most": -75, "of": "reference", "by": "difference"}}) == {"small": "pass"}
    assert outcome(report, {"ndcg@10": {"at_least": 0.01, "variants": ["reference"]}}) == {"reference": "pass"}
    assert outcome(report, {"ndcg@10": {"at_most": 0.01}}) == {"small": "fail"}


def test_a_single_figure_is_judged_only_where_it_is_a_property_of_the_variant() -> None:
    rows = [
        Row(name, (), measure, "", "higher", Samples((value,)), summary=summary)
        for measure, summary in (("parameters", "only"), ("coverage@10", "once"), ("gain", "mean"))
        for name, value in (("reference", 1.0), ("v", 0.9))
    ]
    report = Report({}, tuple(rows))
    for gate in ({"at_least": 0.5}, {"at_least": 0.95}, {"at_least": 0.5, "of": "reference"}):
        assert outcome(report, {"parameters": gate}) == {"v": "fail" if gate["at_least"] == 0.95 else "pass"}
        for measure in ("coverage@10", "gain"):
            (judged,) = verdict.judge(report, verdict.parse({measure: gate}))
            assert judged.outcome == "not established"
            assert "has no interval" in judged.text
            assert "0.9" in judged.text


def test_what_is_missing_is_never_passed() -> None:
    report = built(good=1.0)
    rows = list(report.rows)
    rows.append(Row("broken", (), BUILD, "", "neither", None, "it cannot be factorised"))
    rows.append(Row("slow", (), "ndcg@10", "", "higher", None, "out of memory"))
    rows.append(Row("blank", (), "ndcg@10", "", "higher", Samples((None, None), {"user": USERS[:2]})))
    rows.append(Row("few", (), "ndcg@10", "", "higher", Samples((0.9,) * 50, {"user": USERS[:50]})))
    judged = verdict.judge(Report({}, tuple(rows)), verdict.parse({"ndcg@10": {"at_least": 0.5}}))
    text = {judgement.variant: judgement.text for judgement in judged if judgement.outcome == "not established"}
    assert "the variant could not be made: it cannot be factorised" in text["broken"]
    assert "out of memory" in text["slow"]
    assert "none of its 2 values is defined" in text["blank"]
    assert "50 users are too few to judge by, 100 are wanted" in text["few"]
    unknown = verdict.judge(report, verdict.parse({"ndgc@10": {"at_least": 0.5}}))
    assert [judgement.outcome for judgement in unknown] == ["not established"]
    assert "not measured; did you mean 'ndcg@10'?" in unknown[0].text


def test_baselines_are_not_judged_unless_named() -> None:
    report = built(good=1.0)
    rows = (*report.rows, Row("popularity", (), "ndcg@10", "", "higher", Samples((0.0,) * 400, {"user": USERS}), kind="baseline"))
    gates = {"ndcg@10": {"at_least": 0.9, "of": "reference"}}
    assert outcome(Report({}, rows), gates) == {"good": "pass"}
    gates["ndcg@10"]["variants"] = ["popularity"]  # type: ignore[assignment]
    assert outcome(Report({}, rows), gates) == {"popularity": "fail"}


@pytest.mark.parametrize(
    ("shares", "code", "last"),
    [
        ({"good": 1.0}, 0, "verdict: pass (1 pass)"),
        ({"good": 1.0, "bad": 0.7, "close": 0.951}, 1, "verdict: fail (1 pass, 1 fail, 1 not established)"),
        ({"good": 1.0, "close": 0.951}, 3, "verdict: not established (1 pass, 1 not established)"),
        ({}, 3, "verdict: not established (nothing was judged)"),
    ],
)
def test_exit_codes(shares: dict[str, float], code: int, last: str) -> None:
    text, found = verdict.main_lines(built(**shares), {"ndcg@10": {"at_least": 0.95, "of": "reference"}})
    assert (found, text[-1]) == (code, last)
    assert len(text) == len(shares) + 1


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"ndcg@10": {"at_leest": 0.9}}, r"has no option 'at_leest'; did you mean 'at_least'\?"),
        ({"ndcg@10": 0.9}, "must be a table such as .*, but 0.9 came"),
        ({"ndcg@10": {}}, "needs exactly one of at_least and at_most, but none came"),
        ({"ndcg@10": {"at_least": 1, "at_most": 2}}, "but both came"),
        ({"ndcg@10": {"at_least": "much"}}, "'at_least' of the gate on 'ndcg@10' must be a number, but 'much' came"),
        ({"ndcg@10": {"at_least": 1, "margin": -0.1}}, "must be a number not below 0, but -0.1 came"),
        ({"ndcg@10": {"at_least": 1, "by": "ratio"}}, "but not of what"),
        ({"ndcg@10": {"at_least": 1, "of": "reference", "by": "sum"}}, 'must be "ratio" or "difference"'),
        ({"ndcg@10": {"at_least": 1, "variants": "good"}}, "must be a list of names"),
    ],
)
def test_a_wrong_gate_is_refused(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CompressRecError, match=sentence):
        verdict.parse(table)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(CompressRecError, match=r"names 'godd', which the report does not hold; did you mean 'good'\?"):
        verdict.judge(built(good=1.0), verdict.parse({"ndcg@10": {"at_least": 1, "variants": ["godd"]}}))
    with pytest.raises(CompressRecError, match="compares with 'referense'"):
        verdict.judge(built(good=1.0), verdict.parse({"ndcg@10": {"at_least": 1, "of": "referense"}}))


def test_no_gates_is_no_pass() -> None:
    with pytest.raises(CompressRecError, match=r"the study has no \[gates\]: add a line such as"):
        verdict.main_lines(built(good=1.0), {})


def test_a_measure_may_have_several_gates() -> None:
    """The reference's own floor and what a variant may lose are two questions about one measure."""
    gates = verdict.parse(
        {"ndcg@10": [{"at_least": 0.1, "variants": ["reference"]}, {"at_least": 0.9, "of": "reference", "variants": ["int8"]}]}
    )
    assert [(gate.measure, gate.of, gate.variants) for gate in gates] == [
        ("ndcg@10", None, ("reference",)),
        ("ndcg@10", "reference", ("int8",)),
    ]
    with pytest.raises(CompressRecError, match="has no option 'at_leest'"):
        verdict.parse({"ndcg@10": [{"at_least": 0.1}, {"at_leest": 0.9}]})
