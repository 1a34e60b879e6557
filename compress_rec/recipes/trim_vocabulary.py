"""Only the word pieces that are used, and enough to spell the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from compress_rec.encoder import linear_tensors, with_linear
from compress_rec.errors import CompressRecError
from compress_rec.recipe import Lesson, Recipe
from compress_rec.tokens import Tokens
from compress_rec.towers import Tower

WORDS = "embeddings.words"
WHOLE = 1 << 30  # a length that cuts no text


@dataclass(frozen=True)
class TrimVocabulary(Recipe):
    """Remove the word pieces that the training texts never use, from the tokenizer and from the embedding table together.

    What stays: the pieces of the training texts in all roles, the special tokens, every single-character piece, and what the options name.
    Ids are numbered anew in their old order. The training texts' vectors do not change by a bit. A word outside them is split by the
    same rule as before, longest piece first, over the pieces that are left: a word whose old pieces all stayed comes out as it did, any
    other is spelled in shorter pieces, down to single characters; only a character that the old vocabulary lacked gives [UNK], as before.

    common: how many of the vocabulary's first word pieces stay whether used or not; BERT's vocabularies are sorted by frequency
    extra: further texts whose pieces stay, such as new items known in advance

    *Paper*: Abdaoui, Pradel & Sigel 2020, "Load What You Need: Smaller Versions of Multilingual BERT" (arXiv 2010.05609).

    *When it helps*: on small models, whose embeddings are half the file: half of MiniLM, for nothing lost on the catalogue. It fits
    before or behind everything else, and `distill` and `static` behind it have less to carry.

    *When it does not*: for latency (a table's rows cost nothing to skip), and where new items come with new words: spelled words mean
    little to a model that read them whole in training. MiniLM trimmed to 1,514 of ML-100K's items gives the other 168 vectors of mean
    cosine .82 to its own, .88 with ``common`` = 4000. Then name ``common`` or ``extra``, and look at the cold items' figures.

    *Cost*: tokenising the training texts: below a second for thousands.
    """

    common: int = 0
    extra: tuple[str, ...] = ()

    name: ClassVar[str] = "trim_vocabulary"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes"})

    def __post_init__(self) -> None:
        if self.common < 0:
            raise CompressRecError(f"'common' of 'trim_vocabulary' counts word pieces and must be at least 0, but {self.common} came")
        if any(not isinstance(text, str) for text in self.extra):
            raise CompressRecError(f"'extra' of 'trim_vocabulary' must be texts, but {list(self.extra)!r} came: give strings")

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        whole = [text for texts in lesson.texts.values() for text in texts]
        used = {piece for row in tower.tokens.ids([*dict.fromkeys(whole), *self.extra], WHOLE) for piece in row}
        tokens, kept = trimmed(tower.tokens, used, self.common)
        encoder = tower.encoder
        rows = torch.tensor(kept)
        tensors = encoder.tensors()
        table = {name: tensor[rows] for name, tensor in linear_tensors(tensors, WORDS).items()}
        config = replace(encoder.config, vocabulary=len(kept))
        return tower.rebuilt(encoder.rebuilt(config, with_linear(tensors, WORDS, table)), tokens)


def trimmed(tokens: Tokens, used: Iterable[int], common: int = 0) -> tuple[Tokens, list[int]]:
    """Return the tokenizer with the used pieces, the special ones, single characters and the first ``common`` others, and their old ids.

    Refuses a tokenizer that is no WordPiece: others split a word by rules (merges, scores) that removing pieces would change.
    """
    stored: dict[str, Any] = json.loads(tokens.to_json())
    model = stored["model"]
    if model.get("type") != "WordPiece":
        raise CompressRecError(
            f"'trim_vocabulary' needs a WordPiece tokenizer, but this one is of type {model.get('type')!r}: leave the recipe out"
        )
    vocabulary: dict[str, int] = model["vocab"]
    prefix = model.get("continuing_subword_prefix", "##")
    special = {token["id"] for token in stored.get("added_tokens", ())} | {vocabulary[model["unk_token"]]}
    single = {number for piece, number in vocabulary.items() if len(piece.removeprefix(prefix)) == 1}
    others = (number for _, number in sorted((number, number) for number in vocabulary.values()) if number not in special | single)
    unused = {number for piece, number in vocabulary.items() if piece.startswith("[unused")}
    first = [number for number in others if number not in unused][:common]
    kept = sorted({*used, *special, *single, *first})
    new = {old: place for place, old in enumerate(kept)}
    model["vocab"] = {piece: new[old] for piece, old in sorted(vocabulary.items(), key=lambda entry: entry[1]) if old in new}
    for token in stored.get("added_tokens", ()):
        token["id"] = new[token["id"]]
    _renumber(stored.get("post_processor"), new)
    return Tokens.from_json(json.dumps(stored, ensure_ascii=False)), kept


def _renumber(processor: dict[str, Any] | None, new: dict[int, int]) -> None:
    """Give a post-processor's special tokens their new ids, in place: ``TemplateProcessing``, ``BertProcessing`` or a sequence of them."""
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        _renumber(inner, new)
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[old] for old in token["ids"]]
    for end in ("sep", "cls"):
        if end in processor:
            processor[end] = [processor[end][0], new[processor[end][1]]]
