"""Fine-tuning the text towers: by a teacher's vectors, or by an in-batch softmax over pairs; through ``accelerate``.

Teacher: every item's text is encoded once a pass and two heads regress (1 − cosine) onto the teacher's item and behaviour vectors, while
a third one regresses the text of a training history onto the teacher's user vector. The teacher's ids are gone when the model serves, which
sees text alone.
Where the teacher has maps from the model's pooled vectors to its own, the heads start from them: the model then begins with what texts
alone can say, and learns by heart only what is left, which keeps items that nobody has used in their place.
In-batch softmax: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding" (InfoNCE), over cosines with a
learned temperature; the other items of the batch are the negatives. It has no head of its own for a single behaviour: that is a history of
one item, and its text goes through the head that learned from histories' texts, so that the pooled user is trained as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.errors import CompressRecError
from compress_rec.examples import Part, SoftmaxExamples, TeacherExamples, TrainingSide
from compress_rec.recipe import made_by
from compress_rec.registry import refuse_outside
from compress_rec.teacher import Teacher
from compress_rec.towers import Head, HeadStage, Role, Tower, Towers


@dataclass(frozen=True)
class FitSettings:
    """How the text model is fine-tuned.

    method: ``teacher`` or ``softmax``; passes: over the warm items (teacher) or the training positions (softmax); steps: most steps, 0 for
    as many as the passes need; batch: items a step; histories: history texts a step (teacher); accumulate: batches an optimiser step;
    learning_rate: of the encoder; head_learning_rate: of heads and temperature; warmup: share of the steps; patience: evaluations without a
    better validation figure before stopping; dimensions: of the vectors; history: titles in a history's text; item_length, text_length:
    tokens; word_learning_rate: of the word pieces' vectors, 0 keeps them still;
    popularity: power of an item's count that weighs its loss;
    mixed_precision: ``no``, ``fp16`` or ``bf16``, as accelerate takes it
    """

    method: Literal["teacher", "softmax"] = "teacher"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    passes: int = 5
    steps: int = 0
    batch: int = 32
    histories: int = 8
    accumulate: int = 1
    learning_rate: float = 3e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    dropout: float = 0.0
    patience: int = 3
    evaluate_every: int = 2
    dimensions: int = 64
    history: int = 6
    item_length: int = 32
    text_length: int = 96
    word_learning_rate: float = 0.0
    popularity: float = 0.5
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"

    def __post_init__(self) -> None:
        counts = ("passes", "batch", "accumulate", "evaluate_every", "dimensions", "history", "item_length", "text_length")
        rates = ("head_learning_rate", "word_learning_rate", "weight_decay", "popularity")
        wanted = {
            **dict.fromkeys(counts, "at least 1"),
            **dict.fromkeys(("steps", "histories", "patience"), "at least 0"),
            "learning_rate": "finite and above 0",
            **dict.fromkeys(rates, "finite and at least 0"),
            "dropout": "at least 0 and below 1",
            "warmup": "between 0 and 1",
        }
        refuse_outside(self, "[fit]", wanted)
        if self.method == "softmax" and self.batch < 2:
            raise CompressRecError("option 'batch' of [fit] must be at least 2 for the method 'softmax', but 1 came: others are negatives")


class Progress(NamedTuple):
    """Where fitting stands: step of steps, the last loss, the last validation figure (``None`` before the first)."""

    step: int
    steps: int
    loss: float
    figure: float | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best state by validation. figures: (step, validation figure) of every evaluation; stopped: whether patience ran out."""

    towers: Towers
    figures: tuple[tuple[int, float], ...]
    stopped: bool


def with_heads(towers: Towers, settings: FitSettings, seed: int, teacher: Teacher | None = None) -> Towers:
    """Return the recommender with linear heads ``item``, ``behaviour`` and ``text`` on the tower that serves all three.

    The heads start from the teacher's maps where it has them, else at random. With the method ``softmax`` there is no head ``behaviour``:
    the role of that name shares ``text``, since the softmax teaches no other head what a user's side looks like.
    """
    names = {role.tower for role in towers.roles.values()}
    if len(names) != 1:
        raise CompressRecError(f"fine-tuning starts from one tower for all roles, but there are {len(names)}: load the uncompressed model")
    name = names.pop()
    tower = towers.towers[name]
    width = tower.encoder.config.width
    generator = torch.Generator().manual_seed(seed)
    starts = {role: torch.randn(settings.dimensions, width, generator=generator) * width**-0.5 for role in ("item", "behaviour", "text")}
    if teacher is not None and teacher.item_map is not None and teacher.behaviour_map is not None:
        maps = {"item": teacher.item_map, "behaviour": teacher.behaviour_map, "text": teacher.behaviour_map}
        starts = {role: found.T.contiguous().clone() for role, found in maps.items()}
    shared = {"behaviour": "text"} if settings.method == "softmax" else {}
    heads = {role: Head([HeadStage()], {"0.weight": start}) for role, start in starts.items() if role not in shared}
    longest = tower.encoder.config.positions or 10_000
    lengths = {"item": settings.item_length, "behaviour": settings.item_length, "text": settings.text_length}
    roles = {role: Role(name, shared.get(role, role), min(length, longest)) for role, length in lengths.items()}
    return replace(towers, towers={name: tower.rebuilt(heads=heads)}, roles=roles, history=settings.history)


class _Objective(nn.Module):
    """The loss as a module, so that accelerate can wrap it whole.

    A batch: role -> (ids, mask, targets, weights), targets empty for softmax.
    """

    def __init__(self, tower: Tower, roles: Mapping[str, Role], method: str) -> None:
        super().__init__()
        self.tower, self.method = tower, method
        self.head_of = {role: found.head for role, found in roles.items()}
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def forward(self, batch: Mapping[str, Part]) -> Tensor:
        vectors: dict[str, Tensor] = {}
        total = self.log_scale.new_zeros(())
        for role, part in batch.items():
            pooled = self.tower.pool(self.tower.encoder(part.ids, part.mask), part.mask)
            if self.method == "softmax":
                vectors[role] = F.normalize(self.tower.head(self.head_of[role])(pooled), dim=-1)
            for head, target in part.targets.items():
                made = F.normalize(self.tower.head(self.head_of[head])(pooled), dim=-1)
                total = total + ((1 - (made * target).sum(-1)) * part.weights).sum() / part.weights.sum()
        if self.method == "softmax":
            return self._softmax(vectors["text"], vectors["item"], batch["item"].weights)
        # the temperature has no part in this loss; it stays in the graph, so that every parameter has a gradient on every device
        return total + 0 * self.log_scale

    def _softmax(self, users: Tensor, items: Tensor, which: Tensor) -> Tensor:
        logits = self.log_scale.exp().clamp_max(100.0) * users @ items.T
        # the same item elsewhere in the batch is no negative
        same = (which[:, None] == which[None, :]) & ~torch.eye(len(which), dtype=torch.bool, device=which.device)
        return F.cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(users), device=users.device))


def fit(
    towers: Towers,
    side: TrainingSide,
    validate: Callable[[Towers], float],
    settings: FitSettings = FitSettings(),
    teacher: Teacher | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Fine-tune a recommender and return its best state; the given one is left as it is. Same seed, same machine, same bits.

    validate: the figure that early stopping maximises, NDCG@10 on the validation events
    teacher: vectors to regress on, needed by the method ``teacher``

    Errors: ``CompressRecError`` for weights in int8 or stored sparse, for a teacher that is missing or of other dimensions, and for fp16
    without a GPU.
    """
    _refuse_unusable(towers, settings, teacher)
    # accelerate keeps one state a process and refuses another precision than the first: each fit begins with its own
    AcceleratorState._reset_state()
    # it is not told of accumulation: what it counts would leave the last batches of a fit without a step
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        cpu=not torch.cuda.is_available(),
        # not every head has a part in every loss
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    # the caller's random numbers go on as if nothing had been drawn here
    on_gpu = accelerator.device.type == "cuda"
    with torch.random.fork_rng(devices=[accelerator.device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        return _fitted(accelerator, towers, side, validate, settings, teacher, seed, progress)


def _refuse_unusable(towers: Towers, settings: FitSettings, teacher: Teacher | None) -> None:
    for tower in towers.towers.values():
        config = tower.encoder.config
        for name in (*config.linears(), "embeddings.words"):
            earlier = made_by(config.format(name), config)
            if earlier in ("quantize_int8", "prune_weights"):
                raise CompressRecError(
                    f"fine-tuning needs float weights, but '{name}' is {'in int8' if earlier == 'quantize_int8' else 'stored sparse'}: "
                    "start from the float model that this one was made from, or set fine_tune = false in [fit]"
                )
    if settings.method == "teacher" and teacher is None:
        raise CompressRecError("the method 'teacher' needs the teacher's vectors, but none came: give teacher=… or choose 'softmax'")
    if settings.method == "teacher" and teacher is not None and teacher.items.shape[1] != settings.dimensions:
        raise CompressRecError(
            f"the text model's vectors have {settings.dimensions} dimensions and the teacher's {teacher.items.shape[1]}: "
            "give 'dimensions' of [fit] and [teacher] the same value"
        )
    if settings.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise CompressRecError("mixed precision in fp16 needs a GPU, but there is none: choose 'bf16' or 'no'")


def _fitted(
    accelerator: Accelerator,
    towers: Towers,
    side: TrainingSide,
    validate: Callable[[Towers], float],
    settings: FitSettings,
    teacher: Teacher | None,
    seed: int,
    progress: Callable[[Progress], None] | None,
) -> Fitted:
    processes = accelerator.num_processes
    student = with_heads(towers, settings, seed, teacher if settings.method == "teacher" else None)
    if teacher is not None:
        student = replace(student, recency=teacher.recency.clone())
    name = student.role("item").tower
    tower = student.towers[name]
    tower.encoder.set_dropout(settings.dropout)
    tower.encoder.embeddings["words"].requires_grad_(settings.word_learning_rate > 0)
    objective = _Objective(tower, student.roles, settings.method)
    source: TeacherExamples | SoftmaxExamples
    if settings.method == "teacher" and teacher is not None:
        source = TeacherExamples(student, side, teacher, settings.batch, settings.histories, settings.popularity, seed)
    else:
        source = SoftmaxExamples(student, side, settings.batch, seed)
    steps = settings.steps or -(-source.count * settings.passes // processes)
    optimizer = _optimizer(objective, settings)
    turns = -(-steps // settings.accumulate)
    # not prepared: accelerate would step it once a process, and not at all in between, but it counts the optimiser's steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _slope(step, turns, settings.warmup))
    objective, optimizer = accelerator.prepare(objective, optimizer)
    every = max(source.count * settings.evaluate_every // processes, 1)
    best, best_figure, waited, figures, stopped = tower.clone(), -math.inf, 0, [], False
    for number in range(steps):
        # every process draws its own batches: process p of n takes the batches p, p + n, …
        batch = source.batch(number * processes + accelerator.process_index)
        objective.train()
        last = number + 1 == steps
        full = last or (number + 1) % settings.accumulate == 0
        # the last batches may be fewer than the others that share a step
        sharing = min(settings.accumulate, steps - number // settings.accumulate * settings.accumulate)
        with nullcontext() if full else accelerator.no_sync(objective):
            loss = objective({role: part.to(accelerator.device) for role, part in batch.items()})
            accelerator.backward(loss / sharing)
        if full:
            accelerator.clip_grad_norm_(objective.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        figure = None
        if (number + 1) % every == 0 or last:
            objective.eval()
            figure = _agreed(validate(student), accelerator)
            figures.append((number + 1, figure))
            if figure > best_figure:
                best, best_figure, waited = tower.clone(), figure, 0
            else:
                waited += 1
                stopped = waited >= settings.patience and not last
        if progress is not None:
            progress(Progress(number + 1, steps, float(loss.detach()), figure))
        if stopped:
            break
    return Fitted(student.with_tower(name, best), tuple(figures), stopped)


def _agreed(figure: float, accelerator: Accelerator) -> float:
    """Return the figure of process 0: last bits may differ between devices, and who stops alone leaves the others waiting for ever."""
    if accelerator.num_processes == 1:
        return figure
    return float(broadcast(torch.tensor([figure], dtype=torch.float64, device=accelerator.device))[0])


def _slope(step: int, steps: int, warmup: float) -> float:
    rise = max(int(steps * warmup), 1)
    return (step + 1) / rise if step < rise else max((steps - step) / max(steps - rise, 1), 0.0)


def _optimizer(objective: _Objective, settings: FitSettings) -> torch.optim.Optimizer:
    words = [parameter for parameter in objective.tower.encoder.embeddings["words"].parameters() if parameter.requires_grad]
    encoder = [p for p in objective.tower.encoder.parameters() if p.requires_grad and not any(p is word for word in words)]
    heads = [*objective.tower.heads.parameters()]
    groups = [
        {"params": [p for p in encoder if p.ndim > 1], "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
        {"params": [p for p in encoder if p.ndim <= 1], "lr": settings.learning_rate, "weight_decay": 0.0},
        # without decay: the vectors of pieces that no text uses have no gradient and must stay where they are
        {"params": words, "lr": settings.word_learning_rate, "weight_decay": 0.0},
        {"params": heads, "lr": settings.head_learning_rate, "weight_decay": settings.weight_decay},
        {"params": [objective.log_scale], "lr": settings.head_learning_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, fused=True) if settings.optimizer == "adamw" else torch.optim.SGD(groups, momentum=0.9)
