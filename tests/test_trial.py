"""The held-out side: what a trial is made of, what its lists may hold, and that nothing is handed on to another trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.measure import NotApplicable
from compress_rec.planted import planted
from compress_rec.split import Split, split
from compress_rec.texts import history_text
from compress_rec.trial import DEPTH, Catalogue, Ranker, TableRanker, Trial, UserKind, VariantRanker, slices
from tests.measures.worlds import Scored, descending, trial
from tests.tiny_study import planted_model

MADE = planted(users=96, topics=6, styles=4, events=6)


class Oracle(Ranker):
    """Ranks by the planted rule itself, and counts how often it is asked."""

    def __init__(self, name: str = "oracle") -> None:
        self.name, self.asked = name, [0, 0]

    def item_vectors(self, catalogue: Catalogue) -> Tensor:
        self.asked[0] += 1
        return torch.eye(len(catalogue))

    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        self.asked[1] += 1
        return torch.stack([torch.from_numpy(MADE.oracle(history)).float() for history in histories])


@pytest.fixture(scope="module")
def taken() -> Split:
    return split(MADE.interactions, seed=0, cold_items=0.1)


@pytest.fixture(scope="module")
def catalogue(taken: Split) -> Catalogue:
    return Catalogue.of(taken)


def test_the_catalogue_counts_training_alone(taken: Split, catalogue: Catalogue) -> None:
    assert len(catalogue) == len(catalogue.items) == len(catalogue.texts) == 24
    assert catalogue.uses.tolist() == [sum((user == item).sum() for user in taken.train) for item in range(24)]
    assert catalogue.cold.tolist() == taken.cold.tolist()
    assert catalogue.cold.any()
    assert not catalogue.uses[catalogue.cold].any()
    assert catalogue.history_texts([(0, 1, 2), (3,)], 2) == [history_text(catalogue.texts[1:3], 2), catalogue.texts[3]]


@pytest.mark.parametrize("stage", ["test", "validation"])
def test_a_trial_is_one_side_of_the_split(taken: Split, catalogue: Catalogue, stage: str) -> None:
    made = Trial.of(taken, catalogue, stage, seed=7)  # type: ignore[arg-type]
    targets, known = (taken.test, taken.histories) if stage == "test" else (taken.validation, taken.train)
    rows = [user for user in range(len(targets)) if targets[user] >= 0 and len(known[user])]
    assert made.users == tuple(taken.interactions.users[user] for user in rows)
    assert made.targets.tolist() == [targets[user] for user in rows]
    assert made.histories == tuple(tuple(known[user].tolist()) for user in rows)
    assert (made.seed, made.reference) == (7, None)
    # what was held out of the one is known in the other, and never what is asked
    assert len(rows) > 48
    for history, target in zip(made.histories, made.targets.tolist(), strict=True):
        assert target not in history
        assert not catalogue.cold[[*history, target]].any()
    if stage == "test":
        assert all(taken.validation[user] in history for user, history in zip(rows, made.histories, strict=True))
    else:
        assert all(taken.test[user] not in history for user, history in zip(rows, made.histories, strict=True))


def test_cold_items_belong_to_the_test_alone(taken: Split, catalogue: Catalogue) -> None:
    test, validation = Trial.of(taken, catalogue, "test"), Trial.of(taken, catalogue, "validation")
    assert (validation.cold_users, validation.cold_histories, validation.cold_answers) == ((), (), ())
    assert test.cold_users == tuple(taken.interactions.users[user] for user in taken.cold_users)
    assert test.cold_users
    for history, answers in zip(test.cold_histories, test.cold_answers, strict=True):
        assert answers
        assert catalogue.cold[list(answers)].all()
        assert not catalogue.cold[list(history)].any()


def test_a_trial_without_anyone_is_refused(taken: Split, catalogue: Catalogue) -> None:
    nobody = replace(taken, test=taken.test * 0 - 1)
    with pytest.raises(CompressRecError, match="the trial has no user with a held-out item: at least one is needed; give more events"):
        Trial.of(nobody, catalogue)


@pytest.mark.parametrize("stage", ["test", "validation"])
def test_lists_leave_out_the_history_and_never_what_is_asked(taken: Split, catalogue: Catalogue, stage: str) -> None:
    made = Trial.of(taken, catalogue, stage)  # type: ignore[arg-type]
    lists = made.lists(Oracle(), k=len(catalogue))
    for found, history, target in zip(lists.tolist(), made.histories, made.targets.tolist(), strict=True):
        left = [item for item in found if item >= 0]
        assert sorted((*left, *history)) == list(range(24)), "the whole catalogue without the history, cold items included"
        assert target in left
        assert found[len(left) :] == [-1] * len(history)
    # the rule names what came next, unless that was a cold item
    assert (lists[:, 0] == made.targets).float().mean() > 0.5


def test_lists_by_hand() -> None:
    made = trial([(0, 1), (4,)], [2, 3], 5)
    ranker = Scored("scored", descending([[1, 3, 2], [4, 0, 3]], 5))
    assert made.lists(ranker, k=5).tolist() == [[3, 2, 4, -1, -1], [0, 3, 1, 2, -1]]
    assert made.lists(ranker, k=2).tolist() == [[3, 2], [0, 3]]
    text = Scored("both", descending([[1, 3, 2], [4, 0, 3]], 5), text=descending([[4], [1]], 5))
    assert made.lists(text, "text", 1).tolist() == [[4], [1]]
    assert made.lists(text, "pooled", 1).tolist() == [[3], [0]]


def test_a_longer_list_begins_as_a_shorter_one_and_k_ends_at_the_catalogue() -> None:
    items = DEPTH + 20
    made = trial([(0,), (1,)], [2, 3], items)
    ranker = Scored("scored", torch.rand(2, items, generator=torch.Generator().manual_seed(0)))
    whole = made.lists(ranker, k=items)
    assert whole.shape == (2, items)
    for k in (1, 10, DEPTH, DEPTH + 1):
        assert torch.equal(made.lists(ranker, k=k), whole[:, :k])
    with pytest.raises(CompressRecError) as caught:
        made.lists(ranker, k=items + 1)
    assert str(caught.value) == "k is 121, but the catalogue has 120 items: choose a smaller k"


def test_cold_scores_are_the_cosines_of_the_whole_catalogue(taken: Split, catalogue: Catalogue) -> None:
    made = Trial.of(taken, catalogue)
    ranker = VariantRanker(planted_model())
    towers = planted_model().towers
    items, behaviours = towers.encode(catalogue.texts, "item"), towers.encode(catalogue.texts, "behaviour")
    wanted = towers.pooled(behaviours, made.cold_histories) @ items.T
    torch.testing.assert_close(made.cold_scores(ranker), wanted)
    read = towers.encode(catalogue.history_texts(made.cold_histories, towers.history), "text") @ items.T
    torch.testing.assert_close(made.cold_scores(ranker, "text"), read)
    assert made.cold_scores(ranker).shape == (len(made.cold_users), 24)


class Broken(Oracle):
    """Gives NaN for some items, or infinity for some users."""

    def __init__(self, items: int = 0, users: int = 0) -> None:
        super().__init__("svd")
        self.bad = items, users

    def item_vectors(self, catalogue: Catalogue) -> Tensor:
        vectors = super().item_vectors(catalogue)
        vectors[: self.bad[0], 1] = torch.nan
        return vectors

    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        vectors = super().user_vectors(catalogue, histories, kind)
        vectors[: self.bad[1], 0] = torch.inf
        return vectors


def test_what_is_not_finite_is_refused_by_name(taken: Split, catalogue: Catalogue) -> None:
    made = Trial.of(taken, catalogue)
    sentence = "'svd' gives NaN or infinity for {} of {} {}: it cannot be ranked; undo its last step"
    for ask in (Trial.items, Trial.lists, Trial.cold_scores):
        with pytest.raises(CompressRecError) as caught:
            ask(made, Broken(items=2))  # type: ignore[operator]
        assert str(caught.value) == sentence.format(2, 24, "items")
    for ask, users in ((Trial.user_vectors, made.users), (Trial.lists, made.users), (Trial.cold_scores, made.cold_users)):
        with pytest.raises(CompressRecError) as caught:
            ask(made, Broken(users=3))  # type: ignore[operator]
        assert str(caught.value) == sentence.format(3, len(users), "users")


def test_each_ranker_is_encoded_once_and_keeps_its_own() -> None:
    made = Trial.of(split(MADE.interactions), Catalogue.of(split(MADE.interactions)))
    one, other = Oracle(), Oracle()
    for _ in range(3):
        made.lists(one, k=5), made.lists(one, k=7), made.lists(one, "text"), made.items(one), made.user_vectors(one)
    assert one.asked == [1, 2], "the items once, the users once a tower"
    assert other.asked == [0, 0], "nothing is kept by name"
    made.lists(other)
    assert other.asked == [1, 1]
    assert made.once(one, "key", lambda: "first") == made.once(one, "key", lambda: "second") == "first"
    assert made.once(other, "key", lambda: "other") == "other"


def test_another_trial_starts_afresh() -> None:
    made = trial([(0,), (1,)], [2, 3], 5)
    ranker, reference = Scored("scored", descending([[3], [4]], 5)), Scored("reference", descending([[2], [2]], 5))
    assert made.lists(ranker, k=1).tolist() == [[3], [4]]
    assert made.once(ranker, "key", lambda: "first") == "first"
    compared = made.against(reference)
    assert (compared.reference, made.reference) == (reference, None)
    assert (compared.users, compared.histories, compared.catalogue) == (made.users, made.histories, made.catalogue)
    assert compared.once(ranker, "key", lambda: "second") == "second"
    # the same users after another history: what was made before would name what they have used since
    later = replace(made, histories=((0, 3), (1, 4)))
    assert later.lists(ranker, k=1).tolist() == [[1], [0]]
    assert made.lists(ranker, k=1).tolist() == [[3], [4]]


def test_a_reference_is_needed_where_it_is_asked_for() -> None:
    made, reference = trial([(0,)], [1], 3), Scored("reference", descending([[1]], 3))
    assert made.against(reference).needs_reference() is reference
    with pytest.raises(CompressRecError, match="compares with the uncompressed model, but the trial has none: give reference=…"):
        made.needs_reference()


def test_a_table_has_no_text_and_a_plain_ranker_no_parts(catalogue: Catalogue) -> None:
    table = TableRanker("table", torch.eye(24), torch.eye(24), torch.tensor([1.0, 0.5]))
    pooled = table.user_vectors(catalogue, [(3, 4), (5,)], "pooled")
    wanted = torch.zeros(2, 24)
    wanted[0, 4], wanted[0, 3], wanted[1, 5] = 1.0, 0.5, 1.0
    torch.testing.assert_close(pooled, torch.nn.functional.normalize(wanted, dim=-1))
    for ask in (
        lambda: table.user_vectors(catalogue, [(3,)], "text"),
        lambda: table.read_items(["red song"]),
        lambda: Oracle().pooled_parts(catalogue),
    ):
        with pytest.raises(NotApplicable, match=r"^'(table|oracle)' "):
            ask()


def test_one_pass_serves_both_heads_and_says_what_two_would(catalogue: Catalogue) -> None:
    variant = planted_model()
    ranker = VariantRanker(variant)
    torch.testing.assert_close(ranker.item_vectors(catalogue), variant.encode(catalogue.texts, "item"))
    torch.testing.assert_close(ranker.behaviour_vectors(catalogue), variant.encode(catalogue.texts, "behaviour"))
    assert ranker.item_vectors(catalogue) is ranker.item_vectors(catalogue)
    fewer = Catalogue(catalogue.items[:5], catalogue.texts[:5], catalogue.cold[:5], catalogue.uses[:5])
    assert ranker.item_vectors(fewer).shape == (5, 16), "another catalogue is encoded anew"


def test_slices_are_thirds_of_the_users_by_how_much_their_item_was_used() -> None:
    made = trial([(0,)] * 7, [1, 2, 3, 4, 5, 1, 2], 6, uses=[9, 50, 1, 30, 1, 10])
    assert slices(made) == {"tail": ("u1", "u3", "u6"), "middle": ("u4", "u2"), "head": ("u0", "u5")}
