import dataclasses
import json

import numpy as np
import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.explainers.shapley import Shapley
from compress_rec.explanations import cases, chosen_users, games, panel
from tests.measures.reasons import chance, ranker, world
from tests.measures.worlds import Scored, trial

WORLD = world()
REFERENCE = WORLD.reference
assert REFERENCE is not None


def test_the_planted_cause_is_the_first_reason():
    found = cases(WORLD, 80, 1)
    right = 0
    for case, game in zip(found, games(REFERENCE, WORLD, found), strict=True):
        history = WORLD.histories[case.user]
        first = int(Shapley().explain(game, 0)[:, 0].argmax())
        right += history[len(history) - 1 - first] == case.items[0] - 1
    assert right / len(found) >= 0.95


def test_cases_are_the_top_of_the_references_lists_against_the_item_behind_the_first_ten():
    lists = WORLD.lists(REFERENCE, "pooled", 11).tolist()
    for case in cases(WORLD, 20, 3):
        assert list(case.items) == lists[case.user][:3]
        assert case.against == lists[case.user][10]


def test_short_lists_are_compared_with_their_last_item_and_empty_ones_have_no_case():
    reference = Scored("reference", torch.tensor([[0.0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]))
    short = trial([[0], [0, 1, 2], [0, 1, 2, 3]], [1, 3, 0], 4, reference)
    assert [(case.items, case.against) for case in cases(short, 9, 5)] == [((3, 2), 1), ((), 3), ((), -1)]


def test_a_margin_is_the_difference_of_two_cosines_and_the_last_subset_is_the_user():
    found = cases(WORLD, 5, 2)
    for case, margin, cosine in zip(found, games(REFERENCE, WORLD, found), games(REFERENCE, WORLD, found, "cosine"), strict=True):
        scores = (WORLD.items(REFERENCE) @ WORLD.user_vectors(REFERENCE)[case.user]).double().numpy()
        np.testing.assert_allclose(cosine.values[-1], scores[list(case.items)], atol=1e-6)
        np.testing.assert_allclose(margin.values[-1], scores[list(case.items)] - scores[case.against], atol=1e-6)


def test_users_are_drawn_by_seed_and_id_and_stand_in_the_trials_order():
    drawn = chosen_users(WORLD, 10)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 10
    assert drawn != chosen_users(dataclasses.replace(WORLD, seed=1), 10)
    turned = dataclasses.replace(WORLD, users=WORLD.users[::-1], histories=WORLD.histories[::-1])
    assert {turned.users[user] for user in chosen_users(turned, 10)} == {WORLD.users[user] for user in drawn}
    assert chosen_users(WORLD, 999) == list(range(len(WORLD.users)))


@pytest.mark.parametrize("options", [(0, 1), (1, 0)])
def test_no_user_or_no_item_is_refused(options):
    with pytest.raises(CompressRecError, match="at least 1 user and 1 item"):
        cases(WORLD, *options)


def test_the_panel_gives_before_and_after_for_the_same_units_as_plain_json():
    histories = [list(range(20)), [3, 5], [7]]
    small = world(histories=histories)
    assert small.reference is not None
    rankers = {"reference": small.reference, "other": chance("other", 3), "none": Scored("none", torch.ones(3, 60))}
    rows = panel(small, rankers)
    assert json.loads(json.dumps(rows)) == rows
    assert {(row["user"], row["variant"]) for row in rows} == {(user, name) for user in small.users for name in ("reference", "other")}
    texts = small.catalogue.texts
    for row in rows:
        history = small.histories[small.users.index(row["user"])]
        recent = [texts[item] for item in history[::-1]]
        assert row["units"] == (recent if len(recent) <= 12 else [*recent[:11], "9 older ones"])
        assert len(row["reference"]) == len(row["variant_values"]) == len(row["units"])
        assert (row["reference"] == row["variant_values"]) == (row["variant"] == "reference")
        assert row["item_title"] in texts


def test_a_user_without_history_is_left_out_of_the_panel():
    small = world(histories=[[], [3, 5]])
    assert {row["user"] for row in panel(small, {"other": ranker("other", 1)})} == {"u1"}


def test_without_a_reference_it_is_refused():
    with pytest.raises(CompressRecError, match="the trial has none"):
        cases(dataclasses.replace(WORLD, reference=None), 5, 1)
