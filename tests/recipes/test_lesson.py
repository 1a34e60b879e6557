"""The shared work behind the recipes: moments of inputs and importance of gates, against values worked out another way."""

import pytest
import torch

from compress_rec.importance import gate_importance, output_gradients
from compress_rec.recipe import Lesson
from compress_rec.tokens import padded
from tests.models import small_lessons, small_variant


@pytest.fixture(scope="module")
def start():
    variant = small_variant(seed=2)
    return variant.towers.towers["both"], small_lessons(variant, items=40)["both"]


def inputs_of(tower, lesson, name):
    """Every real token's input of a weight, over all texts that the encoder reads, one text at a time."""
    rows = []
    form = tower.encoder.linear(name)
    hook = form.register_forward_pre_hook(lambda _, args: rows.append(args[0][0]))
    with torch.no_grad():
        for role in ("item", "text"):
            for ids in lesson.ids(tower, role):
                batch = padded([ids], [0])
                tower.encoder(batch.ids, batch.mask)
    hook.remove()
    return torch.cat(rows).double()


@pytest.mark.parametrize("name", ["layers.0.query", "layers.1.value", "layers.2.output", "layers.1.up", "layers.0.down"])
def test_moments_are_those_of_the_real_tokens(start, name):
    tower, lesson = start
    rows, found = inputs_of(tower, lesson, name), lesson.moments(tower)[name]
    assert found.count == len(rows)
    assert torch.allclose(found.second, rows.T @ rows / len(rows), atol=1e-4)
    assert torch.allclose(found.mean, rows.mean(0), atol=1e-5)
    assert torch.allclose(found.covariance, torch.cov(rows.T, correction=0), atol=1e-4)


def test_moments_are_made_once_and_kept_for_two_towers(start):
    tower, lesson = start
    first = lesson.moments(tower)
    assert lesson.moments(tower) is first
    others = [tower.clone(), tower.clone()]
    for other in others:
        lesson.moments(other)
    assert len(lesson._shared["moments"]) == 2
    assert lesson.moments(tower) is not first


def test_roles_that_read_the_same_are_one_group(start):
    _, lesson = start
    assert lesson.groups() == (("item", "behaviour"), ("text",))


@pytest.mark.parametrize("part", ["down", "output"])
def test_importance_is_what_closing_a_gate_does(start, part):
    """Fisher information against the squared movement of the vectors when each gate is closed by a thousandth."""
    tower, whole = start
    lesson = Lesson(whole.reference, {"item": whole.roles["item"]}, {"item": whole.texts["item"][:12]}, seed=0)
    # a mean over many drawn directions
    found = torch.stack(
        [gate_importance(tower, Lesson(lesson.reference, lesson.roles, lesson.texts, seed), part)[1] for seed in range(40)]
    ).mean(0)
    wanted = []
    width = 8 if part == "output" else 1
    tensors, step = tower.encoder.tensors(), 1e-2
    before = tower.encode(lesson.texts["item"], "item", 16)
    for gate in range(len(found)):
        weight = tensors[f"layers.1.{part}.weight"].clone()
        weight[:, gate * width : (gate + 1) * width] *= 1 - step
        moved = tower.rebuilt(tower.encoder.rebuilt(tower.encoder.config, {**tensors, f"layers.1.{part}.weight": weight}))
        after = moved.encode(lesson.texts["item"], "item", 16)
        # a random unit direction of 16 dimensions sees a sixteenth of a movement's square
        wanted.append(float(((after - before) / step).square().sum(-1).mean()) / 16)
    assert torch.allclose(found.float(), torch.tensor(wanted), rtol=0.6, atol=0.1 * max(wanted))
    assert torch.corrcoef(torch.stack([found.float(), torch.tensor(wanted)]))[0, 1] > 0.97


def test_output_gradients_are_positive_and_deterministic(start):
    tower, lesson = start
    first, second = (output_gradients(tower, lesson, ["layers.0.up", "layers.2.down"]) for _ in range(2))
    for name, moment in first.items():
        assert torch.equal(moment, second[name])
        assert torch.allclose(moment, moment.T)
        assert float(torch.linalg.eigvalsh(moment).min()) > -1e-6 * float(moment.diagonal().max())
    assert first["layers.0.up"].shape == (64, 64)
