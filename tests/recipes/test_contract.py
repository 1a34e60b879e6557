"""What every recipe promises, asked of every recipe in the folder."""

from __future__ import annotations

import inspect
import itertools
import json
from dataclasses import replace

import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.recipe import RECIPES, Recipe, Step
from compress_rec.registry import fields_of
from compress_rec.variant import Variant
from tests.models import HEADS, small_lessons, small_texts, small_variant

# options that keep a recipe short on a small model; a recipe that is not here is tried with its defaults
QUICK: dict[str, dict[str, object]] = {
    "distill": {"steps": 8},
    "static": {"steps": 60},
    "drop_layers": {"keep": 2},
    "tucker": {"iterations": 2},
}
# a second one of the same kind keeps less, where more of the same would do nothing
AGAIN: dict[str, dict[str, object]] = {"drop_layers": {"keep": 1}, "prune_weights": {"keep": 0.2}}
NAMES = tuple(RECIPES.classes())


def recipe(name: str, again: bool = False) -> Recipe:
    options = {**QUICK.get(name, {}), **(AGAIN.get(name, {}) if again else {})}
    return RECIPES.build({"recipe": name, **options})


@pytest.fixture(scope="module")
def reference():
    return small_variant(seed=0)


@pytest.fixture(scope="module")
def lessons(reference):
    return small_lessons(reference)


@pytest.fixture(scope="module")
def made(reference, lessons):
    """Each recipe applied to the reference, once."""
    return {name: reference.then(Step(recipe(name)), lessons) for name in NAMES}


def stored_bytes(variant: Variant) -> int:
    """Bytes of tensors and of the tokenizer."""
    tensors = sum(tensor.numel() * tensor.element_size() for tensor in variant.tensors().values())
    return tensors + sum(len(tower.tokens.to_json().encode()) for tower in variant.towers.towers.values())


def operations(variant: Variant) -> int:
    """Multiplications a token, over all linear weights."""
    return sum(form.operations() for tower in variant.towers.towers.values() for _, form in tower.encoder.forms())


def same_bits(a: Variant, b: Variant) -> bool:
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def test_the_folder_has_recipes():
    assert {"quantize_int8", "factorize", "tucker", "prune_weights", "prune_heads", "prune_neurons", "drop_layers"} <= set(NAMES)
    assert {"trim_vocabulary", "static", "distill"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_card(name):
    text = inspect.getdoc(RECIPES.find(name)) or ""
    first, _, rest = text.partition("\n")
    assert first.endswith(".")
    assert len(first) > 20
    assert rest.startswith("\n")
    places = [text.find(section) for section in ("*Paper*", "*When it helps*", "*When it does not*", "*Cost*")]
    assert -1 not in places
    assert places == sorted(places)
    for option in fields_of(recipe(name)):
        assert option in text.partition("*Paper*")[0]


@pytest.mark.parametrize("name", NAMES)
def test_options_round_trip(name):
    built = recipe(name)
    stored = json.loads(json.dumps(Step(built).to_json()))
    assert RECIPES.build({key: value for key, value in stored.items() if key != "tower"}) == built
    assert built.shrinks <= {"bytes", "operations"}


@pytest.mark.parametrize("name", NAMES)
def test_given_tower_is_unchanged(name, reference, lessons):
    before = {place: tensor.clone() for place, tensor in reference.tensors().items()}
    config = reference.towers.towers["both"].to_json()
    tokens = reference.towers.towers["both"].tokens.to_json()
    reference.then(Step(recipe(name)), lessons)
    after = reference.tensors()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[place], after[place]) for place in before)
    assert reference.towers.towers["both"].to_json() == config
    assert reference.towers.towers["both"].tokens.to_json() == tokens
    assert all(parameter.grad is None for parameter in reference.towers.towers["both"].parameters())


@pytest.mark.parametrize("name", NAMES)
def test_shares_no_memory_with_the_given_tower(name, reference, made):
    mine = {tensor.untyped_storage().data_ptr() for tensor in reference.towers.towers["both"].tensors().values()}
    theirs = {tensor.untyped_storage().data_ptr() for tensor in made[name].towers.towers["both"].tensors().values() if tensor.numel()}
    assert not mine & theirs


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits(name, made):
    fresh = small_variant(seed=0)
    torch.manual_seed(12345)  # what stands in the global generator must not matter
    assert same_bits(fresh.then(Step(recipe(name)), small_lessons(fresh)), made[name])


@pytest.mark.parametrize("name", NAMES)
def test_finite_and_right_shape(name, reference, made):
    for role in HEADS:
        vectors, wanted = made[name].encode(small_texts(), role), reference.encode(small_texts(), role)
        assert vectors.shape == wanted.shape
        assert vectors.dtype == torch.float32
        assert torch.isfinite(vectors).all()
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(vectors)), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_stays_close_to_the_reference(name, reference, made):
    """A recipe's vectors have to resemble the reference's: more than those of another text do."""
    vectors, wanted = made[name].encode(small_texts()), reference.encode(small_texts())
    centre = wanted.mean(0)
    own = torch.nn.functional.cosine_similarity(vectors - centre, wanted - centre).mean()
    other = torch.nn.functional.cosine_similarity(vectors - centre, wanted.roll(1, 0) - centre).mean()
    assert own > other + 0.2


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load_bit_equal(name, made, tmp_path):
    made[name].save(tmp_path / "variant")
    loaded = Variant.load(tmp_path / "variant")
    assert same_bits(loaded, made[name])
    assert loaded.steps == made[name].steps
    for role in HEADS:
        assert torch.equal(loaded.encode(small_texts(), role), made[name].encode(small_texts(), role))


@pytest.mark.parametrize("name", NAMES)
def test_shrinks_what_it_says(name, reference, made):
    promised = RECIPES.find(name).shrinks
    assert (stored_bytes(made[name]) < stored_bytes(reference)) == ("bytes" in promised)
    assert (operations(made[name]) < operations(reference)) == ("operations" in promised)


@pytest.mark.parametrize(("first", "second"), itertools.product(NAMES, NAMES))
def test_after_every_other(first, second, made, lessons, tmp_path):
    """A recipe behind another works, finite and bit for bit the same from its folder, or refuses in a sentence that names both."""
    step = Step(recipe(second, again=first == second))
    try:
        both = made[first].then(step, lessons)
    except CompressRecError as refusal:
        cause = str(refusal.__cause__)
        assert f"'{second}' cannot follow '{first}': " in cause
        assert "; " in cause
        assert "\n" not in cause
        return
    vectors = both.encode(small_texts(24), "text")
    assert torch.isfinite(vectors).all()
    assert vectors.shape == (24, 16)
    both.save(tmp_path / "variant")
    # what was written is asked below, so that the stored answers need not be replayed as well
    again = Variant.load(tmp_path / "variant", replay=False)
    assert again.steps == both.steps
    assert same_bits(again, both)
    assert torch.equal(again.encode(small_texts(24), "text"), vectors)


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("name", NAMES)
def test_on_one_side_of_an_untied_model(name, side, reference, lessons, tmp_path):
    """The side's towers change and the other side keeps its bits; what comes of it is saved and loaded as any other."""
    untied = replace(reference, towers=reference.towers.untied())
    before = {role: (untied.towers.roles[role].tower, untied.encode(small_texts(24), role)) for role in HEADS}
    assert len({tower for tower, _ in before.values()}) > 1
    made = untied.then(Step(recipe(name), side), lessons)
    for role, (place, vectors) in before.items():
        mine, found = made.towers.towers[made.towers.roles[role].tower], made.encode(small_texts(24), role)
        assert torch.isfinite(found).all()
        assert found.shape == vectors.shape
        theirs = untied.towers.towers[place]
        old, new = theirs.tensors(), mine.tensors()
        kept = old.keys() == new.keys() and all(old[one].shape == new[one].shape and torch.equal(old[one], new[one]) for one in old)
        if (role == "item") == (side == "item"):
            assert not kept, f"'{name}' left the {side} side as it was"
        else:
            assert kept, f"'{name}' on the {side} side reached the role '{role}'"
            assert torch.equal(found, vectors)
    made.save(tmp_path / "variant")
    loaded = Variant.load(tmp_path / "variant")
    assert same_bits(loaded, made)
    assert loaded.steps == made.steps


def test_whole_chain(reference, lessons, tmp_path):
    variant = reference
    for name in ("trim_vocabulary", "prune_heads", "prune_neurons", "factorize", "drop_layers", "distill", "quantize_int8"):
        before = variant
        variant = variant.then(Step(recipe(name)), lessons)
        assert stored_bytes(variant) <= stored_bytes(before)
    variant.save(tmp_path / "variant")
    assert torch.equal(Variant.load(tmp_path / "variant").encode(small_texts()), variant.encode(small_texts()))
