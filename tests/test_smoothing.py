from __future__ import annotations

import torch

from compress_rec.recipe import RECIPES
from compress_rec.smooth_quant import smooth_quant
from compress_rec.smoothing import divisors
from tests.models import small_lessons, small_variant


def start():
    variant = small_variant()
    return variant.towers.towers["both"], small_lessons(variant)["both"]


def test_by_hand():
    """Roots of 4 / 1 and 1 / 4 are 2 and 0.5, whose geometric mean is 1; those of 16 / 1 and 1 / 1 have one of 2."""
    assert smooth_quant(torch.tensor([4.0, 1.0]), torch.tensor([1.0, 4.0])).tolist() == [2.0, 0.5]
    assert smooth_quant(torch.tensor([16.0, 1.0]), torch.tensor([1.0, 1.0])).tolist() == [2.0, 0.5]
    assert smooth_quant(torch.tensor([16.0, 1.0]), torch.tensor([7.0, 7.0]), 1.0).tolist() == [4.0, 0.25]


def test_divisors_follow_the_inputs():
    tower, lesson = start()
    found = divisors(tower, lesson, 0.5)
    assert set(found) == {f"layers.{number}.{part}" for number in range(3) for part in ("query", "key", "value", "up", "down")}
    moments = lesson.moments(tower, 128)
    for name, divisor in found.items():
        size = moments[name].second.diagonal().sqrt()
        column = tower.encoder.linear(name).dense().detach().abs().amax(0)
        assert abs(float(divisor.log().mean())) < 1e-5
        if name.endswith("up"):
            ratio = divisor.double() ** 2 * column / size
            assert float(ratio.std() / ratio.mean()) < 1e-5
    assert torch.equal(found["layers.1.query"], found["layers.1.value"])


def test_strength():
    tower, lesson = start()
    sizes = lesson.moments(tower, 128)["layers.0.up"].second.diagonal().sqrt()
    weak, strong = (divisors(tower, lesson, strength)["layers.0.up"].log() for strength in (0.1, 0.9))
    assert torch.corrcoef(torch.stack([strong, sizes.log().float()]))[0, 1] > 0.99
    assert torch.corrcoef(torch.stack([weak, sizes.log().float()]))[0, 1] < 0.9


def test_shared_first_factors_stay():
    tower, lesson = start()
    tucker = RECIPES.build("tucker[iterations=2]").apply(tower, lesson)
    assert {name.rpartition(".")[2] for name in divisors(tucker, lesson, 0.5)} == {"up", "down"}


def test_factors_are_smoothed_at_the_first():
    tower, lesson = start()
    low = RECIPES.build({"recipe": "factorize", "keep": 0.5, "method": "plain"}).apply(tower, lesson)
    assert divisors(low, lesson, 0.5)["layers.0.down"].shape == (64,)
