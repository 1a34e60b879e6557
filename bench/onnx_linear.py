"""onnxruntime's fused dynamic int8 layer, as its own quantiser would make it, with everything bound before the clock runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def dynamic_quantize_matmul(x: Tensor, weight: Tensor, bias: Tensor, bits: int, bound: bool = True) -> Callable[[], Tensor]:
    """Return a call of ``com.microsoft.DynamicQuantizeMatMul`` on one thread.

    bits: 8, the weight in -127 … 127; 7, in -64 … 64, which onnxruntime calls a reduced range: without VNNI its products of bytes
        saturate with 8
    bound: whether each call writes and returns the same memory, or makes its result anew
    """
    import onnx
    import onnxruntime

    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    steps = 127 if bits == 8 else 64
    scales = (weight.abs().amax(dim=1) / steps).clamp(min=1e-30)
    codes = torch.round(weight / scales[:, None]).clamp(-steps, steps).to(torch.int8)
    shape = [len(x), weight.shape[0]]
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "codes", "scales", "zeros", "bias"], ["y"], domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [
            tensor(np.ascontiguousarray(codes.numpy().T), "codes"),
            tensor(scales.numpy(), "scales"),
            tensor(np.zeros(len(scales), np.int8), "zeros"),
            tensor(bias.numpy(), "bias"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = x.contiguous().numpy()
    if not bound:
        return lambda: torch.from_numpy(session.run(["y"], {"x": given})[0])
    y = np.zeros(shape, np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", given)
    binding.bind_output("y", "cpu", 0, np.float32, shape, y.ctypes.data)

    def call() -> Tensor:
        # the arrays are named here so that they live as long as the call
        assert given is not None
        session.run_with_iobinding(binding)
        return torch.from_numpy(y)

    return call
