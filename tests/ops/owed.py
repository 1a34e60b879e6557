"""What each op is tried on: cases, the float64 run they are compared with, and refusals with their exact sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compress_rec.int8_eights import joined, parts_of
from compress_rec.int8_items import Int8Items, codes_of, quantized
from compress_rec.ops.int8_linear import quantize_per_channel, quantize_rows
from compress_rec.panels import packed, unpacked
from tests.ops.owed_low_rank import FEED_FORWARD, LOW_RANK, LOW_RANK_PACKED
from tests.ops.tried import Owed, rand, strided


def int8_weights(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    return quantize_per_channel(rand(outputs, inputs, seed=3))


def packed_weights(outputs: int, inputs: int, biased: bool = False) -> tuple[Tensor, int]:
    codes, scales = int8_weights(outputs, inputs)
    return joined(codes, scales, rand(outputs, seed=2) if biased else None), outputs


def largest_weights(outputs: int, inputs: int) -> tuple[Tensor, int]:
    """Codes of ±127 everywhere, row by row of one sign: no sum may leave 16 bits unnoticed."""
    signs = torch.where(torch.arange(outputs) % 2 == 0, 127, -127)
    return joined(signs[:, None].expand(outputs, inputs).to(torch.int8), torch.ones(outputs)), outputs


def ragged(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor([i for ids in lists for i in ids], dtype=torch.int64),
        torch.tensor([0, *[len(ids) for ids in lists]]).cumsum(0),
    )


def precise_cosine(queries: Tensor, items: Tensor, k: int, exclude: Any = None, offsets: Any = None, normalised: bool = False) -> Tensor:
    """The float64 cosines (queries, items); excluded pairs are -inf."""

    def unit(vectors: Tensor) -> Tensor:
        norms = vectors.double().norm(dim=1, keepdim=True)
        return vectors.double() / norms.masked_fill(norms == 0, 1)

    scores = unit(queries) @ (items.double() if normalised else unit(items)).T
    if exclude is not None:
        for row in range(len(queries)):
            scores[row, exclude[offsets[row] : offsets[row + 1]]] = -math.inf
    return scores


def precise_int8(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    integers, step = quantize_rows(x) if x.numel() else (x, x[..., :1])
    y = (integers.double() @ codes.double().T) * step.double() * scales.double()
    return y if bias is None else y + bias.double()


def precise_int8_packed(x: Tensor, layer: Tensor, outputs: int, diagonal: Tensor | None = None) -> Tensor:
    parts = parts_of(layer, outputs, x.shape[-1])
    assert parts is not None
    before = x if diagonal is None else x * diagonal
    return precise_int8(before, parts.codes(outputs, x.shape[-1]), parts.scales[:outputs], parts.bias[:outputs])


def unit_items() -> Tensor:
    return torch.nn.functional.normalize(rand(211, 40, seed=1))


COSINE = Owed(
    cases={
        "plain": lambda: (rand(5, 32), rand(300, 32, seed=1), 10),
        "one query": lambda: (rand(1, 384), rand(5000, 384, seed=1), 10),
        "one item": lambda: (rand(4, 16), rand(1, 16, seed=1), 1),
        "zero rows": lambda: (rand(0, 16), rand(9, 16, seed=1), 3),
        "odd tails": lambda: (rand(7, 37), rand(1003, 37, seed=1), 13),
        "narrower than a vector": lambda: (rand(2, 3), rand(50, 3, seed=1), 50),
        "width one": lambda: (rand(3, 1), rand(6, 1, seed=1), 2),
        "many queries": lambda: (rand(401, 24), rand(2100, 24, seed=1), 25),
        "all of them": lambda: (rand(3, 24), rand(77, 24, seed=1), 77),
        "strided": lambda: (strided(rand(5, 33)), strided(rand(120, 33, seed=1)), 9),
        "transposed": lambda: (rand(33, 5).T, rand(33, 120, seed=1).T, 9),
        "normalised": lambda: (rand(5, 40), unit_items(), 9, None, None, True),
        "zero vectors": lambda: (torch.cat([rand(2, 8), torch.zeros(1, 8)]), torch.cat([torch.zeros(3, 8), rand(20, 8, seed=1)]), 23),
        "huge and tiny": lambda: (
            rand(4, 12) * torch.tensor([[1e38], [1e-38], [1e-44], [1.0]]),
            rand(40, 12, seed=1) * torch.logspace(-43, 37, 40)[:, None],
            40,
        ),
        "excluding": lambda: (rand(3, 17), rand(60, 17, seed=1), 20, *ragged([[4, 2, 2, 59], [], list(range(45))])),
        "excluding all": lambda: (rand(2, 17), rand(10, 17, seed=1), 4, *ragged([list(range(10)), [9, 8, 7, 6, 5, 4, 3]])),
    },
    precise=precise_cosine,
    refusals={
        "dtype": (
            lambda: (rand(2, 4).double(), rand(3, 4), 1),
            "cosine_top_k: queries must be float32 (queries, dimensions), but float64 (2, 4) came; reshape it, or convert it with .float()",
        ),
        "one dimension": (
            lambda: (rand(2, 4), rand(4), 1),
            "cosine_top_k: items must be float32 (items, dimensions), but float32 (4) came; reshape it, or convert it with .float()",
        ),
        "widths": (
            lambda: (rand(2, 4), rand(3, 5), 1),
            "cosine_top_k: queries must be as wide as items (5), but width 4 came; encode both with the same recommender",
        ),
        "k above": (
            lambda: (rand(2, 4), rand(3, 4), 4),
            "cosine_top_k: k must be from 1 to the number of items (3), but 4 came; ask for fewer",
        ),
        "k zero": (
            lambda: (rand(2, 4), rand(3, 4), 0),
            "cosine_top_k: k must be from 1 to the number of items (3), but 0 came; ask for fewer",
        ),
        "nan query": (
            lambda: (rand(3, 4).index_fill(0, torch.tensor([1]), math.nan), rand(3, 4), 1),
            "cosine_top_k: queries must be finite, but nan in row 1 came; drop or repair that row",
        ),
        "inf item": (
            lambda: (rand(3, 4), rand(30, 4).index_fill(0, torch.tensor([21, 27]), math.inf), 1),
            "cosine_top_k: items must be finite, but inf in row 21 came; drop or repair that row",
        ),
        "inf normalised item": (
            lambda: (
                torch.zeros(1, 9),
                rand(30, 9).index_put((torch.tensor(29), torch.tensor(8)), torch.tensor(-math.inf)),
                1,
                None,
                None,
                True,
            ),
            "cosine_top_k: items must be finite, but inf in row 29 came; drop or repair that row",
        ),
        "nan item without queries": (
            lambda: (rand(0, 4), rand(3, 4).index_fill(0, torch.tensor([2]), math.nan), 1),
            "cosine_top_k: items must be finite, but nan in row 2 came; drop or repair that row",
        ),
        "half an exclusion": (
            lambda: (rand(1, 4), rand(3, 4), 1, torch.tensor([1])),
            "cosine_top_k: exclude_offsets must be given with its partner, but only one of exclude and exclude_offsets came; "
            "give both or neither",
        ),
        "exclusion dtype": (
            lambda: (rand(1, 4), rand(3, 4), 1, torch.tensor([1], dtype=torch.int32), torch.tensor([0, 1])),
            "cosine_top_k: exclude must be int64 (exclude,), but int32 (1) came; flatten it, or convert it with .long()",
        ),
        "offsets": (
            lambda: (rand(2, 4), rand(3, 4), 1, torch.tensor([1]), torch.tensor([0, 1])),
            "cosine_top_k: exclude_offsets must be 3 numbers rising from 0 to 1, but something else came; "
            "give one more offset than queries",
        ),
        "falling offsets": (
            lambda: (rand(2, 4), rand(3, 4), 1, torch.tensor([1]), torch.tensor([0, 5, 1])),
            "cosine_top_k: exclude_offsets must be 3 numbers rising from 0 to 1, but something else came; "
            "give one more offset than queries",
        ),
        "unknown id": (
            lambda: (rand(1, 4), rand(3, 4), 1, torch.tensor([3]), torch.tensor([0, 1])),
            "cosine_top_k: exclude must be item ids from 0 to 2, but id 3 came; leave unknown ids out",
        ),
        "gradient": (
            lambda: (rand(1, 4).requires_grad_(), rand(3, 4), 1),
            "cosine_top_k: queries must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
    },
)


def precise_panels(queries: Tensor, panels: Tensor, count: int, k: int, exclude: Any = None, offsets: Any = None) -> Tensor:
    """The float64 cosines (queries, count); excluded and removed pairs are -inf."""
    items = unpacked(panels, count)
    return precise_cosine(queries, items, k, exclude, offsets, True).masked_fill(items.isnan().any(dim=1), -math.inf)


def unit_panels(count: int, width: int, removed: tuple[int, ...] = ()) -> tuple[Tensor, int]:
    items = torch.nn.functional.normalize(rand(count, width, seed=1))
    items[list(removed)] = math.nan
    return packed(items), count


PANELS = Owed(
    cases={
        "plain": lambda: (rand(5, 32), *unit_panels(300, 32), 10),
        "one query": lambda: (rand(1, 384), *unit_panels(5000, 384), 10),
        "one query, many items": lambda: (rand(1, 8), *unit_panels(9001, 8), 10),
        "one item": lambda: (rand(4, 16), *unit_panels(1, 16), 1),
        "zero rows": lambda: (rand(0, 16), *unit_panels(9, 16), 3),
        "odd tails": lambda: (rand(7, 37), *unit_panels(1003, 37), 13),
        "width one": lambda: (rand(3, 1), *unit_panels(6, 1), 2),
        "many queries": lambda: (rand(401, 24), *unit_panels(7001, 24), 25),
        "all of them": lambda: (rand(3, 24), *unit_panels(77, 24), 77),
        "strided": lambda: (strided(rand(5, 33)), strided(unit_panels(120, 33)[0]), 120, 9),
        "zero and huge queries": lambda: (rand(4, 12) * torch.tensor([[1e38], [0.0], [1e-44], [1.0]]), *unit_panels(40, 12), 40),
        "removed": lambda: (rand(3, 17), *unit_panels(60, 17, (0, 31, 59)), 60),
        "excluding": lambda: (rand(3, 17), *unit_panels(60, 17), 20, *ragged([[4, 2, 2, 59], [], list(range(45))])),
        "excluding all": lambda: (rand(2, 17), *unit_panels(10, 17), 4, *ragged([list(range(10)), [9, 8, 7, 6, 5, 4, 3]])),
    },
    precise=precise_panels,
    refusals={
        "panels": (
            lambda: (rand(2, 4), rand(3, 4), 3, 1),
            "cosine_top_k_panels: panels must be float32 (panels, dimensions, 16), but float32 (3, 4) came; "
            "pack them with compress_rec.panels.packed",
        ),
        "count": (
            lambda: (rand(2, 4), rand(2, 4, 16), 16, 1),
            "cosine_top_k_panels: count must be the number of items in 2 panels of 16, but 16 came; give the number that was packed",
        ),
        "widths": (
            lambda: (rand(2, 4), rand(1, 5, 16), 3, 1),
            "cosine_top_k_panels: queries must be as wide as panels (5), but width 4 came; encode both with the same recommender",
        ),
        "k above": (
            lambda: (rand(2, 4), rand(1, 4, 16), 3, 4),
            "cosine_top_k_panels: k must be from 1 to the number of items (3), but 4 came; ask for fewer",
        ),
        "nan query": (
            lambda: (rand(3, 4).index_fill(0, torch.tensor([1]), math.nan), rand(1, 4, 16), 3, 1),
            "cosine_top_k_panels: queries must be finite, but nan in row 1 came; drop or repair that row",
        ),
        "unknown id": (
            lambda: (rand(1, 4), rand(1, 4, 16), 3, 1, torch.tensor([3]), torch.tensor([0, 1])),
            "cosine_top_k_panels: exclude must be item ids from 0 to 2, but id 3 came; leave unknown ids out",
        ),
        "offsets": (
            lambda: (rand(2, 4), rand(1, 4, 16), 3, 1, torch.tensor([1]), torch.tensor([0, 1])),
            "cosine_top_k_panels: exclude_offsets must be 3 numbers rising from 0 to 1, but something else came; "
            "give one more offset than queries",
        ),
        "gradient": (
            lambda: (rand(1, 4).requires_grad_(), rand(1, 4, 16), 3, 1),
            "cosine_top_k_panels: queries must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
    },
)


def precise_int8_search(
    queries: Tensor,
    panels: Tensor,
    sums: Tensor,
    scales: Tensor,
    residuals: Tensor,
    items: Tensor | None,
    k: int,
    exclude: Any = None,
    offsets: Any = None,
) -> Tensor:
    held = codes_of(Int8Items(panels, sums, scales, residuals), queries.shape[1]).double() * scales.nan_to_num().double()[:, None]
    scores = precise_cosine(queries, held if items is None else items, k, exclude, offsets, True)
    return scores.masked_fill(scales.isnan(), -math.inf)


def int8_items(count: int, width: int, kept: bool, removed: tuple[int, ...] = ()) -> tuple[Tensor | None, ...]:
    """Items of several lengths are nearer to clusters than to directions at random: some scores lie close together."""
    unit = torch.nn.functional.normalize(rand(count, width, seed=1) + 2 * rand(max(1, count // 9), width, seed=2).repeat(10, 1)[:count])
    unit[list(removed)] = math.nan
    return (*quantized(unit), unit if kept else None)


INT8_SEARCH = Owed(
    cases={
        "plain": lambda: (rand(5, 32), *int8_items(300, 32, True), 10),
        "codes alone": lambda: (rand(5, 32), *int8_items(300, 32, False), 10),
        "one query": lambda: (rand(1, 384), *int8_items(5000, 384, True), 10),
        "one query, codes alone": lambda: (rand(1, 40), *int8_items(5000, 40, False), 10),
        "one item": lambda: (rand(4, 16), *int8_items(1, 16, True), 1),
        "zero rows": lambda: (rand(0, 16), *int8_items(9, 16, True), 3),
        "odd tails": lambda: (rand(7, 37), *int8_items(1003, 37, True), 13),
        "width one": lambda: (rand(3, 1), *int8_items(6, 1, True), 2),
        "many queries": lambda: (rand(401, 24), *int8_items(7001, 24, True), 25),
        "many of few": lambda: (rand(20, 24), *int8_items(3001, 24, True), 300),
        "all of them": lambda: (rand(9, 24), *int8_items(77, 24, True), 77),
        "strided": lambda: (strided(rand(5, 33)), *map(strided, int8_items(120, 33, True)), 9),
        "zero and huge queries": lambda: (rand(4, 12) * torch.tensor([[1e38], [0.0], [1e-44], [1.0]]), *int8_items(40, 12, True), 40),
        "removed": lambda: (rand(3, 17), *int8_items(60, 17, True, (0, 31, 59)), 60),
        "removed, many of few": lambda: (rand(9, 17), *int8_items(60, 17, True, (0, 31, 59)), 40),
        "excluding": lambda: (rand(3, 17), *int8_items(60, 17, False), 20, *ragged([[4, 2, 2, 59], [], list(range(45))])),
        "excluding all": lambda: (rand(2, 17), *int8_items(10, 17, True), 4, *ragged([list(range(10)), [9, 8, 7, 6, 5, 4, 3]])),
    },
    precise=precise_int8_search,
    refusals={
        "sums": (
            lambda: (rand(2, 4), *int8_items(3, 4, True)[:1], rand(3), *int8_items(3, 4, True)[2:], 1),
            "cosine_top_k_int8: sums must be int32 (items,), but float32 (3) came; "
            "quantise the items with compress_rec.int8_items.quantized",
        ),
        "width": (
            lambda: (rand(2, 12), *int8_items(3, 4, True), 1),
            "cosine_top_k_int8: panels must be int8 (1, 2, 2, 16, 4), but int8 (1, 1, 2, 16, 4) came; "
            "encode both with the same recommender",
        ),
        "residuals": (
            lambda: (rand(2, 4), *int8_items(3, 4, True)[:3], rand(4), None, 1),
            "cosine_top_k_int8: residuals must be float32 (3,), one number an item, but float32 (4) came; "
            "quantise the items with compress_rec.int8_items.quantized",
        ),
        "items": (
            lambda: (rand(2, 4), *int8_items(3, 4, True)[:4], rand(3, 5), 1),
            "cosine_top_k_int8: items must be float32 (3, 4), but float32 (3, 5) came; give the vectors that were quantised",
        ),
        "too many": (
            lambda: (rand(2, 4), *int8_items(3, 4, True), 4),
            "cosine_top_k_int8: k must be from 1 to the number of items (3), but 4 came; ask for fewer",
        ),
        "nan query": (
            lambda: (rand(3, 4).index_fill(0, torch.tensor([1]), math.nan), *int8_items(3, 4, True), 1),
            "cosine_top_k_int8: queries must be finite, but nan in row 1 came; drop or repair that row",
        ),
        "unknown id": (
            lambda: (rand(1, 4), *int8_items(3, 4, True), 1, torch.tensor([3]), torch.tensor([0, 1])),
            "cosine_top_k_int8: exclude must be item ids from 0 to 2, but id 3 came; leave unknown ids out",
        ),
        "gradient": (
            lambda: (rand(1, 4).requires_grad_(), *int8_items(3, 4, True), 1),
            "cosine_top_k_int8: queries must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
    },
)

OWED: Mapping[str, Owed] = {
    "cosine_top_k": COSINE,
    "cosine_top_k_int8": INT8_SEARCH,
    "cosine_top_k_panels": PANELS,
    "low_rank_feed_forward": FEED_FORWARD,
    "low_rank_linear": LOW_RANK,
    "low_rank_linear_packed": LOW_RANK_PACKED,
    "int8_linear": Owed(
        cases={
            "plain": lambda: (rand(6, 32), *int8_weights(20, 32), rand(20, seed=2)),
            "no bias": lambda: (rand(6, 32), *int8_weights(20, 32)),
            "leading axes": lambda: (rand(2, 3, 32), *int8_weights(20, 32), rand(20, seed=2)),
            "one vector": lambda: (rand(32), *int8_weights(20, 32)),
            "zero rows": lambda: (rand(0, 32), *int8_weights(20, 32)),
            "odd tails": lambda: (rand(5, 37), *int8_weights(11, 37), rand(11, seed=2)),
            "strided": lambda: (strided(rand(5, 16)), *map(strided, int8_weights(7, 16))),
            "one-sided": lambda: (torch.nn.functional.gelu(rand(5, 64)), *int8_weights(9, 64)),
            "wider than one exact block": lambda: (rand(3, 3072), *int8_weights(5, 3072), rand(5, seed=2)),
            "a row of zeros": lambda: (torch.zeros(2, 16), *int8_weights(5, 16), rand(5, seed=2)),
            "huge and tiny": lambda: (rand(4, 16) * torch.tensor([[1e33], [1e-37], [1e-42], [1.0]]), *int8_weights(5, 16)),
        },
        precise=precise_int8,
        refusals={
            "x": (
                lambda: (rand(2, 4).half(), *int8_weights(3, 4)),
                "int8_linear: x must be float32 (…, inputs), but float16 (2, 4) came; convert it with .float()",
            ),
            "codes": (
                lambda: (rand(2, 4), rand(3, 4), rand(3)),
                "int8_linear: codes must be int8 (outputs, 4), as wide as x, but float32 (3, 4) came; quantise the weight again",
            ),
            "scales": (
                lambda: (rand(2, 4), int8_weights(3, 4)[0], rand(4)),
                "int8_linear: scales must be float32 (3,), one number an output, but float32 (4) came; give that of the same layer",
            ),
            "gradient": (
                lambda: (rand(2, 4).requires_grad_(), *int8_weights(3, 4)),
                "int8_linear: x must be a tensor without gradient, but one that requires grad came; "
                "call it under torch.no_grad(), or detach the tensor",
            ),
        },
    ),
    "int8_linear_packed": Owed(
        cases={
            "plain": lambda: (rand(6, 32), *packed_weights(20, 32, biased=True)),
            "no bias": lambda: (rand(6, 32), *packed_weights(20, 32)),
            "leading axes": lambda: (rand(2, 3, 32), *packed_weights(20, 32, biased=True)),
            "one vector": lambda: (rand(32), *packed_weights(20, 32)),
            "one row, many outputs": lambda: (rand(1, 40), *packed_weights(150, 40, biased=True)),
            "zero rows": lambda: (rand(0, 32), *packed_weights(20, 32)),
            "odd tails": lambda: (rand(7, 37), *packed_weights(11, 37, biased=True)),
            "many rows": lambda: (rand(261, 9), *packed_weights(33, 9, biased=True)),
            "strided": lambda: (strided(rand(5, 16)), strided(packed_weights(7, 16)[0]), 7),
            "one-sided": lambda: (torch.nn.functional.gelu(rand(5, 64)), *packed_weights(9, 64)),
            "wide": lambda: (rand(3, 3072), *packed_weights(5, 3072, biased=True)),
            "largest codes": lambda: (torch.full((5, 48), 9.0), *largest_weights(18, 48)),
            "a diagonal": lambda: (rand(7, 37), *packed_weights(20, 37, biased=True), rand(37, seed=4).exp()),
            "a strided diagonal": lambda: (rand(2, 3, 24), *packed_weights(20, 24), strided(rand(24, seed=4))),
            "a row of zeros": lambda: (torch.zeros(2, 16), *packed_weights(5, 16, biased=True)),
            "huge and tiny": lambda: (rand(4, 16) * torch.tensor([[1e33], [1e-37], [1e-42], [1.0]]), *packed_weights(5, 16)),
        },
        precise=precise_int8_packed,
        refusals={
            "x": (
                lambda: (rand(2, 4).half(), *packed_weights(3, 4)),
                "int8_linear_packed: x must be float32 (…, inputs), but float16 (2, 4) came; convert it with .float()",
            ),
            "width": (
                lambda: (rand(2, 20), *packed_weights(3, 4)),
                "int8_linear_packed: layer must be int32 (50 + 128 a part,), the layer of 3 outputs and as wide as x, "
                "but int32 (114) came; pack the weight again",
            ),
            "too wide": (
                lambda: (rand(1, 1 << 17 | 1), *packed_weights(3, 4)),
                "int8_linear_packed: x must be at most 131072 wide, but float32 (1, 131073) came; split the layer",
            ),
            "bytes": (
                lambda: (rand(2, 4), packed_weights(3, 4)[0].view(torch.int8), 3),
                "int8_linear_packed: layer must be int32 (50 + 64 a part,), the layer of 3 outputs and as wide as x, "
                "but int8 (456) came; pack the weight again",
            ),
            "five parts": (
                lambda: (rand(2, 4), torch.zeros(50 + 5 * 64, dtype=torch.int32), 3),
                "int8_linear_packed: layer must be int32 (50 + 64 a part,), the layer of 3 outputs and as wide as x, "
                "but int32 (370) came; pack the weight again",
            ),
            "diagonal": (
                lambda: (rand(2, 4), *packed_weights(3, 4), rand(3)),
                "int8_linear_packed: diagonal must be float32 (4,), as wide as x, but float32 (3) came; give that of the same layer",
            ),
            "fewer outputs": (
                lambda: (rand(2, 4), *packed_weights(3, 4)[:1], -1),
                "int8_linear_packed: outputs must be at least 0, but -1 came; give the number of the layer's outputs",
            ),
            "gradient": (
                lambda: (rand(2, 4).requires_grad_(), *packed_weights(3, 4)),
                "int8_linear_packed: x must be a tensor without gradient, but one that requires grad came; "
                "call it under torch.no_grad(), or detach the tensor",
            ),
        },
    ),
    "int8_embedding": Owed(
        cases={
            "plain": lambda: (torch.tensor([3, 0, 3, 8]), *int8_weights(9, 12)),
            "batch": lambda: (torch.tensor([[3, 0], [8, 8], [1, 2]], dtype=torch.int32), *int8_weights(9, 13)),
            "zero rows": lambda: (torch.tensor([], dtype=torch.int64), *int8_weights(9, 12)),
            "one": lambda: (torch.tensor(4), *int8_weights(9, 12)),
            "strided": lambda: (torch.tensor([[3, 0], [8, 8]]).T, *map(strided, int8_weights(9, 12))),
        },
        precise=lambda ids, codes, scales: codes.double()[ids] * scales.double()[ids][..., None],
        refusals={
            "outside": (
                lambda: (torch.tensor([2, 9]), *int8_weights(9, 12)),
                "int8_embedding: ids must be from 0 to 8, but id 9 came; tokenise with the vocabulary of this table",
            ),
            "float ids": (
                lambda: (rand(2), *int8_weights(9, 12)),
                "int8_embedding: ids must be int64 or int32, but float32 (2) came; convert it with .long()",
            ),
            "codes": (
                lambda: (torch.tensor([2]), rand(9, 12), rand(9)),
                "int8_embedding: codes must be int8 (rows, width), but float32 (9, 12) came; quantise the table again",
            ),
            "scales": (
                lambda: (torch.tensor([2]), int8_weights(9, 12)[0], rand(8)),
                "int8_embedding: scales must be float32 (9,), one number a row, but float32 (8) came; give the scales of the same table",
            ),
            "gradient": (
                lambda: (torch.tensor([2]), int8_weights(9, 12)[0], rand(9).requires_grad_()),
                "int8_embedding: scales must be a tensor without gradient, but one that requires grad came; "
                "call it under torch.no_grad(), or detach the tensor",
            ),
        },
    ),
}
