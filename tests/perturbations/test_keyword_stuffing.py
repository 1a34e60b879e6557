import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.perturbations.keyword_stuffing import KeywordStuffing, typical_words
from compress_rec.trial import Catalogue


def test_the_words_of_popular_items_come_first_by_a_hand_worked_weight():
    # war: p = 9/10, q = 1/2, weight .53; film: p = q = 1, weight 0; love: p = 1/10, q = 1/2, weight -.16
    texts, uses = ("war film", "war film", "love film", "love film"), (4, 5, 1, 0)
    assert typical_words(texts, uses) == ("war", "film", "love")


def test_words_that_the_item_has_are_passed_over():
    shelf = Catalogue(("a", "b", "c"), ("War film", "gold war", "love"), torch.zeros(3, dtype=torch.bool), torch.tensor([1, 8, 1]))
    assert KeywordStuffing(words=1).edits(0, shelf, 0) == ("War film gold",)
    assert KeywordStuffing(words=9).edits(2, shelf, 0) == ("love gold war film",)


def test_a_number_of_words_below_one_is_refused():
    with pytest.raises(CompressRecError, match="words=0 came"):
        KeywordStuffing(words=0)
