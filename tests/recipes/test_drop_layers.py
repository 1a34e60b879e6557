import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.recipe import RECIPES
from compress_rec.recipes.drop_layers import DropLayers, evenly
from tests.models import small_lessons, small_texts, small_variant


@pytest.mark.parametrize(
    ("count", "keep", "wanted"), [(6, 3, [0, 2, 5]), (6, 2, [0, 5]), (6, 1, [5]), (12, 4, [0, 4, 7, 11]), (3, 3, [0, 1, 2])]
)
def test_evenly(count, keep, wanted):
    assert evenly(count, keep) == wanted


def test_tried_finds_the_layer_that_does_nothing():
    """A layer whose halves add nothing, between norms that are idempotent, can go without a trace."""
    variant = small_variant(layers=4)
    tower = variant.towers.towers["both"]
    tensors = tower.encoder.tensors()
    for name in ("layers.1.output_norm", "layers.2.attention_norm", "layers.2.output_norm"):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = torch.ones(32), torch.zeros(32)
    for part in ("output", "down"):
        tensors[f"layers.2.{part}.weight"] = torch.zeros_like(tensors[f"layers.2.{part}.weight"])
        tensors[f"layers.2.{part}.bias"] = torch.zeros(32)
    planted = tower.rebuilt(tower.encoder.rebuilt(tower.encoder.config, tensors))
    variant = type(variant)("planted", variant.towers.with_tower("both", planted))
    dropped = DropLayers(3).apply(planted, small_lessons(variant)["both"])
    assert torch.equal(dropped.encoder.tensors()["layers.2.up.weight"], tensors["layers.3.up.weight"])
    assert torch.allclose(dropped.encode(small_texts(), "item", 16), planted.encode(small_texts(), "item", 16), atol=1e-5)


def test_which_keeps_these_layers_in_their_order():
    variant = small_variant()
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]
    dropped = DropLayers(which=(0, 2)).apply(tower, lesson)
    before, after = tower.encoder.tensors(), dropped.encoder.tensors()
    for old, new in ((0, 0), (2, 1)):
        for part in ("query", "down"):
            assert torch.equal(before[f"layers.{old}.{part}.weight"], after[f"layers.{new}.{part}.weight"])
    assert not any(name.startswith("layers.2.") for name in after)


def test_formats_and_shared_factors_follow():
    variant = small_variant()
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]
    dropped = DropLayers(which=(1,)).apply(RECIPES.build("tucker[iterations=2]").apply(tower, lesson), lesson)
    assert set(dropped.encoder.config.formats) == {f"layers.0.{part}" for part in ("query", "key", "value")}
    assert set(dropped.encoder.config.shared) == {"layer_1_inputs", "layer_1_outputs"}
    assert torch.isfinite(dropped.encode(small_texts(4), "item", 16)).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": 0}, "must be at least 1, but 0 came"),
        ({"which": (2, 0)}, "ascending from 0, each once"),
        ({"which": (0, 0)}, "ascending from 0, each once"),
        ({"choose": "randomly"}, "must be tried or evenly, but 'randomly' came"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(CompressRecError, match=sentence):
        DropLayers(**options)


def test_layers_that_are_not_there_are_refused():
    variant = small_variant()
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]
    with pytest.raises(CompressRecError, match="should keep 4 layers, but the tower has 3"):
        DropLayers(4).apply(tower, lesson)
    with pytest.raises(CompressRecError, match="names layer 7, but the tower has 0 to 2"):
        DropLayers(which=(0, 7)).apply(tower, lesson)
