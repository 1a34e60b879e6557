"""A small recommender in every shape and every form of weight that an encoder can have, made by hand and not by recipes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from compress_rec.encoder import Encoder, LayerShape, with_linear
from compress_rec.sparse import sparse_tensors
from compress_rec.towers import Head, HeadStage, Tower
from compress_rec.variant import Variant
from compress_rec.weights import Chain, Dense, Format, Int8, Shared, Sparse, Sum, int8_tensors
from tests.models import small_variant

DENSE, INT8 = Dense(), Int8()


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return (rank, inputs) and (outputs, rank), whose product is the nearest of this rank."""
    left, size, right = torch.linalg.svd(weight, full_matrices=False)
    return size[:rank, None] * right[:rank], left[:, :rank].contiguous()


def stored(weight: Tensor, place: str, form: Format) -> dict[str, Tensor]:
    """Return the tensors that store ``weight`` (outputs, inputs) in this form."""
    match form:
        case Int8():
            return int8_tensors(weight, place)
        case Sparse():
            kept = torch.where(weight.abs() >= weight.abs().median(), weight, 0.0)
            return sparse_tensors(kept, place)
        case Chain((first, second)):
            inner, outer = factors(weight, max(1, min(weight.shape) // 2))
            return {**stored(inner, f"{place}.0", first), **stored(outer, f"{place}.1", second)}
        case Sum((first, second)):
            low, high = torch.quantile(weight, 0.1), torch.quantile(weight, 0.9)
            loud = torch.where((weight < low) | (weight > high), weight, 0.0)
            return {**stored(weight - loud, f"{place}.0", first), **sparse_tensors(loud, f"{place}.1")}
        case _:
            return {f"{place}.weight": weight.contiguous()}


def with_encoder(variant: Variant, encoder: Encoder, heads: dict[str, Head] | None = None) -> Variant:
    """Return the variant with its only tower on another encoder."""
    name, tower = next(iter(variant.towers.towers.items()))
    return replace(variant, towers=variant.towers.with_tower(name, tower.rebuilt(encoder, heads=heads)))


def in_form(variant: Variant, form: Format, words: Format = DENSE) -> Variant:
    """Return the variant with every linear weight of the encoder in this form, and the words' table in another."""
    encoder = only(variant).encoder
    tensors, formats = dict(encoder.tensors()), dict[str, Format]()
    for name in encoder.config.linears():
        tensors = with_linear(tensors, name, stored(tensors[f"{name}.weight"], name, form))
        formats[name] = form
    if isinstance(words, Int8):
        tensors |= int8_tensors(tensors.pop("embeddings.words.weight"), "embeddings.words")
        formats["embeddings.words"] = words
    return with_encoder(variant, encoder.rebuilt(replace(encoder.config, formats=formats), tensors))


def in_shared_form(variant: Variant, first: Format = DENSE) -> Variant:
    """Return the variant with one factor shared by query, key and value of every layer."""
    encoder = only(variant).encoder
    tensors, formats, shared = dict(encoder.tensors()), dict[str, Format](), dict[str, Format]()
    for number in range(len(encoder.config.layers)):
        places = [f"layers.{number}.{part}" for part in ("query", "key", "value")]
        inner, outer = factors(torch.cat([tensors[f"{place}.weight"] for place in places]), 12)
        shared[f"attention{number}"] = first
        tensors |= stored(inner.contiguous(), f"shared.attention{number}", first)
        for place, part in zip(places, outer.chunk(3), strict=True):
            tensors = with_linear(tensors, place, {f"{place}.1.weight": part.contiguous()})
            formats[place] = Chain((Shared(f"attention{number}"), DENSE))
    return with_encoder(variant, encoder.rebuilt(replace(encoder.config, formats=formats, shared=shared), tensors))


def with_layers(variant: Variant, *shapes: LayerShape) -> Variant:
    """Return the variant with its first layers cut to these shapes and the others dropped."""
    encoder = only(variant).encoder
    tensors = dict(encoder.tensors())
    for number, shape in enumerate(shapes):
        inner = shape.heads * shape.head_width
        for part in ("query", "key", "value"):
            for suffix in ("weight", "bias"):
                tensors[f"layers.{number}.{part}.{suffix}"] = tensors[f"layers.{number}.{part}.{suffix}"][:inner]
        tensors[f"layers.{number}.output.weight"] = tensors[f"layers.{number}.output.weight"][:, :inner]
        for suffix in ("weight", "bias"):
            tensors[f"layers.{number}.up.{suffix}"] = tensors[f"layers.{number}.up.{suffix}"][: shape.neurons]
        tensors[f"layers.{number}.down.weight"] = tensors[f"layers.{number}.down.weight"][:, : shape.neurons]
    return with_encoder(variant, encoder.rebuilt(replace(encoder.config, layers=shapes), tensors))


def without_layers(variant: Variant) -> Variant:
    """Return the variant as a bare table of words: no position, no norm, no layer."""
    encoder = only(variant).encoder
    config = replace(encoder.config, layers=(), positions=0, token_types=0, embedding_norm=False)
    return with_encoder(variant, encoder.rebuilt(config, {"embeddings.words.weight": encoder.tensors()["embeddings.words.weight"]}))


def with_int8_head(variant: Variant) -> Variant:
    """Return the variant with two stages in its heads: one in int8 with a hyperbolic tangent behind it, one dense."""
    heads = {}
    generator = torch.Generator().manual_seed(3)
    for name, head in only(variant).heads.items():
        tensors = dict(head.state_dict())
        first = {**int8_tensors(tensors["0.weight"], "0"), "0.bias": tensors["0.bias"]}
        second = {"1.weight": torch.randn(8, 16, generator=generator)}
        heads[name] = Head([HeadStage(INT8, "tanh"), HeadStage()], {**first, **second})
    return with_encoder(variant, only(variant).encoder.clone(), heads)


def only(variant: Variant) -> Tower:
    """Return the variant's first tower."""
    return next(iter(variant.towers.towers.values()))


def all_shapes(seed: int = 0) -> dict[str, Variant]:
    """Return a small recommender in every shape, by name."""
    plain = small_variant(seed)
    shape = LayerShape(4, 8, 64)
    return {
        "plain": plain,
        "dropped layers": with_layers(plain, shape),
        "pruned": with_layers(plain, LayerShape(3, 8, 40), LayerShape(1, 8, 64), LayerShape(0, 8, 0)),
        "no layer": without_layers(plain),
        "low rank": in_form(plain, Chain((DENSE, DENSE))),
        "shared": in_shared_form(plain),
        "sparse": in_form(plain, Sparse()),
        "int8": in_form(plain, INT8, INT8),
        "int8 factors": in_form(plain, Chain((INT8, INT8))),
        "int8 shared": in_shared_form(plain, INT8),
        "int8 and sparse": in_form(plain, Sum((INT8, Sparse()))),
        "int8 head": with_int8_head(plain),
    }
