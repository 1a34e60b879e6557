"""Int8Linear: packed once, canonical in files, the same bits wherever it is held."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.int8_layer import Int8Linear
from compress_rec.ops.int8_linear import int8_linear
from compress_rec.weights import Chain, Diagonal, Int8, build_form

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


def uneven(count: int = 400, inputs: int = 24) -> torch.Tensor:
    """Rows of which a few inputs are many times as large as the others."""
    return rows(count, inputs) * torch.linspace(-3, 3, inputs).exp()


@tiers
def test_a_diagonal_is_multiplied_before_rows_are_rounded(tier: str) -> None:
    with op.force(tier), torch.no_grad():
        plain = Int8Linear.from_linear(layer())
        diagonal = torch.linspace(0.1, 3, 24)
        made = Int8Linear(plain.codes, plain.scales.clone(), plain.bias.detach().clone(), diagonal.clone())
        wanted = int8_linear(rows() * diagonal, made.codes, made.scales, made.bias)
        assert torch.equal(made(rows()), wanted)
        state = made.state_dict()
        assert sorted(state) == ["bias", "codes", "diagonal", "scales"]
        other = Int8Linear(torch.zeros((40, 24), dtype=torch.int8), torch.ones(40), torch.zeros(40), torch.ones(24))
        other.load_state_dict(state)
        for again in (other, copy.deepcopy(made), made.to("cpu")):
            assert torch.equal(again(rows()), wanted)
        made.diagonal.mul_(2.0)
        assert torch.equal(made(rows()), int8_linear(rows() * (diagonal * 2), made.codes, made.scales, made.bias))
        made.diagonal = None
        assert torch.equal(made(rows()), plain(rows()))
        compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(rows()), wanted)


@tiers
def test_a_sample_of_inputs_makes_the_error_smaller(tier: str) -> None:
    exact = torch.nn.functional.linear(uneven().double(), layer().weight.double(), layer().bias.double())
    with op.force(tier), torch.no_grad():
        plain, smooth = Int8Linear.from_linear(layer()), Int8Linear.from_linear(layer(), uneven(64))
        errors = [float(torch.linalg.vector_norm(made(uneven()) - exact)) for made in (plain, smooth)]
    assert errors[1] < 0.8 * errors[0]


@tiers
@pytest.mark.parametrize("bias", [True, False])
def test_a_chain_hands_its_diagonal_to_the_int8_weight(tier: str, bias: bool) -> None:
    """What is stored as a diagonal and int8 weights behind it runs in a call a weight, to the same bits."""
    with op.force(tier), torch.no_grad():
        made = [Int8Linear.from_linear(layer(*shape, bias=False)) for shape in ((24, 16), (16, 40))]
        tensors = {f"a.{place}.{name}": getattr(one, name) for place, one in zip((1, 3), made, strict=True) for name in ("codes", "scales")}
        tensors |= {"a.0.weight": torch.linspace(0.1, 3, 24), "a.2.weight": torch.linspace(2, 1, 16)}
        tensors |= {"a.bias": torch.arange(40.0)} if bias else {}
        chain = build_form(Chain((Diagonal(), Int8(), Diagonal(), Int8())), tensors, "a", {})
        middle = int8_linear(rows() * tensors["a.0.weight"], made[0].codes, made[0].scales)
        wanted = int8_linear(middle * tensors["a.2.weight"], made[1].codes, made[1].scales, tensors.get("a.bias"))
        assert torch.equal(chain(rows()), wanted)
        with Called() as called:
            chain(rows())
        assert "aten::mul.Tensor" not in called.names or tier == op.REFERENCE
        assert sorted(chain.state_dict()) == sorted(name.removeprefix("a.") for name in tensors)


class Called(TorchDispatchMode):
    """The names of the ops that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@tiers
def test_holds_the_codes_once(tier: str) -> None:
    """No second copy of the weight: the panels in its place, to a step's padding."""
    linear = layer(384, 1536, bias=False)
    with op.force(tier):
        made = Int8Linear.from_linear(linear)
    held = sum(buffer.numel() * buffer.element_size() for buffer in made.buffers())
    assert held < 1.02 * (384 * 1536 + 3 * 4 * 1536)  # with scales, sums and the room of a bias


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
    smooth = Int8Linear.from_linear(layer(), rows())
    assert repr(smooth) == f"Int8Linear(in_features=24, out_features=40, bias=True, diagonal=True, backend='{made.backend}')"


def test_bad_inputs_are_refused_by_name() -> None:
    with pytest.raises(CompressRecError, match=r"^Int8Linear\.from_linear wants a torch\.nn\.Linear, but Conv1d came: give one layer$"):
        Int8Linear.from_linear(nn.Conv1d(1, 1, 1))  # type: ignore[arg-type]
    broken = layer()
    with torch.no_grad():
        broken.weight[3, 3] = float("nan")
    with pytest.raises(CompressRecError, match="weight must be finite, but nan or inf came"):
        Int8Linear.from_linear(broken)
    with pytest.raises(CompressRecError, match=r"inputs must be float32 \(rows, 24\), at least one row, but float32 \(5, 23\) came"):
        Int8Linear.from_linear(layer(), rows(5, 23))
    with pytest.raises(CompressRecError, match="inputs must be finite, but nan or inf came; leave those rows out"):
        Int8Linear.from_linear(layer(), rows() / 0)
    made = Int8Linear.from_linear(layer())
    state = made.state_dict()
    with pytest.raises(RuntimeError, match=r"'codes' must be int8 \(40, 24\), but int8 \(39, 24\) came"):
        made.load_state_dict({**state, "codes": state["codes"][1:]})
    with pytest.raises(RuntimeError, match="Missing key"):
        made.load_state_dict({name: value for name, value in state.items() if name != "codes"})
    with torch.no_grad(), pytest.raises(ValueError, match=r"layer must be int32 .* as wide as x"):
        made(rows(2, 99))
