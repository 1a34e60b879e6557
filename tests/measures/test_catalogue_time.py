import pytest
import torch

from compress_rec import timing
from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.catalogue_time import CatalogueTime
from compress_rec.trial import TableRanker, VariantRanker
from tests.measures.clocks import Clock, clocked, served, world
from tests.models import small_variant


@pytest.mark.planted_bad
def test_seconds_of_the_whole_catalogue_by_the_planted_clock(monkeypatch: pytest.MonkeyPatch):
    clock, trial = Clock(), world()
    monkeypatch.setattr(timing, "time", clock.module())
    rankers = clocked(monkeypatch, clock, {"quick": 1_000_000, "slow": 5_000_000})
    found = CatalogueTime().take_all(rankers, trial)
    assert found["quick"].values == (0.024,)  # type: ignore[union-attr]
    assert found["slow"].values == (0.12,)  # type: ignore[union-attr]
    assert [texts for _, texts in served(clock, 2)] == [trial.catalogue.texts] * 2


def test_a_part_is_measured_as_a_part_and_says_so(monkeypatch: pytest.MonkeyPatch):
    clock, trial = Clock(), world()
    monkeypatch.setattr(timing, "time", clock.module())
    samples = CatalogueTime(items=10).take_all(clocked(monkeypatch, clock, {"one": 1_000_000}), trial)["one"]
    assert samples.values == (0.01,)  # type: ignore[union-attr]
    assert (samples.notes["items"], samples.notes["catalogue"]) == (10, 24)  # type: ignore[union-attr]
    ((_, texts),) = served(clock, 1)
    assert len({*texts}) == 10
    assert {*texts} <= {*trial.catalogue.texts}


def test_a_real_variant_takes_some_time():
    samples = CatalogueTime(repeats=2).take(VariantRanker(small_variant()), world())
    assert samples.units == {"repeat": ("0", "1")}
    assert all(value is not None and value > 0 for value in samples.values)


def test_more_items_than_the_catalogue_has_are_refused():
    with pytest.raises(CompressRecError, match="catalogue's 24 items, but items=25 came"):
        CatalogueTime(items=25).take(VariantRanker(small_variant()), world())


def test_a_table_has_none():
    with pytest.raises(NotApplicable, match="encodes no text"):
        CatalogueTime().take(TableRanker("table", torch.eye(24), torch.eye(24)), world())


def test_the_label_reads_back():
    assert CatalogueTime().label == "catalogue_time"
    assert MEASURES.build("catalogue_time[items=400]") == CatalogueTime(400)
