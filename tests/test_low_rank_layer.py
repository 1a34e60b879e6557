"""LowRankLinear: trains like the layer it stands for, serves from panels, and follows its weights."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.low_rank_layer import LowRankLinear
from compress_rec.ops.low_rank_linear_packed import low_rank_linear_packed
from compress_rec.weights import ChainForm, DenseForm
from tests.recipes.test_executed import Recorder

tiers = pytest.mark.parametrize("tier", op.tiers())
ranks = pytest.mark.parametrize("rank", [5, 20])  # the break-even of 24 and 40 is 15


def layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(24, 40, bias=bias)


def rows(count: int = 7) -> torch.Tensor:
    return torch.randn((count, 24), generator=torch.Generator().manual_seed(1))


def wanted(made: LowRankLinear, x: torch.Tensor) -> torch.Tensor:
    """The product of what the parameters hold now."""
    with torch.no_grad():
        return nn.functional.linear(x, made.b @ made.a, made.bias)


def served(made: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = made(x)
    return y


@tiers
@ranks
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_the_dense_layers(tier: str, rank: int, bias: bool) -> None:
    made = LowRankLinear.from_linear(layer(bias), rank)
    x, x_dense = rows().requires_grad_(), rows().requires_grad_()
    a, b = made.a.detach().requires_grad_(), made.b.detach().requires_grad_()
    with op.force(tier):
        served(made, rows())
        made(x).square().sum().backward()
    nn.functional.linear(x_dense, b @ a, made.bias.detach() if made.bias is not None else None).square().sum().backward()
    for found, dense in ((x, x_dense), (made.a, a), (made.b, b)):
        assert found.grad is not None
        assert dense.grad is not None
        torch.testing.assert_close(found.grad, dense.grad, rtol=1e-4, atol=1e-5)


@tiers
def test_what_runs(tier: str) -> None:
    with op.force(tier):
        narrow, wide = LowRankLinear.from_linear(layer(), 5), LowRankLinear.from_linear(layer(), 20)
        name = "low_rank_linear_packed" if low_rank_linear_packed.compiled else "low_rank_linear"
        for made, ops, products in ((narrow, {name: 1}, 0), (wide, {}, 1)):
            served(made, rows())
            with Recorder() as seen:
                served(made, rows())
            assert seen.ops == ops
            assert seen.products[(40, 24)] == products
            with Recorder() as seen:
                made(rows())
                made.double()(rows().double())
            assert seen.ops == {"low_rank_linear": 2}


@tiers
@ranks
def test_follows_its_weights(tier: str, rank: int) -> None:
    with op.force(tier):
        made = LowRankLinear.from_linear(layer(), rank)
        before = served(made, rows())
        optimiser = torch.optim.SGD(made.parameters(), lr=0.1)
        made(rows()).square().sum().backward()
        optimiser.step()
        after = served(made, rows())
        assert not torch.allclose(after, before, atol=1e-3)
        torch.testing.assert_close(after, wanted(made, rows()))

        other = LowRankLinear.from_linear(layer(), rank)
        served(other, rows())
        other.load_state_dict(made.state_dict())
        assert torch.equal(served(other, rows()), after)
        other.load_state_dict(LowRankLinear.from_linear(layer(), rank).state_dict(), assign=True)
        assert torch.equal(served(other, rows()), before)
        other.a.data = made.a.data + 1
        torch.testing.assert_close(served(other, rows()), wanted(other, rows()))
        other.b.data.zero_()  # past the version counter, as the docstring says
        other.eval()
        torch.testing.assert_close(served(other, rows()), wanted(other, rows()))
    assert sorted(made.state_dict()) == ["a", "b", "bias"]


@tiers
@ranks
def test_packs_only_once(tier: str, rank: int) -> None:
    with op.force(tier):
        made = LowRankLinear.from_linear(layer(), rank)
        served(made, rows())
        kept = made._panels if rank == 5 else made._dense
        first = kept._kept
        served(made, rows(3))
        assert kept._kept is first
        assert (first is None) == (rank == 5 and not low_rank_linear_packed.compiled)


@tiers
@ranks
def test_copies_and_pickles_go_their_own_way(tier: str, rank: int) -> None:
    with op.force(tier):
        made = LowRankLinear.from_linear(layer(), rank)
        y = served(made, rows())
        buffer = io.BytesIO()
        torch.save(made, buffer)
        buffer.seek(0)
        for again in (copy.deepcopy(made), torch.load(buffer, weights_only=False)):
            assert torch.equal(served(again, rows()), y)
            with torch.no_grad():
                again.a.mul_(2)
            torch.testing.assert_close(served(again, rows()), wanted(again, rows()))
        assert torch.equal(served(made, rows()), y)


@tiers
@ranks
def test_in_inference_mode_and_made_there(tier: str, rank: int) -> None:
    with op.force(tier):
        made = LowRankLinear.from_linear(layer(), rank)
        with torch.inference_mode():
            born = LowRankLinear.from_linear(layer(), rank)
            assert torch.equal(born(rows()), made(rows()))
        assert torch.equal(served(born, rows()), served(made, rows()))
        with torch.inference_mode():
            held = made.a * 2, made.b * 1  # no version counter: nothing made of them may be kept
            chain = ChainForm((DenseForm(held[0]), DenseForm(held[1])))
            first = chain(rows())
            held[0].zero_()
            assert first.any()
            assert not chain(rows()).any()


@tiers
@ranks
def test_goes_through_compile_and_export(tier: str, rank: int) -> None:
    with op.force(tier):
        made = LowRankLinear.from_linear(layer(), rank)
        y = served(made, rows())
        compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(served(compiled, rows()), y)
        assert compiled(rows()).requires_grad
        exported = torch.export.export(made, (rows(),)).module()
        torch.testing.assert_close(served(exported, rows()), y)


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    if op.fallback("low_rank_linear_packed") is not None:
        pytest.skip(str(op.fallback("low_rank_linear_packed")))
    made = LowRankLinear.from_linear(layer(), 5)
    assert torch.equal(served(made, rows(20))[11], served(made, rows(20)[11]))


@tiers
def test_a_chain_of_two_serves_from_panels_and_follows_its_weights(tier: str) -> None:
    with op.force(tier):
        factors = LowRankLinear.from_linear(layer(), 5)
        chain = ChainForm((DenseForm(factors.a.detach().clone()), DenseForm(factors.b.detach().clone())), torch.ones(40))
        names = sorted(chain.state_dict())
        assert torch.equal(served(chain, rows()), served(LowRankLinear(factors.a, factors.b, torch.ones(40)), rows()))
        with torch.no_grad():
            chain.parts[0].weight.mul_(3)
        y = served(chain, rows())
        torch.testing.assert_close(y, nn.functional.linear(rows(), 3 * factors.b @ factors.a, torch.ones(40)).detach())
        assert torch.equal(served(copy.deepcopy(chain), rows()), y)
        assert chain(rows()).requires_grad
        assert sorted(chain.state_dict()) == names == ["0.weight", "1.weight", "bias"]


def test_from_linear_is_the_nearest_of_that_rank() -> None:
    linear = layer()
    made = LowRankLinear.from_linear(linear, 5)
    values = torch.linalg.svdvals(linear.weight.detach().double())
    error = (made.b @ made.a - linear.weight).detach().double().norm()
    torch.testing.assert_close(error, values[5:].norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(made.a.detach().norm(dim=1), values[:5].sqrt().float())
    torch.testing.assert_close(made.b.detach().norm(dim=0), values[:5].sqrt().float())
    torch.testing.assert_close(LowRankLinear.from_linear(linear, 24)(rows()), linear(rows()))
    assert made.bias is not None
    assert made.bias.data_ptr() != linear.bias.data_ptr()


@tiers
def test_says_what_it_is(tier: str) -> None:
    with op.force(tier):
        made = LowRankLinear.from_linear(layer(), 15)
        assert made.backend == tier
        assert repr(made) == f"LowRankLinear(in_features=24, out_features=40, rank=15, bias=True, backend='{tier}')"
        dense = LowRankLinear.from_linear(layer(bias=False), 16)
        assert dense.backend == "dense: rank 16 is above the break-even of 15"
        assert repr(dense) == f"LowRankLinear(in_features=24, out_features=40, rank=16, bias=False, backend='{dense.backend}')"


def test_bad_inputs_are_refused_by_name() -> None:
    way_out = "give the factors of one weight, or call from_linear"
    a, b = torch.ones(3, 24), torch.ones(40, 3)
    for given, sentence in (
        ((a[0], b), f"LowRankLinear: a must be floating (rank, inputs), but float32 (24) came; {way_out}"),
        ((a, b.T), f"LowRankLinear: b must be float32 (outputs, 3), as wide as a is high, but float32 (3, 40) came; {way_out}"),
        ((a, b, torch.ones(39)), f"LowRankLinear: bias must be float32 (40,), one number an output, but float32 (39) came; {way_out}"),
    ):
        with pytest.raises(CompressRecError) as refusal:
            LowRankLinear(*given)
        assert str(refusal.value) == sentence
    with pytest.raises(CompressRecError, match=r"wants a torch\.nn\.Linear, but Conv1d came: give one layer$"):
        LowRankLinear.from_linear(nn.Conv1d(1, 1, 1), 1)  # type: ignore[arg-type]
    for rank in (0, 25):
        with pytest.raises(CompressRecError, match=rf"rank must be from 1 to 24, but {rank} came; ask for another$"):
            LowRankLinear.from_linear(layer(), rank)
    broken = layer()
    with torch.no_grad():
        broken.weight[3, 3] = float("nan")
    with pytest.raises(CompressRecError, match="weight must be finite, but nan or inf came"):
        LowRankLinear.from_linear(broken, 2)
    for rank in (5, 20):
        with torch.no_grad(), pytest.raises(ValueError, match="a must be"):
            LowRankLinear.from_linear(layer(), rank)(torch.ones(2, 99))
