"""Training a tower to give the uncompressed vectors of the lesson's texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.encoder import Encoder
from compress_rec.errors import CompressRecError
from compress_rec.progress import track
from compress_rec.recipe import Lesson
from compress_rec.tokens import padded
from compress_rec.towers import Head, Tower

LONGEST_STEP = 1.0  # norm at which a gradient is cut
WORDS = "embeddings.words"


def recover(tower: Tower, lesson: Lesson, recipe: str, steps: int, learning_rate: float, batch_size: int) -> Tower:
    """Return a new tower, trained for ``steps`` on 1 - cosine to the uncompressed vectors, added over the roles that read a text.

    AdamW with warm-up over the first tenth and linear decay to zero; the same seed gives the same bits. Every float tensor trains, the
    rows of the word embeddings that the texts use among them. recipe: who asks, for the bar and the refusal; batch_size: texts a step
    """
    groups = lesson.groups()
    ids = {roles: lesson.ids(tower, roles[0]) for roles in groups}
    used = torch.tensor(sorted({piece for rows in ids.values() for row in rows for piece in row} | {0}))
    encoder, heads = _narrowed(tower.encoder, used), tower.clone().heads
    places = {int(piece): place for place, piece in enumerate(used.tolist())}
    rows = {roles: [[places[piece] for piece in row] for row in found] for roles, found in ids.items()}
    targets = {role: lesson.targets(role).clone() for roles in groups for role in roles}
    parameters = [p for p in itertools.chain(encoder.parameters(), heads.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
    )
    order = _drawn(rows, batch_size, lesson.seed)
    with torch.enable_grad():
        for _ in track(range(steps), f"{recipe}, {steps} steps"):
            roles, chosen = next(order)
            batch = padded(rows[roles], chosen)
            pooled = tower.pool(encoder(batch.ids, batch.mask), batch.mask)
            loss = pooled.new_zeros(())
            for role in roles:
                vectors = F.normalize(heads[lesson.roles[role].head](pooled), dim=-1)
                loss = loss + (1 - (vectors * targets[role][batch.rows]).sum(-1)).mean()
            if not torch.isfinite(loss):
                raise CompressRecError(
                    f"'{recipe}' diverged: its loss became {loss.item()} at learning_rate = {learning_rate}; use a smaller one"
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, LONGEST_STEP)
            optimizer.step()
            schedule.step()
    return tower.rebuilt(_widened(tower.encoder, encoder, used), heads={name: _frozen(head) for name, head in heads.items()})


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
