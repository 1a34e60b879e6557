"""The ONNX graph against the model it was made from, in onnxruntime alone."""

from __future__ import annotations

import errno
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from compress_rec.errors import CompressRecError
from compress_rec.export import export
from compress_rec.exports import onnx as onnx_export
from compress_rec.golden import GOLDEN_TEXTS
from compress_rec.onnx_graph import tower_graph
from compress_rec.ops.int8_linear import int8_linear, quantize_rows
from compress_rec.towers import Tower
from compress_rec.variant import Variant, compress, load
from compress_rec.weights import Dense, Int8Form
from tests.exports.shapes import INT8, all_shapes, in_form, only, with_int8_head
from tests.models import small_histories, small_texts, small_tokens, small_variant
from tests.real_models import minilm

FLOATS = [name for name in all_shapes() if "int8" not in name]
INTEGERS = [name for name in all_shapes() if "int8" in name]


def session(graph: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def batch(tower: Tower, texts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = tower.tokens.ids(texts, length)
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = torch.tensor(row), 1
    return ids, mask


def run(graph: bytes | str, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = session(graph).run(["embedding", "last_hidden_state"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return torch.from_numpy(outputs[0]), torch.from_numpy(outputs[1])


def both(variant: Variant, role: str, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors and hidden states of model and graph, and the mask."""
    found, tower = variant.towers.role(role), variant.towers.tower_of(role)
    ids, mask = batch(tower, texts, found.length)
    with torch.inference_mode():
        hidden = tower.encoder(ids, mask)
        vectors = tower({"ids": ids, "mask": mask}, found.head)
    graph = tower_graph(tower, found.head).SerializeToString()
    return vectors, hidden, *run(graph, ids, mask), mask.bool()


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(("role", "texts"), [("item", small_texts(5)), ("text", small_histories(3)), ("item", ("red",))])
def test_same_numbers_as_the_model(name: str, role: str, texts: tuple[str, ...]) -> None:
    vectors, hidden, embedding, states, mask = both(all_shapes()[name], role, [*texts])
    torch.testing.assert_close(embedding, vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(states[mask], hidden[mask], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", INTEGERS)
def test_same_vectors_in_integers(name: str) -> None:
    # float parts differ in the last bit and may tip a level over, so that vectors are close and not equal
    vectors, _, embedding, _, _ = both(all_shapes()[name], "item", [*small_texts(8)])
    cosine = (vectors * embedding).sum(-1)
    assert cosine.min() >= 0.999
    assert cosine.median() >= 0.999999


@pytest.mark.parametrize("name", ["gelu_new", "relu", "silu"])
def test_every_activation_and_cls_pooling(name: str) -> None:
    variant = small_variant()
    tower = only(variant)
    config = type(tower.encoder.config).from_json({**tower.encoder.config.to_json(), "activation": name})
    other = Tower(tower.tokens, tower.encoder.rebuilt(config, tower.encoder.tensors()), "cls", dict(tower.heads.items()))  # type: ignore[arg-type]
    changed = Variant("changed", variant.towers.with_tower("both", other))
    vectors, hidden, embedding, states, mask = both(changed, "item", [*small_texts(4)])
    torch.testing.assert_close(embedding, vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(states[mask], hidden[mask], atol=2e-5, rtol=1e-5)


def test_integer_products_have_the_bits_of_the_op() -> None:
    variant = in_form(small_variant(), INT8)
    tower = only(variant)
    ids, mask = batch(tower, [*small_texts(4)], 16)
    model = tower_graph(tower, "item")
    weight = "layers.0.query"
    by_output = {node.output[0]: node for node in model.graph.node}
    last = next(node for node in model.graph.node if f"{weight}.bias" in node.input)
    levels = next(node for node in model.graph.node if f"{weight}.codes" in node.input)
    entry = by_output[by_output[levels.input[0]].input[0]].input[0]
    model.graph.output.extend([helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (entry, last.output[0])])
    model.graph.output.append(helper.make_tensor_value_info(levels.output[0], TensorProto.INT32, None))
    feed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    x, y, total = (torch.from_numpy(z) for z in session(model.SerializeToString()).run([entry, last.output[0], levels.output[0]], feed))
    form = tower.encoder.linear(weight)
    assert isinstance(form, Int8Form)
    assert form.bias is not None
    assert torch.equal(y, int8_linear(x, form.codes, form.scales, form.bias.detach()))
    whole, _ = quantize_rows(x)
    zero = -whole.amin(-1, keepdim=True)
    assert torch.equal(total, ((whole + zero).long() @ form.codes.long().T).int())


def test_weights_stand_in_the_graph_as_they_are_stored() -> None:
    shapes = all_shapes()
    graph = tower_graph(only(shapes["low rank"]), "item").graph
    sizes = {tuple(constant.dims) for constant in graph.initializer}
    assert (32, 64) not in sizes
    assert {(32, 16), (16, 64)} <= sizes

    graph = tower_graph(only(shapes["int8"]), "item").graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["MatMulInteger"] == 18
    # two products of attention a layer, and the head
    assert kinds["MatMul"] == 7
    # query, key and value round their common input once
    assert kinds["QuantizeLinear"] == 12
    floats = [tuple(constant.dims) for constant in graph.initializer if constant.data_type == TensorProto.FLOAT]
    assert not [size for size in floats if len(size) == 2 and size not in ((64, 32), (32, 16))]
    assert (64, 32) in floats  # the positions

    graph = tower_graph(only(shapes["shared"]), "item").graph
    # one shared factor, three outer ones
    assert sum("query" in constant.name or "key" in constant.name or "value" in constant.name for constant in graph.initializer) == 21
    assert {node.domain for node in graph.node} == {""}


def test_files_beside_the_graph(tmp_path: Path) -> None:
    variant = all_shapes()["sparse"]
    folder = export(variant, tmp_path / "graph", "onnx", "text")
    facts = json.loads((folder / "config.json").read_text())["compress_rec_export"]
    assert {key: facts[key] for key in ("role", "head", "pooling", "dimensions", "length", "opset")} == {
        "role": "text",
        "head": "text",
        "pooling": "mean",
        "dimensions": 16,
        "length": 32,
        "opset": 20,
    }
    assert len(facts["written_dense"]) == 18
    assert facts["golden_cosine_at_least"] == 0.9999
    assert np.array_equal(np.load(folder / "golden.npy"), variant.encode(GOLDEN_TEXTS, "text").numpy())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.padding is None
    assert tokenizer.truncation["max_length"] == 32
    assert [one.ids for one in tokenizer.encode_batch(list(small_histories(4)))] == small_tokens().ids(small_histories(4), 32)
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)


@pytest.mark.parametrize("name", ["plain", "int8"])
def test_it_runs_where_neither_torch_nor_this_package_is(name: str, tmp_path: Path) -> None:
    variant = all_shapes()[name]
    folder = export(variant, tmp_path / "graph", role="behaviour")
    texts = [*small_texts(7), "long story " * 40]
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL))
    script = f"""
import sys
blocked = ("torch", "compress_rec", "transformers", "optimum", "safetensors")
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
{blocks}
vectors = encode({texts!r})
np.savez("out.npz", vectors=vectors, user=user(vectors[:7]), short=user(vectors[:2]))
assert not [name for name in sys.modules if name.partition(".")[0] in blocked]
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    came = np.load(folder / "out.npz")
    vectors = variant.encode(texts, "behaviour")
    users = variant.towers.pooled(vectors, [list(range(7)), [0, 1]])
    worst = min((vectors * came["vectors"]).sum(-1).min(), (users[0] * came["user"]).sum(), (users[1] * came["short"]).sum())
    assert worst >= json.loads((folder / "golden.json").read_text())["cosine_at_least"]


def test_the_speed_of_integers_is_said_and_kept(tmp_path: Path) -> None:
    said: list[str] = []
    folder = export(all_shapes()["int8"], tmp_path / "graph", say=said.append)
    facts = json.loads((folder / "config.json").read_text())["compress_rec_export"]
    assert [line.partition(" at a time")[0] for line in said] == ["one text", "32 texts"]
    for line in said:
        took = facts["milliseconds"][line.partition(" at a time")[0]]
        assert f"{took['integers']:.2f} ms in integers, {took['floats']:.2f} ms" in line
        assert min(took.values()) > 0
    said.clear()
    export(small_variant(), tmp_path / "floats", say=said.append)
    assert said == []


@pytest.mark.parametrize("plan", [["quantize_int8"], ["factorize"], [{"recipe": "drop_layers", "keep": 2}, "factorize", "quantize_int8"]])
def test_what_recipes_make(plan: list[Any], tmp_path: Path) -> None:
    variant = compress(small_variant(), plan, small_texts(24))
    folder = export(variant, tmp_path / "graph")
    facts = json.loads((folder / "config.json").read_text())["compress_rec_export"]
    assert [step["recipe"] for step in facts["steps"]] == [step.recipe.name for step in variant.steps]
    ids, mask = batch(only(variant), [*GOLDEN_TEXTS], 16)
    embedding, _ = run(str(folder / "model.onnx"), ids, mask)
    assert (embedding * variant.encode(GOLDEN_TEXTS)).sum(-1).min() >= facts["golden_cosine_at_least"]


@pytest.mark.parametrize("name", ["plain", "int8"])
def test_a_graph_that_gives_other_vectors_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = only(all_shapes(seed=1)[name])
    right = onnx_export.tower_graph

    def swapped(tower: Tower, head: str, integers: bool = True, **facts: Any) -> onnx.ModelProto:
        return right(other if integers else tower, head, integers, **facts)

    monkeypatch.setattr(onnx_export, "tower_graph", swapped)
    with pytest.raises(CompressRecError, match=r"the ONNX graph does not give the model's vectors: a golden text has cosine"):
        export(all_shapes()[name], tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(small_variant(), tmp_path / "graph")
    before = (tmp_path / "graph" / "model.onnx").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    for goal in ("graph", "new"):
        with pytest.raises(CompressRecError, match=r"could not be written: No space left on device; nothing was changed there"):
            export(small_variant(1), tmp_path / goal)
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]
    assert (tmp_path / "graph" / "model.onnx").read_bytes() == before


def test_a_graph_too_large_for_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress_rec.onnx_graph.PROTOBUF_LIMIT", 1000)
    with pytest.raises(CompressRecError, match="one file holds at most 2"):
        tower_graph(only(small_variant()), "item")


def test_two_stages_of_a_head() -> None:
    graph = tower_graph(only(with_int8_head(small_variant())), "item").graph
    assert [output.type.tensor_type.shape.dim[1].dim_value for output in graph.output if output.name == "embedding"] == [8]


def test_optimum_runs_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("optimum.onnxruntime") is None:
        pytest.skip("optimum.onnxruntime is not in this environment; it is in the one that constraints-optimum.txt describes")
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    for name in ("plain", "low rank", "pruned", "no layer"):
        variant = all_shapes()[name]
        folder = export(variant, tmp_path / name)
        tokenizer, model = AutoTokenizer.from_pretrained(folder), ORTModelForFeatureExtraction.from_pretrained(folder)
        texts = [*small_texts(5), "long story " * 20]
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state
        ids, mask = batch(only(variant), texts, 16)
        assert torch.equal(inputs["input_ids"], ids)
        with torch.inference_mode():
            wanted = only(variant).encoder(ids, mask)
        torch.testing.assert_close(hidden[mask.bool()], wanted[mask.bool()], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("form", [Dense(), INT8])
def test_a_real_model(form: Any, tmp_path: Path) -> None:
    variant = load(minilm())
    variant = variant if isinstance(form, Dense) else in_form(variant, form, INT8)
    folder = export(variant, tmp_path / "graph")
    facts = json.loads((folder / "config.json").read_text())["compress_rec_export"]
    assert facts["golden_cosine"] >= facts["golden_cosine_at_least"] >= (0.97 if form == INT8 else 0.9999)
