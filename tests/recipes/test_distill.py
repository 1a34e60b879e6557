import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.recipe import RECIPES
from compress_rec.recipes.distill import Distill
from tests.models import small_lessons, small_texts, small_variant


@pytest.fixture(scope="module")
def start():
    variant = small_variant()
    return variant.towers.towers["both"], small_lessons(variant)["both"]


def closeness(tower, lesson, role="item"):
    vectors = tower.encode(lesson.texts[role], lesson.roles[role].head, lesson.roles[role].length)
    return float((vectors * lesson.targets(role)).sum(-1).mean())


@pytest.mark.parametrize("plan", ["factorize[keep=0.3]", "drop_layers[keep=2]", "prune_heads", "tucker"])
def test_recovers_in_every_role(start, plan):
    tower, lesson = start
    cut = RECIPES.build(plan).apply(tower, lesson)
    recovered = Distill(steps=40, learning_rate=2e-3).apply(cut, lesson)
    for role in lesson.roles:
        assert 1 - closeness(recovered, lesson, role) < 0.6 * (1 - closeness(cut, lesson, role))
    assert recovered.encoder.config == cut.encoder.config


def test_both_factors_train(start):
    tower, lesson = start
    cut = RECIPES.build("factorize").apply(tower, lesson)
    before, after = cut.encoder.tensors(), Distill(steps=3).apply(cut, lesson).encoder.tensors()
    for name in before:
        if ".0.weight" in name or ".1.weight" in name or "norm" in name:
            assert not torch.equal(before[name], after[name]), name


def test_pieces_that_no_text_uses_stay(start):
    tower, lesson = start
    cut = RECIPES.build("drop_layers[keep=2]").apply(tower, lesson)
    words = [found.encoder.tensors()["embeddings.words.weight"] for found in (cut, Distill(steps=3).apply(cut, lesson))]
    used = sorted({piece for role in lesson.roles for row in lesson.ids(tower, role) for piece in row} | {0})
    rest = [number for number in range(tower.tokens.size) if number not in used]
    assert torch.equal(words[0][rest], words[1][rest])
    assert not torch.equal(words[0][used], words[1][used])


def test_uncompressed_stays_uncompressed(start):
    """The uncompressed tower has nothing to recover: its vectors are already the targets."""
    tower, lesson = start
    assert closeness(Distill(steps=10, learning_rate=1e-5).apply(tower, lesson), lesson) > 0.9999


@pytest.mark.parametrize(("earlier", "kind"), [("quantize_int8", "in int8"), ("prune_weights", "stored sparse")])
def test_refuses_what_cannot_be_trained(start, earlier, kind):
    tower, lesson = start
    cut = RECIPES.build(earlier).apply(tower, lesson)
    with pytest.raises(CompressRecError) as refusal:
        Distill(steps=2).apply(cut, lesson)
    assert str(refusal.value) == (
        f"'distill' cannot follow '{earlier}': 'layers.0.query' is {kind} and cannot be trained; "
        f"put 'distill' before '{earlier}': distil first, then make it smaller"
    )


def test_divergence_is_said(start):
    tower, lesson = start
    with pytest.raises(CompressRecError, match=r"'distill' diverged: its loss became nan at learning_rate = 1e\+20; use a smaller one"):
        Distill(steps=10, learning_rate=1e20).apply(tower, lesson)


@pytest.mark.parametrize("options", [{"steps": 0}, {"batch": 0}, {"learning_rate": -1.0}, {"learning_rate": float("inf")}])
def test_bad_options_are_refused(options):
    with pytest.raises(CompressRecError, match=f"'{next(iter(options))}' of 'distill'"):
        Distill(**options)


def test_small_texts_are_distinct():
    assert len(set(small_texts())) == len(small_texts())
