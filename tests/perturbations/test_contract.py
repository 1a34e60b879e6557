import dataclasses

import pytest
import torch

from compress_rec.perturbation import PERTURBATIONS, vocabulary, words_of
from compress_rec.trial import Catalogue
from tests.models import small_texts

NAMES = sorted(PERTURBATIONS.classes())
TEXTS = small_texts(24)
SHELF = Catalogue(tuple(f"i{i}" for i in range(24)), TEXTS, torch.zeros(24, dtype=torch.bool), torch.arange(24))


@pytest.mark.parametrize("name", NAMES)
def test_edits_are_texts_that_differ_from_the_items_own(name):
    for item in range(24):
        edits = PERTURBATIONS.build(name).edits(item, SHELF, 0)
        assert edits
        assert all(isinstance(text, str) and text != TEXTS[item] for text in edits)


@pytest.mark.parametrize("name", NAMES)
def test_same_item_and_seed_same_edits_in_whatever_order_the_catalogue_stands(name):
    perturbation = PERTURBATIONS.build(name)
    order = list(range(23, -1, -1))
    turned = Catalogue(tuple(SHELF.items[i] for i in order), tuple(TEXTS[i] for i in order), SHELF.cold, SHELF.uses.flip(0))
    for item in (0, 7, 23):
        assert perturbation.edits(item, SHELF, 5) == perturbation.edits(item, SHELF, 5) == perturbation.edits(23 - item, turned, 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_catalogue_without_further_words_leaves_the_text(name):
    bare = Catalogue(("a", "b"), ("one", "one"), torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.int64))
    assert set(PERTURBATIONS.build(name).edits(0, bare, 0)) == {"one"}


@pytest.mark.parametrize("name", NAMES)
def test_the_label_reads_back_and_there_is_a_card(name):
    perturbation = PERTURBATIONS.build(name)
    changed = dataclasses.replace(perturbation, **{dataclasses.fields(perturbation)[0].name: 2})
    assert PERTURBATIONS.build(perturbation.label) == perturbation
    assert PERTURBATIONS.build(changed.label) == changed != perturbation
    assert PERTURBATIONS.cards()[name]


def test_words_are_letters_of_any_script_without_numbers():
    assert words_of("Schindler's List (1993) Sci-Fi sci-fi Амели 2001_x") == ("schindler's", "list", "sci-fi", "амели", "x")
    assert vocabulary(("b a", "c a")) == ("a", "b", "c")
