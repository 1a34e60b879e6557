"""The plot as a picture: drawn where a browser is there, refused in a sentence where none is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from compress_rec import picture
from compress_rec.errors import CompressRecError
from tests.synthetic_report import synthetic_report


def test_a_browser_draws_the_plot(tmp_path: Path) -> None:
    if not any(shutil.which(name) for name in picture.BROWSERS):
        pytest.skip(f"none of {', '.join(picture.BROWSERS)} is on PATH, so that nothing can draw")
    picture.pareto(synthetic_report(), tmp_path / "pareto.png")
    head = (tmp_path / "pareto.png").read_bytes()[:24]
    assert head[1:4] == b"PNG"
    assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (picture.WIDTH, picture.HEIGHT)


def test_without_a_browser_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CompressRecError, match="needs a browser"):
        picture.pareto(synthetic_report(), tmp_path / "pareto.png")
    assert not (tmp_path / "pareto.png").exists()
