"""Interleaved timing: who runs when, what is counted, and by which clock."""

from __future__ import annotations

import gc
import time

import pytest

from compress_rec.errors import CompressRecError
from compress_rec.timing import interleave


def spin(milliseconds: float) -> None:
    """Keep the processor busy for that much processor time."""
    until = time.process_time_ns() + milliseconds * 1e6
    while time.process_time_ns() < until:
        pass


def test_every_side_runs_once_a_round_and_the_order_turns() -> None:
    ran: list[str] = []
    sides = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    samples = interleave(sides, 4, warmup=1)
    assert {name: len(values) for name, values in samples.items()} == {"a": 4, "b": 4, "c": 4}
    assert "".join(ran) == "abc" + "bca" + "cab" + "abc" + "bca"


def test_samples_are_milliseconds_of_one_call() -> None:
    samples = interleave({"short": lambda: spin(1), "long": lambda: spin(4)}, 3, warmup=0, repeats=2)
    assert all(1 <= value < 3 for value in samples["short"])
    assert all(4 <= value < 12 for value in samples["long"])


def test_sleep_costs_wall_time_and_no_processor_time() -> None:
    sides = {"sleep": lambda: time.sleep(0.02)}
    assert min(interleave(sides, 2, clock="wall")["sleep"]) >= 20
    assert max(interleave(sides, 2, clock="cpu")["sleep"]) < 10


def test_the_collector_rests_and_wakes_up_also_after_a_fault() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interleave({"fail": fail}, 1)
    assert gc.isenabled()


@pytest.mark.parametrize(("change", "sentence"), [({"rounds": 0}, "at least one round"), ({"clock": "sun"}, "but 'sun' came")])
def test_what_makes_no_sense_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(CompressRecError, match=sentence):
        interleave(**{"sides": {}, "rounds": 1, **change})  # type: ignore[arg-type]
