"""What an export is: a model written in a form that other programs load without this package."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.files import new_folder
from compress_rec.golden import GOLDEN_COSINE, GOLDEN_TEXTS
from compress_rec.registry import Registry
from compress_rec.tokens import Tokens
from compress_rec.variant import Variant

Say = Callable[[str], None]


class Export(ABC):
    """A format a model can be written in. Subclasses are frozen dataclasses: their fields are the options.

    name: how the command line calls it
    """

    name: ClassVar[str]

    @abstractmethod
    def write(self, variant: Variant, role: str, folder: Path, say: Say) -> None:
        """Write what serves ``role`` into an empty folder, read it back and refuse where it does not give the variant's vectors.

        say: told in a sentence what was measured on the way
        """


EXPORTS: Registry[Export] = Registry("compress_rec.exports", Export, "format")  # type: ignore[type-abstract]


def export(
    variant: Variant,
    folder: Path | str,
    format: str | Mapping[str, Any] | Export = "onnx",
    role: str = "item",
    say: Say = lambda sentence: None,
) -> Path:
    """Write one role of a model in a form that other programs load, all of it or nothing, and return the folder.

    format: ``"onnx"``, ``"hugging_face"``, or a table with options
    role: ``item``, ``behaviour`` or ``text``: it chooses the tower, the head and the length at which texts are cut
    say: told in a sentence what was measured on the way, such as the speed of integers; ``print`` will do

    Raises ``CompressRecError`` where the format cannot hold the model, where what was written does not give the model's vectors again, and
    where ``folder`` holds anything but an earlier export.
    """
    writer, goal = EXPORTS.build(format), Path(folder)
    variant.towers.role(role)
    if goal.exists() and not _may_be_replaced(goal):
        raise CompressRecError(f"{goal} holds something else than an earlier export and was left as it is: name a new or an empty folder")
    with new_folder(goal) as aside:
        writer.write(variant, role, aside, say)
    return goal


def _may_be_replaced(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return not any(folder.iterdir()) or (folder / "golden.npy").exists()


def write_golden(vectors: Tensor, role: str, folder: Path, at_least: float = GOLDEN_COSINE) -> None:
    """Write the golden texts and the vectors that belong to them: ``golden.json`` and ``golden.npy``, (texts, dimensions) float32."""
    write_json(folder / "golden.json", {"role": role, "texts": list(GOLDEN_TEXTS), "cosine_at_least": at_least})
    np.save(folder / "golden.npy", vectors.numpy())


def check_golden(wanted: Tensor, came: Tensor, what: str, at_least: float = GOLDEN_COSINE) -> float:
    """Return the smallest cosine between the vectors a model gives and those its export gives; refuse where it is below the bound."""
    worst = float((wanted * came).sum(-1).min())
    if not worst >= at_least:
        raise CompressRecError(
            f"the {what} does not give the model's vectors: a golden text has cosine {worst:.6f}, at least {at_least:.6f} was wanted; "
            "nothing was written, keep the variant's own folder"
        )
    return worst


def write_tokenizer(tokens: Tokens, length: int, folder: Path, cut: bool) -> None:
    """Write a tokenizer such that ``tokenizers`` and transformers' ``AutoTokenizer`` both read it.

    length: tokens at which a text is cut; with ``cut``, ``tokenizer.json`` does so by itself; padding is off
    """
    backend = tokens.backend()
    special = special_tokens(backend)
    if cut:
        backend.enable_truncation(length)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=False), encoding="utf-8")
    # this class takes tokenizer.json as it is, where BertTokenizer builds parts of it anew
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, "clean_up_tokenization_spaces": False, **special}
    write_json(folder / "tokenizer_config.json", {**settings, "model_input_names": ["input_ids", "attention_mask"]})
    write_json(folder / "special_tokens_map.json", special)
    pieces = backend.get_vocab()
    if sorted(pieces.values()) == list(range(len(pieces))) and json.loads(backend.to_str())["model"].get("type") == "WordPiece":
        (folder / "vocab.txt").write_text("\n".join(sorted(pieces, key=pieces.__getitem__)) + "\n", encoding="utf-8")


def special_tokens(backend: Tokenizer) -> dict[str, str]:
    """Return a tokenizer's special tokens by transformers' names, as it uses them."""
    first, *_, last = backend.encode("").ids or [0, 0]
    pieces = backend.get_vocab()
    found = {"cls_token": backend.id_to_token(first), "sep_token": backend.id_to_token(last)}
    unknown = json.loads(backend.to_str())["model"].get("unk_token")
    found["unk_token"] = unknown or "[UNK]"
    # the encoder masks what is padded, so that any piece can stand there
    found["pad_token"] = "[PAD]" if "[PAD]" in pieces else backend.id_to_token(0)
    found["mask_token"] = "[MASK]"
    return {name: piece for name, piece in found.items() if piece in pieces}


def write_json(path: Path, value: Any) -> None:
    """Write plain JSON values, indented."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
