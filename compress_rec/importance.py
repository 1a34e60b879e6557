"""What a part of a tower is worth to its vectors, without labels: the Fisher information of its outputs.

For a text with the unit vector v(text), a random direction z of the vector's space and a number g inside the tower, the mean of
(∂⟨z, v⟩ / ∂g)² over texts and directions is how much the squared distance between vectors moves with g, to second order: an importance
in one unit over all layers, so that layers can be compared. Michel et al. 2019, "Are Sixteen Heads Really Better than One?"
(arXiv 1905.10650), and Molchanov et al. 2017 (arXiv 1611.06440) do the same with the gradient of a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compress_rec.recipe import Lesson
from compress_rec.tokens import batches
from compress_rec.towers import Tower

TEXTS = 256


def gate_importance(tower: Tower, lesson: Lesson, part: str, most: int = TEXTS) -> list[Tensor]:
    """Return the Fisher information of gates on what enters ``part`` of each layer: a tensor (gates,) float64 a layer.

    A gate multiplies activations by 1 and is asked what happens when it closes. most: texts a role
    part: ``down`` (a gate a neuron) or ``output`` (a gate a head)
    """
    sums: dict[str, Tensor] = {}
    count = 0

    def collect(seen: Mapping[str, Tensor], texts: int) -> None:
        nonlocal count
        count += texts
        for name, x in seen.items():
            assert x.grad is not None
            moved = (x.detach() * x.grad).sum(1)
            group = tower.encoder.config.layers[int(name.split(".")[1])].head_width if part == "output" else 1
            moved = moved.reshape(texts, moved.shape[1] // group, group).sum(-1)
            sums[name] = sums.get(name, 0) + moved.double().square().sum(0)

    places = [f"layers.{number}.{part}" for number in range(len(tower.encoder.config.layers))]
    _probe(tower, lesson, places, "input", collect, most)
    return [sums[name] / count for name in places]


def output_gradients(tower: Tower, lesson: Lesson, places: Sequence[str], most: int = TEXTS) -> dict[str, Tensor]:
    """Return the second moments of the gradients at the outputs of linear weights: (outputs, outputs) float64 by the weight's name."""
    sums: dict[str, Tensor] = {}
    count = 0

    def collect(seen: Mapping[str, Tensor], texts: int) -> None:
        nonlocal count
        count += texts
        for name, y in seen.items():
            assert y.grad is not None
            rows = y.grad.reshape(-1, y.shape[-1])
            sums[name] = sums.get(name, 0) + (rows.T @ rows).double()

    _probe(tower, lesson, places, "output", collect, most)
    return {name: sums[name] / count for name in places}


def _probe(
    tower: Tower, lesson: Lesson, places: Sequence[str], side: str, collect: Callable[[Mapping[str, Tensor], int], None], most: int
) -> None:
    """Send training texts through a copy and random directions back; hand every batch's activations, with gradients, to ``collect``."""
    student = tower.clone().requires_grad_(False)
    seen: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(lesson.seed)

    def listen(name: str) -> Callable[..., Any]:
        def hear(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = inputs[0] if side == "input" else output
            seen[name].retain_grad()

        return hear

    # no parameter asks for gradients, so that they are worked out for activations alone
    student.encoder.embeddings["words"].register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())
    for name in places:
        student.encoder.linear(name).register_forward_hook(listen(name))
    for roles in lesson.groups():
        ids = lesson.ids(tower, roles[0])
        for batch in batches([ids[row] for row in lesson.sample(roles[0], most)], 32):
            with torch.enable_grad():
                pooled = student.pool(student.encoder(batch.ids, batch.mask), batch.mask)
                total = pooled.new_zeros(())
                for role in roles:
                    vectors = torch.nn.functional.normalize(student.head(lesson.roles[role].head)(pooled), dim=-1)
                    directions = torch.nn.functional.normalize(torch.randn(vectors.shape, generator=generator), dim=-1)
                    total = total + (vectors * directions).sum()
                total.backward()
            collect(seen, len(batch.rows))
            seen.clear()
