"""What every op owes: the compiled kernel against the reference at every tier, fakes, edges, determinism, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.ops.int8_linear import quantize_per_channel, quantize_rows

TIERS = op.tiers()
FLOOR = 4  # units in the last place of the largest magnitude: the floor of "twice"


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def strided(tensor: Tensor) -> Tensor:
    """The same values with gaps between them in memory."""
    wide = torch.stack([tensor, torch.full_like(tensor, 77)], dim=-1)
    return wide[..., 0]


def int8_weights(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    return quantize_per_channel(rand(outputs, inputs, seed=3))


def ragged(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor([i for ids in lists for i in ids], dtype=torch.int64),
        torch.tensor([0, *[len(ids) for ids in lists]]).cumsum(0),
    )


@dataclass(frozen=True)
class Owed:
    """The cases of one op: arguments, the float64 run to compare with, and refusals with their exact sentences."""

    cases: Mapping[str, Callable[[], tuple[Any, ...]]]
    precise: Callable[..., Tensor]
    refusals: Mapping[str, tuple[Callable[[], tuple[Any, ...]], str]] = field(default_factory=dict)


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


def precise_low_rank(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    y = x.double() @ a.double().T @ b.double().T
    return y if bias is None else y + bias.double()


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
                (torch.zeros(1, 9), rand(30, 9).index_put((torch.tensor(29), torch.tensor(8)), torch.tensor(-math.inf)), 1)
                + (None, None, True)
            ),
            "cosine_top_k: items must be finite, but inf in row 29 came; drop or repair that row",
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
            "cosine_top_k: exclude_offsets must be 3 numbers rising from 0 to 1, but something else came; give one more offset than queries",
        ),
        "falling offsets": (
            lambda: (rand(2, 4), rand(3, 4), 1, torch.tensor([1]), torch.tensor([0, 5, 1])),
            "cosine_top_k: exclude_offsets must be 3 numbers rising from 0 to 1, but something else came; give one more offset than queries",
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

OWED: Mapping[str, Owed] = {
    "cosine_top_k": COSINE,
    "low_rank_linear": Owed(
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
    ),
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
CASES = [(name, case) for name, owed in OWED.items() for case in owed.cases]
REFUSALS = [(name, fault) for name, owed in OWED.items() for fault in owed.refusals]


def outputs(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_every_op_is_under_contract() -> None:
    assert set(OWED) == set(op.ops())
    for owed in OWED.values():
        assert {"plain", "zero rows", "odd tails", "strided"} - set(owed.cases) <= {"odd tails"}


def test_tiers_are_those_of_the_machine() -> None:
    """A CPU with AVX2 and a build that succeeded must really test the compiled kernels."""
    if not op.build_facts().get("built"):
        pytest.skip(f"no compiled kernels to test: {op.fallback('cosine_top_k')}")
    flags = open("/proc/cpuinfo", encoding="utf-8").read().split()
    assert ("avx2" in TIERS) == ("avx2" in flags and "fma" in flags)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_close_to_a_float64_run(name: str, case: str, tier: str) -> None:
    owed, made = OWED[name], op.find(name)
    arguments = owed.cases[case]()
    with op.force(tier):
        result = outputs(made(*arguments))
    exact = owed.precise(*arguments)
    if name == "cosine_top_k":
        assert_ranking(result, outputs(made.reference(*arguments)), exact, arguments[2])
        return
    (values,) = result
    assert values.shape == exact.shape
    assert torch.isfinite(values).all()
    reference = made.reference(*arguments)
    if made.close == "exact":
        torch.testing.assert_close(values, reference, rtol=0, atol=0)
        torch.testing.assert_close(values, exact.float(), rtol=0, atol=0)
        return
    assert worst(values, exact) <= max(2 * worst(reference, exact), floor(exact))
    # the reference itself against what float32 can do for a sum of that many terms
    terms = arguments[0].shape[-1] + 4
    assert worst(reference, exact) <= terms * torch.finfo(torch.float32).eps * scale(name, arguments)


def scale(name: str, arguments: tuple[Any, ...]) -> float:
    """The largest sum of magnitudes that an output is made of."""
    if arguments[0].numel() == 0:
        return 0.0
    magnitudes = [value.abs() if isinstance(value, Tensor) and value.dtype != torch.int8 else value for value in arguments]
    if name == "int8_linear":
        integers, step = quantize_rows(arguments[0])
        sums = (integers.abs().double() @ arguments[1].double().abs().T) * step.double() * arguments[2].double()
        return float(sums.max()) + (float(arguments[3].abs().max()) if len(arguments) > 3 else 0.0)
    return float(OWED[name].precise(*magnitudes).max())


def worst(values: Tensor, exact: Tensor) -> float:
    return float((values.double() - exact).abs().max()) if values.numel() else 0.0


def floor(exact: Tensor) -> float:
    return FLOOR * torch.finfo(torch.float32).eps * (float(exact.abs().max()) if exact.numel() else 0.0)


def assert_ranking(result: tuple[Tensor, ...], reference: tuple[Tensor, ...], exact: Tensor, k: int) -> None:
    """Scores close to the float64 cosines of the ids; ids those of the float64 ranking, but for items that rounding may swap.

    An id may stand at a rank only if its float64 cosine lies within the rounding bound of the cosine that belongs there: the bound is
    that of the scores, twice the reference's own error with a floor of a few units in the last place, on either side.
    """
    scores, ids = result
    assert scores.shape == ids.shape == (len(exact), k)
    assert scores.dtype == torch.float32
    assert ids.dtype == torch.int64
    if len(exact) == 0:
        return
    left = exact > -math.inf
    for row in range(len(exact)):
        filled = min(k, int(left[row].sum()))
        found = ids[row, :filled]
        assert len(set(found.tolist())) == filled
        assert left[row, found].all()
        assert ids[row, filled:].tolist() == [-1] * (k - filled)
        assert scores[row, filled:].tolist() == [-math.inf] * (k - filled)
        if filled == 0:
            continue
        there = reference[1][row, :filled]
        bound = max(2 * worst(reference[0][row, :filled], exact[row, there]), FLOOR * torch.finfo(torch.float32).eps)
        assert bound < 1e-6  # the reference itself is right
        assert worst(scores[row, :filled], exact[row, found]) <= bound
        best = exact[row].sort(descending=True).values[:filled]
        assert worst(exact[row, found].float(), best) <= 2 * bound
        assert (scores[row, :filled].diff() <= 0).all()
        tied = scores[row, :filled].diff() == 0
        assert (found.diff()[tied] > 0).all()


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_two_runs_same_bits(name: str, case: str, tier: str) -> None:
    arguments, made = OWED[name].cases[case](), op.find(name)
    with op.force(tier):
        first, second = outputs(made(*arguments)), outputs(made(*arguments))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_fake_equals_real(name: str, case: str, tier: str) -> None:
    arguments, made = OWED[name].cases[case](), op.find(name)
    with op.force(tier):
        real = outputs(made(*arguments))
    on_meta = [value.to("meta") if isinstance(value, Tensor) else value for value in arguments]
    fake = outputs(made(*on_meta))
    assert [(t.shape, t.dtype, t.stride()) for t in fake] == [(t.shape, t.dtype, t.stride()) for t in real]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", OWED)
def test_opcheck(name: str, tier: str) -> None:
    """Schema, fake and autograd registration as torch itself checks them."""
    made = op.find(name)
    for case in ("plain", "strided"):
        arguments = OWED[name].cases[case]()
        if made.differentiable:
            arguments = tuple(value.requires_grad_() if isinstance(value, Tensor) and value.is_leaf else value for value in arguments)
        with op.force(tier):
            torch.library.opcheck(made.overload, arguments)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("name", "fault"), REFUSALS)
def test_refusals_word_for_word(name: str, fault: str, tier: str) -> None:
    """Kernel and reference refuse the same things in the same sentence."""
    arguments, sentence = OWED[name].refusals[fault]
    with op.force(tier), pytest.raises(ValueError) as refused:
        op.find(name)(*arguments())
    assert str(refused.value) == sentence


@pytest.mark.parametrize("name", [name for name in OWED if not op.find(name).differentiable])
def test_no_grad_lets_gradients_pass_by(name: str) -> None:
    arguments, _ = OWED[name].refusals["gradient"]
    with torch.no_grad():
        assert not any(output.requires_grad for output in outputs(op.find(name)(*arguments())))


def test_force_changes_what_the_dispatcher_holds() -> None:
    before = op.tier()
    for tier in TIERS:
        with op.force(tier):
            assert op.backend("cosine_top_k") == tier
            assert (op.fallback("cosine_top_k") is None) == (tier != "reference")
            assert op.backend("int8_linear") == "reference"
    assert op.tier() == before


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(CompressRecError, match="no op called 'cosine_topk'; did you mean 'cosine_top_k'"):
        op.backend("cosine_topk")
    with pytest.raises(CompressRecError, match="no instruction tier called 'avx3'; did you mean 'avx2'"):
        op.use("avx3")
