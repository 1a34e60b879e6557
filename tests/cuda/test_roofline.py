"""Predictions: bytes and operations counted by hand, and what must lose is said to lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import roofline
from bench.roofline import H100, Device, dense, feed_forward, low_rank, search

SLOW = Device("made up", 1e9, 1e10, {"float32": 1e12, "bfloat16": 4e12, "int8": 2e12})


def test_one_query_is_as_long_as_its_catalogue() -> None:
    told = search(H100, "bfloat16", 1_000_000, 384, 1, 10)
    assert told.bound == "memory"
    assert told.ours == pytest.approx((1_000_000 * 384 * 2 + 120) / 3.35e12)
    assert search(H100, "int8", 1_000_000, 384, 1, 10).ours == pytest.approx(told.ours / 2, rel=1e-3)


def test_scores_that_are_not_written_are_what_is_saved() -> None:
    told = search(SLOW, "bfloat16", 1000, 100, 64, 1)
    catalogue, scores = 1000 * 100 * 2, 1000 * 64 * 4
    assert told.ours == pytest.approx((catalogue + 64 * 12) / 1e9)
    assert told.peer == pytest.approx((catalogue + 2 * scores) / 1e9)


def test_many_queries_are_limited_by_arithmetic_or_the_cache() -> None:
    fast = Device("made up", 1e15, 1e15, {"float32": 1e12, "bfloat16": 4e12, "int8": 2e12})
    assert search(fast, "bfloat16", 1000, 100, 1024, 1).ours == pytest.approx(2 * 1000 * 100 * 1024 / 4e12)
    assert search(fast, "float32", 1000, 100, 1024, 1).bound == "float32"
    assert search(H100, "bfloat16", 1_000_000, 384, 1024, 10).bound == "cache"


def test_where_fusing_cannot_pay_is_said() -> None:
    assert search(H100, "float32", 1_000_000, 384, 1, 10).gain < 1.1
    assert search(H100, "float32", 1_000_000, 384, 64, 10).gain < 1
    assert low_rank(H100, "bfloat16", 8192, 768, 512, 3072).gain == pytest.approx(1.0)
    text = roofline.tables(H100)
    assert "nothing to gain" in text
    assert "it loses" in text


def test_a_middle_that_is_not_written_is_what_a_layer_saves() -> None:
    told = low_rank(SLOW, "bfloat16", 10_000, 64, 8, 64)
    assert told.ours == pytest.approx(2 * (10_000 * 128 + 8 * 128) / 1e9)
    assert told.peer - told.ours == pytest.approx(2 * 10_000 * 16 / 1e9)
    assert dense(SLOW, "bfloat16", 10_000, 64, 64) > told.ours


def test_a_feed_forward_block_saves_its_activation() -> None:
    told = feed_forward(SLOW, "bfloat16", 10_000, 64, 256, 8)
    weights = 2 * 8 * (64 + 256)
    assert told.ours == pytest.approx(2 * (2 * 10_000 * 64 + weights) / 1e9)
    # each middle goes out and back, the activation out of a product, through GELU and back into a product
    assert told.peer - told.ours == pytest.approx(2 * 10_000 * (4 * 8 + 4 * 256) / 1e9)


def test_the_page_is_written_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- figures:roofline -->\n<!-- /figures -->\n")
    assert roofline.main([str(page), "--check"]) == 1
    assert roofline.main([str(page)]) == 0
    assert roofline.main([str(page), "--check"]) == 0
    assert "H100" in page.read_text()
    page.write_text("nothing\n")
    assert roofline.main([str(page)]) == 2
    assert "figures:roofline" in capsys.readouterr().err
