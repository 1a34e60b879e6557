import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES
from compress_rec.measures.overlap import Overlap
from tests.measures.worlds import Scored, descending, trial, values

REFERENCE = Scored("reference", descending([[1, 2, 3], [3, 4, 5]], 8))
WORLD = trial([[0], [0]], [1, 1], 8, REFERENCE)


def test_hand_worked_values():
    # user 0 keeps 2 and 1 of (1 2 3), user 1 keeps 5 of (3 4 5)
    other = Scored("other", descending([[2, 7, 1], [7, 5, 6]], 8))
    assert values(Overlap(k=3), other, WORLD) == pytest.approx((2 / 3, 1 / 3))


def test_the_reference_reaches_the_ideal_against_itself_and_order_within_the_list_does_not_count():
    assert values(Overlap(k=3), REFERENCE, WORLD) == (Overlap.ideal,) * 2
    assert values(Overlap(k=3), Scored("turned", descending([[3, 2, 1], [4, 5, 3]], 8)), WORLD) == (1.0, 1.0)


@pytest.mark.planted_bad
def test_opposite_lists_share_nothing():
    assert values(Overlap(k=3), Scored("opposite", -REFERENCE.scores), WORLD) == (0.0, 0.0)


def test_short_lists_are_compared_as_far_as_they_go_and_empty_ones_are_undefined():
    reference = Scored("reference", descending([[3], [0]], 4))
    world = trial([[0, 1], [0, 1, 2, 3]], [2, 0], 4, reference)
    assert values(Overlap(k=3), reference, world) == (1.0, None)


def test_a_random_ranker_keeps_what_chance_keeps():
    users, items = 300, 51
    generator = torch.Generator().manual_seed(0)
    reference = Scored("reference", torch.rand(users, items, generator=generator))
    world = trial([[0]] * users, [1] * users, items, reference)
    found = values(Overlap(), Scored("random", torch.rand(users, items, generator=generator)), world)
    # 10 of 50 unseen items; the hits of one user are hypergeometric with variance 10·.2·.8·40/49
    error = (10 * 0.2 * 0.8 * 40 / 49) ** 0.5 / 10 / users**0.5
    assert sum(found) / users == pytest.approx(0.2, abs=5 * error)


def test_without_a_reference_it_is_refused():
    with pytest.raises(CompressRecError, match="the trial has none"):
        Overlap(k=3).take(REFERENCE, trial([[0], [0]], [1, 1], 8))


def test_the_label_reads_back():
    assert Overlap().label == "overlap@10"
    assert MEASURES.build("overlap@20[user=text]") == Overlap(20, "text")
