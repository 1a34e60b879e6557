import numpy as np
import pytest
import torch
from torch.nn import functional as F

from compress_rec.attributes import attribute_columns, multi_hot, tokens
from compress_rec.baseline import BASELINES
from compress_rec.baselines.attribute_ridge import AttributeRidge, ridge
from compress_rec.baselines.id_lookup import IdLookup
from compress_rec.errors import CompressRecError
from compress_rec.measures.cold_rank import ColdRank
from compress_rec.measures.cold_recall import ColdRecall
from compress_rec.teacher import Teacher
from tests.measures.worlds import catalogue, trial

GENRES = ("comedy", "drama", "western")
ITEMS = 60
COLD = tuple(range(48, 60))
ATTRIBUTES = [{"title": f"title number {item}", "year": str(1980 + item % 20), "genres": GENRES[item % 3]} for item in range(ITEMS)]
TRAIN = [np.array(range(user, 48, 5)) for user in range(5)]


def teacher(by_genre: bool = True) -> Teacher:
    """Vectors that the genre decides, with a little noise; or noise alone."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(8)[torch.arange(ITEMS) % 3] if by_genre else torch.zeros(ITEMS, 8)
    items, behaviours = (F.normalize(axes + 0.05 * torch.randn(ITEMS, 8, generator=generator), dim=-1) for _ in range(2))
    return Teacher(items, behaviours, torch.ones(4), 1.0)


def world():
    # each user used items of one genre and came to use the cold ones of the same
    answers = tuple(tuple(item for item in COLD if item % 3 == genre) for genre in range(3))
    return trial(
        [[0]], [1], ITEMS, cold=COLD, cold_users=("c0", "c1", "c2"), cold_histories=((0, 3), (1, 4), (2, 5)), cold_answers=answers
    )  # fmt: skip


def cold_recall(taught: Teacher, recipe: AttributeRidge | IdLookup) -> float:
    ranker = recipe.fit(catalogue(ITEMS, COLD), TRAIN, ATTRIBUTES, taught)
    return float(np.mean(ColdRecall(k=4).take(ranker, world()).defined))


@pytest.mark.parametrize("warm", ["predicted", "teacher"])
def test_what_attributes_decide_is_predicted_for_cold_items(warm: str):
    recipe = AttributeRidge(warm=warm)
    assert cold_recall(teacher(), recipe) == 1.0
    ranker = recipe.fit(catalogue(ITEMS, COLD), TRAIN, ATTRIBUTES, teacher())
    assert max(ColdRank().take(ranker, world()).defined) < 0.5
    assert torch.allclose(ranker.items.norm(dim=1), torch.ones(ITEMS), atol=1e-6)


def test_what_attributes_do_not_decide_is_not():
    # four of twelve cold items are right for each user: chance is a third
    assert cold_recall(teacher(by_genre=False), AttributeRidge()) < 0.7
    assert cold_recall(teacher(), IdLookup()) == pytest.approx(1 / 3)


def test_cold_rows_of_the_teacher_are_not_looked_at():
    taught, spoilt = teacher(), teacher()
    spoilt.items[list(COLD)] = spoilt.behaviours[list(COLD)] = 1e6
    ranker, other = (AttributeRidge().fit(catalogue(ITEMS, COLD), TRAIN, ATTRIBUTES, each) for each in (taught, spoilt))
    assert torch.equal(ranker.items, other.items)
    assert torch.equal(ranker.behaviours, other.behaviours)


def test_warm_rows_are_predicted_or_the_teachers_own():
    taught = teacher()
    table = AttributeRidge(warm="teacher").fit(catalogue(ITEMS, COLD), TRAIN, ATTRIBUTES, taught)
    assert torch.equal(table.items[:48], taught.items[:48])
    predicted = AttributeRidge().fit(catalogue(ITEMS, COLD), TRAIN, ATTRIBUTES, taught)
    assert not torch.equal(predicted.items[:48], taught.items[:48])
    assert (predicted.name, table.name) == ("attribute ridge", "attribute ridge[warm=teacher]")


def test_the_closed_form_equals_leaving_each_row_out_in_turn():
    generator = np.random.default_rng(0)
    x, y = (generator.random((20, 5)) > 0.5).astype(float), generator.normal(size=(20, 3))
    sample = generator.integers(1, 9, 20).astype(float)
    for penalty in (0.1, 3.0, 100.0):
        squares = np.zeros(20)
        for row in range(20):
            keep = np.arange(20) != row
            # the penalty is times the mean weight, which changes when a row is left out
            left = penalty * sample.mean() / sample[keep].mean()
            model = ridge(x[keep], y[keep], sample[keep], (left,))
            squares[row] = ((model(x[row : row + 1]) - y[row]) ** 2).mean()
        assert ridge(x, y, sample, (penalty,)).errors[penalty] == pytest.approx(float(sample @ squares / sample.sum()))


def test_ridge_solves_the_weighted_normal_equations():
    generator = np.random.default_rng(1)
    x, y, sample = generator.normal(size=(30, 4)), generator.normal(size=(30, 2)), generator.random(30) + 0.1
    model = ridge(x, y, sample, (2.0,))
    wide = np.hstack([x, np.ones((30, 1))])
    penalty = 2.0 * sample.mean() * np.diag([1, 1, 1, 1, 0])
    solved = np.linalg.solve(wide.T @ (sample[:, None] * wide) + penalty, wide.T @ (sample[:, None] * y))
    assert np.allclose(model(x), wide @ solved)


def test_noise_is_shrunk_and_signal_is_not():
    generator = np.random.default_rng(2)
    x, sample = generator.normal(size=(80, 10)), np.ones(80)
    signal, noise = x @ generator.normal(size=(10, 3)), generator.normal(size=(80, 3))
    assert ridge(x, signal, sample).penalty < ridge(x, noise, sample).penalty


def test_attributes_by_hand():
    item = {"title": "red river", "year": "1995", "genres": "Comedy, Drama|Children's"}
    assert tokens(item, ("year", "genres")) == {"year=1995", "year=1990s", "genres=comedy", "genres=drama", "genres=children's"}
    assert attribute_columns(ATTRIBUTES) == ("year", "genres")
    table, names = multi_hot(ATTRIBUTES, ("genres",), np.arange(ITEMS) < 48)
    assert names == ("genres=comedy", "genres=drama", "genres=western")
    assert table[:3].tolist() == np.eye(3).tolist()


def test_attributes_that_only_cold_items_have_are_left_out():
    attributes = [{"genres": "comedy"}] * 4 + [{"genres": "comedy horror"}] * 4
    table, names = multi_hot(attributes, ("genres",), np.arange(8) < 4)
    assert names == ("genres=comedy",)
    assert table.shape == (8, 1)


def test_faults_are_told_in_a_sentence():
    with pytest.raises(CompressRecError, match="no column 'genre'; did you mean 'genres'"):
        AttributeRidge(columns=("genre",)).fit(catalogue(ITEMS), TRAIN, ATTRIBUTES, teacher())
    with pytest.raises(CompressRecError, match="found no attribute that three used items share"):
        AttributeRidge(columns=("title",)).fit(catalogue(ITEMS), TRAIN, [{"title": f"t{item}"} for item in range(ITEMS)], teacher())
    with pytest.raises(CompressRecError, match="no warm='taught'"):
        AttributeRidge(warm="taught")
    with pytest.raises(CompressRecError, match="2 items have attributes and the catalogue has 60"):
        AttributeRidge().fit(catalogue(ITEMS), TRAIN, ATTRIBUTES[:2], teacher())


def test_it_is_found_by_name():
    assert BASELINES.build({"baseline": "attribute_ridge", "columns": ["genres"]}) == AttributeRidge(("genres",))
