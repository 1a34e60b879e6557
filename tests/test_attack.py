import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compress_rec.attack import attack, targets_of
from compress_rec.errors import CompressRecError
from compress_rec.measure import NotApplicable
from compress_rec.perturbation import PERTURBATIONS
from compress_rec.trial import Catalogue, Trial, VariantRanker
from tests.measures.texts import ITEMS, Reader, reader_world
from tests.measures.worlds import trial
from tests.models import small_texts, small_variant

RANKER = VariantRanker(small_variant())


def reranked(trial: Trial, items: Tensor, users: Tensor, item: int, vector: Tensor) -> list[int]:
    """Rank the whole catalogue again with one vector replaced, in plain Python."""
    replaced = items.clone().double()
    replaced[item] = vector.double()
    scores = (users.double() @ replaced.T).tolist()
    found = []
    for user, history in enumerate(trial.histories):
        left = sorted(set(range(len(items))) - set(history), key=lambda j, row=scores[user]: (-round(row[j], 12), j))
        found.append(left.index(item) + 1 if item in left else 0)
    return found


@pytest.mark.parametrize("user", ["pooled", "text"])
@pytest.mark.parametrize("edit", ["keyword_stuffing", "benign_edit"])
def test_ranks_equal_a_full_ranking_with_the_edited_items_vector(edit, user):
    texts = small_texts(40)
    catalogue = Catalogue(tuple(f"i{i}" for i in range(40)), texts, torch.zeros(40, dtype=torch.bool), torch.arange(40))
    histories = tuple(tuple((start * 7 + step * 3) % 40 for step in range(4)) for start in range(16))
    ranker = RANKER
    world = Trial(catalogue, tuple(f"u{u}" for u in range(16)), histories, torch.zeros(16, dtype=torch.int64))
    found = attack(ranker, world, edit, 5, user)
    items, users = world.items(ranker), world.user_vectors(ranker, user)
    moved = 0
    for target, before, after in zip(found.targets, found.before, found.after, strict=True):
        assert before.tolist() == reranked(world, items, users, target, items[target])
        vectors = ranker.read_items(PERTURBATIONS.build(edit).edits(target, catalogue, world.seed))
        assert after.tolist() == [reranked(world, items, users, target, vector) for vector in vectors]
        moved += int((after != before).sum())
    assert moved > 0


def test_equal_scores_are_ordered_by_the_smaller_id_and_used_items_have_no_rank():
    items = F.normalize(torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]]), dim=-1)

    class Fixed(Reader):
        def item_vectors(self, catalogue: Catalogue) -> Tensor:
            return items

        def read_items(self, texts):
            return items[:1].expand(len(texts), 2)

        def user_vectors(self, catalogue, histories, kind):
            return items[:1].expand(len(histories), 2)

    world = trial([[3], [0, 3], [1]], [0, 0, 0], 4)
    found = attack(Fixed("fixed"), world, "keyword_stuffing", 9, "pooled")
    assert found.targets == (0, 1, 2, 3)
    assert found.before.tolist() == [[1, 0, 1], [2, 1, 0], [3, 2, 2], [0, 0, 3]]
    assert [after.tolist() for after in found.after] == [[[1, 0, 1]], [[2, 1, 0]], [[3, 2, 2]], [[0, 0, 3]]]


def test_targets_are_warm_items_outside_the_most_used_fifth_the_same_in_any_order():
    world = reader_world()
    drawn = targets_of(world, 5)
    assert len(set(drawn)) == 5
    assert drawn == tuple(sorted(drawn))
    assert set(targets_of(world, 999)) == set(range(ITEMS)) - {0, 1, 2, 3}
    cold = torch.zeros(ITEMS, dtype=torch.bool)
    cold[4:] = True
    frozen = dataclasses.replace(world, catalogue=dataclasses.replace(world.catalogue, cold=cold))
    assert set(targets_of(frozen, 999)) == {0, 1, 2, 3}
    rare = dataclasses.replace(world.catalogue, uses=torch.where(torch.arange(ITEMS) < ITEMS - 3, world.catalogue.uses, 0))
    found = targets_of(dataclasses.replace(world, catalogue=rare), 999)
    assert found
    assert not set(found) & {ITEMS - 3, ITEMS - 2, ITEMS - 1}, "an item that nobody used in training is not promoted, held out or not"
    shelf = world.catalogue
    turned = dataclasses.replace(shelf, items=shelf.items[::-1], texts=shelf.texts[::-1], uses=shelf.uses.flip(0))
    assert {turned.items[i] for i in targets_of(dataclasses.replace(world, catalogue=turned), 5)} == {shelf.items[i] for i in drawn}


def test_no_target_is_refused_and_a_catalogue_without_warm_items_is_not_applicable():
    world = reader_world()
    with pytest.raises(CompressRecError, match="targets=0 came"):
        targets_of(world, 0)
    cold = dataclasses.replace(world.catalogue, cold=torch.ones(ITEMS, dtype=torch.bool))
    with pytest.raises(NotApplicable, match="the catalogue has none"):
        targets_of(dataclasses.replace(world, catalogue=cold), 3)


def test_an_edited_text_that_becomes_nan_is_refused():
    class Broken(Reader):
        def read_items(self, texts):
            return super().read_items(texts) * torch.nan

        def item_vectors(self, catalogue):
            return Reader("whole").item_vectors(catalogue)

    with pytest.raises(CompressRecError, match="'broken' gives NaN or infinity for an edited text"):
        attack(Broken("broken"), reader_world(), "keyword_stuffing", 3, "pooled")
