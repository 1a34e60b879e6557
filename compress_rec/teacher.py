"""The teacher: a two-tower model over item ids and what their texts say; it only teaches, nothing of it is needed to serve a text model.

A user is the recency-weighted sum of behaviour vectors, a score the cosine with an item vector, the loss a softmax over every warm item
at every position of every training history. The window over the last behaviours is what makes it a sequence model. An item's vector is
a linear map of what the untaught text model says of it, plus a part of its own that is kept small: so that its id only adds what its
text cannot say, and a text model that learns from the vectors has less to learn by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.errors import CompressRecError
from compress_rec.registry import refuse_outside

CHUNK = 16


@dataclass(frozen=True, eq=False)
class Teacher:
    """Unit vectors by item and by behaviour, both (items, dimensions) float32; recency: (positions,) float32, the most recent first.

    scale: the learned inverse temperature of the softmax
    item_map, behaviour_map: (width, dimensions) float32, from the untaught text model's pooled vectors; ``None`` for a teacher of ids alone
    Items that nobody used in training have what the maps say of them, and rows of no meaning where there are no maps.
    """

    items: Tensor
    behaviours: Tensor
    recency: Tensor
    scale: float
    item_map: Tensor | None = None
    behaviour_map: Tensor | None = None


@dataclass(frozen=True)
class TeacherSettings:
    """How the teacher is trained.

    dimensions: of the vectors; window: behaviours that a user is made of; epochs: over the training positions; batch: positions a step;
    learning_rate: of the ids' own parts, map_learning_rate: of the maps from text, 0 for a teacher of ids alone; weight_decay: of the own
    parts; dropout: of behaviours in the window; patience: epochs without a better validation figure before stopping
    """

    dimensions: int = 64
    window: int = 50
    epochs: int = 5
    batch: int = 1024
    learning_rate: float = 0.007
    map_learning_rate: float = 0.003
    weight_decay: float = 0.2
    dropout: float = 0.5
    patience: int = 4

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("dimensions", "window", "epochs", "batch"), "at least 1")
        rates = {"learning_rate": "finite and above 0", **dict.fromkeys(("map_learning_rate", "weight_decay"), "finite and at least 0")}
        refuse_outside(self, "[teacher]", {**counts, **rates, "dropout": "at least 0 and below 1", "patience": "at least 0"})


class _TwoTower(nn.Module):
    def __init__(self, items: int, settings: TeacherSettings, features: Tensor | None, warm: Tensor) -> None:
        super().__init__()
        spread = settings.dimensions**-0.5
        # beside what the text says of it, an item starts with nothing of its own
        own = spread if features is None else 0.1 * spread
        self.own_items = nn.Parameter(torch.randn(items, settings.dimensions) * own)
        self.own_behaviours = nn.Parameter(torch.randn(items, settings.dimensions) * own)
        self.features = features
        if features is not None:
            # of warm items alone: nothing may be learned from cold ones, not even how long their vectors are
            size = features[warm].square().sum(-1).mean().sqrt()
            self.item_map = nn.Parameter(torch.randn(features.shape[1], settings.dimensions) * spread / size)
            self.behaviour_map = nn.Parameter(torch.randn(features.shape[1], settings.dimensions) * spread / size)
        self.decay = nn.Parameter(torch.linspace(0.0, -3.0, settings.window))
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.dropout = settings.dropout

    @property
    def items(self) -> Tensor:
        """(items, dimensions)."""
        return self.own_items if self.features is None else self.own_items + self.features @ self.item_map

    @property
    def behaviours(self) -> Tensor:
        """(items, dimensions)."""
        return self.own_behaviours if self.features is None else self.own_behaviours + self.features @ self.behaviour_map

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
    features: Tensor | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Teacher:
    """Train the teacher and return the state with the best validation figure.

    histories: for every user, (events,) item indexes, oldest first; items: catalogue size
    validate: Teacher -> the figure that early stopping maximises (NDCG@10 on the validation events)
    cold: (items,) bool, left out of the softmax and of everything else
    features: (items, width) float32, the untaught text model's pooled vectors; without them the teacher knows ids alone
    progress: called with (epoch, epochs, figure)
    """
    table = pieces(histories, settings.window)
    warm = torch.ones(items, dtype=torch.bool) if cold is None else ~torch.from_numpy(np.array(cold, dtype=bool))
    # everything lies on the CPU; the caller's random numbers go on as if nothing had been drawn here
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _taught(table, warm, validate, settings, seed, features if settings.map_learning_rate else None, progress)


def _taught(
    table: Tensor,
    warm: Tensor,
    validate: Callable[[Teacher], float],
    settings: TeacherSettings,
    seed: int,
    features: Tensor | None,
    progress: Callable[[int, int, float], None] | None,
) -> Teacher:
    generator = torch.Generator().manual_seed(seed)
    model = _TwoTower(len(warm), settings, features, warm)
    floor = torch.zeros(len(warm)).masked_fill(~warm, -torch.inf)
    own = [model.own_items, model.own_behaviours]
    maps = [] if features is None else [model.item_map, model.behaviour_map]
    groups = [
        {"params": own, "weight_decay": settings.weight_decay},
        {"params": [model.decay, model.scale], "weight_decay": 0.0},
        {"params": maps, "weight_decay": 0.0, "lr": settings.map_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
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
        maps = (None, None) if model.features is None else (model.item_map.clone(), model.behaviour_map.clone())
        return Teacher(items, behaviours, model.decay.exp().clone(), float(model.scale.exp()), *maps)
