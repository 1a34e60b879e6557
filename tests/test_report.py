from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress_rec import figures, markdown, page, plots, report_table, wording
from compress_rec.errors import CompressRecError
from compress_rec.measure import Samples
from compress_rec.report import STATIC_AVERAGE, Report, Row, lines, read, write
from tests.synthetic_report import synthetic_report


@pytest.fixture(scope="module")
def report() -> Report:
    return synthetic_report()


@pytest.fixture(scope="module")
def file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "report.jsonl"
    write(report, path)
    return path


def small(values: tuple[float | None, ...], name: str = "reference", measure: str = "ndcg@10") -> Row:
    return Row(name, (), measure, "", "higher", Samples(values, {"user": tuple(f"u{place}" for place in range(len(values)))}))


def test_the_first_line_is_the_environment_and_every_other_a_row(report: Report, file: Path) -> None:
    parsed = [json.loads(line) for line in file.read_text().splitlines()]
    assert parsed[0]["schema"] == 1
    assert parsed[0]["environment"]["cpu"] == "an invented CPU"
    assert len(parsed) == 1 + len(report.rows)
    first = parsed[1]
    assert {"schema", "variant", "steps", "measure", "unit", "better", "samples", "failure"} <= set(first)
    assert (first["schema"], first["variant"], first["measure"], first["failure"]) == (1, "reference", "ndcg@10", None)
    assert set(first["samples"]) == {"values", "units", "seed"}
    assert len(first["samples"]["values"]) == len(first["samples"]["units"]["user"]) == 240


def test_what_is_written_is_read_again(report: Report, file: Path) -> None:
    again = read(file)
    assert again.environment == report.environment
    assert again.extras == report.extras
    assert again.rows == report.rows


def test_undefined_values_are_null_and_stay_undefined(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    write(Report({}, (small((float("nan"), float("inf"), None, 0.5)),)), path)
    assert '"values": [null, null, null, 0.5]' in path.read_text()
    row = read(path).rows[0]
    assert row.samples is not None
    assert row.samples.values == (None, None, None, 0.5)


def test_a_measure_that_does_not_apply_is_no_failure(file: Path) -> None:
    row = read(file).cells["popularity", "overlap@10"]
    assert (row.samples, row.failure, row.not_applicable, row.kind) == (None, None, "a baseline has no tower", "baseline")


def test_a_row_holds_exactly_one_outcome() -> None:
    with pytest.raises(
        CompressRecError, match="of 'v' for 'm' must hold samples, a failure or a reason why it does not apply, but 0 of them came"
    ):
        Row("v", (), "m", "", "higher", None)
    with pytest.raises(CompressRecError, match="but 2 of them came"):
        Row("v", (), "m", "", "higher", Samples((1.0,)), "failed")


def test_a_cell_that_stands_twice_is_refused() -> None:
    with pytest.raises(CompressRecError, match="holds 'ndcg@10' of 'reference' twice"):
        Report({}, (small((1.0,)), small((2.0,))))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[: len(text) - 40], r"line \d+ breaks off or is not JSON .*: run the study again"),
        (lambda text: text.replace('"schema": 1', '"schema": 7', 1), "line 1 says schema 7, but this version reads schema 1"),
        (lambda text: "", "must begin with a line that holds the environment"),
        (lambda text: text.split("\n", 1)[1], "must begin with a line that holds the environment"),
        (lambda text: text.replace('"variant": "reference", ', "", 1), "line 2 needs 'variant' as str, but nothing came"),
        (
            lambda text: text.replace('"samples": {"values": [', '"samples": {"values": [1.5, ', 1),
            "line 2: samples over 'user' need one id a value",
        ),
        (lambda text: text.replace('"seed": 0', '"sown": 0', 1), "line 2 holds samples that are not values, units and a seed"),
        (lambda text: text.replace('"kind": "variant"', '"kind": "other"', 1), "line 2 says kind 'other'"),
        (lambda text: "[1, 2]\n" + text, "line 1 must be a JSON object, but list came"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(file: Path, tmp_path: Path, change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    broken = tmp_path / "broken.jsonl"
    text = change(file.read_text())
    assert text != file.read_text()
    broken.write_text(text)
    with pytest.raises(CompressRecError, match=sentence):
        read(broken)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match=r"there is no report at .*: run the study first"):
        read(tmp_path / "report.jsonl")


def test_an_unknown_measure_gets_the_nearest_name(report: Report) -> None:
    with pytest.raises(CompressRecError, match=r"no measure called 'ndgc@10'; did you mean 'ndcg@10'\?"):
        report.summaries("ndgc@10")


def test_every_measure_of_every_variant_stands_in_the_table(report: Report) -> None:
    shown = report_table.whole(report)
    assert {column.measure for column in shown.columns} == set(report.measures)
    assert "unheard_of" in {column.measure for column in shown.columns if column.group == "Other"}
    assert [line.name for line in shown.lines] == list(report.variants)
    assert [line.name for line in shown.lines if line.baseline] == [
        "popularity",
        "id lookup",
        "attribute ridge",
        "zero-shot",
        "static average",
    ]
    kinds = {cell.kind for line in shown.lines for cell in line.cells}
    assert kinds == {"value", "failed", "not applicable"}
    broken = next(line for line in shown.lines if line.name == "int8-tucker")
    assert {shown.reasons[cell.note - 1] for cell in broken.cells if cell.note} == {
        "int8-tucker could not be made: 'tucker' cannot follow 'quantize_int8': put it before"
    }


def test_better_and_worse_follow_the_direction_of_the_measure(report: Report) -> None:
    shown = report_table.whole(report)
    line = next(line for line in shown.lines if line.name == "short-int8")
    sides = {column.measure: cell.side for column, cell in zip(shown.columns, line.cells, strict=True)}
    assert sides["ndcg@10"] == "worse"
    assert sides["latency[role=text,batch=1]"] == "better"
    assert sides["throughput[role=text,batch=32]"] == "better"
    assert sides["exposure_lift"] == "same"


def test_every_number_of_the_markdown_is_the_result_of_the_json_lines(report: Report) -> None:
    text = markdown.render(report)
    for line in lines(report)[1:]:
        if line["result"] is None:
            continue
        estimate, paired, unit = line["result"]["estimate"], line["result"]["paired"], line["unit"]
        wanted = wording.figure(estimate["value"], unit)
        if estimate["low"] is not None:
            high = wording.figure(estimate["high"], unit)
            low = wording.figure(estimate["low"], unit).removesuffix(high[high.find(" ") :] if " " in high else "")
            wanted += f" [{low}, {high}]"
        if paired is not None:
            wanted += f"<br>Δ {wording.figure(paired['difference']['value'], unit, signed=True)}"
        title = wording.pretty(line["measure"])
        rows = [row for row in _section(text, title) if f"{line['variant']}*" in row or row.startswith(f"| {line['variant']} |")]
        assert any(wanted in row for row in rows), (line["variant"], line["measure"], wanted)


def _section(text: str, title: str) -> list[str]:
    """Return the lines of every table whose header names ``title``."""
    found, inside = [], False
    for line in text.splitlines():
        if line.startswith("| variant"):
            inside = f"| {title}" in line
        elif not line.startswith("|"):
            inside = False
        if inside:
            found.append(line)
    return found


def test_sentences_hold_measured_figures_only(report: Report) -> None:
    text = wording.sentence(report, "int8")
    ratio = report.summaries("ndcg@10")["int8"].paired
    assert ratio is not None
    assert ratio.ratio is not None
    assert f"{ratio.ratio.value:.2f} of the reference's NDCG@10" in text
    assert "1.9× faster" in text
    assert "3.9× smaller" in text
    assert "% of the same top-10" in text
    bare = Report({}, (small((0.5, 0.5)), small((0.25, 0.5), "v")))
    assert wording.sentence(bare, "v") == "0.75 of the reference's NDCG@10 [0.50, 1.00]."
    assert wording.warm_and_cold(bare) is None
    assert wording.sentence(report, "int8-tucker") == "could not be made: 'tucker' cannot follow 'quantize_int8': put it before."


def test_warm_and_cold_say_what_the_intervals_say(report: Report) -> None:
    text = wording.warm_and_cold(report)
    assert text is not None
    assert "not to be told apart from the reference's" in text
    assert "only cold items tell them apart" in text
    assert all(f"for {name}" in text for name in ("popularity", "id lookup", "attribute ridge", "zero-shot"))

    def built(static_warm: float, static_cold: float) -> str | None:
        rows = []
        for measure, ours in (("ndcg@10", static_warm), ("cold_recall@10", static_cold)):
            values = tuple(0.1 * (place % 5) for place in range(50))
            rows.append(small(values, measure=measure))
            row = small(tuple(ours * value for value in values), STATIC_AVERAGE, measure)
            rows.append(Row(row.variant, (), measure, "", "higher", row.samples, kind="baseline"))
        return wording.warm_and_cold(Report({}, tuple(rows)))

    assert "below the reference's" in str(built(0.5, 0.5))
    assert "cold items show it too" in str(built(0.5, 0.5))
    assert "cold items do not speak for the model" in str(built(1.0, 1.0))


def test_figures_are_read_as_a_reader_wants_them() -> None:
    assert wording.figure(90_868_376, "bytes") == "90.9 MB"
    assert wording.figure(0.08512) == "0.0851"
    assert wording.figure(12_345.0) == "12,345"
    assert wording.figure(22_713_216) == "22.7 million"
    assert wording.figure(8.123, "ms") == "8.12 ms"
    assert wording.figure(9.199, "ms") == "9.20 ms"
    assert wording.figure(25.0, "bytes") == "25 B"
    assert wording.figure(0.000042) == "4.2e-05"
    assert wording.figure(1.43, "×") == "1.43×"
    assert wording.figure(1234.0, "texts/s") == "1,234 texts/s"
    assert wording.figure(-0.0021, signed=True) == "-0.0021"
    assert wording.figure(0.0021, signed=True) == "+0.0021"
    assert wording.pretty("latency[role=text,batch=1]") == "latency (text, batch 1)"
    assert wording.pretty("ndcg@10[user=text]") == "NDCG@10 (text)"


def test_steps_read_like_a_plan() -> None:
    steps = ({"recipe": "factorize", "kept": 0.5, "only": None, "tower": "user"}, "quantize_int8")
    assert wording.steps_text(steps) == "factorize (kept 0.5, tower user), then quantize_int8"


def test_a_measure_says_where_it_stands_and_its_name_only_where_it_does_not(tmp_path: Path) -> None:
    def row(measure: str, group: str) -> Row:
        return Row("reference", (), measure, "", "higher", Samples((1.0,)), summary="only", group=group)

    report = Report({}, (row("novelty@10", "Diversity"), row("ndcg@10", ""), row("surprise", ""), row("coverage@10", "Diversity")))
    path = tmp_path / "report.jsonl"
    write(report, path)
    assert json.loads(path.read_text().splitlines()[1])["group"] == "Diversity"
    assert read(path).rows == report.rows
    wanted = {"Accuracy": ["ndcg@10"], "Diversity": ["novelty@10", "coverage@10"], "Other": ["surprise"]}
    assert wording.grouped(report) == wanted
    assert list(wording.grouped(report)) == list(wanted)
    older = path.read_text().replace('"group": "Diversity", ', "")
    path.write_text(older)
    assert wording.grouped(read(path)) == {"Accuracy": ["ndcg@10"], "Same lists": ["coverage@10"], "Other": ["novelty@10", "surprise"]}


def test_a_percentile_of_a_handful_is_a_dash_with_a_note() -> None:
    def clocked(count: int) -> Report:
        times = Samples(tuple(float(1 + place) for place in range(count)), {"repeat": tuple(map(str, range(count)))})
        return Report({}, (Row("reference", (), "latency", "ms", "lower", times, summary="median"),))

    assert "| reference | 3.50 ms | – | – |" in markdown.render(clocked(6))
    assert "| reference | 15.5 ms | 29 ms | – |" in markdown.render(clocked(30))
    assert all(report_table.FEW_NOTE in text for text in (markdown.render(clocked(30)), page.render(clocked(30))))
    assert "<td>–</td>" in page.render(clocked(30))
    assert not any(report_table.FEW_NOTE in text for text in (markdown.render(clocked(100)), page.render(clocked(100))))
    full = plots.spread(clocked(100), "latency")
    assert full is not None
    assert [trace.get("name") for trace in full["data"][1:]] == ["p50", "p95", "p99"]
    drawn = plots.spread(clocked(30), "latency")
    assert drawn is not None
    assert [trace.get("name") for trace in drawn["data"][1:]] == ["p50", "p95"]
    assert drawn["data"][0]["x"] == [15.5, 29.0, None]


def test_a_readme_gets_its_figures_from_the_report(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- figures:demo -->\nstale figures\n<!-- /figures -->\nafter\n")
    assert figures.main([str(readme), str(file), "--check"]) == 1
    assert "stale figures" in readme.read_text()
    assert figures.main([str(readme), str(file)]) == 0
    assert figures.main([str(readme), str(file), "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- figures:demo -->\n")
    assert text.endswith("<!-- /figures -->\nafter\n")
    assert "stale figures" not in text
    assert markdown.glance(read(file)) in text
    readme.write_text(text.replace("0.97", "0.99", 1))
    assert figures.main([str(readme), str(file), "--check"]) == 1
    readme.write_text("no markers")
    capsys.readouterr()
    assert figures.main([str(readme), str(file)]) == 2
    assert "needs the lines '<!-- figures:demo -->' and '<!-- /figures -->' once each" in capsys.readouterr().err
