"""Executed as stored: the ops that a loaded variant really calls."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compress_rec import op
from compress_rec.variant import Variant, compress
from tests.models import small_histories, small_texts, small_variant

TEXTS = {"item": small_texts(48), "text": small_histories(16)}
DENSE_SHAPES = {(32, 32), (64, 32), (32, 64)}
LAYERS = 3
# the same functions from packed weights, where a kernel reads them
INTEGERS = "int8_linear" if op.fallback("int8_linear_packed") else "int8_linear_packed"
FACTORS = "low_rank_linear" if op.fallback("low_rank_linear_packed") else "low_rank_linear_packed"


class Recorder(TorchDispatchMode):
    """Counts compress_rec's ops and keeps the shapes of every plain product's second factor, as (outputs, inputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()
        self.products: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        if name.startswith("compress_rec::"):
            self.ops[name.removeprefix("compress_rec::")] += 1
        if name.split(".")[0] in ("aten::mm", "aten::addmm"):
            self.products[tuple(args[-1].shape[::-1])] += 1
        if name.split(".")[0] == "aten::linear":
            self.products[tuple(args[1].shape)] += 1
        return func(*args, **(kwargs or {}))


def ran(plan, tmp_path):
    """Build, save, load and run a variant on one batch: the ops called and the plain products done."""
    made = compress(small_variant(), plan, TEXTS)
    loaded = Variant.load(made.save(tmp_path / "variant"))
    with Recorder() as seen:
        loaded.encode(small_texts(8), "item")
    return seen


def test_reference_runs_dense_products(tmp_path):
    small_variant().save(tmp_path / "variant")
    with Recorder() as seen:
        Variant.load(tmp_path / "variant", replay=False).encode(small_texts(8), "item")
    assert not seen.ops
    assert seen.products[(32, 32)] == 4 * LAYERS
    assert seen.products[(64, 32)] == LAYERS
    assert seen.products[(32, 64)] == LAYERS


@pytest.mark.parametrize("method", ["whitened", "fisher", "plain"])
def test_factorize_runs_two_factors(method, tmp_path):
    seen = ran([{"recipe": "factorize", "method": method}], tmp_path)
    assert seen.ops == {FACTORS: 6 * LAYERS}
    assert not DENSE_SHAPES & set(seen.products)


def test_tucker_runs_three_factors(tmp_path):
    seen = ran([{"recipe": "tucker", "iterations": 2}], tmp_path)
    assert seen.ops == {FACTORS: 3 * LAYERS}
    # the shared input factor three times a layer, then core and output factor in one op; the attention's output stays dense
    assert seen.products[(32, 32)] == LAYERS
    assert sum(count for (rank, inputs), count in seen.products.items() if inputs == 32 and rank < 16) == 3 * LAYERS


def test_quantize_int8_runs_in_integers(tmp_path):
    seen = ran(["quantize_int8"], tmp_path)
    assert seen.ops == {INTEGERS: 6 * LAYERS, "int8_embedding": 1}
    assert not DENSE_SHAPES & set(seen.products)


def test_quantized_factors_run_in_integers(tmp_path):
    assert ran(["factorize", "quantize_int8"], tmp_path).ops == {INTEGERS: 12 * LAYERS, "int8_embedding": 1}
    assert ran(["tucker", "quantize_int8"], tmp_path).ops == {INTEGERS: 12 * LAYERS, "int8_embedding": 1}


def test_pruned_layers_run_narrow(tmp_path):
    seen = ran([{"recipe": "prune_neurons", "keep": 0.5}, {"recipe": "prune_heads", "keep": 0.5}], tmp_path)
    assert not seen.ops
    layers = compress(small_variant(), ["prune_neurons", "prune_heads"], TEXTS).towers.towers["both"].encoder.config.layers
    wanted: Counter[tuple[int, ...]] = Counter({(16, 32): 1})  # the head
    for shape in layers:
        inner = shape.heads * shape.head_width
        wanted.update([(inner, 32)] * 3 + [(32, inner), (shape.neurons, 32), (32, shape.neurons)])
    assert seen.products == wanted
    assert max(max(shape) for shape in wanted) < 64


def test_prune_weights_says_bytes_only(tmp_path):
    made = compress(small_variant(), ["prune_weights"], TEXTS)
    forms = list(made.towers.towers["both"].encoder.forms())
    assert all(form.bytes_only for _, form in forms)
    seen = ran(["prune_weights"], tmp_path)
    assert seen.products[(32, 32)] == 4 * LAYERS


def test_static_runs_no_layer(tmp_path):
    seen = ran([{"recipe": "static", "steps": 2}], tmp_path)
    assert not seen.ops
    assert set(seen.products) == {(16, 32)}  # the head alone


def test_recorder_would_see_a_rebuilt_weight():
    """The check is no empty one: a product with the dense weight is seen."""
    made = compress(small_variant(), ["factorize"], TEXTS)
    form = made.towers.towers["both"].encoder.linear("layers.0.up")
    with Recorder() as seen, torch.inference_mode():
        torch.nn.functional.linear(torch.ones(2, 32), form.dense())
    assert seen.products[(64, 32)] == 1
