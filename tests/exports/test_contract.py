"""What every export format keeps to."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest

from compress_rec.errors import CompressRecError
from compress_rec.export import EXPORTS, export
from compress_rec.golden import GOLDEN_TEXTS
from tests.models import small_variant

FORMATS = tuple(EXPORTS.classes())


def test_both_formats_are_found() -> None:
    assert {"onnx", "hugging_face"} <= set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_frozen_dataclass_with_a_card(name: str) -> None:
    cls = EXPORTS.find(name)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert (inspect.getdoc(cls) or "").splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("role", ["item", "behaviour", "text"])
def test_golden_vectors_of_the_role_lie_beside_it(name: str, role: str, tmp_path: Path) -> None:
    variant = small_variant()
    folder = export(variant, str(tmp_path / "deep" / "down"), name, role)
    assert folder == tmp_path / "deep" / "down"
    assert np.array_equal(np.load(folder / "golden.npy"), variant.encode(GOLDEN_TEXTS, role).numpy())


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_model_gives_the_same_files(name: str, tmp_path: Path) -> None:
    first, second = export(small_variant(), tmp_path / "a", name), export(small_variant(), tmp_path / "b", name)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert [path for path in files if (first / path).read_bytes() != (second / path).read_bytes()] == []


@pytest.mark.parametrize("name", FORMATS)
def test_an_earlier_export_is_replaced_and_anything_else_is_left(name: str, tmp_path: Path) -> None:
    goal = tmp_path / "goal"
    goal.mkdir()
    export(small_variant(0), goal, name)
    export(small_variant(1), goal, name, "text")
    assert np.array_equal(np.load(goal / "golden.npy"), small_variant(1).encode(GOLDEN_TEXTS, "text").numpy())
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for taken in (kept, tmp_path / "file"):
        with pytest.raises(CompressRecError, match="holds something else than an earlier export and was left as it is"):
            export(small_variant(), taken, name)
    assert (kept / "thesis.txt").read_text() == "years of work"


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match="there is no format called 'onx'; did you mean 'onnx'"):
        export(small_variant(), tmp_path / "x", "onx")
    with pytest.raises(CompressRecError, match="no role called 'itm'; did you mean 'item'"):
        export(small_variant(), tmp_path / "x", "onnx", "itm")
    with pytest.raises(CompressRecError, match="format 'onnx' has no option 'opset'"):
        export(small_variant(), tmp_path / "x", {"format": "onnx", "opset": 11})
    assert list(tmp_path.iterdir()) == []
