"""The encoder against transformers' BertModel, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, BertConfig, BertModel

from compress_rec.encoder import Encoder, EncoderConfig, LayerShape
from compress_rec.errors import CompressRecError
from compress_rec.huggingface import read_encoder
from compress_rec.weights import Chain, Dense, Int8, Shared, Sum
from tests.exports.shapes import all_shapes, only
from tests.models import small_encoder
from tests.real_models import minilm

TOLERANCE = 1e-5


def saved_bert(folder: Path, seed: int, **sizes: object) -> BertModel:
    """Write a BertModel whose every tensor is random (transformers starts biases at 0 and norms at 1) and return it."""
    torch.manual_seed(seed)
    model = BertModel(BertConfig(**sizes), add_pooling_layer=bool(seed % 2)).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(torch.randn_like(tensor) * (0.3 if tensor.dim() > 1 else 0.5) + ("LayerNorm.weight" in name))
    model.save_pretrained(folder)
    return model


def padded_batch(vocabulary: int, lengths: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (len(lengths), max(lengths)), generator=generator)
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 4),
    head_width=st.sampled_from([1, 4, 8]),
    neurons=st.integers(1, 40),
    layers=st.integers(1, 3),
    activation=st.sampled_from(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]),
    epsilon=st.sampled_from([1e-12, 1e-5]),
    token_types=st.integers(1, 2),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    seed=st.integers(0, 100),
)
def test_same_hidden_states_as_bert_model(
    tmp_path_factory: pytest.TempPathFactory,
    heads: int,
    head_width: int,
    neurons: int,
    layers: int,
    activation: str,
    epsilon: float,
    token_types: int,
    lengths: list[int],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("bert")
    model = saved_bert(
        folder,
        seed,
        vocab_size=50,
        hidden_size=heads * head_width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=neurons,
        hidden_act=activation,
        layer_norm_eps=epsilon,
        type_vocab_size=token_types,
        max_position_embeddings=20,
    )
    ids, mask = padded_batch(50, lengths, seed)
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        came = read_encoder(folder)(ids, mask)
    assert (wanted - came)[mask].abs().max() <= TOLERANCE


def test_same_hidden_states_as_a_real_model() -> None:
    folder = minilm()
    ids, mask = padded_batch(30522, [3, 17, 128], seed=0)
    with torch.inference_mode():
        wanted = AutoModel.from_pretrained(folder).eval()(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        came = read_encoder(folder)(ids, mask)
    assert (wanted - came)[mask].abs().max() <= TOLERANCE


def test_padding_does_not_reach_real_tokens() -> None:
    encoder = small_encoder()
    ids, mask = padded_batch(100, [5, 12], seed=1)
    with torch.inference_mode():
        batch, alone = encoder(ids, mask), encoder(ids[:1, :5], mask[:1, :5])
        ids[0, 5:] = 7
        other = encoder(ids, mask)
    torch.testing.assert_close(batch[0, :5], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(batch[0, :5], other[0, :5], atol=0, rtol=0)


@pytest.mark.parametrize("name", all_shapes())
def test_configuration_and_tensors_are_the_whole_encoder(name: str) -> None:
    encoder = only(all_shapes()[name]).encoder
    again = Encoder(EncoderConfig.from_json(encoder.config.to_json()), encoder.tensors())
    ids, mask = padded_batch(100, [4, 9], seed=2)
    with torch.inference_mode():
        assert torch.equal(encoder(ids, mask), again(ids, mask))
    assert again.config == encoder.config


def test_a_clone_shares_no_memory() -> None:
    encoder = small_encoder()
    clone = encoder.clone()
    with torch.no_grad():
        for tensor in clone.parameters():
            tensor.zero_()
    assert all(bool(tensor.any()) for tensor in encoder.parameters())


def test_dropout_acts_in_training_only() -> None:
    encoder = small_encoder()
    encoder.set_dropout(0.5)
    ids, mask = padded_batch(100, [6], seed=3)
    assert torch.equal(encoder(ids, mask), encoder(ids, mask))
    encoder.train()
    assert not torch.equal(encoder(ids, mask), encoder(ids, mask))


def test_formats_survive_json() -> None:
    config = replace(
        small_encoder().config,
        formats={"layers.0.query": Chain((Shared("a"), Sum((Dense(), Int8()))))},
        shared={"a": Chain((Int8(), Dense()))},
        layers=(LayerShape(1, 8, 3),),
    )
    assert EncoderConfig.from_json(config.to_json()) == config


def test_refusals() -> None:
    encoder = small_encoder()
    ids = torch.zeros(1, 65, dtype=torch.int64)
    with pytest.raises(CompressRecError, match=r"65 tokens and the encoder 64 positions"):
        encoder(ids, ids == 0)
    missing = {name: tensor for name, tensor in encoder.tensors().items() if name != "layers.1.up.weight"}
    with pytest.raises(CompressRecError, match=r"'layers\.1\.up\.weight' is missing"):
        Encoder(encoder.config, missing)
    with pytest.raises(CompressRecError, match=r"'layers\.0\.query' should be 24×32 by the configuration"):
        Encoder(replace(encoder.config, layers=(LayerShape(3, 8, 64),)), encoder.tensors())
    with pytest.raises(CompressRecError, match="activation 'mish' is not known"):
        Encoder(replace(encoder.config, activation="mish"), encoder.tensors())
    with pytest.raises(CompressRecError, match="configuration is incomplete"):
        EncoderConfig.from_json({"vocabulary": 3})
    with pytest.raises(CompressRecError, match="written by a newer version"):
        EncoderConfig.from_json({**encoder.config.to_json(), "formats": {"layers.0.up": "int4"}})
