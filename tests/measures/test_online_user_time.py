import pytest
import torch

from compress_rec import timing
from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.online_user_time import OnlineUserTime
from compress_rec.trial import TableRanker, VariantRanker
from tests.measures.clocks import Clock, clocked, served, world
from tests.models import small_variant


def test_a_variant_and_a_table_give_one_time_a_round():
    table = TableRanker("table", torch.eye(24), torch.eye(24))
    found = OnlineUserTime(repeats=3).take_all({"model": VariantRanker(small_variant()), "table": table}, world())
    for name in ("model", "table"):
        assert found[name].units == {"repeat": ("0", "1", "2")}  # type: ignore[union-attr]
        assert all(value is not None and value > 0 for value in found[name].values)  # type: ignore[union-attr]
        assert found[name].notes["catalogue"] == 24  # type: ignore[union-attr]


def test_the_pooled_user_encodes_nothing_while_the_clock_runs_and_the_text_user_one_history(monkeypatch: pytest.MonkeyPatch):
    clock, trial = Clock(), world()
    monkeypatch.setattr(timing, "time", clock.module())
    rankers = clocked(monkeypatch, clock, {"one": 3_000_000})
    assert OnlineUserTime(repeats=4).take_all(rankers, trial)["one"].values == (0.0,) * 4  # type: ignore[union-attr]
    assert OnlineUserTime(repeats=4, user="text").take_all(rankers, trial)["one"].values == (3.0,) * 4  # type: ignore[union-attr]
    texts = [texts for _, texts in served(clock, 4)]
    assert all(len(each) == 1 for each in texts)
    assert len({*texts}) == 4


@pytest.mark.planted_bad
def test_a_slow_variant_is_found_out(monkeypatch: pytest.MonkeyPatch):
    clock, trial = Clock(), world()
    monkeypatch.setattr(timing, "time", clock.module())
    found = OnlineUserTime(repeats=2, user="text").take_all(clocked(monkeypatch, clock, {"quick": 3_000_000, "slow": 8_000_000}), trial)
    assert (found["quick"].values, found["slow"].values) == ((3.0, 3.0), (8.0, 8.0))  # type: ignore[union-attr]


def test_a_table_has_no_text_user():
    with pytest.raises(NotApplicable, match="only the pooled user"):
        OnlineUserTime(user="text").take(TableRanker("table", torch.eye(24), torch.eye(24)), world())


def test_the_label_reads_back():
    assert OnlineUserTime().label == "online_user_time@10"
    assert MEASURES.build("online_user_time@20[user=text]") == OnlineUserTime(20, "text")
