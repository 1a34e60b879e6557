"""The bound that golden vectors must reach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from compress_rec.errors import CompressRecError
from compress_rec.golden import GOLDEN_COSINE, GOLDEN_TEXTS, bound_from, float_activations, golden_bound
from compress_rec.variant import load
from compress_rec.weights import Int8Form
from tests.exports.shapes import INT8, all_shapes, in_form, only
from tests.real_models import minilm

INTEGERS = [name for name in all_shapes() if "int8" in name]


def test_the_bound_is_twice_what_rounding_moves() -> None:
    assert bound_from(0.01) == pytest.approx(0.98)
    assert bound_from(0.0) == bound_from(4e-5) == GOLDEN_COSINE
    assert bound_from(0.3) == 0.9


@pytest.mark.parametrize("name", [name for name in all_shapes() if "int8" not in name])
def test_floats_have_the_strict_bound(name: str) -> None:
    variant = all_shapes()[name]
    assert golden_bound(only(variant), "item", 16, variant.encode(GOLDEN_TEXTS)) == GOLDEN_COSINE


@pytest.mark.parametrize("name", INTEGERS)
def test_float_activations_run_the_same_weights(name: str) -> None:
    tower = only(all_shapes()[name])
    floats = float_activations(tower)
    assert not [module for module in floats.modules() if isinstance(module, Int8Form)]
    for place, form in tower.encoder.forms():
        torch.testing.assert_close(floats.encoder.linear(place).dense(), form.dense(), atol=1e-6, rtol=0)
    cosine = (floats.encode(GOLDEN_TEXTS, "item", 16) * tower.encode(GOLDEN_TEXTS, "item", 16)).sum(-1)
    assert 0.99 < cosine.min() < 1 - 1e-7


def test_a_last_bit_may_differ_where_another_model_may_not(tmp_path: Path) -> None:
    variant = in_form(load(minilm()), INT8)
    folder = variant.save(tmp_path / "variant")
    bound = json.loads((folder / "golden.json").read_text())["cosine_at_least"]["item"]
    assert 0.97 < bound < 0.9999

    again = load(folder)
    with torch.no_grad():
        for module in again.towers.towers["both"].modules():
            if isinstance(module, nn.LayerNorm):
                # what another machine's softmax or norm may give
                module.weight.mul_(1 + 2**-22)
    again.replay(folder)
    with torch.no_grad():
        only(again).encoder.linear("layers.3.down").scales.mul_(1.5)  # type: ignore[operator,union-attr]
    with pytest.raises(CompressRecError, match="does not do what it did when it was saved"):
        again.replay(folder)
