"""What leaves a report for the README and the repository: the rows behind its figures, and nothing of what users did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress_rec import figures
from compress_rec.report import read, write
from tests.synthetic_report import synthetic_report


def test_what_is_published_holds_no_history(tmp_path: Path) -> None:
    report = synthetic_report()
    assert report.extras["explanations"], "the fixture should have something to leave out"
    write(figures.published(report), tmp_path / "report.jsonl")
    text = (tmp_path / "report.jsonl").read_text(encoding="utf-8")
    assert "explanations" not in json.loads(text.splitlines()[0])["extras"]
    for shown in report.extras["explanations"]:
        for title in shown["units"]:
            assert title not in text


def test_published_rows_give_the_same_figures() -> None:
    report = synthetic_report()
    assert figures.block(figures.published(report)) == figures.block(report)


def test_what_the_command_keeps_is_what_ci_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(figures.picture, "pareto", lambda report, path: drawn.append(path))
    page, whole = tmp_path / "README.md", tmp_path / "report.jsonl"
    page.write_text("before\n<!-- figures:demo -->\n<!-- /figures -->\nafter\n", encoding="utf-8")
    write(synthetic_report(), whole)
    assert figures.main([str(page), str(whole), "--keep", str(tmp_path / "kept")]) == 0
    kept = tmp_path / "kept" / "report.jsonl"
    assert drawn == [tmp_path / "kept" / "pareto.png"]
    assert len(read(kept).rows) < len(read(whole).rows)
    assert figures.main([str(page), str(kept), "--check"]) == 0
    page.write_text(
        page.read_text(encoding="utf-8").replace("before\n<!-- figures:demo -->\n", "before\n<!-- figures:demo -->\n0.99 "),
        encoding="utf-8",
    )
    assert figures.main([str(page), str(kept), "--check"]) == 1
