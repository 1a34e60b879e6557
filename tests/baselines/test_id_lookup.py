import pytest
import torch
from torch.nn import functional as F

from compress_rec.baseline import BASELINES
from compress_rec.baselines.id_lookup import IdLookup
from compress_rec.errors import CompressRecError
from compress_rec.measures.cold_recall import ColdRecall
from compress_rec.measures.overlap import Overlap
from compress_rec.teacher import Teacher
from compress_rec.trial import TableRanker
from tests.measures.worlds import catalogue, trial

COLD = (7, 8, 9, 10, 11)


def teacher(items: int = 12) -> Teacher:
    generator = torch.Generator().manual_seed(0)
    vectors = [F.normalize(torch.randn(items, 6, generator=generator), dim=-1) for _ in range(2)]
    return Teacher(vectors[0], vectors[1], torch.tensor([1.0, 0.5]), 1.0)


def test_without_cold_items_it_is_the_teacher():
    taught = teacher()
    ranker = IdLookup().fit(catalogue(12), [], [], taught)
    whole = TableRanker("teacher", taught.items, taught.behaviours, taught.recency)
    world = trial([[0, 1, 2], [3, 4]], [5, 5], 12, reference=whole)
    assert ranker.name == "id lookup"
    assert Overlap(k=5).take(ranker, world).values == (1.0, 1.0)


def test_cold_rows_are_forgotten_and_the_teacher_is_left_as_it_was():
    taught = teacher()
    before = taught.items.clone()
    ranker = IdLookup().fit(catalogue(12, COLD), [], [], taught)
    assert bool((ranker.items[list(COLD)] == 0).all())
    assert bool((ranker.behaviours[list(COLD)] == 0).all())
    assert torch.equal(ranker.items[:7], taught.items[:7])
    assert torch.equal(taught.items, before)


def test_cold_items_get_what_chance_gives():
    world = trial([[0]], [1], 12, cold=COLD, cold_users=("c",), cold_histories=((0, 1),), cold_answers=((7, 9),))
    assert ColdRecall(k=2).take(IdLookup().fit(catalogue(12, COLD), [], [], teacher()), world).values == pytest.approx((2 / 5,))


def test_a_teacher_of_another_catalogue_is_refused():
    with pytest.raises(CompressRecError, match="12 item vectors and the catalogue 11 items"):
        IdLookup().fit(catalogue(11), [], [], teacher())


def test_it_is_found_by_name():
    assert BASELINES.build("id_lookup") == IdLookup()
