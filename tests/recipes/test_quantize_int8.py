import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.recipe import RECIPES
from compress_rec.recipes.quantize_int8 import QuantizeInt8
from compress_rec.weights import Chain, Diagonal, Int8
from tests.models import small_lessons, small_texts, small_variant


@pytest.fixture(scope="module")
def start():
    variant = small_variant()
    return variant.towers.towers["both"], small_lessons(variant)["both"]


def test_vectors_stay_close(start):
    tower, lesson = start
    made = QuantizeInt8().apply(tower, lesson)
    cosines = (made.encode(small_texts(), "item", 16) * lesson.targets("item")).sum(-1)
    assert cosines.min() > 0.995


def test_a_quarter_of_the_bytes(start):
    tower, lesson = start
    made = QuantizeInt8(smooth=0).apply(tower, lesson).encoder.tensors()
    for name in ("layers.0.up", "embeddings.words"):
        before = tower.encoder.tensors()[f"{name}.weight"]
        assert made[f"{name}.codes"].dtype == torch.int8
        assert made[f"{name}.codes"].shape == before.shape
        assert made[f"{name}.scales"].shape == before.shape[:1]
        error = (made[f"{name}.codes"].float() * made[f"{name}.scales"][:, None] - before).abs()
        assert (error <= made[f"{name}.scales"][:, None] * 0.5001).all()


def test_inputs_are_brought_to_one_size(start):
    tower, lesson = start
    made = QuantizeInt8().apply(tower, lesson)
    assert made.encoder.config.format("layers.1.query") == Chain((Diagonal(), Int8()))
    assert made.encoder.config.format("layers.1.output") == Int8()
    tensors = made.encoder.tensors()
    assert torch.equal(tensors["layers.1.query.0.weight"], tensors["layers.1.value.0.weight"])
    for name in ("layers.1.key", "layers.2.up"):
        # a code's step is what rounding may move a column by, times what it is divided by
        steps = tensors[f"{name}.1.scales"][:, None] * tensors[f"{name}.0.weight"]
        error = (made.encoder.linear(name).dense() - tower.encoder.linear(name).dense()).abs()
        assert (error <= steps * 0.501).all()

    def harm(recipe):
        return float((1 - (recipe.apply(tower, lesson).encode(small_texts(), "item", 16) * lesson.targets("item")).sum(-1)).mean())

    # a trained model gains more: its inputs differ more in size
    assert harm(QuantizeInt8()) < 0.8 * harm(QuantizeInt8(smooth=0))


@pytest.mark.parametrize("smooth", [-0.1, 1.0])
def test_strength_is_refused(smooth):
    with pytest.raises(CompressRecError, match=f"'smooth' of 'quantize_int8' must be at least 0 and below 1, but {smooth} came"):
        QuantizeInt8(smooth=smooth)


def test_a_text_does_not_depend_on_its_batch(start):
    tower, lesson = start
    made = QuantizeInt8().apply(tower, lesson)
    together = made.encode(small_texts(20), "item", 16)
    alone = torch.cat([made.encode([text], "item", 16) for text in small_texts(20)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_embeddings_can_stay(start):
    tower, lesson = start
    half = QuantizeInt8(embeddings=False).apply(tower, lesson)
    assert "embeddings.words" not in half.encoder.config.formats
    whole = QuantizeInt8().apply(half, lesson)
    assert whole.encoder.config == QuantizeInt8().apply(tower, lesson).encoder.config
    with pytest.raises(CompressRecError, match="every weight is in int8 already; leave the second one out"):
        QuantizeInt8().apply(whole, lesson)


def test_heads_stay_float(start):
    tower, lesson = start
    made = QuantizeInt8().apply(tower, lesson)
    assert all(torch.equal(made.tensors()[name], tensor) for name, tensor in tower.tensors().items() if name.startswith("heads."))


def test_factors_and_shared_factors(start):
    tower, lesson = start
    made = QuantizeInt8().apply(RECIPES.build("tucker[iterations=2]").apply(tower, lesson), lesson)
    assert set(made.encoder.config.shared.values()) == {Int8()}
    assert not any(
        tensor.dtype == torch.float32 and tensor.dim() == 2 for name, tensor in made.encoder.tensors().items() if "layers" in name
    )
