"""Pruning heads, neurons and weights: planted parts that do nothing must be the ones that go."""

import pytest
import torch

from compress_rec.cutting import folding
from compress_rec.errors import CompressRecError
from compress_rec.recipes.prune_heads import PruneHeads, _best_heads
from compress_rec.recipes.prune_neurons import PruneNeurons, _best_groups
from compress_rec.recipes.prune_weights import PruneWeights
from compress_rec.variant import Variant
from tests.models import small_lessons, small_texts, small_variant


def planted(part: str, dead: slice) -> Variant:
    """A variant in which these inputs of ``part`` reach nothing, in every layer."""
    variant = small_variant(seed=5)
    tower = variant.towers.towers["both"]
    tensors = tower.encoder.tensors()
    for number in range(3):
        weight = tensors[f"layers.{number}.{part}.weight"].clone()
        weight[:, dead] = 0
        tensors[f"layers.{number}.{part}.weight"] = weight
    return Variant("planted", variant.towers.with_tower("both", tower.rebuilt(tower.encoder.rebuilt(tower.encoder.config, tensors))))


@pytest.mark.parametrize(
    ("recipe", "part", "dead"), [(PruneNeurons(0.5), "down", slice(16, 48)), (PruneHeads(0.5), "output", slice(8, 24))]
)
def test_removes_what_does_nothing(recipe, part, dead):
    variant = planted(part, dead)
    tower = variant.towers.towers["both"]
    pruned = recipe.apply(tower, small_lessons(variant)["both"])
    shapes = pruned.encoder.config.layers
    assert all(shape.neurons == 32 for shape in shapes) if part == "down" else all(shape.heads == 2 for shape in shapes)
    for head in ("item", "text"):
        assert torch.allclose(pruned.encode(small_texts(), head, 16), tower.encode(small_texts(), head, 16), atol=2e-5)


def test_refit_helps():
    """The same neurons without the refit are further from the uncompressed vectors."""
    variant = small_variant(seed=5)
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]
    fitted = PruneNeurons(0.5).apply(tower, lesson)
    tensors, cut = tower.encoder.tensors(), fitted.encoder.tensors()
    for number in range(3):
        rows = cut[f"layers.{number}.up.weight"]
        kept = (tensors[f"layers.{number}.up.weight"][None] == rows[:, None]).all(-1).nonzero()[:, 1]
        cut[f"layers.{number}.down.weight"] = tensors[f"layers.{number}.down.weight"][:, kept]
        cut[f"layers.{number}.down.bias"] = tensors[f"layers.{number}.down.bias"]
    plain = tower.rebuilt(tower.encoder.rebuilt(fitted.encoder.config, cut))
    wanted = lesson.targets("item")
    errors = [float((1 - (found.encode(small_texts(), "item", 16) * wanted).sum(-1)).mean()) for found in (fitted, plain)]
    assert errors[0] < 0.7 * errors[1]


def test_folding_rebuilds_what_is_a_combination_of_the_kept():
    generator = torch.Generator().manual_seed(0)
    kept_values = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    x = torch.stack([kept_values[:, 0], kept_values[:, 0] - 2 * kept_values[:, 2], kept_values[:, 1], kept_values[:, 2]], 1)
    kept = torch.tensor([0, 2, 3])
    fold = folding(x.T @ x / len(x), kept, damping=1e-12)
    assert torch.allclose(x[:, kept] @ fold.T, x, atol=1e-8)


def test_best_groups_by_hand():
    importance = [torch.arange(16.0), torch.full((16,), 20.0), torch.zeros(16)]
    kept = _best_groups(importance, 0.5)
    # 24 of 48 neurons in groups of eight: each layer's best group, and no budget is left beyond
    assert [found.tolist() for found in kept] == [list(range(8, 16)), list(range(8)), list(range(8))]
    assert [len(found) for found in _best_groups(importance, 2 / 3)] == [8, 16, 8]


def test_best_heads_by_hand():
    importance = [torch.tensor([1.0, 4.0]), torch.tensor([9.0, 8.0]), torch.tensor([0.1, 0.2])]
    assert [found.tolist() for found in _best_heads(importance, 0.5)] == [[1], [0], [1]]
    assert [found.tolist() for found in _best_heads(importance, 0.67)] == [[1], [0, 1], [1]]


def test_prune_weights_keeps_the_largest():
    variant = small_variant(seed=5)
    tower = variant.towers.towers["both"]
    pruned = PruneWeights(0.25).apply(tower, small_lessons(variant)["both"])
    for name, form in tower.encoder.forms():
        before, after = form.dense(), pruned.encoder.linear(name).dense()
        kept = after != 0
        assert int(kept.sum()) == before.numel() // 4
        assert torch.equal(after[kept], before[kept])
        assert before[~kept].abs().max() <= before[kept].abs().min()
    stored = pruned.encoder.tensors()
    assert stored["layers.0.up.mask"].numel() == 64 * 32 // 8
    assert stored["layers.0.up.values"].numel() == 64 * 32 // 4


@pytest.mark.parametrize("recipe", [PruneHeads, PruneNeurons, PruneWeights])
@pytest.mark.parametrize("keep", [0.0, -1.0, 1.01, float("nan")])
def test_shares_outside_are_refused(recipe, keep):
    with pytest.raises(CompressRecError, match=f"'keep' of '{recipe.name}' is a share"):
        recipe(keep=keep)


def test_a_bitmask_that_costs_more_is_refused():
    with pytest.raises(CompressRecError, match=r"at most 0\.96, but 0\.99 came"):
        PruneWeights(0.99)


@pytest.mark.parametrize("recipe", [PruneHeads, PruneNeurons])
def test_keeping_all_changes_nothing(recipe):
    variant = small_variant(seed=5)
    tower = variant.towers.towers["both"]
    pruned = recipe(1.0).apply(tower, small_lessons(variant)["both"])
    assert pruned.encoder.config == tower.encoder.config
    assert torch.allclose(pruned.encode(small_texts(), "item", 16), tower.encode(small_texts(), "item", 16), atol=1e-5)
