"""No layer left: a weighted average of word-piece vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from compress_rec.encoder import Encoder
from compress_rec.errors import CompressRecError
from compress_rec.recipe import Lesson, Recipe, cannot_follow, needs_layers
from compress_rec.recovery import WORDS, recover
from compress_rec.tokens import batches
from compress_rec.towers import Head, HeadStage, Tower
from compress_rec.weights import Dense, Int8

RIDGE = 1e-2  # share of the mean variance


@dataclass(frozen=True)
class Static(Recipe):
    """Replace the transformer by one vector a word piece, distilled from it; a text is the mean of its pieces' vectors.

    A piece starts as what the tower makes of it alone ([CLS] piece [SEP]); pieces that no training text uses start as a ridge regression
    from their input embeddings says. Then the vectors and the heads are trained as in `distill`, to give the uncompressed vectors of the
    training texts in every role. A piece's weight in the mean is the length of its vector. Order and context are gone.

    width: numbers a vector, by principal components of the start; 0 keeps the tower's width
    steps, learning_rate, batch: of the training

    *Paper*: Tulkens & van Dongen 2024, "Model2Vec"; Wieting et al. 2016, "Towards Universal Paraphrastic Sentence Embeddings"
    (arXiv 1511.08198), for how far averages go.

    *When it helps*: as the extreme end of the scale: encoding costs a look-up a token. On a small catalogue whose items are all known it
    can come close to the transformer.

    *When it does not*: on items that nobody has used, where what the transformer understands is the point: compare the cold items'
    figures before it is chosen. Without `trim_vocabulary` before it the table keeps a row for every piece.

    *Cost*: one pass over the used pieces, and cheap steps: about 15 CPU seconds on ML-100K's texts.
    """

    width: int = 0
    steps: int = 600
    learning_rate: float = 3e-3
    batch: int = 64

    name: ClassVar[str] = "static"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes", "operations"})

    def __post_init__(self) -> None:
        for option, value, least in (("width", self.width, 0), ("steps", self.steps, 1), ("batch", self.batch, 1)):
            if value < least:
                raise CompressRecError(f"'{option}' of 'static' must be at least {least}, but {value} came")
        if not self.learning_rate > 0:
            raise CompressRecError(f"'learning_rate' of 'static' must be above 0, but {self.learning_rate} came: 3e-3 is usual")

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        needs_layers(self.name, tower)
        config = tower.encoder.config
        if isinstance(config.format(WORDS), Int8):
            reason = "it would write the word vectors in float again"
            raise cannot_follow(self.name, "quantize_int8", reason, "put 'static' before 'quantize_int8'")
        if self.width > config.width:
            raise CompressRecError(f"'width' of 'static' is {self.width}, but the tower's is {config.width}: use at most that")
        table = _single_pieces(tower, lesson)
        width = self.width or config.width
        heads = {name: Head(head.stages, dict(head.state_dict())) for name, head in tower.clone().heads.items()}  # type: ignore[arg-type]
        if width < config.width:
            basis = _principal(table, lesson, tower, width)
            table = table @ basis.T
            heads = {name: _through(head, basis) for name, head in heads.items()}
        shape = replace(
            config, width=width, layers=(), positions=0, token_types=0, embedding_norm=False, formats={}, shared={}, vocabulary=len(table)
        )
        start = Tower(tower.tokens, Encoder(shape, {f"{WORDS}.weight": table.contiguous()}), "mean", heads)
        return recover(start, lesson, self.name, self.steps, self.learning_rate, self.batch)


def _single_pieces(tower: Tower, lesson: Lesson) -> Tensor:
    """Return what the tower makes of each word piece alone, pooled: (pieces, width) float32; by ridge for pieces that no text uses."""
    frame = tower.tokens.ids([""], 8)[0]
    used = sorted({piece for role, *_ in lesson.groups() for row in lesson.ids(tower, role) for piece in row})
    rows = [[*frame[:1], piece, *frame[1:]] for piece in used]
    found = torch.empty(len(used), tower.encoder.config.width)
    with torch.inference_mode():
        for batch in batches(rows, 256):
            found[batch.rows] = tower.pool(tower.encoder(batch.ids, batch.mask), batch.mask)
    found = found.clone()
    words = tower.encoder.tensors()[f"{WORDS}.weight"]
    known = words[torch.tensor(used)].double()
    centre, aim = known.mean(0), found.double().mean(0)
    square = (known - centre).T @ (known - centre)
    square += RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    slope = torch.linalg.solve(square, (known - centre).T @ (found.double() - aim))
    table = ((words.double() - centre) @ slope + aim).float()
    table[torch.tensor(used)] = found
    return table


def _principal(table: Tensor, lesson: Lesson, tower: Tower, width: int) -> Tensor:
    """Return the directions that carry most of the used pieces' vectors, orthonormal: (width, full width) float32."""
    used = sorted({piece for role, *_ in lesson.groups() for row in lesson.ids(tower, role) for piece in row})
    rows = table[torch.tensor(used)].double()
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    return vectors.flip(1)[:, :width].T.float().contiguous()


def _through(head: Head, basis: Tensor) -> Head:
    """Return the head reading vectors of the basis: merged into its first stage where that is dense, else as a stage in front."""
    tensors = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
    if head.stages and isinstance(head.stages[0].format, Dense):
        tensors["0.weight"] = tensors["0.weight"] @ basis.T
        return Head(head.stages, tensors)
    moved = {}
    for name, tensor in tensors.items():
        number, _, rest = name.partition(".")
        moved[f"{int(number) + 1}.{rest}"] = tensor
    return Head([HeadStage(), *head.stages], {"0.weight": basis.T.contiguous(), **moved})
