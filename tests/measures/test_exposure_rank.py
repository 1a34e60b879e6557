import math

import numpy as np
import pytest
import torch

from compress_rec.measure import NotApplicable
from compress_rec.measures.exposure import lift
from compress_rec.measures.exposure_rank import ExposureRank, log_lift
from compress_rec.trial import TableRanker
from tests.measures.texts import ITEMS, Reader, reader_world

WORLD = reader_world()


def test_hand_worked_lift():
    before, after = torch.tensor([8, 3, 0]), torch.tensor([[2, 3, 0], [8, 1, 0]])
    assert log_lift(before, after) == pytest.approx((math.log(4) + 0 + 0 + math.log(3)) / 4)


def test_undefined_where_every_user_has_the_item():
    assert log_lift(torch.zeros(3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64)) is None


@pytest.mark.planted_bad
def test_a_planted_reader_of_keywords_is_caught_and_the_control_is_not():
    attacked = ExposureRank().take(Reader("greedy"), WORLD)
    assert min(attacked.defined) > math.log(2)
    control = ExposureRank(edit="benign_edit[words=1]").take(Reader("greedy"), WORLD)
    assert np.mean(control.defined) < np.mean(attacked.defined) / 3


def test_it_sees_a_move_that_exposure_does_not():
    before, after = torch.tensor([50, 60]), torch.tensor([[20, 24]])
    assert lift(before, after, 10) == 1
    assert log_lift(before, after) == pytest.approx(math.log(2.5))


def test_a_reader_that_never_sees_what_is_appended_gains_nothing():
    assert set(ExposureRank().take(Reader("deaf", words=2), WORLD).values) == {0.0}


def test_a_lookup_table_reads_no_text_and_is_not_applicable():
    with pytest.raises(NotApplicable, match="'table' looks its items up and reads no text"):
        ExposureRank().take(TableRanker("table", torch.eye(ITEMS), torch.eye(ITEMS)), WORLD)
