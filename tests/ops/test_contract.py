"""What every op owes: the compiled kernel against the reference at every tier, fakes, edges, determinism, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.int8_eights import parts_of
from compress_rec.ops.int8_linear import quantize_rows
from tests.ops.owed import OWED

TIERS = op.tiers()
FLOOR = 4  # units in the last place of the largest magnitude: the floor of "twice"
CASES = [(name, case) for name, owed in OWED.items() for case in owed.cases]
REFUSALS = [(name, fault) for name, owed in OWED.items() for fault in owed.refusals]

K_AT = {"cosine_top_k": 2, "cosine_top_k_panels": 3, "cosine_top_k_int8": 6}  # rankings, and which argument is k


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
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert ("avx2" in TIERS) == ("avx2" in flags and "fma" in flags)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_close_to_a_float64_run(name: str, case: str, tier: str) -> None:
    owed, made = OWED[name], op.find(name)
    arguments = owed.cases[case]()
    with op.force(tier):
        result = outputs(made(*arguments))
    exact = owed.precise(*arguments)
    if name in K_AT:
        assert_ranking(result, outputs(made.reference(*arguments)), exact, arguments[K_AT[name]])
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
    if name == "int8_linear_packed":
        x, layer, outputs, *diagonal = arguments
        parts = parts_of(layer, outputs, x.shape[-1])
        assert parts is not None
        before = x * diagonal[0] if diagonal else x
        name, arguments = "int8_linear", (before, parts.codes(outputs, x.shape[-1]), parts.scales[:outputs], parts.bias[:outputs])
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
    scores, ids = result[:2]
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
    with op.force(tier), pytest.raises(ValueError, match=f"^{name}: ") as refused:
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
    assert op.tier() == before


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(CompressRecError, match="no op called 'cosine_topk'; did you mean 'cosine_top_k'"):
        op.backend("cosine_topk")
    with pytest.raises(CompressRecError, match="no instruction tier called 'avx3'; did you mean 'avx2'"):
        op.use("avx3")
