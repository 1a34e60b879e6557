"""What a run remembers: keys of pieces, and notes that survive damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import compress_rec
from compress_rec.state import State, key_of


def test_a_key_depends_on_every_part_its_order_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    base = key_of("a", 1, torch.zeros(2), np.arange(3))
    assert base == key_of("a", 1, torch.zeros(2), np.arange(3))
    others = [
        key_of(1, "a", torch.zeros(2), np.arange(3)),
        key_of("a", 2, torch.zeros(2), np.arange(3)),
        key_of("a", 1, torch.zeros(3), np.arange(3)),
        key_of("a", 1, torch.zeros(2, dtype=torch.float64), np.arange(3)),
        key_of("a", 1, torch.zeros(2), np.arange(3)[::-1]),
        key_of("a", 1, torch.zeros(1, 2), np.arange(3)),
        key_of("a1", torch.zeros(2), np.arange(3)),
    ]
    assert len({base, *others}) == len(others) + 1
    monkeypatch.setattr(compress_rec, "__version__", "0.0.0.other")
    assert key_of("a", 1, torch.zeros(2), np.arange(3)) != base


def test_the_order_of_a_tables_keys_does_not_matter() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of(["a", "b"]) != key_of(["b", "a"])


def test_what_was_put_is_given_back_for_its_key_alone(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.get("rows/int8/ndcg", "k") is None
    state.put("rows/int8/ndcg", "k", {"values": [0.1, None], "name": "Amélie"})
    assert state.get("rows/int8/ndcg", "k") == {"values": [0.1, None], "name": "Amélie"}
    assert State(tmp_path).get("rows/int8/ndcg", "k") is not None
    assert state.get("rows/int8/ndcg", "other") is None
    state.put("rows/int8/ndcg", "other", {})
    assert state.get("rows/int8/ndcg", "k") is None
    assert state.get("rows/int8/ndcg", "other") == {}


@pytest.mark.parametrize("damage", ["", '{"key": "k", "val', "[]", '{"key": "k"}', "\x00"])
def test_a_damaged_note_only_means_that_the_piece_is_done_again(tmp_path: Path, damage: str) -> None:
    state = State(tmp_path)
    state.put("fit", "k", {"figure": 1})
    (tmp_path / "fit.json").write_text(damage)
    assert state.get("fit", "k") is None
    state.put("fit", "k", {"figure": 1})
    assert state.get("fit", "k") == {"figure": 1}


def test_not_a_number_is_no_json_and_leaves_the_old_note(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.put("fit", "k", {"figure": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        state.put("fit", "k", {"figure": float("nan")})
    assert state.get("fit", "k") == {"figure": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["fit.json"]
