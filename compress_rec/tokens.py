"""Texts to token ids: a Hugging Face fast tokenizer, with padding and truncation in our own hands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from compress_rec.errors import CompressRecError


@dataclass(frozen=True)
class Batch:
    """A padded batch: ids (texts, length) int64, mask (texts, length) bool, rows: which of the texts given stand in it, in order."""

    ids: Tensor
    mask: Tensor
    rows: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return Batch(self.ids.to(device), self.mask.to(device), self.rows.to(device))


class Tokens:
    """A tokenizer that writes ``[CLS] text [SEP]`` and neither pads nor cuts by itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        # a copy, since switching off what the file says (MiniLM's pads to 128) must not reach the caller's object
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @classmethod
    def read(cls, folder: Path | str) -> Tokens:
        """Read ``tokenizer.json`` from a folder, or build the tokenizer from ``vocab.txt`` as transformers does."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if path.exists():
            try:
                return cls(Tokenizer.from_file(str(path)))
            except Exception as fault:
                raise CompressRecError(f"the tokenizer {path} cannot be read ({fault}): save it again with its model") from fault
        if (folder / "vocab.txt").exists():
            # transformers makes its names at run time, which a type checker cannot follow
            from transformers import BertTokenizerFast  # type: ignore[attr-defined]

            return cls(BertTokenizerFast.from_pretrained(str(folder)).backend_tokenizer)
        raise CompressRecError(
            f"{folder} has no tokenizer: tokenizer.json or vocab.txt was wanted beside the weights; save the tokenizer there"
        )

    @property
    def size(self) -> int:
        """Number of word pieces."""
        return int(self._tokenizer.get_vocab_size())

    def to_json(self) -> str:
        """Return the text of ``tokenizer.json``."""
        return str(self._tokenizer.to_str(pretty=False))

    @classmethod
    def from_json(cls, text: str) -> Tokens:
        """Read what ``to_json`` wrote."""
        return cls(Tokenizer.from_str(text))

    def backend(self) -> Tokenizer:
        """Return a copy of the underlying tokenizer, padding and truncation off."""
        return Tokenizer.from_str(self._tokenizer.to_str())

    def ids(self, texts: Sequence[str], length: int) -> list[list[int]]:
        """Return each text's token ids, cut to ``length`` with the closing token kept."""
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise CompressRecError(f"text {row} should be a string, but {type(text).__name__} came: give a list of strings")
        found = (encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts)))
        return [ids if len(ids) <= length else [*ids[: length - 1], ids[-1]] for ids in found]

    def batches(self, texts: Sequence[str], length: int, batch: int) -> Iterator[Batch]:
        """Yield the texts sorted by length in padded batches, so that little is padded; the longest come first."""
        yield from batches(self.ids(texts, length), batch)


def batches(ids: Sequence[Sequence[int]], batch: int) -> Iterator[Batch]:
    """Yield padded batches of at most ``batch`` token lists, the longest first, ties in their order."""
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for start in range(0, len(order), batch):
        yield padded(ids, order[start : start + batch])


def padded(ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Batch:
    """Return these rows as one padded batch; the pad's id is 0 and its mask is off, so that its value does not matter."""
    length = max((len(ids[row]) for row in rows), default=0)
    table = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for place, row in enumerate(rows):
        table[place, : len(ids[row])] = torch.tensor(ids[row], dtype=torch.int64)
        mask[place, : len(ids[row])] = True
    return Batch(table, mask, torch.tensor(list(rows), dtype=torch.int64))
