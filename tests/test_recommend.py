"""Recommending from a folder: what is ranked, what it is for, and how an item may be named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from compress_rec.coalitions import UNITS
from compress_rec.errors import CompressRecError
from compress_rec.recommend import Recommended, recommend
from compress_rec.variant import Variant, load
from tests.conftest import TinyRun
from tests.models import small_texts, small_variant

TEXTS = (*small_texts(30), "red alert (1990) action", "Secret Fall (1991) drama", "secret fall (1992) comedy", "i4")
IDS = tuple(f"i{number}" for number in range(len(TEXTS)))


class Shelf:
    """A saved variant beside a catalogue, as a run folder holds them, and the cosines that it should rank by."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        self.folder, self.variant = folder / "variants" / "small", variant
        variant.save(self.folder)
        (folder / "catalogue.json").write_text(json.dumps({"items": IDS, "texts": TEXTS}))

    def cosines(self, history: Sequence[int]) -> Tensor:
        towers = self.variant.towers
        user = towers.pooled(towers.encode(TEXTS, "behaviour"), [history])
        return (user.double() @ towers.encode(TEXTS, "item").double().T)[0]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("fading"), small_variant())


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """The same model without recency: every event counts alike, however old."""
    variant = small_variant()
    return Shelf(tmp_path_factory.mktemp("even"), replace(variant, towers=replace(variant.towers, recency=None)))


def adds_up(found: Sequence[Recommended]) -> bool:
    return bool(np.allclose([sum(value for _, value in one.reasons) for one in found], [one.score for one in found], rtol=0, atol=1e-6))


@pytest.mark.parametrize("history", [[3], [3, 7, 11], [5, 0, 29, 8, 2, 14, 21, 9]])
def test_the_best_of_the_rest_with_reasons_that_add_up(shelf: Shelf, even: Shelf, history: list[int]) -> None:
    for place in (shelf, even):
        found = recommend(place.folder, [IDS[item] for item in history], k=6)
        cosines = place.cosines(history)
        scores = cosines.clone()
        scores[history] = -2
        best = scores.topk(6).indices.tolist()
        assert [one.item for one in found] == [IDS[item] for item in best]
        assert [one.text for one in found] == [TEXTS[item] for item in best]
        np.testing.assert_allclose([one.score for one in found], cosines[best], atol=1e-6)
        assert adds_up(found)
        for one in found:
            assert sorted(name for name, _ in one.reasons) == sorted(TEXTS[item] for item in history)
            values = [value for _, value in one.reasons]
            assert values == sorted(values, reverse=True)


def test_one_event_is_the_whole_reason(shelf: Shelf) -> None:
    (found,) = recommend(shelf.folder, ["i3"], k=1)
    assert [name for name, _ in found.reasons] == [TEXTS[3]]
    assert found.reasons[0][1] == pytest.approx(found.score, abs=1e-6)
    assert found.because() == f"{TEXTS[3]} ({found.score:+.3f})"


def test_the_strongest_reasons_in_words() -> None:
    reasons = (("red river", 0.25), ("lost dream", 0.125), ("wild night", 0.1), ("dark house", -0.3))
    assert Recommended("i", "text", 0.2, reasons).because() == "red river (+0.250), lost dream (+0.125)"
    assert Recommended("i", "text", 0.2, (reasons[0], reasons[3])).because() == "red river (+0.250)"
    assert Recommended("i", "text", -0.3, (reasons[3],)).because() == "nothing in particular"


def test_reasons_are_the_exact_shapley_values_of_two_events(even: Shelf) -> None:
    """By hand: half of what each does alone and half of what it adds to the other."""
    history = [4, 17]
    one, other, both = even.cosines([4]), even.cosines([17]), even.cosines(history)
    for found in recommend(even.folder, [IDS[item] for item in history], k=5):
        item = IDS.index(found.item)
        wanted = {
            TEXTS[4]: (one[item] + both[item] - other[item]) / 2,
            TEXTS[17]: (other[item] + both[item] - one[item]) / 2,
        }
        assert dict(found.reasons) == pytest.approx({name: float(value) for name, value in wanted.items()}, abs=1e-6)


@pytest.mark.parametrize("length", [UNITS, UNITS + 1, 20])
def test_what_is_older_than_twelve_events_is_one_reason(even: Shelf, length: int) -> None:
    found = recommend(even.folder, IDS[:length], k=3)
    cosines = even.cosines(range(length))
    assert adds_up(found)
    for one in found:
        assert one.score == pytest.approx(float(cosines[IDS.index(one.item)]), abs=1e-6)
        names = {name for name, _ in one.reasons}
        assert len(one.reasons) == UNITS
        kept = UNITS if length == UNITS else UNITS - 1
        older = {f"{length - kept} older items"} if length > UNITS else set()
        assert names == {*TEXTS[length - kept : length], *older}
        if older:
            assert dict(one.reasons)[older.pop()] != 0


def test_events_beyond_the_recency_have_no_share(shelf: Shelf) -> None:
    long, short = recommend(shelf.folder, IDS[:8], k=3), recommend(shelf.folder, IDS[2:8], k=5)
    shares = dict(long[0].reasons)
    assert (shares[TEXTS[0]], shares[TEXTS[1]]) == pytest.approx((0, 0), abs=1e-12)
    # to float32's rounding: eight texts and six are encoded in batches of other shapes
    same = [one.score for one in short if one.item not in IDS[:2]][: len(long)]
    assert [one.score for one in long] == pytest.approx(same, rel=0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "item"),
    [("i3", 3), (TEXTS[3], 3), ("red alert", 30), ("RED ALERT (19", 30), ("secret fall (1991", 31), ("Secret Fall (1992", 32), ("i4", 4)],
    ids=["id", "text", "beginning", "any case", "unique", "unique in any case", "an id before a text"],
)
def test_an_item_is_named_by_id_text_or_a_beginning_of_its_own(shelf: Shelf, name: str, item: int) -> None:
    found = recommend(shelf.folder, [name], k=2)
    assert found == recommend(shelf.folder, [IDS[item]], k=2)
    assert found[0].reasons[0][0] == TEXTS[item]


def test_every_item_but_the_history_can_be_asked_for(shelf: Shelf) -> None:
    whole = recommend(shelf.folder, ["i3", "i5", "i3"], k=len(TEXTS))
    assert sorted(one.item for one in whole) == sorted({*IDS} - {"i3", "i5"})
    (first,) = recommend(shelf.folder, ["i3", "i5", "i3"], k=1)
    assert (first.item, first.score) == (whole[0].item, whole[0].score)
    assert [name for name, _ in first.reasons].count(TEXTS[3]) == 2, "what was used twice stands there twice"
    assert adds_up([first])


@pytest.mark.parametrize(
    ("history", "k", "sentence"),
    [
        ([], 3, "a recommendation needs at least one item of the history: give --history once or several times"),
        ("i3", 3, "a history is a list of ids or texts, but the string 'i3' came: put it into a list"),
        (["i3"], 0, "k must be between 1 and the catalogue's 34 items, but 0 came"),
        (["i3"], -1, "k must be between 1 and the catalogue's 34 items, but -1 came"),
        (["i3"], 35, "k must be between 1 and the catalogue's 34 items, but 35 came"),
        (
            ["secret fall"],
            3,
            "'secret fall' fits 2 items, such as 'Secret Fall (1991) drama' and 'secret fall (1992) comedy': write more of",
        ),
        (
            ["rde alert (1990) action"],
            3,
            "the catalogue has no item with the id or text 'rde alert (1990) action'; did you mean 'red alert",
        ),
        (["zzz"], 3, "the catalogue has no item with the id or text 'zzz'; give an id or the beginning of a title"),
        (list(IDS), 3, "the history holds all 34 items of the catalogue, and none is left: give fewer of them"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(shelf: Shelf, history: list[str], k: int, sentence: str) -> None:
    with pytest.raises(CompressRecError) as caught:
        recommend(shelf.folder, history, k)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_catalogue_may_lie_elsewhere_and_must_be_one(shelf: Shelf, tmp_path: Path) -> None:
    few = tmp_path / "few.json"
    few.write_text(json.dumps({"items": IDS[:5], "texts": TEXTS[:5]}))
    found = recommend(shelf.folder, ["i3"], 4, few)
    assert sorted(one.item for one in found) == ["i0", "i1", "i2", "i4"]
    few.write_text(json.dumps({"titles": TEXTS}))
    with pytest.raises(CompressRecError, match="the catalogue should hold 'items' and 'texts', but they are missing"):
        recommend(shelf.folder, ["i3"], 4, few)
    with pytest.raises(CompressRecError, match=r"catalogue\.json"):
        recommend(small_variant().save(tmp_path / "a" / "b" / "alone"), ["i3"])


def test_the_lists_are_those_that_the_report_measured(tiny_run: TinyRun) -> None:
    """A run's own variant, its own catalogue: the same order as the ranker's."""
    folder = tiny_run.folder / "variants" / "int8"
    catalogue = json.loads((tiny_run.folder / "catalogue.json").read_text(encoding="utf-8"))
    towers = load(folder).compile().towers  # as the report measured them
    history = [2, 9, 4]
    user = towers.pooled(towers.encode(catalogue["texts"], "behaviour"), [history])
    scores = (user @ towers.encode(catalogue["texts"], "item").T)[0]
    scores[history] = -2
    found = recommend(folder, [catalogue["items"][item] for item in history], k=5)
    np.testing.assert_allclose([one.score for one in found], scores.topk(5).values, atol=1e-6)
    assert adds_up(found)
    assert torch.isfinite(scores).all()
