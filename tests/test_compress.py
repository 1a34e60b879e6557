"""The Python interface on plain lists: a model, a plan, texts; no study, no data set, and the given model stays what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import compress_rec
from compress_rec import CompressRecError, Variant, compress, load
from compress_rec.variant import size_on_disk
from tests.models import small_histories, small_texts, small_variant

TEXTS = list(small_texts(48))
PAIRS = [(history, TEXTS[row]) for row, history in enumerate(small_histories(16))]
PLAN = [{"recipe": "factorize", "keep": 0.5}, {"recipe": "distill", "steps": 4}, "quantize_int8"]


@pytest.fixture(scope="module")
def model() -> Variant:
    return small_variant()


def bits(variant: Variant) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in variant.tensors().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_model_is_loaded_compressed_saved_and_loaded_in_a_few_lines(tmp_path: Path, model: Variant) -> None:
    """What the pages show, with the module's own names."""
    model.save(tmp_path / "model")
    given = compress_rec.load(tmp_path / "model")
    before, vectors = bits(given), given.encode(TEXTS)
    small = compress_rec.compress(given, PLAN, texts=TEXTS)  # type: ignore[arg-type]
    small.save(tmp_path / "small")
    again = load(tmp_path / "small")
    assert torch.equal(again.encode(TEXTS), small.encode(TEXTS))
    assert [step.recipe.label for step in again.steps] == [step.recipe.label for step in small.steps]
    made = again.encode(TEXTS, role="item")
    assert (made.shape, made.dtype) == ((48, 16), torch.float32)
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(48))
    # smaller, near, and not the same
    assert size_on_disk(tmp_path / "small")["tensors"] < 0.5 * size_on_disk(tmp_path / "model")["tensors"]
    assert (made * vectors).sum(-1).mean() > 0.8
    assert not torch.equal(made, vectors)
    # the given model is left as it is
    assert same(bits(given), before)
    assert given.steps == ()
    assert torch.equal(given.encode(TEXTS), vectors)


def test_same_seed_same_bits(model: Variant) -> None:
    runs = [compress(model, PLAN, TEXTS, PAIRS, seed=seed) for seed in (0, 0, 1)]  # type: ignore[arg-type]
    assert same(bits(runs[0]), bits(runs[1]))
    assert not same(bits(runs[0]), bits(runs[2])), "what recovery draws hangs on the seed"


def test_a_name_is_the_plan_unless_one_is_given(model: Variant) -> None:
    plain = compress(model, ["quantize_int8"], TEXTS)
    assert plain.name == "quantize_int8"
    assert compress(model, [{"recipe": "drop_layers", "keep": 2}, "quantize_int8"], TEXTS).name == "drop_layers[keep=2] → quantize_int8"
    assert compress(model, ["quantize_int8"], TEXTS, name="mine").name == "mine"
    further = compress(compress(model, [{"recipe": "drop_layers", "keep": 2}], TEXTS), ["quantize_int8"], TEXTS)
    assert further.name == "drop_layers[keep=2] → quantize_int8", "a plan goes on from where the last one ended"
    assert [step.recipe.name for step in further.steps] == ["drop_layers", "quantize_int8"]


def test_a_plan_of_no_step_gives_the_model_back(model: Variant) -> None:
    assert same(bits(compress(model, [], TEXTS)), bits(model))
    assert compress(model, [], TEXTS).name == "reference"


class _Watch:
    """Records the texts by role that the first step learns from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, tuple[str, ...]] = {}
        inner = Variant.then

        def then(variant: Variant, step: Any, lessons: Any) -> Variant:
            self.seen = dict(lessons["both"].texts)
            return inner(variant, step, lessons)

        monkeypatch.setattr(Variant, "then", then)


def test_texts_go_to_their_roles_and_pairs_beside_them(model: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = _Watch(monkeypatch)
    compress(model, ["quantize_int8"], TEXTS)
    assert watch.seen == {"item": tuple(TEXTS)}
    by_role = {"item": TEXTS[:8], "behaviour": TEXTS[8:20], "text": list(small_histories(4))}
    compress(model, ["quantize_int8"], by_role)
    assert watch.seen == {role: tuple(texts) for role, texts in by_role.items()}
    compress(model, ["quantize_int8"], TEXTS[:8], PAIRS)
    assert watch.seen == {"item": (*TEXTS[:8], *(item for _, item in PAIRS)), "text": tuple(user for user, _ in PAIRS)}
    compress(model, ["quantize_int8"], [], PAIRS)
    assert watch.seen == {"item": tuple(item for _, item in PAIRS), "text": tuple(user for user, _ in PAIRS)}
    assert by_role["item"] == TEXTS[:8], "the caller's lists are left as they are"
    assert len(TEXTS) == 48


def test_pairs_change_what_calibration_sees(model: Variant) -> None:
    plan = [{"recipe": "factorize", "method": "whitened", "keep": 0.5}]
    assert not same(bits(compress(model, plan, TEXTS)), bits(compress(model, plan, TEXTS, PAIRS)))  # type: ignore[arg-type]


def test_one_tower_alone_may_be_compressed(model: Variant) -> None:
    small = compress(model, [{"recipe": "drop_layers", "keep": 1, "tower": "user"}], {"item": TEXTS, "text": list(small_histories(8))})
    assert torch.equal(small.encode(TEXTS), model.encode(TEXTS))
    assert not torch.equal(small.encode(TEXTS, "text"), model.encode(TEXTS, "text"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"texts": "red river"}, "texts should be a list of strings, but a single string came: put it into a list"),
        (
            {"texts": {"item": "red river"}},
            "texts of the role 'item' should be a list of strings, but a single string came: put it into a list",
        ),
        ({"texts": ["red river", 3]}, "text 1 of the role 'item' should be a string, but int came: give strings"),
        ({"texts": ["red river", None]}, "text 1 of the role 'item' should be a string, but NoneType came: give strings"),
        ({"texts": {"itme": TEXTS}}, "the model has no role called 'itme'; did you mean 'item'? known are behaviour, item, text"),
        ({"texts": []}, "there are no training texts: calibration and recovery learn from them; give at least one string"),
        ({"texts": {"item": []}}, "there are no training texts: calibration and recovery learn from them; give at least one string"),
        ({"pairs": [PAIRS[0], ("alone",)]}, "pair 1 should be (user's text, item's text), but ('alone',) came: give two strings"),
        ({"pairs": ["ab"]}, "pair 0 should be (user's text, item's text), but 'ab' came: give two strings"),
        ({"pairs": [("user", 5)]}, "pair 0 should be (user's text, item's text), but ('user', 5) came: give two strings"),
        ({"plan": "quantize_int8"}, "a plan is a list of steps, but 'quantize_int8' came: put it into a list"),
        ({"plan": ["quantise_int8"]}, "there is no recipe called 'quantise_int8'; did you mean 'quantize_int8'? known are "),
        ({"plan": [{"recipe": "factorize", "kepe": 0.5}]}, "recipe 'factorize' has no option 'kepe'; did you mean 'keep'? known are "),
        ({"plan": [{"recipe": "factorize", "tower": "left"}]}, "a step's tower must be 'both', 'user' or 'item', but 'left' came"),
        (
            {"plan": ["quantize_int8", "factorize"]},
            "the step 'factorize' after quantize_int8 cannot be done: 'factorize' cannot follow 'quantize_int8'",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(model: Variant, change: dict[str, Any], sentence: str) -> None:
    given = {"plan": ["quantize_int8"], "texts": TEXTS, "pairs": None, **change}
    with pytest.raises(CompressRecError) as caught:
        compress(model, given["plan"], given["texts"], given["pairs"])
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
