"""Recovery: train what is left to give the uncompressed vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.encoder import Encoder
from compress_rec.errors import CompressRecError
from compress_rec.progress import track
from compress_rec.recipe import Lesson, Recipe, cannot_follow, made_by
from compress_rec.tokens import padded
from compress_rec.towers import Head, Tower

LONGEST_STEP = 1.0  # norm at which a gradient is cut
WORDS = "embeddings.words"


@dataclass(frozen=True)
class Distill(Recipe):
    """Recovery: train the compressed tower until its vectors are the uncompressed ones again; it gets better, not smaller.

    The loss of a text is 1 - cosine between its vector and the uncompressed one, added over the roles that read it. Everything stored in
    float trains: both factors of a low-rank weight, neurons and heads that stayed, norms, embeddings, the output heads. AdamW with
    warm-up over the first tenth and linear decay to zero; batches are made of texts of like length and come in a drawn order.

    steps: gradient steps
    learning_rate: at its highest
    batch: texts a step

    *Paper*: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531); on the vectors of a text
    encoder as in Reimers & Gurevych 2020 (arXiv 2004.09813).

    *When it helps*: after every recipe that removes something (`factorize`, `prune_neurons`, `prune_heads`, `drop_layers`), most of all
    where that one alone ruins the lists. It needs texts and the uncompressed model, no interactions.

    *When it does not*: on weights in int8 or stored sparse: it cannot train them, so those recipes come after it. It learns the training
    texts best; how much of it reaches texts that it never saw, such as cold items, has to be measured.

    *Cost*: all of a chain's cost: about 0.25 CPU seconds a step of 32 short texts on half a MiniLM, and linear in ``steps``.
    """

    steps: int = 240
    learning_rate: float = 5e-4
    batch: int = 32

    name: ClassVar[str] = "distill"
    shrinks: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for option, value in (("steps", self.steps), ("batch", self.batch)):
            if value < 1:
                raise CompressRecError(f"'{option}' of 'distill' must be at least 1, but {value} came")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise CompressRecError(f"'learning_rate' of 'distill' must be above 0, but {self.learning_rate} came: 5e-4 is usual")

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        _refuse_untrainable(self.name, tower)
        groups = lesson.groups()
        ids = {roles: lesson.ids(tower, roles[0]) for roles in groups}
        used = torch.tensor(sorted({piece for rows in ids.values() for row in rows for piece in row} | {0}))
        encoder, heads = _narrowed(tower.encoder, used), tower.clone().heads
        places = {int(piece): place for place, piece in enumerate(used.tolist())}
        rows = {roles: [[places[piece] for piece in row] for row in found] for roles, found in ids.items()}
        targets = {role: lesson.targets(role).clone() for roles in groups for role in roles}
        parameters = [p for p in itertools.chain(encoder.parameters(), heads.parameters()) if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=0.0)
        warm = max(1, self.steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warm, max(0.0, (self.steps - step) / max(1, self.steps - warm)))
        )
        order = _drawn(rows, self.batch, lesson.seed)
        with torch.enable_grad():
            for _ in track(range(self.steps), f"{self.name}, {self.steps} steps"):
                roles, chosen = next(order)
                batch = padded(rows[roles], chosen)
                pooled = tower.pool(encoder(batch.ids, batch.mask), batch.mask)
                loss = pooled.new_zeros(())
                for role in roles:
                    vectors = F.normalize(heads[lesson.roles[role].head](pooled), dim=-1)
                    loss = loss + (1 - (vectors * targets[role][batch.rows]).sum(-1)).mean()
                if not torch.isfinite(loss):
                    raise CompressRecError(
                        f"'distill' diverged: its loss became {loss.item()} at learning_rate = {self.learning_rate}; use a smaller one"
                    )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, LONGEST_STEP)
                optimizer.step()
                schedule.step()
        return tower.rebuilt(_widened(tower.encoder, encoder, used), heads={name: _frozen(head) for name, head in heads.items()})


def _refuse_untrainable(recipe: str, tower: Tower) -> None:
    config = tower.encoder.config
    for name in (*config.linears(), WORDS):
        earlier = made_by(config.format(name), config)
        if earlier in ("quantize_int8", "prune_weights"):
            kind = "in int8" if earlier == "quantize_int8" else "stored sparse"
            reason = f"'{name}' is {kind} and cannot be trained"
            raise cannot_follow(recipe, earlier, reason, f"put '{recipe}' before '{earlier}': distil first, then make it smaller")


def _narrowed(encoder: Encoder, used: Tensor) -> Encoder:
    """Return a copy with these rows of the word embeddings only: an optimiser's step over rows that no text uses is wasted."""
    tensors = {**encoder.tensors(), f"{WORDS}.weight": encoder.tensors()[f"{WORDS}.weight"][used]}
    return encoder.rebuilt(replace(encoder.config, vocabulary=len(used)), tensors)


def _widened(before: Encoder, trained: Encoder, used: Tensor) -> Encoder:
    """Undo ``_narrowed``: the trained rows take their places among those that were left alone."""
    words = before.tensors()[f"{WORDS}.weight"].clone()
    words[used] = trained.tensors()[f"{WORDS}.weight"]
    return before.rebuilt(before.config, {**trained.tensors(), f"{WORDS}.weight": words})


def _frozen(head: nn.Module) -> Head:
    assert isinstance(head, Head)
    return Head(head.stages, {name: tensor.detach().clone() for name, tensor in head.state_dict().items()})


def _drawn(rows: dict[tuple[str, ...], list[list[int]]], batch: int, seed: int) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """Yield batches of row numbers for ever: every text once a pass, texts of like length together, the batches in a drawn order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        made = []
        for roles, found in rows.items():
            drawn = torch.randperm(len(found), generator=generator).tolist()
            drawn.sort(key=lambda row: len(found[row]))  # texts of one length stay in their drawn order
            made += [(roles, drawn[start : start + batch]) for start in range(0, len(drawn), batch)]
        for place in torch.randperm(len(made), generator=generator).tolist():
            yield made[place]
