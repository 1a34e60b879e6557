"""What a compression method is: a pure function from a tower to a smaller or faster one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress_rec.encoder import EncoderConfig
from compress_rec.errors import CompressRecError
from compress_rec.registry import Registry, fields_of, label
from compress_rec.tokens import batches
from compress_rec.towers import Role, Tower
from compress_rec.weights import Chain, Format, Int8, Shared, Sparse, Sum, shared_names


@dataclass(frozen=True)
class Moments:
    """What enters one linear weight. second: (inputs, inputs) float64, the mean of x xᵀ; mean: (inputs,) float64; count: rows seen."""

    second: Tensor
    mean: Tensor
    count: int

    @property
    def covariance(self) -> Tensor:
        """(inputs, inputs) float64, about the mean."""
        return self.second - torch.outer(self.mean, self.mean)


@dataclass(frozen=True, eq=False)
class Lesson:
    """The training side of one tower: what a recipe may look at. Nothing held out is ever in here.

    reference: the uncompressed tower, which no recipe changes
    roles: the roles this tower serves, by name
    texts: training texts by role; strings, since a recipe may change the tokenizer
    seed: of everything drawn at random
    """

    reference: Tower
    roles: Mapping[str, Role]
    texts: Mapping[str, tuple[str, ...]]
    seed: int = 0
    _shared: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for role in self.texts:
            if role not in self.roles:
                raise CompressRecError(f"the lesson has texts for the role '{role}', which this tower does not serve: name its role")
        if not any(self.texts.values()):
            raise CompressRecError("the lesson has no texts: a recipe learns from training texts; give at least one list of strings")

    def ids(self, tower: Tower, role: str) -> list[list[int]]:
        """Return the token ids of a role's texts under this tower's tokenizer; made once a tokenizer."""
        key = ("ids", tower.tokens.to_json(), role)
        if key not in self._shared:
            self._shared[key] = tower.tokens.ids(self.texts[role], self.roles[role].length)
        return self._shared[key]  # type: ignore[no-any-return]

    def targets(self, role: str) -> Tensor:
        """Return the uncompressed vectors of a role's texts: (texts, dimensions) float32, unit length; made once."""
        key = ("targets", role)
        if key not in self._shared:
            found = self.roles[role]
            self._shared[key] = self.reference.encode(self.texts[role], found.head, found.length)
        return self._shared[key]  # type: ignore[no-any-return]

    def sample(self, role: str, most: int) -> list[int]:
        """Return at most ``most`` rows of a role's texts, drawn with the lesson's seed."""
        total = len(self.texts[role])
        generator = torch.Generator().manual_seed(self.seed)
        return sorted(torch.randperm(total, generator=generator)[:most].tolist())

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Return the roles by what the encoder reads for them: roles with the same texts and length differ in their head alone."""
        found: dict[Any, list[str]] = {}
        for role, texts in self.texts.items():
            if texts:
                found.setdefault((self.roles[role].length, texts), []).append(role)
        return tuple(tuple(roles) for roles in found.values())

    def moments(self, tower: Tower, most: int = 512) -> Mapping[str, Moments]:
        """Return the moments of every linear weight's input, by the weight's name, from one pass over the texts.

        Streamed: memory does not grow with the texts. Kept for the last two towers. most: texts a role
        """
        key = (id(tower), most)
        kept: dict[Any, tuple[Tower, Mapping[str, Moments]]] = self._shared.setdefault("moments", {})
        if key in kept:
            return kept[key][1]
        sums: dict[str, Tensor] = {}
        means: dict[str, Tensor] = {}
        count = 0
        masks: list[Tensor] = []
        hooks = []

        def listen(name: str) -> Any:
            def hear(_: Any, inputs: tuple[Tensor, ...]) -> None:
                # products in float32, a batch at a time, are exact enough for sums in float64 and twice as fast
                rows = inputs[0][masks[0]]
                sums[name] = sums.get(name, 0) + (rows.T @ rows).double()
                means[name] = means.get(name, 0) + rows.sum(0, dtype=torch.float64)

            return hear

        # query, key and value read the same input: it is taken once
        for name, form in tower.encoder.forms():
            if not name.endswith((".key", ".value")):
                hooks.append(form.register_forward_pre_hook(listen(name)))
        try:
            with torch.inference_mode():
                for role, *_ in self.groups():
                    ids = self.ids(tower, role)
                    for batch in batches([ids[row] for row in self.sample(role, most)], 64):
                        masks[:] = [batch.mask]
                        count += int(batch.mask.sum())
                        tower.encoder(batch.ids, batch.mask)
        finally:
            for hook in hooks:
                hook.remove()
        found = {name: Moments(sums[name].clone() / count, means[name].clone() / count, count) for name in sums}
        for name in tower.encoder.config.linears():
            if name not in found:
                found[name] = found[name.rpartition(".")[0] + ".query"]
        while len(kept) >= 2:
            del kept[next(iter(kept))]
        # the tower is kept beside its moments, so that its id is not given to another one
        kept[key] = (tower, found)
        return found


class Recipe(ABC):
    """A compression method. Subclasses are frozen dataclasses: their fields are the options, the file format and the label.

    name: how a plan calls it
    shrinks: what it promises to make less of: ``bytes`` on disk, ``operations`` a token, both, or nothing (recovery)

    The docstring's first line is the card that lists show; after it come *Paper*, *When it helps*, *When it does not* and *Cost*.
    """

    name: ClassVar[str]
    shrinks: ClassVar[frozenset[str]]

    @property
    def label(self) -> str:
        """The name with the options that differ from their defaults."""
        return label(self, self.name)

    @abstractmethod
    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        """Return a new tower; never touch the given one, never look beyond the lesson; same seed, same bits."""


def cannot_follow(later: str, earlier: str, reason: str, way_out: str) -> CompressRecError:
    """Return the refusal of a recipe that cannot be applied to what another one left: both by name, why, and the way out."""
    return CompressRecError(f"'{later}' cannot follow '{earlier}': {reason}; {way_out}")


def leaves(form: Format, config: EncoderConfig) -> Iterator[Format]:
    """Yield the formats at the ends of a weight's tree, those of shared factors among them."""
    match form:
        case Chain(parts) | Sum(parts):
            for part in parts:
                yield from leaves(part, config)
        case Shared(name):
            yield from leaves(config.shared[name], config)
        case _:
            yield form


def made_by(form: Format, config: EncoderConfig) -> str | None:
    """Return the recipe that leaves a weight in this format, the last one where several did; ``None`` for a dense weight."""
    ends = list(leaves(form, config))
    if any(isinstance(end, Int8) for end in ends):
        return "quantize_int8"
    if any(isinstance(end, Sparse) for end in ends):
        return "prune_weights"
    if any(True for _ in shared_names(form)):
        return "tucker"
    return "factorize" if isinstance(form, Chain | Sum) else None


def needs_layers(recipe: str, tower: Tower) -> None:
    """Refuse a tower without layers, which ``static`` leaves."""
    if not tower.encoder.config.layers:
        raise cannot_follow(recipe, "static", "no layer is left to work on", f"leave '{recipe}' out, or leave 'static' out")


def needs_gradients(recipe: str, tower: Tower) -> None:
    """Refuse a tower with linear weights in int8, through which no gradient passes."""
    config = tower.encoder.config
    for name in config.linears():
        if made_by(config.format(name), config) == "quantize_int8":
            reason = f"it needs gradients, and none pass through '{name}' in int8"
            raise cannot_follow(recipe, "quantize_int8", reason, f"put '{recipe}' before 'quantize_int8'")


def check_share(recipe: str, option: str, value: float, below_one: bool = False) -> None:
    """Refuse a share outside (0, 1], or (0, 1) where keeping everything would do nothing."""
    if not 0 < value <= 1 or (below_one and value == 1):
        wanted = "above 0 and below 1" if below_one else "above 0 and at most 1"
        raise CompressRecError(f"'{option}' of '{recipe}' is a share and must be {wanted}, but {value!r} came: 0.5 keeps half")


RECIPES: Registry[Recipe] = Registry("compress_rec.recipes", Recipe, "recipe")  # type: ignore[type-abstract]


@dataclass(frozen=True)
class Step:
    """A recipe and the side it is applied to: ``both``, ``user`` (the user's roles get a tower of their own) or ``item``."""

    recipe: Recipe
    tower: str = "both"

    def to_json(self) -> dict[str, Any]:
        """Return the step as it stands in a plan."""
        side = {} if self.tower == "both" else {"tower": self.tower}
        return {"recipe": self.recipe.name, **fields_of(self.recipe), **side}


Plan = Sequence[str | Mapping[str, Any] | Recipe | Step]


def read_plan(plan: Plan) -> tuple[Step, ...]:
    """Build the steps of a plan: names, tables with options (``tower`` among them), recipes or steps."""
    if isinstance(plan, str | Mapping):
        raise CompressRecError(f"a plan is a list of steps, but {plan!r} came: put it into a list")
    steps = []
    for spec in plan:
        if isinstance(spec, Step):
            steps.append(spec)
            continue
        side = "both"
        if isinstance(spec, Mapping):
            spec = dict(spec)
            side = spec.pop("tower", "both")
        if side not in ("both", "user", "item"):
            raise CompressRecError(f"a step's tower must be 'both', 'user' or 'item', but {side!r} came")
        steps.append(Step(RECIPES.build(spec), side))
    return tuple(steps)
