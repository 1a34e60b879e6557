"""The exported folder in transformers and in sentence-transformers against the model it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from compress_rec.errors import CompressRecError
from compress_rec.export import export
from compress_rec.exports import hugging_face
from compress_rec.towers import Head, HeadStage, Role, Tower, Towers
from compress_rec.variant import Variant, compress, load
from tests.exports.shapes import all_shapes, only
from tests.models import small_histories, small_texts, small_variant

TEXTS = [*small_texts(5), "Red RIVER, it's", "long story " * 40, ""]
PLAIN = ("plain", "dropped layers", "cls, two stages", "drop_layers", "trim_vocabulary")


def variant_of(name: str) -> Variant:
    if name in ("drop_layers", "trim_vocabulary"):
        return compress(small_variant(), [{"recipe": "drop_layers", "keep": 2} if name == "drop_layers" else name], small_texts(24))
    if name != "cls, two stages":
        return all_shapes()[name]
    tower = only(small_variant())
    generator = torch.Generator().manual_seed(5)
    tensors = {
        "0.weight": torch.randn(24, 32, generator=generator),
        "0.bias": torch.randn(24, generator=generator),
        "1.weight": torch.randn(8, 24, generator=generator),
    }
    heads = {name: Head([HeadStage(activation="tanh"), HeadStage()], tensors) for name in tower.heads}
    cls = Tower(tower.tokens, tower.encoder, "cls", heads)
    return Variant("cls", small_variant().towers.with_tower("both", cls))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("role", ["item", "text"])
def test_same_hidden_states_and_vectors(name: str, role: str, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    variant = variant_of(name)
    folder, found = export(variant, tmp_path / "model", "hugging_face", role), variant.towers.role(role)

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    mask = inputs["attention_mask"].bool()
    assert [row[here].tolist() for row, here in zip(inputs["input_ids"], mask, strict=True)] == only(variant).tokens.ids(
        TEXTS, found.length
    )
    with torch.inference_mode():
        wanted = only(variant).encoder(inputs["input_ids"], mask)
        came = model(**inputs).last_hidden_state
    torch.testing.assert_close(came[mask], wanted[mask], atol=1e-5, rtol=0)

    sentences = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    torch.testing.assert_close(torch.from_numpy(sentences.encode(TEXTS)), variant.encode(TEXTS, role), atol=1e-5, rtol=0)
    assert sentences.max_seq_length == found.length


@pytest.mark.parametrize("name", PLAIN)
def test_load_gives_the_same_vectors_again(name: str, tmp_path: Path) -> None:
    variant = variant_of(name)
    again = load(export(variant, tmp_path / "model", "hugging_face", "text"))
    assert torch.equal(again.encode(small_histories(5)), variant.encode(small_histories(5), "text"))
    assert again.towers.role("item").length == variant.towers.role("text").length
    twice = load(export(again, tmp_path / "twice", "hugging_face"))
    assert torch.equal(twice.encode(TEXTS), again.encode(TEXTS))


REASONS = {
    "pruned": "its layers differ in heads or neurons",
    "no layer": "it has no transformer layer",
    "low rank": "is stored as chain",
    "shared": "is stored as chain",
    "sparse": "is stored as sparse",
    "int8": "'embeddings.words' is stored as int8",
    "int8 and sparse": "is stored as sum",
    "int8 head": "its head 'item' is stored as int8",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_plain_bert_cannot_hold_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match=f"cannot hold this variant, because .*{REASONS[name]}.*: export it as onnx"):
        export(all_shapes()[name], tmp_path / "model", "hugging_face")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_reads_back_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = small_variant()
    tower = only(variant)
    other = Tower(tower.tokens, tower.encoder, "cls", {"identity": tower.head("item")})
    roles = {"item": Role("both", "identity", 16)}
    monkeypatch.setattr(hugging_face, "read_towers", lambda folder: Towers({"both": other}, roles))
    with pytest.raises(CompressRecError, match="the Hugging Face folder does not give the model's vectors"):
        export(variant, tmp_path / "model", "hugging_face")
    assert list(tmp_path.iterdir()) == []


def test_vocabulary_file_is_in_order(tmp_path: Path) -> None:
    variant = small_variant()
    folder = export(variant, tmp_path / "model", "hugging_face")
    pieces = (folder / "vocab.txt").read_text().splitlines()
    assert {piece: number for number, piece in enumerate(pieces)} == only(variant).tokens.backend().get_vocab()
    special = json.loads((folder / "special_tokens_map.json").read_text())
    assert special == {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
    }
