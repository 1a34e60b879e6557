import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.recipes.tucker import Tucker
from compress_rec.weights import Shared
from tests.models import small_lessons, small_texts, small_variant


def test_factors_are_stored_once():
    variant = small_variant()
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]
    made = Tucker(keep=0.3).apply(tower, lesson).encoder
    rank = made.linear("layers.0.query").parts[1].shape[0]
    assert sorted(made.config.shared) == sorted(f"layer_{number}_{end}" for number in range(3) for end in ("inputs", "outputs"))
    tensors = made.tensors()
    stored = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("shared.layer_0"))
    stored += sum(tensors[f"layers.0.{part}.1.weight"].numel() for part in ("query", "key", "value"))
    assert stored == rank * (32 + 32) + 3 * rank * rank
    assert stored <= 0.3 * 3 * 32 * 32 < rank * 0 + (rank + 1) * 64 + 3 * (rank + 1) ** 2
    for part in ("query", "key", "value"):
        form = made.config.formats[f"layers.0.{part}"]
        assert [type(end) for end in form.parts] == [Shared, type(form.parts[1]), Shared]


def test_exact_where_the_weights_have_the_structure():
    """Weights that are such a product come back; the iteration has nothing to approximate."""
    variant = small_variant()
    tower = variant.towers.towers["both"]
    tensors = tower.encoder.tensors()
    generator = torch.Generator().manual_seed(1)
    for number in range(3):
        outer, inner = torch.randn(32, 4, generator=generator), torch.randn(4, 32, generator=generator)
        for part in ("query", "key", "value"):
            tensors[f"layers.{number}.{part}.weight"] = 0.1 * outer @ torch.randn(4, 4, generator=generator) @ inner
    planted = tower.rebuilt(tower.encoder.rebuilt(tower.encoder.config, tensors))
    made = Tucker(keep=0.3).apply(planted, small_lessons(variant)["both"])
    for number in range(3):
        for part in ("query", "key", "value"):
            place = f"layers.{number}.{part}"
            assert torch.allclose(made.encoder.linear(place).dense(), planted.encoder.linear(place).dense(), atol=1e-4)
    assert torch.allclose(made.encode(small_texts(), "item", 16), planted.encode(small_texts(), "item", 16), atol=1e-4)


def test_more_parameters_leave_less_error():
    """Errors of the outputs on the training texts, each matrix by its own size, as the decomposition weighs them."""
    variant = small_variant()
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]

    def error(keep: float) -> float:
        made, total = Tucker(keep, 3).apply(tower, lesson), 0.0
        for part in ("query", "key", "value"):
            place = f"layers.1.{part}"
            covariance, whole = lesson.moments(tower)[place].covariance, tower.encoder.linear(place).dense().detach().double()
            rest = whole - made.encoder.linear(place).dense().detach().double()
            total += float(torch.trace(rest @ covariance @ rest.T) / torch.trace(whole @ covariance @ whole.T))
        return total / 3

    found = [error(keep) for keep in (0.05, 0.15, 0.4)]
    assert 1 > found[0] > found[1] > found[2]
    assert found[2] < 0.3


def test_shares_that_save_no_operations_are_refused():
    variant = small_variant()
    tower, lesson = variant.towers.towers["both"], small_lessons(variant)["both"]
    with pytest.raises(CompressRecError, match=r"'tucker' at keep = 0\.6 takes rank \d+ of 'layers\.0\.query' \(32×32\) and does more"):
        Tucker(keep=0.6).apply(tower, lesson)
    for keep in (0.0, 1.0):
        with pytest.raises(CompressRecError, match="'keep' of 'tucker' is a share"):
            Tucker(keep=keep)
    with pytest.raises(CompressRecError, match="'iterations' of 'tucker' must be at least 1"):
        Tucker(iterations=0)
