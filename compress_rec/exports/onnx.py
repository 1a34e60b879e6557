"""One ONNX graph from token ids to unit vectors, with all that serving needs beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer
from torch import Tensor

from compress_rec.encoder import EncoderConfig
from compress_rec.export import Export, Say, check_golden, write_golden, write_json, write_tokenizer
from compress_rec.golden import GOLDEN_TEXTS, golden_bound
from compress_rec.onnx_graph import OPSET, tower_graph
from compress_rec.timing import interleave
from compress_rec.towers import Tower
from compress_rec.variant import Variant
from compress_rec.weights import Int8Form, SparseForm, format_to_json

ROUNDS = 15


@dataclass(frozen=True)
class Onnx(Export):
    """One ONNX graph with its tokenizer: needs onnxruntime, tokenizers and numpy, nothing else.

    Every weight runs as it is stored: factors as two products, int8 as products of whole numbers. Sparse weights are written out dense,
    since the standard has no sparse product.
    """

    name: ClassVar[str] = "onnx"

    def write(self, variant: Variant, role: str, folder: Path, say: Say) -> None:
        found, tower = variant.towers.role(role), variant.towers.tower_of(role)
        model = tower_graph(tower, found.head, facts={"variant": variant.name, "role": role})
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        write_tokenizer(tower.tokens, found.length, folder, cut=True)
        session, tokenizer = _session(model.SerializeToString()), Tokenizer.from_file(str(folder / "tokenizer.json"))
        wanted, came = variant.encode(GOLDEN_TEXTS, role), _replay(session, tokenizer)
        bound = golden_bound(tower, found.head, found.length, wanted)
        write_golden(wanted, role, folder, bound)
        facts: dict[str, Any] = {
            "format": self.name,
            "variant": variant.name,
            "steps": [step.to_json() for step in variant.steps],
            "role": role,
            "head": found.head,
            "pooling": tower.pooling,
            "dimensions": tower.dimensions(found.head),
            "length": found.length,
            "opset": OPSET,
            "stored": {name: format_to_json(form) for name, form in sorted(tower.encoder.config.formats.items())},
            "written_dense": sorted(name for name, module in tower.encoder.named_modules() if isinstance(module, SparseForm)),
        }
        facts |= {"golden_cosine": check_golden(wanted, came, "ONNX graph", bound), "golden_cosine_at_least": bound}
        if any(isinstance(module, Int8Form) for module in tower.modules()):
            floats = _session(tower_graph(tower, found.head, integers=False).SerializeToString())
            facts["milliseconds"] = _speed(session, floats, tower, found.length)
            for count, took in facts["milliseconds"].items():
                say(
                    f"{count} at a time: {took['integers']:.2f} ms in integers, {took['floats']:.2f} ms with the same weights as floats, "
                    f"that is {took['floats'] / took['integers']:.2f} times as fast (medians of {ROUNDS}, one thread)"
                )
        write_json(folder / "config.json", {**_nominal(tower.encoder.config), "compress_rec_export": facts})
        recency = variant.towers.recency
        if recency is not None:
            np.save(folder / "recency.npy", recency.detach().cpu().numpy().astype(np.float32))
        (folder / "README.md").write_text(_readme(variant, role, recency is not None), encoding="utf-8")


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _fed(rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def _replay(session: onnxruntime.InferenceSession, tokenizer: Tokenizer) -> Tensor:
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(GOLDEN_TEXTS))]
    return torch.from_numpy(session.run(["embedding"], _fed(rows))[0])


def _speed(
    integers: onnxruntime.InferenceSession, floats: onnxruntime.InferenceSession, tower: Tower, length: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds of both graphs, for one text and for 32 of them, side by side."""
    rows = tower.tokens.ids(GOLDEN_TEXTS, length)
    found = {}
    for name, count in (("one text", 1), ("32 texts", 32)):
        fed = _fed([rows[place % len(rows)] for place in range(count)])
        sides = {"integers": lambda fed=fed: integers.run(["embedding"], fed), "floats": lambda fed=fed: floats.run(["embedding"], fed)}
        found[name] = {side: statistics.median(times) for side, times in interleave(sides, ROUNDS, warmup=2).items()}
    return found


def _nominal(config: EncoderConfig) -> dict[str, Any]:
    """What transformers and optimum want to read beside a graph: the sizes of what goes in and comes out, and BERT's name.

    The graph alone says what runs; where BertModel has no such shape, heads and neurons here are those of the first layer.
    """
    heads = config.layers[0].heads if config.layers else 0
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions or 512,
        "type_vocab_size": config.token_types or 1,
        "hidden_size": config.width,
        "num_hidden_layers": len(config.layers),
        "num_attention_heads": heads if heads and config.width % heads == 0 else 1,
        "intermediate_size": config.layers[0].neurons if config.layers else 0,
        "hidden_act": config.activation,
        "layer_norm_eps": config.epsilon,
        "pad_token_id": 0,
    }


_ENCODE = '''import numpy as np
import onnxruntime
import tokenizers

tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])


def encode(texts):
    """Texts to unit vectors: (texts, dimensions) float32."""
    found = tokenizer.encode_batch(texts)
    ids = np.zeros((len(found), max(len(one.ids) for one in found)), np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(found):
        ids[row, : len(one.ids)], mask[row, : len(one.ids)] = one.ids, 1
    return session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
'''
_POOL = '''import numpy as np

recency = np.load("recency.npy")


def user(behaviours):
    """The vectors of what a user did, oldest first, (events, dimensions), to the user's unit vector (dimensions,)."""
    recent = behaviours[::-1][: len(recency)]
    total = (recency[: len(recent), None] * recent).sum(0)
    return total / max(float(np.linalg.norm(total)), 1e-12)
'''


def _readme(variant: Variant, role: str, pooled: bool) -> str:
    found, tower = variant.towers.role(role), variant.towers.tower_of(role)
    parts = [
        f"# {variant.name}, role `{role}`",
        f"`model.onnx` turns token ids into unit vectors of {tower.dimensions(found.head)} numbers; texts are cut at {found.length} "
        "tokens. `golden.json` and `golden.npy` hold texts and the vectors that belong to them. It needs `onnxruntime`, `tokenizers` and "
        "`numpy`:",
        f"```python\n{_ENCODE}```",
    ]
    if pooled:
        parts += [
            "A pooled user is made of the vectors that the role `behaviour` gives to what the user did; a score is the product of the "
            "user's vector with an item's (role `item`):",
            f"```python\n{_POOL}```",
        ]
    return "\n\n".join(parts) + "\n"
