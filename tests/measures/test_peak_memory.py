import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures import peak_memory
from compress_rec.measures.peak_memory import PeakMemory
from compress_rec.trial import TableRanker, VariantRanker
from compress_rec.variant import Variant
from tests.measures.clocks import world
from tests.models import small_encoder, small_variant

MEGABYTE = 1_000_000
linux = pytest.mark.skipif(not peak_memory.STATUS.exists(), reason="peak memory is read from /proc/self/status, which is Linux's")


def with_rows(rows: int) -> Variant:
    """Return a variant whose embedding table has ``rows`` rows of 32 numbers."""
    variant = small_variant()
    tower = variant.towers.towers["both"]
    return replace(variant, towers=variant.towers.with_tower("both", tower.rebuilt(encoder=small_encoder(vocabulary=rows))))


@linux
@pytest.mark.planted_bad
def test_a_model_with_40_more_megabytes_needs_them():
    small, big = (PeakMemory(texts=8).take(VariantRanker(with_rows(rows)), world()) for rows in (500, 500 + 40 * MEGABYTE // 128))
    assert small.units == {}
    assert small.values[0] is not None
    assert big.values[0] is not None
    grown = big.values[0] - small.values[0]
    # the table itself, and at most as much again while the file is read; the allocator's own ups and downs are far below a quarter of it
    assert 30 * MEGABYTE < grown < 110 * MEGABYTE
    assert big.notes["resident"] - small.notes["resident"] > 30 * MEGABYTE


@linux
def test_the_peak_can_be_set_back_in_a_process():
    code = (
        "from compress_rec.measures.peak_memory import memory, reset_peak\n"
        "held = bytearray(80_000_000); held[:] = b'1' * 80_000_000; del held\n"
        "high = memory('VmHWM'); reset_peak(); print(high - memory('VmHWM'))"
    )
    package = str(Path(peak_memory.__file__).parents[2])
    done = peak_memory.subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=package, check=True)
    assert int(done.stdout) > 70_000_000


@linux
def test_a_child_that_fails_is_told_in_a_sentence():
    with pytest.raises(CompressRecError, match=r"memory of 'gone' failed \(.*gone/config.json"):
        peak_memory._ask_child({"folder": "gone", "texts": ["a"]}, "gone")


def test_a_table_has_none():
    with pytest.raises(NotApplicable, match="encodes no text"):
        PeakMemory().take(TableRanker("table", torch.eye(24), torch.eye(24)), world())


def test_elsewhere_than_on_linux_it_does_not_apply(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(peak_memory, "STATUS", tmp_path / "none")
    with pytest.raises(NotApplicable, match="measure on Linux"):
        PeakMemory().take(VariantRanker(small_variant()), world())


def test_the_label_reads_back():
    assert MEASURES.build("peak_memory[texts=8]") == PeakMemory(8)
