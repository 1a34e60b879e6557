"""The runtimes that an encoder is otherwise served by, each tuned as its own documentation says, on one thread.

Each peer is made from a Hugging Face folder and gives a call that encodes a padded batch, or lists of ids where it takes such; a peer that
is not installed is left out with its reason. All stop at the last hidden state: ours goes on to the pooled unit vector.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Hidden = npt.NDArray[np.float32]
Lists = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Peer:
    """lossy: whether it rounds to int8; call: lists of ids -> a call that returns the hidden states (texts, length, width)."""

    lossy: bool
    call: Callable[[Lists], Callable[[], Any]]


def padded(ids: Lists) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return ids and mask, (texts, longest) int64 each."""
    table = np.zeros((len(ids), max(map(len, ids))), np.int64)
    mask = np.zeros_like(table)
    for row, one in enumerate(ids):
        table[row, : len(one)], mask[row, : len(one)] = one, 1
    return table, mask


def peers(folder: Path, work: Path, compiled: bool) -> tuple[Mapping[str, Peer], Mapping[str, str]]:
    """Make every peer that is installed from the model in ``folder``, files of their own in ``work``; and say why others are left out.

    compiled: whether torch.compile is among them, which takes a compiler and most of a minute a shape
    """
    made: dict[str, Peer] = {}
    missing: dict[str, str] = {"OpenVINO int8": "its quantiser, nncf, is no part of the bench extra"}
    made.update(_torch(folder, compiled))
    with _quiet():
        for name, needed, maker in (
            ("onnxruntime", "onnxruntime", _onnxruntime),
            ("OpenVINO", "openvino", _openvino),
            ("CTranslate2", "ctranslate2", _ctranslate2),
        ):
            if find_spec(needed) is None:
                missing[name] = f"{needed} is not installed"
                continue
            made.update(maker(folder, work))
    return made, missing


def _model(folder: Path, **options: Any) -> Any:
    from transformers import AutoModel

    with _quiet():
        return AutoModel.from_pretrained(str(folder), **options).eval()


def _torch(folder: Path, compiled: bool) -> dict[str, Peer]:
    model = _model(folder)

    def padded_call(model: Any) -> Callable[[Lists], Callable[[], Any]]:
        def bound(ids: Lists) -> Callable[[], Any]:
            table, mask = map(torch.from_numpy, padded(ids))
            everywhere = bool(mask.all())
            return lambda: model(input_ids=table, attention_mask=None if everywhere else mask).last_hidden_state

        return bound

    made = {"torch": Peer(False, padded_call(model))}
    if compiled:
        made["torch compiled"] = Peer(False, _warm(padded_call(torch.compile(model, dynamic=False))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = torch.ao.quantization.quantize_dynamic(_model(folder), {torch.nn.Linear}, dtype=torch.qint8)
    made["torch dynamic int8"] = Peer(True, padded_call(dynamic))
    return made


def _warm(bind: Callable[[Lists], Callable[[], Any]]) -> Callable[[Lists], Callable[[], Any]]:
    """The same, called once when it is bound: a shape's first call compiles it."""

    def bound(ids: Lists) -> Callable[[], Any]:
        call = bind(ids)
        with torch.inference_mode():
            call()
        return call

    return bound


def graph(folder: Path, work: Path) -> Path:
    """Write the model as an ONNX graph, once, and return its file."""
    file = work / "plain.onnx"
    if file.exists():
        return file
    model = _model(folder, attn_implementation="eager")

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # type: ignore[no-any-return]

    names = ["input_ids", "attention_mask"]
    example = torch.ones(2, 8, dtype=torch.int64)
    # the exporter that onnxruntime's attention fusion understands
    torch.onnx.export(
        Hidden(),
        (example, example),
        str(file),
        input_names=names,
        output_names=["hidden"],
        dynamic_axes={name: {0: "texts", 1: "length"} for name in (*names, "hidden")},
        opset_version=17,
        dynamo=False,
    )
    return file


def _onnxruntime(folder: Path, work: Path) -> dict[str, Peer]:
    """Both graphs, as exported and with attention fused, in floats and in int8: which is quicker depends on the shape."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    plain, fused = graph(folder, work), work / "fused.onnx"
    config = _model(folder).config
    found = optimizer.optimize_model(
        str(plain), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0
    )
    if not found.get_fused_operator_statistics()["Attention"]:
        raise AssertionError("onnxruntime fused no attention: the fused graph would be the plain one")
    found.save_model_to_file(str(fused))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    made = {}
    for name, file in (("plain", plain), ("fused", fused)):
        small = work / f"{name}-int8.onnx"
        # full range: in a reduced one its products could not saturate without VNNI, but its vectors are further off on the whole
        quantize_dynamic(
            file, small, per_channel=True, reduce_range=False, weight_type=QuantType.QInt8, extra_options={"DefaultTensorType": 1}
        )
        for bits, path in (("", file), (" int8", small)):
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            made[f"onnxruntime{bits}, {name}"] = Peer(bool(bits), _session(session))
    return made


def _session(session: Any) -> Callable[[Lists], Callable[[], Any]]:
    def bound(ids: Lists) -> Callable[[], Any]:
        table, mask = padded(ids)
        return lambda: session.run(None, {"input_ids": table, "attention_mask": mask})[0]

    return bound


def _openvino(folder: Path, work: Path) -> dict[str, Peer]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(openvino.Core().read_model(str(graph(folder, work))), "CPU", settings)

    def bound(ids: Lists) -> Callable[[], Any]:
        table, mask = padded(ids)
        request = model.create_infer_request()
        return lambda: request.infer({"input_ids": table, "attention_mask": mask})[0]

    return {"OpenVINO": Peer(False, bound)}


def _ctranslate2(folder: Path, work: Path) -> dict[str, Peer]:
    import ctranslate2

    made = {}
    target = work / "ctranslate2"
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(target), force=True)
    for name, kind in (("CTranslate2", "float32"), ("CTranslate2 int8", "int8")):
        encoder = ctranslate2.Encoder(str(target), device="cpu", compute_type=kind, intra_threads=1, inter_threads=1)

        def bound(ids: Lists, encoder: Any = encoder) -> Callable[[], Any]:
            lists = [list(one) for one in ids]
            return lambda: np.asarray(encoder.forward_batch(lists).last_hidden_state)

        made[name] = Peer(kind == "int8", bound)
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters and optimisers tell much that concerns nobody here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
