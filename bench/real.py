"""Embeddings of real texts: films and histories of films, encoded by all-MiniLM-L6-v2. ``python -m bench.real`` makes them.

The large catalogue is 100,000 distinct texts: the 3,706 catalogue texts of ML-1M, then histories of two of its films drawn with a seed.
The small one is the 1,682 texts of ML-100K, of which 18 repeat another. Queries are 1,024 histories of three ML-1M films. Encoding takes
about 15 minutes of processor time, once; it is done in blocks that are kept, so that it can be broken off and taken up again.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.files import new_file
from compress_rec.huggingface import read_towers
from compress_rec.interactions import load
from compress_rec.known_sets import KNOWN_SETS, data_folder, first_wrong
from compress_rec.texts import history_text, item_texts

LARGE, QUERIES, BLOCK = 100_000, 1_024, 2_000
NEEDED = ("minilm-l6", "ml-100k", "ml-1m")


class NotThere(CompressRecError):
    """Real embeddings cannot be had; the sentence says why."""


def folder() -> Path:
    """Where the embeddings are kept."""
    return data_folder() / "bench-minilm-l6"


@cache
def vectors(name: str) -> Tensor:
    """Return the unit vectors ``"large"`` (100,000, 384), ``"small"`` (1,682, 384) or ``"queries"`` (1,024, 384), float32.

    Errors: ``NotThere``, with the command that makes them.
    """
    file = folder() / f"{name}.npy"
    if not file.is_file():
        raise NotThere(f"{file} is not there: make it with python -m bench.real")
    return torch.from_numpy(np.load(file))


def texts() -> dict[str, tuple[str, ...]]:
    """Return the texts behind the vectors, by name; the same on every machine."""
    films = item_texts(load({"name": "ml-1m"}))
    draw = random.Random(0)
    large = dict.fromkeys(films)
    while len(large) < LARGE:
        large[history_text(draw.sample(films, 2))] = None
    queries = tuple(history_text(draw.sample(films, 3)) for _ in range(QUERIES))
    return {"small": item_texts(load({"name": "ml-100k"})), "queries": queries, "large": tuple(large)}


def missing() -> list[str]:
    """Return the known sets that the texts and the model come from and that are not there yet."""
    return [name for name in NEEDED if first_wrong(data_folder() / name, KNOWN_SETS[name]) is not None]


def encode(wanted: Sequence[str], parts: Path) -> Tensor:
    """Encode texts block by block, each kept in the folder ``parts`` until the last is done: -> (texts, 384) unit vectors."""
    towers = read_towers(data_folder() / "minilm-l6")
    role = towers.roles["item"]
    done = []
    for start in range(0, len(wanted), BLOCK):
        file = parts / f"{start}.npy"
        if not file.is_file():
            block = towers.towers[role.tower].encode(wanted[start : start + BLOCK], role.head, role.length)
            with new_file(file) as aside, aside.open("wb") as stream:
                np.save(stream, block.numpy())
            print(f"{min(start + BLOCK, len(wanted))} of {len(wanted)} texts", file=sys.stderr)
        done.append(np.load(file))
    return torch.from_numpy(np.concatenate(done))


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode what is not there yet; 2 where the data is missing."""
    argparse.ArgumentParser(prog="python -m bench.real", description="encode the real texts of the kernel benchmark").parse_args(arguments)
    lacking = missing()
    if lacking:
        print("fetch the data first: " + "; ".join(f"compress-rec data {name}" for name in lacking), file=sys.stderr)
        return 2
    for name, wanted in texts().items():
        file = folder() / f"{name}.npy"
        if file.is_file():
            continue
        parts = folder() / f"{name}.parts"
        found = encode(wanted, parts)
        with new_file(file) as aside, aside.open("wb") as stream:
            np.save(stream, found.numpy())
        for part in parts.glob("*.npy"):
            part.unlink()
        parts.rmdir()
        print(f"{file}: {len(found)} texts", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
