"""Reading Hugging Face folders: whole ones of every kind, and broken ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from compress_rec.errors import CompressRecError
from compress_rec.export import export
from compress_rec.golden import GOLDEN_TEXTS
from compress_rec.huggingface import bert_config, not_plain, our_name, read_encoder, their_name
from compress_rec.tokens import Tokens
from compress_rec.variant import load
from tests.exports.shapes import all_shapes, only
from tests.models import small_encoder, small_texts, small_variant
from tests.real_models import minilm

TEXTS = [*GOLDEN_TEXTS, *small_texts(6), "Golden RIVER " * 30]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SentenceTransformer's folder with a Dense module."""
    return export(small_variant(), tmp_path_factory.mktemp("written") / "model", "hugging_face")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(written, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_names_go_there_and_back() -> None:
    for name in small_encoder().tensors():
        assert our_name(their_name(name)) == name
        assert our_name("bert." + their_name(name)) == name
    assert our_name("embeddings.LayerNorm.gamma") == "embeddings.norm.weight"
    assert our_name("bert.encoder.layer.11.output.LayerNorm.beta") == "layers.11.output_norm.bias"
    assert our_name("pooler.dense.weight") is None
    assert our_name("cls.predictions.bias") is None


def test_every_way_of_storing_weights(folder: Path) -> None:
    wanted = load(folder).encode(TEXTS)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()

    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    torch.save(renamed | {"cls.predictions.bias": torch.zeros(3)}, folder / "pytorch_model.bin")
    assert torch.equal(load(folder).encode(TEXTS), wanted)
    (folder / "pytorch_model.bin").unlink()

    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    places = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert torch.equal(load(folder).encode(TEXTS), wanted)


def test_half_precision_comes_as_float32(folder: Path) -> None:
    rewrite(folder / "model.safetensors", lambda tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}))
    assert all(tensor.dtype == torch.float32 for tensor in only(load(folder)).encoder.tensors().values())


def test_a_tokenizer_from_vocab_alone(folder: Path) -> None:
    wanted = load(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    assert torch.equal(load(folder).encode(TEXTS[:6]), wanted.encode(TEXTS[:6]))


def test_a_sentence_transformer_that_it_wrote_itself(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    modules = pytest.importorskip("sentence_transformers.models", reason="sentence-transformers has no modules")
    small = export(small_variant(), tmp_path / "small", "hugging_face")
    transformer, pooling, *_ = list(sentence_transformers.SentenceTransformer(str(small)))
    torch.manual_seed(0)
    chain = [
        transformer,
        pooling,
        modules.Dense(32, 24, activation_function=nn.Identity(), bias=False),
        modules.Dense(24, 8),
        modules.Normalize(),
    ]
    model = sentence_transformers.SentenceTransformer(modules=chain, device="cpu")
    model.max_seq_length = 12
    model.save(str(tmp_path / "theirs"))
    ours = load(tmp_path / "theirs")
    assert ours.towers.role("item").length == 12
    assert [stage.activation for stage in only(ours).head("identity").stages] == ["identity", "tanh"]
    torch.testing.assert_close(ours.encode(TEXTS), torch.from_numpy(model.encode(TEXTS)), atol=1e-5, rtol=0)


def test_cls_pooling_and_a_missing_norm(folder: Path) -> None:
    edit(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(listed[:-1]))
    variant, reference = load(folder), small_variant()
    tower = only(reference)
    ids = tower.tokens.ids(TEXTS[:1], 16)
    with torch.inference_mode():
        first = tower.encoder(torch.tensor(ids), torch.ones(1, len(ids[0])))[:, 0]
        wanted = F.normalize(tower.head("item")(first), dim=-1)
    torch.testing.assert_close(variant.encode(TEXTS[:1]), wanted, atol=1e-6, rtol=0)


def test_the_new_way_of_writing_pooling(folder: Path) -> None:
    for mode in ("mean", "cls"):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": mode}))
        assert only(load(folder)).pooling == mode


def test_lower_casing_before_the_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert not torch.allclose(load(folder).encode(["Red River"]), load(folder).encode(["red river"]), atol=1e-2)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    assert torch.equal(load(folder).encode(["Red River"]), load(folder).encode(["red river"]))


def test_the_length_comes_from_whoever_says_it(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=9)
    assert load(folder).towers.role("text").length == 9
    (folder / "sentence_bert_config.json").unlink()
    assert load(folder).towers.role("text").length == 16
    edit(folder / "tokenizer_config.json", model_max_length=1e30)
    assert load(folder).towers.role("text").length == 64


def test_a_real_model() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    folder = minilm()
    variant = load(folder)
    assert variant.towers.role("item").length == 256
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    torch.testing.assert_close(variant.encode(TEXTS), torch.from_numpy(model.encode(TEXTS)), atol=1e-5, rtol=0)


def _drop(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def _config(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: edit(folder / "config.json", **changes)


def _weights(change: Callable[[dict[str, torch.Tensor]], Any], file: str = "model.safetensors") -> Callable[[Path], Any]:
    return lambda folder: rewrite(folder / file, change)


def _cut(name: str) -> Callable[[Path], Any]:
    def cut(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return cut


def _modules(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Path], Any]:
    def edited(folder: Path) -> None:
        listed = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps(change(listed)))

    return edited


WORDS, QUERY = "embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.query.weight"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (_drop("model.safetensors"), r"has no weights: model\.safetensors or pytorch_model\.bin was wanted"),
    "no tokenizer": (lambda folder: [_drop(name)(folder) for name in ("tokenizer.json", "vocab.txt")], "has no tokenizer"),
    "no config": (_drop("config.json"), r"config\.json does not exist"),
    "cut weights": (_cut("model.safetensors"), "is missing or cut off"),
    "cut tokenizer": (_cut("tokenizer.json"), "the tokenizer .* cannot be read"),
    "cut config": (_cut("config.json"), "cannot be read as JSON"),
    "cut modules": (_cut("modules.json"), r"modules\.json cannot be read"),
    "cut head": (_cut("2_Dense/model.safetensors"), "is missing or cut off"),
    "no BERT": (_config(model_type="roberta"), "a model of type 'roberta', but a 'bert' was wanted"),
    "a decoder": (_config(is_decoder=True), "relative positions or a decoder"),
    "config lacks": (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "lacks 'num_attention_heads'"),
    "config no number": (_config(hidden_size="wide"), "holds a size that is no number"),
    "config not dividing": (_config(num_attention_heads=5), "hidden_size of 32 for 5 heads"),
    "unknown activation": (_config(hidden_act="mish"), "activation 'mish' is not known"),
    "another vocabulary": (_config(vocab_size=99), r"'embeddings\.word_embeddings\.weight' in .* has the shape \(\d+, 32\)"),
    "a tensor missing": (_weights(lambda tensors: tensors.pop(QUERY)), rf"lacks the tensor '{QUERY}'"),
    "NaN": (_weights(lambda tensors: tensors[WORDS][3].fill_(float("nan"))), "holds NaN or infinity"),
    "infinity in the head": (
        _weights(lambda tensors: tensors["linear.weight"][0].fill_(float("inf")), "2_Dense/model.safetensors"),
        "'linear.weight' in .* holds NaN or infinity",
    ),
    "head without weight": (
        _weights(lambda tensors: tensors.pop("linear.weight"), "2_Dense/model.safetensors"),
        "lacks the tensor 'linear.weight'",
    ),
    "another head": (
        _weights(lambda tensors: tensors.update({"linear.weight": torch.zeros(16, 31)}), "2_Dense/model.safetensors"),
        "a Dense module for 31 numbers behind a model of width 32",
    ),
    "a residual head": (lambda folder: edit(folder / "2_Dense/config.json", use_residual=True), "adds its input to its output"),
    "head's activation": (
        lambda folder: edit(folder / "2_Dense/config.json", activation_function="torch.nn.modules.activation.Tanhh"),
        "did you mean 'tanh'",
    ),
    "other pooling": (
        lambda folder: edit(folder / "1_Pooling/config.json", pooling_mode_max_tokens=True),
        "but mean or cls was wanted",
    ),
    "other module": (_modules(lambda listed: [*listed, {**listed[0], "type": "x.WordWeights"}]), "chains Transformer → .* → WordWeights"),
    "norm before the head": (_modules(lambda listed: [*listed[:2], listed[3], listed[2]]), "Pooling → Normalize → Dense, but"),
    "no module": (_modules(lambda listed: []), "chains no modules"),
    "a prompt": (
        lambda folder: edit(folder / "config_sentence_transformers.json", prompts={"q": "query: "}, default_prompt_name="q"),
        "puts the prompt 'query: ' in front of every text",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_gets_one_sentence(fault: str, folder: Path) -> None:
    break_it, sentence = BROKEN[fault]
    break_it(folder)
    with pytest.raises(CompressRecError, match=sentence) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["extraordinary"] = len(tokenizer["model"]["vocab"])
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(CompressRecError, match="word pieces and the embedding table"):
        load(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match="is no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CompressRecError, match="is no folder"):
        load(tmp_path / "file")
    with pytest.raises(CompressRecError, match=r"config\.json does not exist"):
        load(tmp_path)


def test_an_onnx_export_is_not_read_back(tmp_path: Path) -> None:
    folder = export(small_variant(), tmp_path / "graph")
    with pytest.raises(CompressRecError, match="holds an ONNX graph, which cannot be read back"):
        load(folder)


def test_what_plain_bert_can_hold() -> None:
    reasons = {name: not_plain(only(variant).encoder.config) for name, variant in all_shapes().items()}
    assert [name for name, reason in reasons.items() if reason is None] == ["plain", "dropped layers", "int8 head"]
    assert reasons["pruned"] == "its layers differ in heads or neurons"
    assert reasons["no layer"] == "it has no transformer layer"
    assert reasons["int8"] == "'embeddings.words' is stored as int8"
    with pytest.raises(CompressRecError, match="export it as onnx"):
        bert_config(only(all_shapes()["sparse"]).encoder.config)


def test_read_encoder_is_what_was_written(written: Path) -> None:
    wanted = only(small_variant()).encoder
    came = read_encoder(written)
    assert came.config == wanted.config
    assert all(torch.equal(tensor, came.tensors()[name]) for name, tensor in wanted.tensors().items())
    assert Tokens.read(written).ids(TEXTS, 16) == only(small_variant()).tokens.ids(TEXTS, 16)
