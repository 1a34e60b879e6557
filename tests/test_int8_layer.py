"""Int8Linear: packed once, canonical in files, the same bits wherever it is held."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.int8_layer import Int8Linear
from compress_rec.ops.int8_linear import int8_linear

tiers = pytest.mark.parametrize("tier", op.tiers())


def layer(inputs: int = 24, outputs: int = 40, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def rows(count: int = 5, inputs: int = 24) -> torch.Tensor:
    return torch.randn((count, inputs), generator=torch.Generator().manual_seed(1))


@tiers
@pytest.mark.parametrize("bias", [True, False])
def test_does_what_int8_linear_specifies(tier: str, bias: bool) -> None:
    with op.force(tier):
        made = Int8Linear.from_linear(layer(bias=bias))
        y = made(rows())
        assert made.backend == tier
    assert torch.equal(y, int8_linear(rows(), made.codes, made.scales, made.bias))
    assert torch.nn.functional.cosine_similarity(y, layer(bias=bias)(rows()), dim=1).min() > 0.999


@tiers
def test_holds_the_codes_once(tier: str) -> None:
    """No second copy of the weight: the panels in its place, to a step's padding."""
    linear = layer(384, 1536, bias=False)
    nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(0))  # as trained weights are; uniform ones keep more aside
    with op.force(tier):
        made = Int8Linear.from_linear(linear)
    held = sum(buffer.numel() * buffer.element_size() for buffer in made.buffers())
    assert held < 1.06 * (384 * 1536 + 2 * 4 * 1536)  # with scales, sums and the few codes kept aside


@tiers
def test_files_hold_canonical_weights(tier: str) -> None:
    with op.force(tier):
        made = Int8Linear.from_linear(layer())
        state = made.state_dict()
        assert sorted(state) == ["bias", "codes", "scales"]
        other = Int8Linear(torch.zeros((40, 24), dtype=torch.int8), torch.ones(40), torch.zeros(40))
        other.load_state_dict(state)
        assert torch.equal(other(rows()), made(rows()))
        nested = nn.Sequential(Int8Linear(torch.zeros((40, 24), dtype=torch.int8), torch.ones(40), torch.zeros(40)))
        nested.load_state_dict(nn.Sequential(made).state_dict())
        assert torch.equal(nested(rows()), made(rows()))


def test_files_go_from_tier_to_tier() -> None:
    states = []
    for tier in op.tiers():
        with op.force(tier):
            states.append(Int8Linear.from_linear(layer()).state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in states[0])


@tiers
def test_copies_and_pickles(tier: str) -> None:
    with op.force(tier):
        made = Int8Linear.from_linear(layer())
        buffer = io.BytesIO()
        torch.save(made, buffer)
        buffer.seek(0)
        for again in (copy.deepcopy(made), torch.load(buffer, weights_only=False), made.to("cpu")):
            assert torch.equal(again(rows()), made(rows()))
            assert torch.equal(again.codes, made.codes)


@tiers
def test_a_write_to_scales_or_bias_counts_at_once(tier: str) -> None:
    with op.force(tier), torch.no_grad():
        made = Int8Linear.from_linear(layer())
        for held in (made, copy.deepcopy(made)):
            assert held.bias is not None
            held.bias.copy_(torch.arange(40.0))
            held.scales.mul_(2.0)
            assert torch.equal(held(rows()), int8_linear(rows(), held.codes, held.scales, torch.arange(40.0)))
            held.bias = nn.Parameter(torch.ones(40), requires_grad=False)
            held.scales = torch.full((40,), 0.5)
            assert torch.equal(held(rows()), int8_linear(rows(), held.codes, torch.full((40,), 0.5), torch.ones(40)))
            held.bias = None
            assert torch.equal(held(rows()), int8_linear(rows(), held.codes, torch.full((40,), 0.5)))


@tiers
def test_files_hold_what_they_name_and_no_more(tier: str) -> None:
    """Scales and bias are parts of what the kernel reads; a file of them must not hold the whole."""
    with op.force(tier):
        state = Int8Linear.from_linear(layer(96, 400)).state_dict()
    buffer = io.BytesIO()
    torch.save({name: state[name] for name in ("scales", "bias")}, buffer)
    assert len(buffer.getvalue()) < 8 * 400 + 2000


@tiers
def test_another_bias(tier: str) -> None:
    with op.force(tier), torch.no_grad():
        made, bias = Int8Linear.from_linear(layer(bias=False)), torch.arange(40.0)
        assert torch.equal(made.product(rows(), bias), int8_linear(rows(), made.codes, made.scales, bias))
        assert torch.equal(made.product(rows(), None), made(rows()))


@tiers
def test_goes_through_compile_and_export(tier: str) -> None:
    with op.force(tier), torch.no_grad():
        made = Int8Linear.from_linear(layer())
        compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(rows()), made(rows()))
        exported = torch.export.export(made, (rows(),)).module()
        assert torch.equal(exported(rows()), made(rows()))


def test_says_what_it_is() -> None:
    made = Int8Linear.from_linear(layer())
    assert repr(made) == f"Int8Linear(in_features=24, out_features=40, bias=True, backend='{made.backend}')"


def test_bad_inputs_are_refused_by_name() -> None:
    with pytest.raises(CompressRecError, match=r"^Int8Linear\.from_linear wants a torch\.nn\.Linear, but Conv1d came: give one layer$"):
        Int8Linear.from_linear(nn.Conv1d(1, 1, 1))  # type: ignore[arg-type]
    broken = layer()
    with torch.no_grad():
        broken.weight[3, 3] = float("nan")
    with pytest.raises(CompressRecError, match="weight must be finite, but nan or inf came"):
        Int8Linear.from_linear(broken)
    made = Int8Linear.from_linear(layer())
    state = made.state_dict()
    with pytest.raises(RuntimeError, match=r"'codes' must be int8 \(40, 24\), but int8 \(39, 24\) came"):
        made.load_state_dict({**state, "codes": state["codes"][1:]})
    with pytest.raises(RuntimeError, match="Missing key"):
        made.load_state_dict({name: value for name, value in state.items() if name != "codes"})
    with torch.no_grad(), pytest.raises(ValueError, match=r"layer must be int32 .* as wide as x"):
        made(rows(2, 99))
