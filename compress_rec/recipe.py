"""What a compression method is: a pure function from a tower to a smaller or faster one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.registry import Registry, fields_of, label
from compress_rec.tokens import batches
from compress_rec.towers import Role, Tower


@dataclass(frozen=True)
class Moments:
    """Second moments of what enters one linear weight. covariance: (inputs, inputs) float64, the mean of x xᵀ; count: rows seen."""

    covariance: Tensor
    count: int


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

    def moments(self, tower: Tower, most: int = 1024) -> Mapping[str, Moments]:
        """Return the second moments of every linear weight's input, by the weight's name, from one pass over the texts.

        Streamed: memory does not grow with the texts. most: texts a role
        """
        key = ("moments", id(tower), most)
        if key in self._shared:
            return self._shared[key][1]  # type: ignore[no-any-return]
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        masks: list[Tensor] = []
        hooks = []

        def listen(name: str) -> Any:
            def hear(_: Any, inputs: tuple[Tensor, ...]) -> None:
                rows = inputs[0][masks[0]].double()
                sums[name] = sums.get(name, 0) + rows.T @ rows
                counts[name] = counts.get(name, 0) + len(rows)

            return hear

        for name, form in tower.encoder.forms():
            hooks.append(form.register_forward_pre_hook(listen(name)))
        try:
            with torch.inference_mode():
                for role in self.texts:
                    ids = self.ids(tower, role)
                    for batch in batches([ids[row] for row in self.sample(role, most)], 64):
                        masks[:] = [batch.mask]
                        tower.encoder(batch.ids, batch.mask)
        finally:
            for hook in hooks:
                hook.remove()
        found = {name: Moments(sums[name].clone() / max(counts[name], 1), counts[name]) for name in sums}
        # the tower is kept beside its moments, so that its id is not given to another one
        self._shared[key] = (tower, found)
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
