import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.perturbation import vocabulary, words_of
from compress_rec.perturbations.benign_edit import BenignEdit
from compress_rec.trial import Catalogue
from tests.models import small_texts

TEXTS = small_texts(24)
SHELF = Catalogue(tuple(f"i{i}" for i in range(24)), TEXTS, torch.zeros(24, dtype=torch.bool), torch.ones(24, dtype=torch.int64))


def test_each_draw_appends_as_many_new_words_of_the_catalogue_as_were_asked_for():
    edits = BenignEdit(words=4, draws=6).edits(3, SHELF, 0)
    assert len(set(edits)) == 6
    for text in edits:
        assert text.startswith(f"{TEXTS[3]} ")
        added = text.removeprefix(f"{TEXTS[3]} ").split(" ")
        assert len(set(added)) == 4
        assert set(added) <= set(vocabulary(TEXTS)) - set(words_of(TEXTS[3]))


def test_another_seed_or_item_draws_other_words():
    drawn = {BenignEdit(draws=1).edits(item, SHELF, seed)[0].removeprefix(TEXTS[item]) for item in (0, 1) for seed in (0, 1)}
    assert len(drawn) == 4


@pytest.mark.parametrize("options", [{"words": 0}, {"draws": 0}])
def test_counts_below_one_are_refused(options):
    with pytest.raises(CompressRecError, match="choose 1 or more of both"):
        BenignEdit(**options)
