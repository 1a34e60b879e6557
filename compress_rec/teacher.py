"""The id teacher: a two-tower model over item ids that only teaches; nothing of it is needed to serve a text model.

A user is the recency-weighted sum of behaviour vectors, a score the cosine with an item vector, the loss a softmax over every warm item
at every position of every training history. The window over the last behaviours is what makes it a sequence model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.errors import CompressRecError

CHUNK = 16


@dataclass(frozen=True, eq=False)
class Teacher:
    """Unit vectors by item and by behaviour, both (items, dimensions) float32; recency: (positions,) float32, the most recent first.

    scale: the learned inverse temperature of the softmax. Items that nobody used in training have rows of no meaning.
    """

    items: Tensor
    behaviours: Tensor
    recency: Tensor
    scale: float


@dataclass(frozen=True)
class TeacherSettings:
    """How the teacher is trained: dimensions, window of behaviours, passes over the positions, positions a step, and AdamW's settings."""

    dimensions: int = 64
    window: int = 50
    epochs: int = 40
    batch: int = 1024
    learning_rate: float = 0.01
    weight_decay: float = 0.02
    dropout: float = 0.2
    patience: int = 4


class _TwoTower(nn.Module):
    def __init__(self, items: int, settings: TeacherSettings) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(items, settings.dimensions) * settings.dimensions**-0.5)
        self.behaviours = nn.Parameter(torch.randn(items, settings.dimensions) * settings.dimensions**-0.5)
        self.decay = nn.Parameter(torch.linspace(0.0, -3.0, settings.window))
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.dropout = settings.dropout

    def forward(self, pieces: Tensor) -> Tensor:
        """(pieces, window + CHUNK) item indexes, oldest first, -1 for none -> logits (pieces, CHUNK, items) of what came after each of the
        last CHUNK places' behaviours, that place itself not among them."""
        window = len(self.decay)
        offset = torch.arange(CHUNK)[:, None] + window - 1 - torch.arange(window + CHUNK)
        weight = self.decay.exp()[offset.clamp(0, window - 1)] * ((offset >= 0) & (offset < window))
        band = weight * (pieces >= 0)[:, None, :]
        if self.training and self.dropout:
            band = band * (torch.rand_like(band) >= self.dropout)
        # unit behaviours, so that the table can be replaced by a text tower's unit vectors
        rows = F.embedding(pieces.clamp_min(0), F.normalize(self.behaviours, dim=-1))
        users = F.normalize(band @ rows, dim=-1)
        return self.scale.exp() * users @ F.normalize(self.items, dim=-1).T  # type: ignore[no-any-return]


def pieces(histories: Sequence[np.ndarray], window: int) -> Tensor:
    """Cut every history into stretches of CHUNK events with the ``window`` events before them, so that events are looked up once a
    stretch and not once a position: (pieces, window + CHUNK) int64, oldest first, -1 for none."""
    rows = []
    for history in histories:
        if len(history) < 2:
            continue
        short = -len(history) % CHUNK
        padded = np.concatenate([np.full(window, -1), history, np.full(short, -1)]).astype(np.int64)
        rows.append(np.lib.stride_tricks.sliding_window_view(padded, window + CHUNK)[::CHUNK])
    if not rows:
        raise CompressRecError(
            "no user has two training events, so that nothing can be learned: give more events, or hold fewer of them out"
        )
    return torch.from_numpy(np.concatenate(rows).copy())


def teach_ids(
    histories: Sequence[np.ndarray],
    items: int,
    validate: Callable[[Teacher], float],
    settings: TeacherSettings = TeacherSettings(),
    seed: int = 0,
    cold: np.ndarray | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Teacher:
    """Train the teacher and return the state with the best validation figure.

    histories: for every user, (events,) item indexes, oldest first; items: catalogue size
    validate: Teacher -> the figure that early stopping maximises (NDCG@10 on the validation events)
    cold: (items,) bool, left out of the softmax and of everything else
    progress: called with (epoch, epochs, figure)
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    table = pieces(histories, settings.window)
    model = _TwoTower(items, settings)
    floor = torch.zeros(items)
    if cold is not None:
        floor[torch.from_numpy(np.array(cold, dtype=bool))] = -torch.inf
    decayed = [model.items, model.behaviours]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": [model.decay, model.scale], "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    size = max(settings.batch // CHUNK, 1)
    steps = settings.epochs * -(-len(table) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(1 - step / steps, 0.01))
    best, best_figure, waited = _state(model), -1.0, 0
    for epoch in range(settings.epochs):
        model.train()
        for rows in torch.randperm(len(table), generator=generator).split(size):
            batch = table[rows]
            targets = batch[:, -CHUNK:]
            # the first event of a history has nothing before it to be predicted from
            asked = (targets >= 0) & (batch[:, -CHUNK - 1 : -1] >= 0)
            loss = F.cross_entropy(model(batch)[asked] + floor, targets[asked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        state = _state(model)
        figure = validate(state)
        if progress is not None:
            progress(epoch + 1, settings.epochs, figure)
        if figure > best_figure:
            best, best_figure, waited = state, figure, 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    return best


def _state(model: _TwoTower) -> Teacher:
    with torch.no_grad():
        items = F.normalize(model.items, dim=-1).clone()
        behaviours = F.normalize(model.behaviours, dim=-1).clone()
        return Teacher(items, behaviours, model.decay.exp().clone(), float(model.scale.exp()))
