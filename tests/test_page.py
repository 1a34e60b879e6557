from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from compress_rec import page, plots, wording
from compress_rec.errors import CompressRecError
from compress_rec.measure import Samples
from compress_rec.report import Report, Row, read
from tests.synthetic_report import synthetic_report

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reading(HTMLParser):
    """Everything a browser would act on: attributes, the style sheets, the visible text, and the nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[tuple[str, str]] = []
        self.styles: list[str] = []
        self.visible: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.data: dict[str, str] = {}
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {key: value or "" for key, value in attrs}
        self.addresses += [(tag, named[key]) for key in ("src", "href", "srcset", "action", "data", "poster", "background") if key in named]
        self.styles.append(named.get("style", ""))
        if "id" in named:
            self.ids.append(named["id"])
        if tag not in VOID:
            self.open.append(tag)
        self.inside = named.get("id", "") if tag == "script" else self.inside

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
        elif self.open and self.open[-1] == "script":
            self.data[self.inside] = self.data.get(self.inside, "") + data
        else:
            self.visible.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.visible))


@pytest.fixture(scope="module")
def report() -> Report:
    return synthetic_report()


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return page.render(report)


@pytest.fixture(scope="module")
def reading(html: str) -> Reading:
    return Reading(html)


def test_nothing_is_loaded_from_anywhere(html: str, reading: Reading) -> None:
    # plotly's own source names addresses in its text; what counts is what a browser would fetch
    assert [address for address in reading.addresses if not address[1].startswith("#")] == []
    assert {address[1][1:] for address in reading.addresses} <= set(reading.ids)
    assert not re.search(r"url\(|@import", " ".join(reading.styles))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert "http" not in policy[1]


def test_the_page_is_whole(html: str, reading: Reading) -> None:
    assert html.startswith("<!doctype html>")
    assert reading.open == []
    assert len(reading.ids) == len(set(reading.ids))


def test_every_variant_and_measure_is_shown(report: Report, reading: Reading) -> None:
    for name in report.variants:
        assert name in reading.text
        assert wording.sentence(report, name) in reading.text
    for measure in report.measures:
        assert wording.pretty(measure) in reading.text
    assert str(wording.warm_and_cold(report)) in reading.text
    assert "the history of <every> user was empty" in reading.text
    assert "an invented CPU" in reading.text
    assert "cosine_top_k backend avx2; int8_linear backend reference, fallback no compiled kernel" in reading.text
    assert "8 GB" in reading.text


def test_page_and_json_lines_show_the_same_figures(report: Report, reading: Reading, tmp_path: Path) -> None:
    goals = page.write_all(report, tmp_path / "run")
    assert [goal.name for goal in goals] == ["report.jsonl", "report.md", "report.html"]
    assert page.render(read(goals[0])) == goals[2].read_text()
    for line in goals[0].read_text().splitlines()[1:]:
        row = json.loads(line)
        if row["result"] is not None:
            assert wording.figure(row["result"]["estimate"]["value"], row["unit"]) in reading.text


def test_titles_cannot_break_out_of_the_page(html: str, report: Report) -> None:
    assert "Star &lt;Trek&gt; III (1984)" in html
    rows = tuple(
        Row(name, (), measure, unit, better, Samples(values, {unit_of: ("a", "b")}), summary=summary)
        for name in ("reference", "</script><b>x")
        for measure, unit, better, values, unit_of, summary in (
            ("ndcg@10", "", "higher", (0.1, 0.2), "user", "mean"),
            ("latency", "ms", "lower", (1.0, 2.0), "repeat", "median"),
        )
    )
    hostile = page.render(Report({}, rows))
    assert "</script><b>x" not in hostile
    assert "\\u003c/script>\\u003cb>x" in hostile


def test_the_plots_hold_what_was_measured(report: Report, reading: Reading) -> None:
    drawn = json.loads(reading.data["plot-pareto"])
    points = {name: (x, y) for trace in drawn["data"][1:] for name, x, y in zip(trace["text"], trace["x"], trace["y"], strict=True)}
    assert set(points) == {"reference", "int8", "svd-half", "short-int8"}
    for name, (x, y) in points.items():
        time, gain = report.summaries("latency[role=text,batch=1]")[name].estimate, report.summaries("ndcg@10")[name].estimate
        assert time is not None
        assert gain is not None
        assert (x, y) == (time.value, gain.value)
    sizes = {name: size for trace in drawn["data"][1:] for name, size in zip(trace["text"], trace["marker"]["size"], strict=True)}
    # area, not width, is in proportion to the bytes
    assert (sizes["int8"] / sizes["reference"]) ** 2 == pytest.approx(23_100_000 / 90_900_000)
    clocks = json.loads(reading.data["plot-clocks"])
    # 60 repeats are too few for p99
    assert {trace.get("name") for trace in clocks["data"][1:]} == {"p50", "p95"}


def test_the_front_is_what_nothing_beats() -> None:
    points = [("slow", 9.0, 0.9), ("fast", 1.0, 0.5), ("beaten", 3.0, 0.4), ("good", 2.0, 0.8), ("tied", 2.0, 0.7)]
    assert plots.front(points) == ["fast", "good", "slow"]


def test_labels_keep_out_of_each_other() -> None:
    alone = plots.label_places({"one": (200.0, 200.0, 10.0)})
    assert alone == {"one": "top center"}
    # the second one would write over the first one's name, the third over the first one's disc
    crowded = plots.label_places({"one-name": (200.0, 200.0, 10.0), "two-name": (210.0, 200.0, 10.0), "three-name": (205.0, 224.0, 8.0)})
    assert len(set(crowded.values())) == 3
    edge = plots.label_places({"a-very-long-name-indeed": (1.0, 100.0, 5.0)})
    assert edge["a-very-long-name-indeed"].endswith("right")


def test_without_measurements_there_is_nothing_to_see() -> None:
    row = Row("reference", (), "ndcg@10", "", "higher", Samples((0.1, 0.2), {"user": ("a", "b")}))
    bare = Reading(page.render(Report({}, (row,))))
    assert [name for name in bare.ids if name.startswith("plot-")] == []
    assert "Plotly.newPlot" not in " ".join(bare.data.values())
    for absent in ("Speed against accuracy", "Explanations before and after", "Gates", "Failures", "faster"):
        assert absent not in bare.text


def test_explanations_are_put_side_by_side(reading: Reading) -> None:
    given = [
        {"user": "u", "item_title": "i", "variant": name, "units": ["a", "b"], "reference": [0.4, -0.1], "variant_values": values}
        for name, values in (("v", [0.2, -0.2]), ("w", [-0.1, None]))
    ]
    (panel,) = page.explanations(given)
    assert [line["name"] for line in panel["lines"]] == ["reference", "v", "w"]
    before, after, last = panel["lines"]
    assert [chip["text"] for chip in before["chips"]] == ["+0.40", "−0.10"]
    assert [chip["background"] for chip in before["chips"]] == ["rgba(200, 60, 45, 0.62)", "rgba(40, 105, 190, 0.15)"]
    assert [chip["background"] for chip in after["chips"]] == ["rgba(200, 60, 45, 0.62)", "rgba(40, 105, 190, 0.62)"]
    assert after["told"] == "same strongest reason, 2 of the 2 strongest kept"
    assert last["chips"][1]["text"] == "undefined"
    assert "before compression" in reading.text
    with pytest.raises(CompressRecError, match="explanation 0 of the report has 1 units, 2 and 2 attributions"):
        page.explanations([{**given[0], "units": ["a"]}])
    with pytest.raises(CompressRecError, match="explanation 0 of the report lacks 'user'"):
        page.explanations([{"units": []}])


def test_gates_are_judged_on_the_page(reading: Reading) -> None:
    assert "not established" in reading.text
    assert "int8, ndcg@10 at least 0.950 of reference's" in reading.text
