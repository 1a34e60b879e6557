"""Towers of random shape: widths that fit no panel, layers without heads or neurons, any activation, pooling, format and head."""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor

from compress_rec.encoder import ATTENTION, Encoder, EncoderConfig, LayerShape
from compress_rec.int8_eights import quantize_by_eights
from compress_rec.ops.int8_linear import quantize_per_channel
from compress_rec.towers import Head, HeadStage, Tower
from compress_rec.weights import DENSE, Chain, Diagonal, Format, Int8
from tests.models import small_tokens

POSITIONS = 512
WIDTHS = (1, 3, 8, 15, 16, 17, 32, 33, 50)
HEADS, HEAD_WIDTHS = (0, 1, 2, 3), (1, 4, 8, 15, 16, 17, 32)
NEURONS = (0, 1, 7, 16, 31, 64, 400)
ACTIVATIONS = ("gelu", "gelu", "gelu_new", "relu", "silu")


class Drawing:
    """Draws weights, keeping the format of each. integers: whether some are in int8."""

    def __init__(self, seed: int, integers: bool) -> None:
        self.draw, self.generator, self.integers = random.Random(seed), torch.Generator().manual_seed(seed), integers
        self.formats: dict[str, Format] = {}
        self.tensors: dict[str, Tensor] = {}

    def normal(self, *size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=self.generator) * scale

    def matrix(self, place: str, outputs: int, inputs: int) -> Format:
        """A matrix in floats or bytes, the latter sometimes of codes that fit in no 16 bits."""
        weight = self.normal(outputs, inputs, scale=max(inputs, 1) ** -0.5)
        if not self.integers or self.draw.random() < 0.4:
            self.tensors[f"{place}.weight"] = weight
            return DENSE
        quantize = self.draw.choice([quantize_by_eights, quantize_per_channel])
        self.tensors[f"{place}.codes"], self.tensors[f"{place}.scales"] = quantize(weight)
        return Int8()

    def linear(self, place: str, outputs: int, inputs: int) -> Format:
        """A matrix, or a chain of two or three, diagonals between them; a bias or none."""
        if self.draw.random() < 0.8:
            self.tensors[f"{place}.bias"] = self.normal(outputs, scale=0.1)
        if self.draw.random() < 0.4:
            return self.matrix(place, outputs, inputs)
        sizes = [inputs, *(self.draw.randint(1, 20) for _ in range(self.draw.randint(1, 2))), outputs]
        parts: list[Format] = []
        for before, behind in itertools.pairwise(sizes):
            if self.draw.random() < 0.4:
                self.tensors[f"{place}.{len(parts)}.weight"] = torch.exp(self.normal(before, scale=0.3))
                parts.append(Diagonal())
            parts.append(self.matrix(f"{place}.{len(parts)}", behind, before))
        return Chain(tuple(parts))

    def norm(self, place: str, width: int) -> None:
        self.tensors[f"{place}.weight"] = torch.exp(self.normal(width, scale=0.4))
        self.tensors[f"{place}.bias"] = self.normal(width, scale=0.1)


def random_tower(seed: int, integers: bool) -> Tower:
    """Return the tower of this seed, with one head ``item`` of no, one or two stages, and the word pieces of the small model."""
    made = Drawing(seed, integers)
    draw, width, vocabulary = made.draw, made.draw.choice(WIDTHS), small_tokens().size
    shapes = tuple(LayerShape(draw.choice(HEADS), draw.choice(HEAD_WIDTHS), draw.choice(NEURONS)) for _ in range(draw.randint(0, 3)))
    config = EncoderConfig(
        vocabulary,
        draw.choice([0, POSITIONS, POSITIONS]),
        0,
        width,
        draw.choice([1e-12, 1e-5]),
        draw.choice(ACTIVATIONS),
        shapes,
        draw.random() < 0.8,
        made.formats,
    )
    words = made.normal(vocabulary, width, scale=0.5)
    if integers and draw.random() < 0.5:
        made.formats["embeddings.words"] = Int8()
        made.tensors["embeddings.words.codes"], made.tensors["embeddings.words.scales"] = quantize_per_channel(words)
    else:
        made.tensors["embeddings.words.weight"] = words
    if config.positions:
        made.tensors["embeddings.positions.weight"] = made.normal(POSITIONS, width, scale=0.1)
    if config.embedding_norm:
        made.norm("embeddings.norm", width)
    for number, shape in enumerate(shapes):
        inner = shape.heads * shape.head_width
        sizes = {**dict.fromkeys(ATTENTION, (inner, width)), "output": (width, inner), "up": (shape.neurons, width)}
        for part, (outputs, inputs) in {**sizes, "down": (width, shape.neurons)}.items():
            made.formats[f"layers.{number}.{part}"] = made.linear(f"layers.{number}.{part}", outputs, inputs)
        for norm in ("attention_norm", "output_norm"):
            made.norm(f"layers.{number}.{norm}", width)
    encoder = Encoder(config, made.tensors)
    stored = Drawing(seed + 1, integers=False)
    stages, size = [], width
    for number in range(draw.randint(0, 2)):
        outputs = draw.randint(2, 40)
        stages.append(HeadStage(stored.linear(str(number), outputs, size), draw.choice(["identity", "tanh", "relu", "gelu"])))
        size = outputs
    return Tower(small_tokens(), encoder, draw.choice(["mean", "cls"]), {"item": Head(stages, stored.tensors)})
