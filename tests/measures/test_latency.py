import os
from types import SimpleNamespace

import pytest
import torch

from compress_rec import timing
from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.latency import Latency
from compress_rec.trial import TableRanker, VariantRanker
from tests.measures.clocks import Clock, clocked, served, world
from tests.models import small_variant


def test_a_real_variant_gives_one_time_a_round():
    samples = Latency(repeats=4).take(VariantRanker(small_variant()), world())
    assert samples.units == {"repeat": ("0", "1", "2", "3")}
    assert all(value is not None and value > 0 for value in samples.values)
    assert samples.notes == {"clock": "cpu", "threads": 1, "role": "text", "batch": 1, "texts": 4, "runtime": "torch"}


@pytest.mark.planted_bad
def test_the_time_is_that_of_encoding(monkeypatch: pytest.MonkeyPatch):
    # the planted clock moves by the cost of a variant's text, and by nothing else
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock.module())
    rankers = clocked(monkeypatch, clock, {"quick": 2_000_000, "slow": 9_000_000})
    found = Latency(repeats=3).take_all(rankers, world())
    assert found["quick"].values == (2.0,) * 3  # type: ignore[union-attr]
    assert found["slow"].values == (9.0,) * 3  # type: ignore[union-attr]


def test_all_variants_encode_the_same_real_texts_in_turns(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    rankers = clocked(monkeypatch, clock, {"one": 1, "other": 1})
    trial = world()
    Latency(repeats=4, role="text").take_all(rankers, trial)
    last = served(clock, 8)
    rounds = [last[place : place + 2] for place in range(0, 8, 2)]
    assert all({name for name, _ in each} == {"one", "other"} for each in rounds)
    assert all(each[0][1] == each[1][1] for each in rounds)
    texts = [text for each in rounds for text in each[0][1]]
    assert len({*texts}) > 1
    assert {*texts} <= {*trial.catalogue.history_texts(trial.histories, small_variant().towers.history)}


def test_a_batch_holds_that_many_item_texts(monkeypatch: pytest.MonkeyPatch):
    clock, trial = Clock(), world()
    Latency(role="item", batch=5, repeats=2).take_all(clocked(monkeypatch, clock, {"one": 1}), trial)
    for _, texts in served(clock, 2):
        assert len(texts) == 5
        assert {*texts} <= {*trial.catalogue.texts}


def test_one_thread_while_it_runs_and_what_was_set_afterwards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        clock = Clock()
        Latency(repeats=2).take_all(clocked(monkeypatch, clock, {"one": 1}), world())
        assert {*clock.threads} == {(1, "false")}
        assert torch.get_num_threads() == 2
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    finally:
        torch.set_num_threads(before)


def test_a_table_has_no_latency_and_leaves_the_others_alone():
    table = TableRanker("table", torch.eye(8), torch.eye(8))
    found = Latency(repeats=2).take_all({"table": table, "real": VariantRanker(small_variant())}, world())
    assert list(found) == ["table", "real"]
    assert isinstance(found["table"], NotApplicable)
    assert "encodes no text: there is no latency to measure" in str(found["table"])
    assert len(found["real"].values) == 2  # type: ignore[union-attr]
    with pytest.raises(NotApplicable):
        Latency().take(table, world())


@pytest.mark.parametrize(("options", "sentence"), [({"batch": 0}, "set batch to 1 or more"), ({"repeats": 0}, "repeats=0 came")])
def test_nothing_to_time_is_refused(options: dict[str, int], sentence: str):
    with pytest.raises(CompressRecError, match=sentence):
        Latency(**options).take(VariantRanker(small_variant()), world())  # type: ignore[arg-type]


def test_an_unknown_role_is_refused_by_name():
    with pytest.raises(CompressRecError, match="no role called 'itme'; did you mean 'item'"):
        Latency(role="itme").take(VariantRanker(small_variant()), world())


def test_the_label_reads_back():
    assert Latency(role="item", batch=32).label == "latency[role=item,batch=32]"
    assert MEASURES.build("latency[role=item,batch=32]") == Latency("item", 32)
    assert (Latency.unit, Latency.better, Latency.summary, Latency.together) == ("ms", "lower", "median", True)


def test_the_clock_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    cpu, wall = Clock(step=1_000_000), Clock(step=5_000_000)
    monkeypatch.setattr(timing, "time", SimpleNamespace(process_time_ns=cpu.now, perf_counter_ns=wall.now))
    ranker = VariantRanker(small_variant())
    assert Latency(repeats=2).take(ranker, world()).values == (1.0, 1.0)
    assert Latency(repeats=2, clock="wall").take(ranker, world()).values == (5.0, 5.0)
