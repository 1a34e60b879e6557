import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES
from compress_rec.measures.tail_share import TailShare, tail
from tests.measures.worlds import Scored, descending, trial, values

# half of six items: 0, 3 and 5
USES = [1, 9, 8, 2, 7, 0]


def test_hand_worked_values():
    world = trial([[], [2]], [0, 0], 6, uses=USES)
    # user 0 is shown 1 0 3 (two of the tail), user 1 is shown 1 4 5 (one)
    ranker = Scored("hand", descending([[1, 0, 3], [2, 1, 4, 5]], 6))
    assert values(TailShare(k=3, share=0.5), ranker, world) == pytest.approx((2 / 3, 1 / 3))


@pytest.mark.planted_bad
def test_popular_items_alone_give_0_and_the_least_used_alone_1():
    world = trial([[]], [0], 6, uses=USES)
    assert values(TailShare(k=3, share=0.5), Scored("popular", descending([[1, 2, 4]], 6)), world) == (0.0,)
    assert values(TailShare(k=3, share=0.5), Scored("rare", descending([[5, 0, 3]], 6)), world) == (1.0,)


def test_items_that_tie_at_the_border_belong_to_the_tail_in_part():
    # 3 of 6 places: the two unused ones fill two, and four items with one use share the third
    belongs = tail(torch.tensor([1, 0, 1, 1, 0, 1]), 0.5)
    assert belongs.tolist() == [0.25, 1, 0.25, 0.25, 1, 0.25]
    assert tail(torch.zeros(7, dtype=torch.int64), 0.8).tolist() == pytest.approx([0.8] * 7)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_tail_has_the_size_it_says(share: float):
    uses = torch.randint(0, 9, (103,), generator=torch.Generator().manual_seed(0))
    belongs = tail(uses, share)
    assert float(belongs.sum()) == pytest.approx(share * 103)
    assert bool((belongs[uses.argsort()].diff() <= 0).all())


def test_no_list_is_undefined():
    assert values(TailShare(k=1), Scored("hand", descending([[0]], 2)), trial([[0, 1]], [0], 2)) == (None,)


def test_the_share_is_checked_and_the_label_reads_back():
    with pytest.raises(CompressRecError, match="share=0 came"):
        TailShare(share=0)
    assert TailShare().label == "tail_share@10"
    assert MEASURES.build("tail_share@5[share=0.5]") == TailShare(5, 0.5)
