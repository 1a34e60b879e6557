"""BERT in one file: a configuration and tensors, nothing else.

The configuration is per layer (heads, head width, neurons) and per weight (its format), so that dropping layers, pruning heads, factorising
and quantising are one kind of thing: another configuration with other tensors. Devlin et al. 2019, "BERT: Pre-training of Deep
Bidirectional Transformers for Language Understanding".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.errors import CompressRecError
from compress_rec.weights import DENSE, Embedding, Form, Format, build_form, format_from_json, format_to_json

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
ATTENTION = ("query", "key", "value", "output")
FEED_FORWARD = ("up", "down")


@dataclass(frozen=True)
class LayerShape:
    """heads: attention heads; head_width: numbers a head; neurons: width of the feed-forward middle. Any of the counts may be 0."""

    heads: int
    head_width: int
    neurons: int


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder and the format of each weight.

    vocabulary: word pieces; positions: longest text in tokens, 0 for an encoder without positions; token_types: 0 for none; width: numbers
    a token; epsilon: of the layer norms; activation: of the feed-forward middle; layers: one shape a layer, first to last;
    embedding_norm: whether the summed embeddings pass a layer norm; formats: weight name -> format, absent means dense; shared: name ->
    format of the weights that several places use.
    """

    vocabulary: int
    positions: int
    token_types: int
    width: int
    epsilon: float
    activation: str
    layers: tuple[LayerShape, ...]
    embedding_norm: bool = True
    formats: Mapping[str, Format] = field(default_factory=dict)
    shared: Mapping[str, Format] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "vocabulary": self.vocabulary,
            "positions": self.positions,
            "token_types": self.token_types,
            "width": self.width,
            "epsilon": self.epsilon,
            "activation": self.activation,
            "layers": [[layer.heads, layer.head_width, layer.neurons] for layer in self.layers],
            "embedding_norm": self.embedding_norm,
            "formats": {name: format_to_json(form) for name, form in sorted(self.formats.items())},
            "shared": {name: format_to_json(form) for name, form in sorted(self.shared.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EncoderConfig:
        """Read what ``to_json`` wrote."""
        try:
            return cls(
                vocabulary=int(value["vocabulary"]),
                positions=int(value["positions"]),
                token_types=int(value["token_types"]),
                width=int(value["width"]),
                epsilon=float(value["epsilon"]),
                activation=str(value["activation"]),
                layers=tuple(LayerShape(*map(int, layer)) for layer in value["layers"]),
                embedding_norm=bool(value["embedding_norm"]),
                formats={name: format_from_json(form) for name, form in value["formats"].items()},
                shared={name: format_from_json(form) for name, form in value["shared"].items()},
            )
        except (KeyError, TypeError) as fault:
            raise CompressRecError(f"the encoder's configuration is incomplete or damaged ({fault!r}): save the model again") from fault

    def format(self, name: str) -> Format:
        """Return the format of the weight called ``name``."""
        return self.formats.get(name, DENSE)

    def linears(self) -> tuple[str, ...]:
        """Return the names of the linear weights, in the order in which they run."""
        return tuple(f"layers.{number}.{part}" for number in range(len(self.layers)) for part in (*ATTENTION, *FEED_FORWARD))


class Layer(nn.Module):
    """One transformer layer with the norm behind each half, as in the original BERT."""

    query: Form
    key: Form
    value: Form
    output: Form
    up: Form
    down: Form

    def __init__(self, config: EncoderConfig, number: int, tensors: Mapping[str, Tensor], shared: Mapping[str, Form]) -> None:
        super().__init__()
        self.shape, self.epsilon = config.layers[number], config.epsilon
        if config.activation not in ACTIVATIONS:
            raise CompressRecError(
                f"the activation '{config.activation}' is not known to the encoder: known are {', '.join(ACTIVATIONS)}; "
                "use a model with one of them"
            )
        self.activate = ACTIVATIONS[config.activation]
        for part in (*ATTENTION, *FEED_FORWARD):
            place = f"layers.{number}.{part}"
            self.add_module(part, build_form(config.format(place), tensors, place, shared))
        self.attention_norm = _norm(tensors, f"layers.{number}.attention_norm", config)
        self.output_norm = _norm(tensors, f"layers.{number}.output_norm", config)
        self.dropout = 0.0
        inner = self.shape.heads * self.shape.head_width
        wanted = dict.fromkeys(("query", "key", "value"), (inner, config.width))
        wanted |= {"output": (config.width, inner), "up": (self.shape.neurons, config.width), "down": (config.width, self.shape.neurons)}
        for part, size in wanted.items():
            if getattr(self, part).shape != size:
                raise CompressRecError(
                    f"'layers.{number}.{part}' should be {size[0]}×{size[1]} by the configuration, but its tensors make "
                    f"{getattr(self, part).shape[0]}×{getattr(self, part).shape[1]}: the file and its configuration do not belong together"
                )

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (texts, length, width), bias (texts, 1, 1, length) added to the attention scores or None -> (texts, length, width)."""
        drop = self.dropout if self.training else 0.0
        texts, length, _ = x.shape
        heads, width = self.shape.heads, self.shape.head_width

        def split(y: Tensor) -> Tensor:
            return y.view(texts, length, heads, width).transpose(1, 2)

        if heads:
            context = F.scaled_dot_product_attention(split(self.query(x)), split(self.key(x)), split(self.value(x)), bias, drop)
            context = context.transpose(1, 2).reshape(texts, length, heads * width)
        else:
            context = x.new_zeros(texts, length, 0)
        x = self.attention_norm(x + F.dropout(self.output(context), drop))
        return self.output_norm(x + F.dropout(self.down(self.activate(self.up(x))), drop))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Token ids to hidden states, the same function as transformers' ``BertModel`` (without its pooler)."""

    def __init__(self, config: EncoderConfig, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        owned = {name: build_form(form, tensors, f"shared.{name}", {}) for name, form in config.shared.items()}
        self.shared = nn.ModuleDict(owned)
        self.embeddings = nn.ModuleDict({"words": Embedding(config.format("embeddings.words"), tensors, "embeddings.words")})
        if config.positions:
            self.embeddings["positions"] = Embedding(DENSE, tensors, "embeddings.positions")
        if config.token_types:
            self.embeddings["types"] = Embedding(DENSE, tensors, "embeddings.types")
        if config.embedding_norm:
            self.embeddings["norm"] = _norm(tensors, "embeddings.norm", config)
        self.layers = nn.ModuleList(Layer(config, number, tensors, owned) for number in range(len(config.layers)))
        self.embedding_dropout = 0.0
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode a padded batch.

        ids: (texts, length) int64 token ids
        mask: (texts, length) bool or int, 1 where a token is
        returns: (texts, length, width) float32; what stands at padded places has no meaning
        """
        x = self.embeddings["words"](ids)
        if self.config.positions:
            if ids.shape[1] > self.config.positions:
                raise CompressRecError(
                    f"a text has {ids.shape[1]} tokens and the encoder {self.config.positions} positions: shorten the role's length"
                )
            x = x + self.embeddings["positions"].dense()[: ids.shape[1]]  # type: ignore[operator]
        if self.config.token_types:
            x = x + self.embeddings["types"].dense()[0]  # type: ignore[operator]
        if self.config.embedding_norm:
            x = self.embeddings["norm"](x)
        if self.training and self.embedding_dropout:
            x = F.dropout(x, self.embedding_dropout)
        here = mask.bool()
        bias = None
        if not bool(here.all()):
            bias = x.new_zeros(here.shape).masked_fill_(~here, torch.finfo(x.dtype).min)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias)
        return x

    def set_dropout(self, rate: float) -> None:
        """Drop this share of embeddings, attention weights and sublayer outputs while the module is in training mode."""
        self.embedding_dropout = rate
        for layer in self.layers:
            layer.dropout = rate  # type: ignore[assignment]

    def tensors(self) -> dict[str, Tensor]:
        """Return every stored tensor by its name, each once; the encoder is its configuration and these."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def rebuilt(self, config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Encoder:
        """Return a new encoder on clones of ``tensors``, so that training it never changes this one.

        Row by row in memory, as they are when read from a file: a product rounds otherwise with transposed strides.
        """
        return Encoder(config, {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()})

    def clone(self) -> Encoder:
        """Return an equal encoder that shares no memory with this one."""
        return self.rebuilt(self.config, self.tensors())

    def linear(self, name: str) -> Form:
        """Return the form that runs the weight called ``name``, such as ``layers.0.query``."""
        form = self.get_submodule(name)
        assert isinstance(form, Form)
        return form

    def forms(self) -> Iterator[tuple[str, Form]]:
        """Yield the linear weights with their names, in the order in which they run."""
        for name in self.config.linears():
            yield name, self.linear(name)


def linear_tensors(tensors: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Return those of ``tensors`` that store the weight at ``place``, its bias among them."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(place + ".")}


def with_linear(tensors: Mapping[str, Tensor], place: str, new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` with what stores the weight at ``place`` replaced by ``new``; the bias stays unless ``new`` has one."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(place + ".") or name == f"{place}.bias"}
    return {**kept, **new}


def _norm(tensors: Mapping[str, Tensor], place: str, config: EncoderConfig) -> nn.LayerNorm:
    norm = nn.LayerNorm(config.width, eps=config.epsilon)
    for part in ("weight", "bias"):
        if f"{place}.{part}" not in tensors:
            raise CompressRecError(f"the tensor '{place}.{part}' is missing: the file is incomplete, save the model again")
        setattr(norm, part, nn.Parameter(tensors[f"{place}.{part}"]))
    return norm
