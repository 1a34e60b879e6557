"""What a report says of how a variant runs."""

from __future__ import annotations

from compress_rec import op
from compress_rec.execution import notes
from compress_rec.recipe import Step
from compress_rec.recipes.factorize import Factorize
from compress_rec.recipes.prune_neurons import PruneNeurons
from compress_rec.recipes.prune_weights import PruneWeights
from compress_rec.recipes.quantize_int8 import QuantizeInt8
from compress_rec.variant import lessons_of
from tests.models import small_variant

TEXTS = ["a red boat", "the old song", "a quiet island"]


def test_float_weights_need_no_note() -> None:
    variant = small_variant(0)
    assert notes(variant.towers) == ()
    lessons = lessons_of(variant.towers, {"item": TEXTS})
    assert notes(variant.then(Step(Factorize(method="plain", keep=0.5)), lessons).towers) == ()


def test_factors_above_the_break_even_are_counted() -> None:
    """Neurons cut after the rank was chosen leave factors that together are larger than what they stand for."""
    variant = small_variant(0)
    lessons = lessons_of(variant.towers, {"item": TEXTS})
    cut = variant.then(Step(Factorize(method="plain", keep=0.9)), lessons).then(Step(PruneNeurons(keep=0.5)), lessons)
    (told,) = notes(cut.towers)
    assert told.startswith("above the break-even: 6 of 18 factorized weights")


def test_inputs_brought_to_one_size_make_no_factors() -> None:
    variant = small_variant(0)
    done = variant.then(Step(QuantizeInt8()), lessons_of(variant.towers, {"item": TEXTS}))
    assert not any("break-even" in told for told in notes(done.towers))


def test_rebuilt_weights_are_said_to_save_bytes_only() -> None:
    variant = small_variant(0)
    pruned = variant.then(Step(PruneWeights(keep=0.5)), lessons_of(variant.towers, {"item": TEXTS}))
    assert any(told.startswith("bytes only") for told in notes(pruned.towers))


def test_int8_without_a_compiled_kernel_names_the_cause() -> None:
    variant = small_variant(0)
    lessons = lessons_of(variant.towers, {"item": TEXTS})
    chained = variant.then(Step(Factorize(method="plain", keep=0.5)), lessons).then(Step(QuantizeInt8()), lessons)
    told = " ".join(notes(chained.towers))
    assert ("int8_linear runs on its reference" in told) == (op.fallback("int8_linear_packed") is not None)
    if op.fallback("int8_linear_packed") is not None:
        assert op.fallback("int8_linear") in told


def test_a_tower_that_cannot_be_compiled_says_why(monkeypatch) -> None:
    monkeypatch.setattr(op, "_EXTENSION", None)
    (told,) = notes(small_variant(0).compile().towers)
    assert told.startswith("the compiled extension was not built")
