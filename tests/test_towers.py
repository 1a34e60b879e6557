"""Pooling, heads, roles, and users made of what they did."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch.nn import functional as F

from compress_rec.errors import CompressRecError
from compress_rec.tokens import Tokens
from compress_rec.towers import Head, HeadStage, Role, Tower, Towers
from tests.exports.shapes import all_shapes, only
from tests.models import small_texts, small_tokens, small_tower, small_variant
from tests.real_models import minilm

TEXTS = [*small_texts(9), "a", "", "long story " * 40]


def by_hand(tower: Tower, text: str, head: str, length: int) -> torch.Tensor:
    """One text, without padding: the plain way."""
    ids = torch.tensor(tower.tokens.ids([text], length))
    with torch.inference_mode():
        hidden = tower.encoder(ids, torch.ones_like(ids))[0]
        pooled = hidden.mean(0) if tower.pooling == "mean" else hidden[0]
        for stage, form in zip(tower.head(head).stages, tower.head(head).forms(), strict=True):
            pooled = form(pooled)
            pooled = torch.tanh(pooled) if stage.activation == "tanh" else pooled
        return pooled / pooled.norm()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_encode_is_the_plain_way_in_the_order_given(pooling: str, batch: int) -> None:
    tower = small_tower()
    tower = Tower(tower.tokens, tower.encoder, pooling, dict(tower.heads.items()))  # type: ignore[arg-type]
    came = tower.encode(TEXTS, "behaviour", 16, batch)
    wanted = torch.stack([by_hand(tower, text, "behaviour", 16) for text in TEXTS])
    assert came.dtype == torch.float32
    torch.testing.assert_close(came, wanted, atol=1e-5, rtol=0)


def test_a_head_of_two_stages() -> None:
    tower = only(all_shapes()["int8 head"])
    assert tower.dimensions("item") == 8
    came = tower.encode(TEXTS[:4], "item", 16)
    torch.testing.assert_close(came, torch.stack([by_hand(tower, text, "item", 16) for text in TEXTS[:4]]), atol=1e-5, rtol=0)


def test_no_head_is_the_pooled_vector() -> None:
    tower = Tower(small_tokens(), small_tower().encoder)
    assert tower.dimensions("identity") == 32
    torch.testing.assert_close(tower.encode(["red"], "identity", 16)[0], by_hand(tower, "red", "identity", 16), atol=1e-6, rtol=0)


def test_texts_are_cut_with_the_closing_token_kept() -> None:
    tokens = small_tokens()
    long = tokens.ids(["river " * 30], 100)[0]
    assert tokens.ids(["river " * 30], 8)[0] == [*long[:7], long[-1]]
    assert tokens.ids(["river"], 8) == tokens.ids(["river"], 100)
    assert small_variant().encode(["river " * 30, "river " * 14]).unique(dim=0).shape[0] == 1


def test_padding_written_in_the_tokenizer_is_switched_off() -> None:
    backend = small_tokens().backend()
    backend.enable_padding(length=64)
    backend.enable_truncation(4)
    tokens = Tokens(backend)
    assert tokens.ids(["red river (1990) drama"], 50) == small_tokens().ids(["red river (1990) drama"], 50)
    assert backend.padding["length"] == 64


def test_a_real_tokenizer_that_pads_to_128() -> None:
    folder = minilm()
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).padding["length"] == 128
    tokens = Tokens.read(folder)
    assert tokens.ids(["toy story"], 256) == [[101, 9121, 2466, 102]]
    assert len(tokens.ids(["toy story " * 200], 256)[0]) == 256


@settings(max_examples=30, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, 5), max_size=7), min_size=1, max_size=4),
    weights=st.none() | st.lists(st.floats(0.1, 2), min_size=1, max_size=5),
    seed=st.integers(0, 50),
)
def test_pooled_users(histories: list[list[int]], weights: list[float] | None, seed: int) -> None:
    behaviours = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)), dim=-1)
    towers = replace(small_variant().towers, recency=None if weights is None else torch.tensor(weights))
    came = towers.pooled(behaviours, histories)
    for user, history in zip(came, histories, strict=True):
        total = torch.zeros(4)
        for age, item in enumerate(reversed(history)):
            if weights is None or age < len(weights):
                total += behaviours[item] * (1.0 if weights is None else weights[age])
        torch.testing.assert_close(user, F.normalize(total, dim=-1), atol=1e-4, rtol=0)


def test_an_empty_history_is_the_zero_vector() -> None:
    towers = small_variant().towers
    behaviours = torch.eye(4)
    assert torch.equal(towers.pooled(behaviours, [[], [2]]), torch.stack([torch.zeros(4), behaviours[2]]))
    assert torch.equal(towers.pooled(behaviours, [[]]), torch.zeros(1, 4))


def test_no_texts_have_no_vectors() -> None:
    assert small_variant().encode([]).shape == (0, 16)


def test_one_tower_for_all_roles_is_stored_once_and_untied_when_asked() -> None:
    towers = small_variant().towers
    assert towers.tower_of("item") is towers.tower_of("text")
    untied = towers.untied()
    assert {name: role.tower for name, role in untied.roles.items()} == {"item": "both", "behaviour": "user", "text": "user"}
    assert untied.tower_of("item") is towers.tower_of("item")
    assert torch.equal(untied.encode(TEXTS, "text"), towers.encode(TEXTS, "text"))
    assert untied.untied() is untied
    mine = {tensor.data_ptr() for tensor in untied.tower_of("item").parameters()}
    assert not mine & {tensor.data_ptr() for tensor in untied.tower_of("text").parameters()}


@pytest.mark.parametrize("name", all_shapes())
def test_a_tower_is_its_configuration_and_tensors(name: str) -> None:
    tower = only(all_shapes()[name])
    again = Tower.from_json(tower.to_json(), tower.tensors(), tower.tokens)
    assert torch.equal(again.encode(TEXTS, "item", 16), tower.encode(TEXTS, "item", 16))
    assert again.to_json() == tower.to_json()


def test_refusals() -> None:
    tower, variant = small_tower(), small_variant()
    with pytest.raises(CompressRecError, match="no head called 'itme'; did you mean 'item'"):
        tower.head("itme")
    with pytest.raises(CompressRecError, match="no role called 'items'; did you mean 'item'"):
        variant.encode(["a"], "items")
    with pytest.raises(CompressRecError, match="a single string came: put it into a list"):
        variant.encode("red river")
    with pytest.raises(CompressRecError, match="text 1 should be a string, but int came"):
        variant.encode(["red", 7])  # type: ignore[list-item]
    with pytest.raises(CompressRecError, match="pooling must be 'mean' or 'cls'"):
        Tower(tower.tokens, tower.encoder, "max")  # type: ignore[arg-type]
    with pytest.raises(CompressRecError, match="'sigmoid' is not known"):
        Head([HeadStage(activation="sigmoid")], {"0.weight": torch.eye(2)})
    backend = tower.tokens.backend()
    backend.add_tokens(["extraordinary"])
    with pytest.raises(CompressRecError, match="they do not belong together"):
        Tower(Tokens(backend), tower.encoder)
    with pytest.raises(CompressRecError, match="lacks 'pooling'"):
        Tower.from_json({key: value for key, value in tower.to_json().items() if key != "pooling"}, tower.tensors(), tower.tokens)
    with pytest.raises(CompressRecError, match="no role called"):
        Towers({"both": tower}, {"item": Role("both", "item", 8)}).role("text")
