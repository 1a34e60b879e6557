import pytest
import torch

from compress_rec import timing
from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.throughput import Throughput
from compress_rec.trial import TableRanker, VariantRanker
from tests.measures.clocks import Clock, clocked, served, world
from tests.models import small_variant


def test_a_real_variant_gives_one_rate_a_round():
    samples = Throughput(batch=4, repeats=3).take(VariantRanker(small_variant()), world())
    assert samples.units == {"repeat": ("0", "1", "2")}
    assert all(value is not None and value > 0 for value in samples.values)
    assert samples.notes["batch"] == 4


@pytest.mark.planted_bad
def test_texts_a_second_by_the_planted_clock(monkeypatch: pytest.MonkeyPatch):
    # 2 ms a text are 500 texts a second, whatever the batch
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock.module())
    rankers = clocked(monkeypatch, clock, {"quick": 2_000_000, "slow": 10_000_000})
    found = Throughput(batch=8, repeats=2).take_all(rankers, world())
    assert found["quick"].values == (500.0, 500.0)  # type: ignore[union-attr]
    assert found["slow"].values == (100.0, 100.0)  # type: ignore[union-attr]
    assert all(len(texts) == 8 for _, texts in served(clock, 4))


def test_no_time_at_all_is_undefined(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock.module())
    assert Throughput(batch=2, repeats=1).take(VariantRanker(small_variant()), world()).values == (None,)


def test_a_table_has_no_throughput():
    with pytest.raises(NotApplicable, match="no throughput to measure"):
        Throughput().take(TableRanker("table", torch.eye(24), torch.eye(24)), world())


def test_the_label_reads_back():
    assert MEASURES.build("throughput[role=item]") == Throughput("item")
    assert (Throughput.unit, Throughput.better, Throughput.summary, Throughput.together) == ("texts/s", "higher", "median", True)
