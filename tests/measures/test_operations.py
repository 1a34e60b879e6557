import pytest
import torch

from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.operations import Operations
from compress_rec.trial import TableRanker, VariantRanker
from tests.measures.clocks import world
from tests.models import small_variant


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_hand_counted(layers: int):
    samples = Operations().take(VariantRanker(small_variant(layers=layers)), world())
    assert samples.values == (layers * (4 * 32 * 32 + 2 * 64 * 32),)
    assert samples.notes == {"head": 16 * 32}


@pytest.mark.planted_bad
def test_a_model_with_a_layer_more_is_found_out():
    one, more = (Operations().take(VariantRanker(small_variant(layers=layers)), world()).values[0] for layers in (2, 3))
    assert one is not None
    assert more is not None
    assert more == 1.5 * one


def test_a_table_has_none():
    with pytest.raises(NotApplicable, match="encodes no text"):
        Operations().take(TableRanker("table", torch.eye(24), torch.eye(24)), world())


def test_the_label_reads_back():
    assert MEASURES.build("operations[role=text]") == Operations("text")
