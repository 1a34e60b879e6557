import pytest
import torch

from compress_rec.measure import MEASURES
from compress_rec.measures.parameters import Parameters
from compress_rec.sparse import sparse_tensors
from compress_rec.towers import Towers
from compress_rec.trial import TableRanker, VariantRanker
from compress_rec.variant import Variant
from compress_rec.weights import Sparse
from tests.measures.clocks import world
from tests.models import small_tokens, small_variant

# four square weights, the two of the feed-forward part, their biases, two norms
LAYER = 4 * (32 * 32 + 32) + (64 * 32 + 64) + (32 * 64 + 32) + 4 * 32


def test_hand_counted():
    vocabulary = small_tokens().size
    samples = Parameters().take(VariantRanker(small_variant()), world())
    parts = {
        "embeddings": (vocabulary + 64 + 2) * 32 + 2 * 32,
        "layers": 3 * LAYER,
        "heads": 3 * (16 * 32 + 16),
        "recency": 6,
    }
    assert samples.notes["parts"] == parts
    assert samples.values == (float(sum(parts.values())),)
    assert samples.units == {}


@pytest.mark.planted_bad
def test_an_untied_tower_counts_twice():
    variant = small_variant()
    one, two = (
        Parameters().take(VariantRanker(Variant("v", towers)), world()).values[0] for towers in (variant.towers, variant.towers.untied())
    )
    assert one is not None
    assert two == 2 * (one - 6) + 6


def test_of_a_sparse_weight_the_non_zeros_count():
    variant = small_variant()
    tower = variant.towers.towers["both"]
    weight = tower.encoder.tensors()["layers.0.up.weight"].clone()
    weight[weight.abs() < 0.1] = 0
    config, tensors = tower.encoder.config, tower.encoder.tensors()
    del tensors["layers.0.up.weight"]
    sparse = tower.encoder.rebuilt(
        type(config)(**{**config.__dict__, "formats": {"layers.0.up": Sparse()}}), {**tensors, **sparse_tensors(weight, "layers.0.up")}
    )
    pruned = Variant("v", variant.towers.with_tower("both", tower.rebuilt(encoder=sparse)))
    before, after = (Parameters().take(VariantRanker(each), world()).values[0] for each in (variant, pruned))
    assert before is not None
    assert after == before - int((weight == 0).sum())


def test_a_table_counts_its_numbers():
    table = TableRanker("table", torch.eye(24), torch.ones(24, 24), torch.ones(5))
    samples = Parameters().take(table, world())
    assert samples.values == (2 * 24 * 24 + 5,)
    assert samples.notes["parts"] == {"items": 576, "behaviours": 576, "recency": 5}


def test_nothing_stored_is_nothing():
    assert Parameters().take(VariantRanker(Variant("none", Towers({}, {}))), world()).values == (0.0,)


def test_the_label_reads_back():
    assert MEASURES.build("parameters") == Parameters()
