"""Whole encoders: ours in floats, in int8 and as a half-rank int8 chain, beside the runtimes an encoder is otherwise served by."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import real
from bench.case import Case, Side
from bench.encoder_peers import Lists, Peer, peers
from compress_rec.interactions import load as interactions
from compress_rec.known_sets import KNOWN_SETS, data_folder, first_wrong
from compress_rec.ragged import flat
from compress_rec.runtime import Runtime
from compress_rec.texts import history_text, item_texts
from compress_rec.variant import Variant, compress, load

PLANS: Mapping[str, list[Any]] = {
    "fp32": [],
    "int8": ["quantize_int8"],
    "int8, half rank": [{"recipe": "factorize", "keep": 0.5, "method": "plain"}, "quantize_int8"],
}
SETS = ("ml-100k", "ml-1m", "complete-journey")
A_SET = 400  # texts of each, for accuracy and for calibration
NEIGHBOURS = 10


class Batch(NamedTuple):
    """What is encoded: ``lengths`` tokens drawn at random, or real texts of a kind."""

    name: str
    lengths: tuple[int, ...] | None
    rounds: int


def batches(quick: bool) -> tuple[Batch, ...]:
    """Return the batches of the bench."""
    draw = random.Random(0)
    ragged = (64, *(draw.randint(3, 42) for _ in range(31)))  # about 36 % of what padding makes of it
    if quick:
        return (Batch("1 × 16", (16,), 3), Batch("4 of 3 … 24", (24, 3, 9, 17), 3))
    return (
        Batch("1 × 16", (16,), 60),
        Batch("1 × 32", (32,), 40),
        Batch("1 × 128", (128,), 20),
        Batch("32 × 32", (32,) * 32, 9),
        Batch("32 × 128", (128,) * 32, 5),
        Batch("32 of 3 … 64", ragged, 9),
        Batch("64 items", None, 9),
        Batch("32 histories", None, 7),
    )


@cache
def texts() -> dict[str, list[str]]:
    """Return real texts by where they come from. Errors: ``real.NotThere`` where a data set is not."""
    lacking = [name for name in SETS if first_wrong(data_folder() / name, KNOWN_SETS[name]) is not None]
    if lacking:
        raise real.NotThere("real texts are not there: " + "; ".join(f"compress-rec data {name}" for name in lacking))
    found = {name: list(item_texts(interactions({"name": name}))[:A_SET]) for name in SETS}
    draw = random.Random(0)
    found["histories"] = [history_text(draw.sample(found["ml-100k"], 5)) for _ in range(100)]
    found["packages"] = _summaries()
    return found


def _summaries() -> list[str]:
    return sorted({str(package.metadata["Summary"]) for package in metadata.distributions() if package.metadata["Summary"]})


class Encoders:
    """One model in every runtime, made once. MiniLM-L6 where its weights are there; else a model given."""

    def __init__(self, folder: Path, work: Path, compiled: bool) -> None:
        self.variant = load(folder)
        self.role = self.variant.towers.role("item")
        tower = self.variant.towers.tower_of("item")
        self.vocabulary = tower.encoder.config.vocabulary
        try:
            learned = texts()[SETS[0]][:200]
        except real.NotThere:
            learned = _summaries()[:200]
        self.variants: dict[str, Variant] = {
            name: compress(self.variant, plan, learned, name=name) if plan else self.variant for name, plan in PLANS.items()
        }
        self.ours = {name: Runtime(variant.towers.tower_of("item")) for name, variant in self.variants.items()}
        self.peers, self.missing = peers(folder, work, compiled)

    def ids(self, batch: Batch) -> list[list[int]]:
        """Return the batch as token ids."""
        if batch.lengths is not None:
            draw = random.Random(0)
            return [[draw.randrange(1000, self.vocabulary) for _ in range(length)] for length in batch.lengths]
        found = texts()
        chosen = found["histories"][:32] if "histories" in batch.name else found["ml-1m"][:64]
        return self.variant.towers.tower_of("item").tokens.ids(chosen, 512)

    def case(self, batch: Batch) -> Case:
        """Return the case of a batch: every runtime on the same ids; operations are those of our float model's linear weights."""
        ids = self.ids(batch)
        table, offsets = flat(ids)
        operations = 2.0 * len(table) * sum(form.operations() for _, form in self.variant.towers.tower_of("item").encoder.forms())
        sides = {}
        for name, runtime in self.ours.items():
            # a chain does other operations than those that are counted
            limit = {"fp32": "fma", "int8": "maddubs_fours"}.get(name)
            role: Any = "ours" if name == "fp32" else "lossy ours"
            call, profile = partial(runtime.encode, table, offsets, (self.role.head,)), partial(runtime.profile, table, offsets)
            sides[name] = Side(call, role, limit, profile=profile)
        for name, peer in self.peers.items():
            sides[name] = Side(peer.call(ids), "lossy peer" if peer.lossy else "peer")
        shape = {"batch": batch.name, "tokens": len(table), "padded": len(ids) * max(map(len, ids))}
        return Case("encoder", shape, operations, sides, "compiled", self.missing)

    def text_case(self, kind: str) -> Case:
        """Return the case of one text in, one vector out: ours with the tokenizer, and the tokenizer alone beside it."""
        chosen = texts()[kind][:50]
        tokens, role = self.variant.towers.tower_of("item").tokens, self.role
        served = {name: variant.compile() for name, variant in self.variants.items()}
        sides: dict[str, Side] = {}
        for name, variant in served.items():
            rank: Any = "ours" if name == "fp32" else "lossy ours"
            sides[name] = Side(lambda variant=variant: [variant.encode([text]) for text in chosen], rank)
        sides["tokenizer"] = Side(lambda: [tokens.ids([text], role.length) for text in chosen], "beside")
        sides["torch modules"] = Side(lambda: [self.variant.encode([text]) for text in chosen], "peer")
        lengths = [len(one) for one in tokens.ids(chosen, role.length)]
        shape: dict[str, int | str] = {"texts": f"{len(chosen)} of {kind}, one by one", "tokens": sum(lengths)}
        return Case("text to vector", shape, 0.0, sides, "compiled")


def random_model(folder: Path) -> Path:
    """Write a BERT of two layers with random weights, and a tokenizer that knows letters, so that a quick run needs no data."""
    from transformers import BertConfig, BertModel

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(code) for code in range(33, 127)]
    pieces += [f"##{piece}" for piece in pieces[5:]]
    pieces += [f"[unused{number}]" for number in range(2000 - len(pieces))]
    torch.manual_seed(0)
    sizes = {"vocab_size": 2000, "hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 1536}
    config = BertConfig(**sizes, position_embedding_type="absolute")  # CTranslate2 asks for the latter
    BertModel(config, add_pooling_layer=False).eval().save_pretrained(str(folder))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    return folder


class Accuracy(NamedTuple):
    """How near a runtime's vectors are to the float model's: cosines, and the share of the ten nearest neighbours that stay."""

    mean: float
    least: float
    overlap: float


def accuracies(encoders: Encoders, chosen: Sequence[str]) -> dict[str, Accuracy]:
    """Return the accuracy of every runtime on these texts, against the model's modules in float32."""
    tokens = encoders.variant.towers.tower_of("item").tokens
    ids = tokens.ids(chosen, encoders.role.length)
    wanted = encoders.variant.encode(chosen, "item")
    nearest, head = _nearest(wanted), encoders.role.head
    found = {}
    for name, runtime in encoders.ours.items():
        found[name] = _accuracy(runtime.encode(*flat(ids), (head,))[head], wanted, nearest)
    for name, peer in encoders.peers.items():
        if "compiled" not in name:
            found[name] = _accuracy(_vectors(peer, ids), wanted, nearest)
    return found


def _vectors(peer: Peer, ids: Lists) -> Tensor:
    """Mean-pooled unit vectors of a peer's hidden states, in batches of 32 as they come."""
    done = []
    for start in range(0, len(ids), 32):
        some = ids[start : start + 32]
        with torch.inference_mode():
            hidden = torch.as_tensor(np.asarray(peer.call(some)()))
        done += [hidden[row, : len(one)].mean(0) for row, one in enumerate(some)]
    return F.normalize(torch.stack(done), dim=-1)


def _nearest(vectors: Tensor) -> Tensor:
    return (vectors @ vectors.T).fill_diagonal_(-2).topk(NEIGHBOURS).indices


def _accuracy(vectors: Tensor, wanted: Tensor, nearest: Tensor) -> Accuracy:
    cosines = (vectors.double() * wanted.double()).sum(-1)
    kept = (_nearest(vectors)[:, :, None] == nearest[:, None, :]).any(-1).double().mean()
    return Accuracy(float(cosines.mean()), float(cosines.min()), float(kept))
