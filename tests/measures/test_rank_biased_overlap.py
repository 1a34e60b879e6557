import itertools

import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES
from compress_rec.measures.rank_biased_overlap import RankBiasedOverlap, rbo
from tests.measures.worlds import Scored, descending, trial, values


def by_the_book(one: list[int], other: list[int], p: float) -> float:
    """Webber, Moffat and Zobel 2010, the sum as it is written."""
    depth = len(one)
    agreement = [len({*one[:d]} & {*other[:d]}) / d for d in range(1, depth + 1)]
    return agreement[-1] * p**depth + (1 - p) / p * sum(a * p**d for d, a in enumerate(agreement, 1))


def test_hand_worked_value():
    # lists 1 2 3 and 1 3 4, p = 1/2. A = 1, 1/2, 2/3. Sum: 1/2 + 1/8 + 1/12 = 17/24; (1-p)/p = 1; A(3)·p³ = 1/12. Together 19/24
    assert rbo(torch.tensor([1, 2, 3]), torch.tensor([1, 3, 4]), 0.5) == pytest.approx(19 / 24)


def test_all_pairs_of_short_lists_equal_the_written_sum():
    lists = list(itertools.permutations(range(5), 3))
    for one, other in itertools.product(lists[::7], lists):
        found = rbo(torch.tensor(one), torch.tensor(other), 0.9)
        assert found == pytest.approx(by_the_book(list(one), list(other), 0.9), abs=1e-12)


@pytest.mark.planted_bad
def test_the_reference_reaches_the_ideal_and_disjoint_rankings_get_nothing():
    reference = Scored("reference", torch.rand(3, 40, generator=torch.Generator().manual_seed(0)))
    world = trial([[0], [1, 2], [3]], [4, 0, 1], 40, reference)
    assert values(RankBiasedOverlap(), reference, world) == (RankBiasedOverlap.ideal,) * 3
    assert values(RankBiasedOverlap(k=10), Scored("opposite", 1 - reference.scores), world) == pytest.approx((0.0, 0.0, 0.0))


def test_a_change_at_the_top_weighs_more_than_one_below():
    reference = Scored("reference", descending([range(10)], 10))
    world = trial([[]], [0], 10, reference)
    top = Scored("top", descending([[1, 0, *range(2, 10)]], 10))
    low = Scored("low", descending([[*range(8), 9, 8]], 10))
    measure = RankBiasedOverlap(k=10)
    assert values(measure, top, world)[0] < values(measure, low, world)[0] < 1.0


def test_short_rankings_go_as_deep_as_they_are_and_empty_ones_are_undefined():
    reference = Scored("reference", descending([[3, 2], [0]], 4))
    world = trial([[0, 1], [0, 1, 2, 3]], [2, 0], 4, reference)
    # items 2 and 3 are left; turned round: A = 0, 1 -> p² + (1-p)/p·p² = p
    found = values(RankBiasedOverlap(), Scored("turned", descending([[2, 3], [0]], 4)), world)
    assert found[0] == pytest.approx(0.9)
    assert found[1] is None


def test_p_is_checked_and_the_label_reads_back():
    with pytest.raises(CompressRecError, match="p=1 came"):
        RankBiasedOverlap(p=1)
    assert RankBiasedOverlap(k=100).label == "rank_biased_overlap@100"
    assert MEASURES.build("rank_biased_overlap[p=0.8]") == RankBiasedOverlap(0.8)
