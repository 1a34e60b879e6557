"""A tower as one ONNX graph, written node by node: every weight runs in the form in which it is stored.

From ``input_ids`` and ``attention_mask`` (int64, texts × length, both dynamic) to ``embedding`` (texts × dimensions, unit length) and
``last_hidden_state`` (texts × length × width). Only operators of the standard are used. Inside, tokens lie in one table
(tokens × width), so that every product is a plain matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from compress_rec.encoder import Encoder, Layer
from compress_rec.errors import CompressRecError
from compress_rec.ops.int8_linear import STEPS
from compress_rec.towers import Head, Tower
from compress_rec.weights import ChainForm, DenseForm, DiagonalForm, Embedding, Form, Int8Form, SharedForm, SparseForm, SumForm

OPSET, IR = 20, 9  # Gelu stands in the standard from opset 20 on; onnxruntime reads it from 1.17 on
PROTOBUF_LIMIT = 2**31 - 2**20

T = TypeVar("T")


class Graph:
    """Nodes and constants under growth; a value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._small: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._made: dict[Any, Any] = {}
        self._kept: list[Tensor] = []
        self.bytes = 0

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = name or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add a constant under its own name and return that."""
        self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.bytes += value.nbytes
        return name

    def small(self, value: Any, kind: str = "float32") -> str:
        """Return the name of a small constant; equal ones are stored once."""
        array = np.asarray(value, kind)
        key = (kind, array.tobytes(), array.shape)
        if key not in self._small:
            self._small[key] = self.constant(f"constant_{len(self._small)}", array)
        return self._small[key]

    def tensor(self, name: str, value: Tensor, transposed: bool = False) -> str:
        """Add a weight and return its name; a tensor that several places use is stored once, under the first name."""
        key = (id(value), transposed)
        if key not in self._made:
            # kept, so that no other tensor is given its id while the graph grows
            self._kept.append(value)
            array = value.detach().cpu().numpy()
            self._made[key] = self.constant(name, array.T if transposed else array)
        return str(self._made[key])

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Return what ``make`` made for this key the first time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[no-any-return]

    def model(self, outputs: Sequence[onnx.ValueInfoProto], facts: dict[str, str]) -> onnx.ModelProto:
        """Close the graph and check it; ``facts`` become the model's metadata."""
        if self.bytes > PROTOBUF_LIMIT:
            raise CompressRecError(
                f"the ONNX graph would hold {self.bytes / 2**30:.1f} GiB, but one file holds at most 2: compress the model first, or "
                "export it as hugging_face"
            )
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "length"]) for name in ("input_ids", "attention_mask")]
        graph = helper.make_graph(self._nodes, "tower", inputs, list(outputs), list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="compress_rec")
        helper.set_model_props(model, facts)
        onnx.checker.check_model(model)
        return model


def tower_graph(tower: Tower, head: str, integers: bool = True, facts: dict[str, str] | None = None) -> onnx.ModelProto:
    """Write a tower and one of its heads as an ONNX graph.

    integers: whether int8 weights run as integer products; without, they are rebuilt as floats, which is what their speed is compared with
    facts: what the model's metadata should hold
    """
    graph = Graph()
    writer = _Writer(graph, integers)
    rows = writer.encoder(tower.encoder)
    width = tower.encoder.config.width
    hidden = graph.node("Reshape", rows, writer.shape_with(width), name="last_hidden_state")
    vectors = writer.head(tower.head(head), writer.pool(hidden, tower.pooling))
    length = graph.node("ReduceL2", vectors, graph.small([1], "int64"), keepdims=1)
    graph.node("Div", vectors, graph.node("Max", length, graph.small(1e-12)), name="embedding")
    outputs = [
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["texts", tower.dimensions(head)]),
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["texts", "length", width]),
    ]
    return graph.model(outputs, facts or {})


class _Writer:
    """The parts of a tower as nodes. A value is a table (tokens × numbers); ``None`` stands for a table without columns."""

    def __init__(self, graph: Graph, integers: bool) -> None:
        self.graph, self.integers = graph, integers
        self.extent = graph.node("Shape", "input_ids")
        self.here = graph.node("Cast", "attention_mask", to=TensorProto.BOOL)

    def shape_with(self, *sizes: int) -> str:
        """The shape (texts, length, *sizes)."""
        return self.graph.node("Concat", self.extent, self.graph.small(sizes, "int64"), axis=0)

    def encoder(self, encoder: Encoder) -> str:
        """Hidden states of every token: (tokens, width)."""
        graph, config = self.graph, encoder.config
        x = self.embedding(encoder.embeddings["words"])  # type: ignore[arg-type]
        if config.positions:
            length = graph.node("Slice", self.extent, graph.small([1], "int64"), graph.small([2], "int64"))
            table = graph.tensor("embeddings.positions", encoder.embeddings["positions"].dense())  # type: ignore[operator]
            x = graph.node("Add", x, graph.node("Slice", table, graph.small([0], "int64"), length, graph.small([0], "int64")))
        if config.token_types:
            x = graph.node("Add", x, graph.tensor("embeddings.types", encoder.embeddings["types"].dense()[0]))  # type: ignore[operator]
        x = graph.node("Reshape", x, graph.small([-1, config.width], "int64"))
        if config.embedding_norm:
            x = self.norm(x, encoder.embeddings["norm"], "embeddings.norm")  # type: ignore[arg-type]
        if not len(encoder.layers):
            return x
        hidden = graph.node("Where", self.here, graph.small(0.0), graph.small(torch.finfo(torch.float32).min))
        bias = graph.node("Unsqueeze", hidden, graph.small([1, 2], "int64"))
        for number, layer in enumerate(encoder.layers):
            x = self.layer(x, layer, bias, f"layers.{number}", config.activation)  # type: ignore[arg-type]
        return x

    def embedding(self, table: Embedding) -> str:
        """Rows of the words' table: (texts, length, width)."""
        graph = self.graph
        if not table.int8:
            return graph.node("Gather", graph.tensor("embeddings.words", table.weight), "input_ids")
        codes = graph.node("Gather", graph.tensor("embeddings.words.codes", table.codes), "input_ids")  # type: ignore[arg-type]
        scales = graph.node("Gather", graph.tensor("embeddings.words.scales", table.scales), "input_ids")  # type: ignore[arg-type]
        column = graph.node("Unsqueeze", scales, graph.small([2], "int64"))
        return graph.node("Mul", graph.node("Cast", codes, to=TensorProto.FLOAT), column)

    def layer(self, x: str, layer: Layer, bias: str, place: str, activation: str) -> str:
        """One transformer layer: (tokens, width) -> (tokens, width)."""
        graph = self.graph
        context = self.attention(x, layer, bias, place) if layer.shape.heads else None
        added = graph.node("Add", x, self.linear(context, part_of(layer, "output"), f"{place}.output"))
        x = self.norm(added, layer.attention_norm, f"{place}.attention_norm")
        middle = self.linear(x, part_of(layer, "up"), f"{place}.up") if layer.shape.neurons else None
        if middle is not None:
            middle = self.activate(middle, activation)
        added = graph.node("Add", x, self.linear(middle, part_of(layer, "down"), f"{place}.down"))
        return self.norm(added, layer.output_norm, f"{place}.output_norm")

    def attention(self, x: str, layer: Layer, bias: str, place: str) -> str:
        """Scaled dot products of every head: (tokens, width) -> (tokens, heads × head width)."""
        graph, heads, width = self.graph, layer.shape.heads, layer.shape.head_width
        shape = graph.once(("heads", heads, width), lambda: self.shape_with(heads, width))

        def split(part: str, order: Sequence[int]) -> str:
            flat = self.linear(x, part_of(layer, part), f"{place}.{part}")
            return graph.node("Transpose", graph.node("Reshape", flat, shape), perm=order)

        query = graph.node("Mul", split("query", [0, 2, 1, 3]), graph.small(width**-0.5))
        scores = graph.node("Add", graph.node("MatMul", query, split("key", [0, 2, 3, 1])), bias)
        context = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), split("value", [0, 2, 1, 3]))
        return graph.node("Reshape", graph.node("Transpose", context, perm=[0, 2, 1, 3]), graph.small([-1, heads * width], "int64"))

    def norm(self, x: str, norm: torch.nn.LayerNorm, place: str) -> str:
        weight, bias = self.graph.tensor(f"{place}.weight", norm.weight), self.graph.tensor(f"{place}.bias", norm.bias)
        return self.graph.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)

    def activate(self, x: str, activation: str) -> str:
        graph = self.graph
        match activation:
            case "gelu":
                return graph.node("Gelu", x, approximate="none")
            case "gelu_new" | "gelu_pytorch_tanh":
                return graph.node("Gelu", x, approximate="tanh")
            case "relu" | "tanh":
                return graph.node("Relu" if activation == "relu" else "Tanh", x)
            case "silu":
                return graph.node("Mul", x, graph.node("Sigmoid", x))
            case "identity":
                return x
        raise CompressRecError(f"the activation '{activation}' cannot be written as ONNX: use a model with gelu, gelu_new, relu or silu")

    def linear(self, x: str | None, form: Form, place: str) -> str:
        """A linear map in the form in which it is stored: (rows, inputs) -> (rows, outputs), or one row where nothing comes in."""
        graph, bias = self.graph, form.bias
        if x is None or 0 in form.shape:
            # no head or no neuron is left, so that only the bias goes on
            return graph.tensor(f"{place}.bias", bias) if bias is not None else graph.small(np.zeros(form.shape[0]))
        match form:
            case SharedForm():
                y = graph.once((id(form.owner), x), lambda: self.linear(x, form.owner, f"{place}.shared"))
            case Int8Form() if self.integers:
                y = self.integer_product(x, form, place)
            case DenseForm():
                y = graph.node("MatMul", x, graph.tensor(f"{place}.weight", form.weight, transposed=True))
            case DiagonalForm():
                # query, key and value begin with the same numbers, and their products read the same rows then
                key = ("diagonal", x, form.weight.detach().numpy().tobytes())
                y = graph.once(key, lambda: graph.node("Mul", x, graph.tensor(f"{place}.weight", form.weight)))
            case Int8Form() | SparseForm():
                weight = graph.once(("rebuilt", id(form)), lambda: graph.constant(f"{place}.weight", form.dense().numpy().T))
                y = graph.node("MatMul", x, weight)
            case SumForm():
                first, *others = (self.linear(x, part, f"{place}.{number}") for number, part in enumerate(form.parts))
                y = first
                for other in others:
                    y = graph.node("Add", y, other)
            case ChainForm():
                y = x
                for number, part in enumerate(form.parts):
                    y = self.linear(y, part, f"{place}.{number}")
            case _:
                raise CompressRecError(f"'{place}' is stored as {type(form).__name__}, which cannot be written as ONNX: undo its last step")
        return y if bias is None else graph.node("Add", y, graph.tensor(f"{place}.bias", bias))

    def integer_product(self, x: str, form: Int8Form, place: str) -> str:
        """``int8_linear`` without its bias, number by number: rows of x in 7 bits, a product of whole numbers, then the scales."""
        graph = self.graph
        # query, key and value read the same rows, which are rounded once
        levels, step, zero = graph.once(("levels", x), lambda: self.quantize(x))
        codes = graph.tensor(f"{place}.codes", form.codes, transposed=True)
        sums = form.codes.sum(1, dtype=torch.int32).numpy()
        total = graph.node("MatMulInteger", levels, codes)
        # onnxruntime takes one zero point for all rows: what each row's own adds is taken away behind the product, still in whole numbers
        offset = graph.node("Mul", zero, graph.once(("sums", id(form)), lambda: graph.constant(f"{place}.sums", sums)))
        exact = graph.node("Cast", graph.node("Sub", total, offset), to=TensorProto.FLOAT)
        return graph.node("Mul", graph.node("Mul", exact, step), graph.tensor(f"{place}.scales", form.scales))

    def quantize(self, x: str) -> tuple[str, str, str]:
        """Rows of x as uint8 from 0 to 127, with their steps (rows, 1) float32 and zero points (rows, 1) int32."""
        graph = self.graph
        columns, nothing, most = graph.small([1], "int64"), graph.small(0.0), graph.small(float(STEPS))
        high = graph.node("Max", graph.node("ReduceMax", x, columns, keepdims=1), nothing)
        low = graph.node("Min", graph.node("ReduceMin", x, columns, keepdims=1), nothing)
        span = graph.node("Sub", graph.node("Div", high, most), graph.node("Div", low, most))
        step = graph.node("Where", graph.node("Equal", span, nothing), graph.small(1.0), span)
        zero = graph.node("Clip", graph.node("Round", graph.node("Neg", graph.node("Div", low, step))), nothing, most)
        flat_zero = graph.node("Squeeze", graph.node("Cast", zero, to=TensorProto.UINT8), columns)
        levels = graph.node("QuantizeLinear", x, graph.node("Squeeze", step, columns), flat_zero, axis=0)
        capped = graph.node("Clip", levels, graph.small(0, "uint8"), graph.small(STEPS, "uint8"))
        return capped, step, graph.node("Cast", zero, to=TensorProto.INT32)

    def pool(self, hidden: str, pooling: str) -> str:
        """(texts, length, width) -> (texts, width)."""
        graph = self.graph
        if pooling == "cls":
            return graph.node("Gather", hidden, graph.small(0, "int64"), axis=1)
        weight = graph.node("Unsqueeze", graph.node("Cast", self.here, to=TensorProto.FLOAT), graph.small([2], "int64"))
        tokens = graph.small([1], "int64")
        total = graph.node("ReduceSum", graph.node("Mul", hidden, weight), tokens, keepdims=0)
        count = graph.node("Max", graph.node("ReduceSum", weight, tokens, keepdims=0), graph.small(1e-9))
        return graph.node("Div", total, count)

    def head(self, head: Head, x: str) -> str:
        """(texts, width) -> (texts, dimensions)."""
        for number, (stage, form) in enumerate(zip(head.stages, head.forms(), strict=True)):
            x = self.activate(self.linear(x, form, f"head.{number}"), stage.activation)
        return x


def part_of(layer: Layer, name: str) -> Form:
    """Return one of a layer's linear weights."""
    form = layer.get_submodule(name)
    assert isinstance(form, Form)
    return form
