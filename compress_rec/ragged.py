"""Ragged batches: texts as token ids one behind the other, and where each begins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.op import described, refuse

Integers = npt.NDArray[np.int64]


def flat(lists: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    """Return lists of token ids as ids (tokens,) and offsets (texts + 1,), both int64."""
    lengths = [len(ids) for ids in lists]
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return np.fromiter(itertools.chain.from_iterable(lists), np.int64, int(offsets[-1])), offsets


def arrays(ids: Tensor, offsets: Tensor) -> tuple[Integers, Integers]:
    """Return ids and offsets as arrays, or refuse another dtype or shape; who reads the numbers looks at them."""
    for name, value in (("ids", ids), ("offsets", offsets)):
        if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.dim() != 1:
            came = described(value) if isinstance(value, Tensor) else type(value).__name__
            shape = "tokens" if name == "ids" else "texts + 1"
            raise refuse("encode_ids", name, f"int64 ({shape},)", came, "make it with torch.tensor(…)")
    places, table = np.ascontiguousarray(offsets.cpu().numpy()), np.ascontiguousarray(ids.cpu().numpy())
    if not len(places):
        raise CompressRecError("encode_ids: offsets must hold at least a 0, but none came; give where each text begins")
    return table, places


def check(table: Integers, places: Integers, vocabulary: int, positions: int) -> None:
    """Refuse what is no ragged batch for this vocabulary and so many positions (0: any number).

    For the modules: ``csrc/encoder.cpp`` looks by itself, and says the same.
    """
    if places[0]:
        raise CompressRecError(f"encode_ids: offsets must begin with 0, but {places[0]} came; give where each text begins")
    falling = np.flatnonzero(places[1:] < places[:-1])  # before any difference is taken, which might overflow
    if len(falling):
        text = int(falling[0])
        raise CompressRecError(
            f"encode_ids: offsets must ascend, but {places[text + 1]} came behind {places[text]}; "
            "give where each text begins, and the end of the last"
        )
    lengths = np.diff(places)
    wrong: Any = np.flatnonzero((lengths == 0) | ((lengths > positions) & bool(positions)))
    if len(wrong):
        text, length = int(wrong[0]), int(lengths[wrong[0]])
        if length == 0:
            raise CompressRecError(
                f"encode_ids: text {text} must have a token, but it is empty; the tokenizer writes two for an empty text"
            )
        raise CompressRecError(
            f"encode_ids: text {text} must have at most {positions} tokens, as many as the encoder has positions, but {length} came; cut it"
        )
    if places[-1] != len(table):
        raise CompressRecError(
            f"encode_ids: offsets must end with the number of ids, {len(table)}, but {places[-1]} came; give the end of the last text"
        )
    wrong = np.flatnonzero((table < 0) | (table >= vocabulary))
    if len(wrong):
        raise CompressRecError(
            f"encode_ids: ids must be from 0 to {vocabulary - 1}, but {table[wrong[0]]} came at place {wrong[0]}; "
            "use the model's own tokenizer"
        )
