"""The sides of the compressed linear layers: what a user calls, the peers, and the dense layer that all of them stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import real
from bench.case import Case, Side
from bench.onnx_linear import dynamic_quantize_matmul
from compress_rec import op
from compress_rec.huggingface import read_towers
from compress_rec.int8_layer import Int8Linear
from compress_rec.known_sets import data_folder
from compress_rec.low_rank_layer import LowRankLinear
from compress_rec.ops.int8_linear import quantize_per_channel

PARTS = {(384, 384): "query", (384, 1536): "up", (1536, 384): "down"}  # of MiniLM's fourth layer, by (inputs, outputs)
LAYER = 3
MOST_TOKENS, SAMPLE = 512, 512  # that are measured; that int8 layers are calibrated by


@dataclass(frozen=True)
class Work:
    """Inputs (tokens, inputs), weight (outputs, inputs) and bias (outputs,), all float32; perhaps other rows to calibrate by."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    sample: Tensor | None = None

    @property
    def exact(self) -> Tensor:
        """The float64 result."""
        return F.linear(self.x.double(), self.weight.double(), self.bias.double())

    def error(self, y: Any) -> float:
        """Return the relative Frobenius error of a result."""
        exact = self.exact
        return float(torch.linalg.vector_norm(torch.as_tensor(y).double() - exact) / torch.linalg.vector_norm(exact))

    def layer(self) -> nn.Linear:
        """Return the dense layer as a module of its own."""
        made = nn.Linear(self.weight.shape[1], self.weight.shape[0])
        made.weight = nn.Parameter(self.weight.clone(), requires_grad=False)
        made.bias = nn.Parameter(self.bias.clone(), requires_grad=False)
        return made.eval()


def gaussian(inputs: int, outputs: int, tokens: int) -> Work:
    """Normal numbers throughout; the weight's are of the size that keeps the width's."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((outputs, inputs), (outputs,), (tokens, inputs)))
    return Work(x, weight / inputs**0.5, bias)


def minilm(inputs: int, outputs: int, tokens: int) -> Work:
    """A layer of all-MiniLM-L6-v2 and what reaches it from film texts. Errors: ``real.NotThere``."""
    if (inputs, outputs) not in PARTS:
        raise real.NotThere(f"all-MiniLM-L6-v2 has no layer {inputs} → {outputs}")
    x, weight, bias = _minilm_layer(PARTS[inputs, outputs])
    return Work(x[:tokens].contiguous(), weight, bias, x[-SAMPLE:])


@cache
def _minilm_layer(part: str) -> tuple[Tensor, Tensor, Tensor]:
    lacking = real.missing()
    if lacking:
        raise real.NotThere("fetch the data first: " + "; ".join(f"compress-rec data {name}" for name in lacking))
    towers = read_towers(data_folder() / "minilm-l6")
    role = towers.roles["item"]
    tower = towers.towers[role.tower]
    form = getattr(tower.encoder.layers[LAYER], part)
    seen: list[Tensor] = []
    hook = form.register_forward_hook(lambda _module, given, _result: seen.append(given[0].detach().reshape(-1, given[0].shape[-1])))
    try:
        # one text a batch, so that no padding is among the tokens
        tower.encode(real.texts()["queries"][:64], role.head, role.length, batch=1)
    finally:
        hook.remove()
    tokens = torch.cat(seen)
    if len(tokens) < MOST_TOKENS + SAMPLE:
        raise AssertionError(f"{len(tokens)} tokens are not enough to measure and calibrate on different ones")
    return tokens, form.weight.detach().float(), form.bias.detach().float()


def factors(work: Work, rank: int) -> tuple[Tensor, Tensor]:
    """Return a (rank, inputs) and b (outputs, rank) of normal numbers; the time does not depend on them."""
    generator = torch.Generator().manual_seed(1)
    outputs, inputs = work.weight.shape
    a, b = torch.randn((rank, inputs), generator=generator), torch.randn((outputs, rank), generator=generator)
    return a / inputs**0.5, b / rank**0.5


def low_rank_case(inputs: int, outputs: int, rank: int, tokens: int) -> Case:
    """``LowRankLinear`` against two dense layers one behind the other and against the dense layer, all of which make their results anew.

    Beside them, two dense layers that write into memory they were given, and what a dense layer takes as a module, which ours is.
    """
    work = gaussian(inputs, outputs, tokens)
    a, b = factors(work, rank)
    x, bias = work.x, work.bias
    made = LowRankLinear(a, b, bias)
    sides: dict[str, Side] = {"compress_rec": Side(partial(made, x), "ours", "fma")}
    _same("compress_rec", made(x), F.linear(F.linear(x.double(), a.double()), b.double(), bias.double()))
    middle, out = torch.zeros(tokens, rank), torch.zeros(tokens, outputs)
    sides["two F.linear"] = Side(lambda: F.linear(F.linear(x, a), b, bias), "peer")
    sides["two into memory"] = Side(lambda: torch.addmm(bias, torch.mm(x, a.T, out=middle), b.T, out=out), "beside")
    sides["dense"] = Side(partial(F.linear, x, work.weight, bias), "peer")
    sides["nn.Linear"] = Side(partial(work.layer(), x), "beside")
    shape = {"inputs": inputs, "outputs": outputs, "rank": rank, "tokens": tokens}
    served = made.backend.partition(":")[0]  # "dense" above the break-even
    return Case("low_rank_linear", shape, 2.0 * tokens * rank * (inputs + outputs), sides, served)


def int8_case(inputs: int, outputs: int, tokens: int, kind: str) -> Case:
    """``Int8Linear`` against onnxruntime's and torch's dynamic int8 layers and the dense one; each one's error stands beside it.

    On real layers ours is calibrated, by rows that are not measured. onnxruntime writes into memory it was given, which spares it what ours
    takes to make a result; beside it, the same making its own.
    """
    work = minilm(inputs, outputs, tokens) if kind == "minilm" else gaussian(inputs, outputs, tokens)
    skipped: dict[str, str] = {}
    sides: dict[str, Side] = {}

    def add(name: str, call: Callable[[], Any], role: Any, limit: str | None = None) -> None:
        sides[name] = Side(call, role, limit, notes={"error": work.error(call())})

    with torch.inference_mode():
        add("compress_rec", partial(Int8Linear.from_linear(work.layer(), work.sample), work.x), "ours", "maddubs_fours")
        for bits in (8, 7):
            try:
                add(f"onnxruntime {bits} bits", dynamic_quantize_matmul(work.x, work.weight, work.bias, bits), "peer")
            except ImportError as fault:
                skipped["onnxruntime"] = str(fault)
            else:
                if bits == 7:
                    anew = dynamic_quantize_matmul(work.x, work.weight, work.bias, bits, bound=False)
                    add(f"onnxruntime {bits} bits, new result", anew, "beside")
        for engine in ("x86", "fbgemm"):
            if engine in torch.backends.quantized.supported_engines:
                add(f"torch {engine}", partial(_torch_dynamic(work, engine), work.x), "peer")
            else:
                skipped[f"torch {engine}"] = "this build of torch lacks it"
        sides["dense"] = Side(partial(_dense, work), "beside", notes={"error": work.error(_dense(work))})
    shape: dict[str, int | str] = {"inputs": inputs, "outputs": outputs, "tokens": len(work.x), "data": kind}
    return Case("int8_linear", shape, 2.0 * len(work.x) * inputs * outputs, sides, op.backend("int8_linear_packed"), skipped)


def int8_embedding_case(rows: int, width: int, tokens: int) -> Case:
    """``int8_embedding`` against torch's look-up of the codes and a multiplication, and against the float table."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn((rows, width), generator=generator)
    codes, scales = quantize_per_channel(table)
    ids = torch.randint(0, rows, (tokens,), generator=generator)
    made = op.find("int8_embedding")
    sides = {
        "compress_rec": Side(partial(made, ids, codes, scales), "ours"),
        "torch": Side(lambda: codes[ids].float().mul_(scales[ids][:, None]), "peer"),
        "float table": Side(partial(F.embedding, ids, table), "beside"),
    }
    if not torch.equal(sides["compress_rec"].call(), sides["torch"].call()):
        raise AssertionError("int8_embedding: both sides must give the same bits")
    shape = {"rows": rows, "width": width, "tokens": tokens}
    return Case("int8_embedding", shape, float(tokens * width), sides, op.backend("int8_embedding"))


def _dense(work: Work) -> Tensor:
    return F.linear(work.x, work.weight, work.bias)


def _torch_dynamic(work: Work, engine: str) -> nn.Module:
    """Return torch's own dynamic int8 layer, weights a scale an output, packed for one of its engines."""
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.quantization import per_channel_dynamic_qconfig

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        layer = work.layer()
        layer.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]
        return Linear.from_float(layer)
    finally:
        torch.backends.quantized.engine = before


def _same(who: str, y: Tensor, exact: Tensor) -> None:
    error = float(torch.linalg.vector_norm(y.double() - exact) / torch.linalg.vector_norm(exact))
    if error > 1e-6:
        raise AssertionError(f"{who}: the relative error is {error:.1e}: the sides do not do the same work")
