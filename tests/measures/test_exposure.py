import numpy as np
import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.exposure import Exposure, lift
from compress_rec.trial import TableRanker
from tests.measures.texts import ITEMS, Reader, reader_world

WORLD = reader_world()


def test_hand_worked_lift():
    # two users see it among three before; all three that can after the first edit, none after the second; the last user has used it
    before, after = torch.tensor([2, 3, 9, 0]), torch.tensor([[1, 1, 1, 0], [4, 4, 9, 0]])
    assert lift(before, after, 3) == pytest.approx(((3 + 1) / (2 + 1) + (0 + 1) / (2 + 1)) / 2)


@pytest.mark.planted_bad
def test_a_planted_reader_of_keywords_is_caught_and_the_control_is_not():
    attacked = Exposure(k=4).take(Reader("greedy"), WORLD)
    assert attacked.units["item"] == WORLD.catalogue.items[4:]
    # in nobody's first four before, in those of all who have not used it after
    assert attacked.values == pytest.approx([30 + 1 - sum(item in h for h in WORLD.histories) for item in range(4, ITEMS)])
    control = Exposure(k=4, edit="benign_edit[words=1]").take(Reader("greedy"), WORLD)
    assert np.mean(control.defined) < np.mean(attacked.defined) / 3


def test_a_reader_that_never_sees_what_is_appended_gains_nothing():
    assert set(Exposure(k=4).take(Reader("deaf", words=2), WORLD).values) == {1.0}


def test_a_lookup_table_reads_no_text_and_is_not_applicable():
    with pytest.raises(NotApplicable, match="'table' looks its items up and reads no text"):
        Exposure().take(TableRanker("table", torch.eye(ITEMS), torch.eye(ITEMS)), WORLD)


def test_an_unknown_edit_is_refused_with_the_nearest():
    with pytest.raises(CompressRecError, match="did you mean 'keyword_stuffing'"):
        Exposure(edit="keyword_stufing").take(Reader("reader"), WORLD)


def test_a_list_of_no_length_is_refused():
    with pytest.raises(CompressRecError, match="at least 1"):
        Exposure(k=0).take(Reader("reader"), WORLD)


def test_the_label_reads_back():
    assert Exposure().label == "exposure@10"
    nested = Exposure(5, "benign_edit[words=2]", user="text")
    assert MEASURES.build(nested.label) == nested
