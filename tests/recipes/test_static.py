import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.recipes.static import Static
from tests.models import small_lessons, small_texts, small_variant


@pytest.fixture(scope="module")
def start():
    variant = small_variant()
    return variant.towers.towers["both"], small_lessons(variant)["both"]


def test_a_text_is_the_mean_of_its_pieces(start):
    tower, lesson = start
    student = Static(steps=20).apply(tower, lesson)
    assert student.encoder.config.layers == ()
    table = student.encoder.tensors()["embeddings.words.weight"]
    for text in small_texts(5):
        rows = table[torch.tensor(student.tokens.ids([text], 16)[0])]
        vector = torch.nn.functional.normalize(student.head("item")(rows.mean(0, keepdim=True)), dim=-1)
        assert torch.allclose(vector[0], student.encode([text], "item", 16)[0], atol=1e-6)


def test_order_is_gone_and_training_helps(start):
    tower, lesson = start
    little, much = Static(steps=5).apply(tower, lesson), Static(steps=150, learning_rate=0.02).apply(tower, lesson)
    assert torch.allclose(much.encode(["red river"], "item", 16), much.encode(["river red"], "item", 16), atol=1e-6)
    wanted = lesson.targets("item")
    found = [float((student.encode(small_texts(), "item", 16) * wanted).sum(-1).mean()) for student in (little, much)]
    assert found[1] > max(0.95, found[0])


def test_starts_from_single_pieces(start):
    """Before training, a piece's row is what the tower makes of it alone."""
    from compress_rec.recipes.static import _single_pieces

    tower, lesson = start
    number = tower.tokens.backend().token_to_id("river")
    ids = torch.tensor(tower.tokens.ids(["river"], 8))
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        wanted = tower.pool(tower.encoder(ids, mask), mask)[0]
    table = _single_pieces(tower, lesson)
    assert torch.allclose(table[number], wanted, atol=1e-5)
    assert torch.isfinite(table).all()
    assert table.shape == (tower.tokens.size, 32)


def test_width(start):
    tower, lesson = start
    student = Static(width=8, steps=100).apply(tower, lesson)
    assert student.encoder.tensors()["embeddings.words.weight"].shape == (tower.tokens.size, 8)
    assert student.encode(small_texts(3), "item", 16).shape == (3, 16)
    with pytest.raises(CompressRecError, match="'width' of 'static' is 33, but the tower's is 32"):
        Static(width=33).apply(tower, lesson)


@pytest.mark.parametrize("options", [{"steps": 0}, {"batch": 0}, {"width": -1}, {"learning_rate": 0.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(CompressRecError, match=f"'{next(iter(options))}' of 'static'"):
        Static(**options)
