import pytest
import torch

from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.disk_bytes import DiskBytes
from compress_rec.trial import TableRanker, VariantRanker
from compress_rec.variant import size_on_disk
from tests.measures.clocks import world
from tests.measures.worlds import Scored
from tests.models import small_variant


def test_it_is_what_a_saved_folder_weighs(tmp_path):
    variant = small_variant()
    samples = DiskBytes().take(VariantRanker(variant), world())
    parts = size_on_disk(variant.save(tmp_path / "variant"))
    assert samples.values == (float(sum(parts.values())),)
    assert samples.notes == {"parts": parts, "index": 24 * 16 * 4}
    assert samples.units == {}


@pytest.mark.planted_bad
def test_a_bigger_model_weighs_more_by_its_tensors():
    small, big = (DiskBytes().take(VariantRanker(small_variant(layers=layers)), world()) for layers in (1, 4))
    layer = 4 * (32 * 32 + 32) + 2 * 64 * 32 + 64 + 32 + 4 * 32
    grown = big.notes["parts"]["tensors"] - small.notes["parts"]["tensors"]
    # beside the numbers, the file's header names each tensor
    assert 3 * layer * 4 <= grown <= 3 * layer * 4 + 3 * 16 * 150


def test_a_table_weighs_its_vectors():
    items, behaviours = torch.eye(24), torch.ones(24, 24)
    table = TableRanker("table", items, behaviours, torch.ones(5))
    assert DiskBytes().take(table, world()).values == (24 * 24 * 4 * 2 + 5 * 4,)
    assert DiskBytes().take(TableRanker("one", items, items), world()).values == (24 * 24 * 4,)


def test_other_rankers_have_no_size():
    with pytest.raises(NotApplicable, match="neither a model nor a table"):
        DiskBytes().take(Scored("scored", torch.eye(24)), world())


def test_the_label_reads_back():
    assert MEASURES.build("disk_bytes") == DiskBytes()
    assert (DiskBytes.unit, DiskBytes.better, DiskBytes.summary) == ("bytes", "lower", "only")
