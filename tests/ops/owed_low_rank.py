"""What low_rank_linear and its form in panels are tried on."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from compress_rec.panels import packed, unpacked
from tests.ops.tried import Owed, rand, strided


def precise_low_rank(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    y = x.double() @ a.double().T @ b.double().T
    return y if bias is None else y + bias.double()


def packed_factors(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, int]:
    return packed(rand(rank, inputs, seed=1)), packed(rand(outputs, rank, seed=2)), outputs


def precise_low_rank_packed(x: Tensor, a: Tensor, b: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    return precise_low_rank(x, unpacked(a, b.shape[1]), unpacked(b, outputs), bias)


LOW_RANK = Owed(
    cases={
        "plain": lambda: (rand(6, 32), rand(8, 32, seed=1), rand(20, 8, seed=2), rand(20, seed=3)),
        "no bias": lambda: (rand(6, 32), rand(8, 32, seed=1), rand(20, 8, seed=2)),
        "leading axes": lambda: (rand(2, 3, 32), rand(8, 32, seed=1), rand(20, 8, seed=2), rand(20, seed=3)),
        "one vector": lambda: (rand(32), rand(8, 32, seed=1), rand(20, 8, seed=2)),
        "zero rows": lambda: (rand(0, 32), rand(8, 32, seed=1), rand(20, 8, seed=2)),
        "odd tails": lambda: (rand(5, 37), rand(3, 37, seed=1), rand(11, 3, seed=2)),
        "rank one": lambda: (rand(5, 16), rand(1, 16, seed=1), rand(7, 1, seed=2)),
        "strided": lambda: (strided(rand(5, 16)), strided(rand(4, 16, seed=1)), strided(rand(7, 4, seed=2))),
    },
    precise=precise_low_rank,
    refusals={
        "a": (
            lambda: (rand(2, 4), rand(3, 5), rand(6, 3)),
            "low_rank_linear: a must be (rank, 4), as wide as x, but float32 (3, 5) came; factorise the weight again",
        ),
        "b": (
            lambda: (rand(2, 4), rand(3, 4), rand(6, 2)),
            "low_rank_linear: b must be (outputs, 3), as wide as a is high, but float32 (6, 2) came; factorise the weight again",
        ),
        "bias": (
            lambda: (rand(2, 4), rand(3, 4), rand(6, 3), rand(5)),
            "low_rank_linear: bias must be (6,), one number an output, but float32 (5) came; give the bias of the same layer",
        ),
        "dtypes": (
            lambda: (rand(2, 4), rand(3, 4), rand(6, 3).double()),
            "low_rank_linear: b must be float32 like x, but float64 (6, 3) came; convert one of them with .to()",
        ),
    },
)

LOW_RANK_PACKED = Owed(
    cases={
        "plain": lambda: (rand(6, 32), *packed_factors(8, 32, 20), rand(20, seed=3)),
        "no bias": lambda: (rand(6, 32), *packed_factors(8, 32, 20)),
        "leading axes": lambda: (rand(2, 3, 32), *packed_factors(8, 32, 20), rand(20, seed=3)),
        "one vector": lambda: (rand(32), *packed_factors(8, 32, 20)),
        "zero rows": lambda: (rand(0, 32), *packed_factors(8, 32, 20)),
        "odd tails": lambda: (rand(5, 37), *packed_factors(3, 37, 11)),
        "rank one": lambda: (rand(5, 16), *packed_factors(1, 16, 7)),
        "more than a panel": lambda: (rand(13, 70), *packed_factors(33, 70, 83), rand(83, seed=3)),
        "several blocks": lambda: (rand(205, 40), *packed_factors(24, 40, 48), rand(48, seed=3)),
        "wide": lambda: (rand(4, 1536), *packed_factors(300, 1536, 50), rand(50, seed=3)),
        "strided": lambda: (
            strided(rand(5, 16)),
            strided(packed_factors(4, 16, 7)[0]),
            strided(packed_factors(4, 16, 7)[1]),
            7,
            strided(rand(7)),
        ),
    },
    precise=precise_low_rank_packed,
    refusals={
        "x": (
            lambda: (rand(2, 4).double(), *packed_factors(3, 4, 6)),
            "low_rank_linear_packed: x must be float32 (…, inputs), but float64 (2, 4) came; convert it with .float()",
        ),
        "outputs": (
            lambda: (rand(2, 4), *packed_factors(3, 4, 6)[:2], -1),
            "low_rank_linear_packed: outputs must be at least 0, but -1 came; give the number of the layer's outputs",
        ),
        "b": (
            lambda: (rand(2, 4), *packed_factors(3, 4, 6)[:2], 17),
            "low_rank_linear_packed: b must be float32 (2, rank, 16), the panels of 17 outputs, but float32 (1, 3, 16) came; "
            "pack the factor again",
        ),
        "a": (
            lambda: (rand(2, 5), *packed_factors(3, 4, 6)),
            "low_rank_linear_packed: a must be float32 (1, 5, 16), the panels of rank 3 and as wide as x, but float32 (1, 4, 16) came; "
            "pack the factor again",
        ),
        "bias": (
            lambda: (rand(2, 4), *packed_factors(3, 4, 6), rand(5)),
            "low_rank_linear_packed: bias must be float32 (6,), one number an output, but float32 (5) came; "
            "give the bias of the same layer",
        ),
        "gradient": (
            lambda: (rand(2, 4).requires_grad_(), *packed_factors(3, 4, 6)),
            "low_rank_linear_packed: x must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
    },
)


def precise_feed_forward(
    x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, bias: Tensor | None = None, bias_out: Tensor | None = None
) -> Tensor:
    return precise_low_rank(F.gelu(precise_low_rank(x, a, b, bias)), c, d, bias_out)


def four_factors(inputs: int, rank: int, hidden: int, rank_out: int, outputs: int) -> tuple[Tensor, ...]:
    shapes = (rank, inputs), (hidden, rank), (rank_out, hidden), (outputs, rank_out)
    return tuple(rand(*shape, seed=seed) / shape[1] ** 0.5 for seed, shape in enumerate(shapes, 1))


FEED_FORWARD = Owed(
    cases={
        "plain": lambda: (rand(6, 32), *four_factors(32, 8, 50, 7, 20), rand(50, seed=5), rand(20, seed=6)),
        "no bias": lambda: (rand(6, 32), *four_factors(32, 8, 50, 7, 20)),
        "one bias": lambda: (rand(6, 32), *four_factors(32, 8, 50, 7, 20), None, rand(20, seed=6)),
        "leading axes": lambda: (rand(2, 3, 32), *four_factors(32, 8, 50, 7, 20)),
        "one vector": lambda: (rand(32), *four_factors(32, 8, 50, 7, 20)),
        "zero rows": lambda: (rand(0, 32), *four_factors(32, 8, 50, 7, 20)),
        "odd tails": lambda: (rand(5, 37), *four_factors(37, 3, 131, 5, 11), rand(131, seed=5)),
        "rank one": lambda: (rand(5, 16), *four_factors(16, 1, 9, 1, 7)),
        "strided": lambda: (strided(rand(5, 16)), *map(strided, four_factors(16, 4, 20, 3, 7)), strided(rand(20)), strided(rand(7))),
    },
    precise=precise_feed_forward,
    refusals={
        "a": (
            lambda: (rand(2, 5), *four_factors(4, 3, 8, 2, 4)),
            "low_rank_feed_forward: a must be (rank, 5), as wide as x, but float32 (3, 4) came; factorise the weights again",
        ),
        "c": (
            lambda: (rand(2, 4), *four_factors(4, 3, 8, 2, 4)[:2], rand(2, 7), rand(4, 2)),
            "low_rank_feed_forward: c must be (rank_out, 8), as wide as b is high, but float32 (2, 7) came; factorise the weights again",
        ),
        "bias": (
            lambda: (rand(2, 4), *four_factors(4, 3, 8, 2, 4), rand(4)),
            "low_rank_feed_forward: bias must be (8,), one number a row of its weight, but float32 (4) came; "
            "give the bias of the same layer",
        ),
        "dtypes": (
            lambda: (rand(2, 4), *four_factors(4, 3, 8, 2, 4)[:3], rand(4, 2).double()),
            "low_rank_feed_forward: d must be float32 like x, but float64 (4, 2) came; convert one of them with .to()",
        ),
        "gradient": (
            lambda: (rand(2, 4).requires_grad_(), *four_factors(4, 3, 8, 2, 4)),
            "low_rank_feed_forward: x must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
    },
)
