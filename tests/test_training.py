"""Fine-tuning: both methods learn a planted rule, the given model is left alone, and the best state by validation is what comes back."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.examples import TeacherExamples, TrainingSide
from compress_rec.measures.cold_recall import ColdRecall
from compress_rec.measures.ndcg import Ndcg
from compress_rec.planted import planted
from compress_rec.recipe import Recipe
from compress_rec.recipes.prune_weights import PruneWeights
from compress_rec.recipes.quantize_int8 import QuantizeInt8
from compress_rec.split import Split, split
from compress_rec.teacher import Teacher, TeacherSettings, teach_ids
from compress_rec.towers import Towers
from compress_rec.training import FitSettings, _Objective, fit, with_heads
from compress_rec.trial import Catalogue, Trial, VariantRanker
from compress_rec.variant import Variant
from tests.models import small_lessons
from tests.tiny_study import planted_model

SETTINGS = FitSettings(
    passes=12, batch=8, histories=8, dimensions=16, item_length=8, text_length=24, history=3, learning_rate=3e-3, head_learning_rate=1e-2
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class World:
    """Planted data, split, with its training side, its trials and a teacher that knows the rule."""

    def __init__(self) -> None:
        self.split: Split = split(planted(users=192, topics=6, styles=4, events=6).interactions, seed=0, cold_items=0.1)
        self.catalogue = Catalogue.of(self.split)
        self.side = TrainingSide(self.catalogue, self.split.train)
        self.validation = Trial.of(self.split, self.catalogue, "validation")
        self.test = Trial.of(self.split, self.catalogue, "test")
        settings = TeacherSettings(dimensions=16, window=4, epochs=8, batch=128, learning_rate=0.05, dropout=0.1)
        self.teacher: Teacher = teach_ids(self.split.train, len(self.catalogue), lambda teacher: 0.0, replace(settings, patience=99))
        self.teacher = teach_ids(self.split.train, len(self.catalogue), _rising(), settings, 0, self.split.cold)

    def ndcg(self, towers: Towers, trial: Trial | None = None, user: Any = "pooled") -> float:
        values = Ndcg(k=10, user=user).take(VariantRanker(Variant("any", towers)), trial or self.validation).defined
        return float(np.mean(values))


def _rising() -> Any:
    """A validation figure that always rises: the last state is the best."""
    calls = iter(range(1000))
    return lambda _: float(next(calls))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def bits(towers: Towers) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in Variant("any", towers).tensors().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_teachers_rule_is_learned_from_text(world: World) -> None:
    start = planted_model().towers
    before = bits(start)
    done = fit(start, world.side, world.ndcg, replace(SETTINGS, word_learning_rate=3e-3), world.teacher)
    assert world.ndcg(done.towers, world.test) > world.ndcg(start, world.test) + 0.2
    assert same(bits(start), before), "the given model is left as it is"
    assert torch.equal(done.towers.recency, world.teacher.recency)  # type: ignore[arg-type]
    assert (done.towers.history, done.towers.role("text").length, done.towers.role("item").length) == (3, 24, 8)
    # both users are taught together: the text of a history comes near the pooled user
    assert world.ndcg(done.towers, world.test, "text") > world.ndcg(start, world.test, "text") + 0.1


def test_the_softmax_raises_what_it_starts_from(world: World) -> None:
    start = planted_model().towers
    settings = replace(SETTINGS, method="softmax", passes=4, batch=32, word_learning_rate=3e-3, evaluate_every=1)

    def text_ndcg(towers: Towers) -> float:
        return world.ndcg(towers, user="text")

    done = fit(start, world.side, text_ndcg, settings)
    untaught = with_heads(start, settings, 0)
    assert text_ndcg(done.towers) > text_ndcg(untaught) + 0.2
    assert max(figure for _, figure in done.figures) == text_ndcg(done.towers)


def test_the_softmax_teaches_the_pooled_user_as_well(world: World) -> None:
    """A behaviour shares the head of history texts: no head is left as it began."""
    start = planted_model().towers
    settings = replace(SETTINGS, method="softmax", passes=4, batch=32, word_learning_rate=3e-3, evaluate_every=1)
    untaught = with_heads(start, settings, 0)
    done = fit(start, world.side, world.ndcg, settings)
    assert world.ndcg(untaught, world.test) < 0.4
    assert world.ndcg(done.towers, world.test) > 0.8
    assert done.towers.role("behaviour").head == "text"
    began, ended = bits(untaught), bits(done.towers)
    heads = [name for name in ended if "heads." in name]
    assert len(heads) == 2
    assert not any(torch.equal(began[name], ended[name]) for name in heads)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_same_seed_same_bits(world: World, optimizer: Any, accumulate: int) -> None:
    settings = replace(SETTINGS, passes=2, optimizer=optimizer, accumulate=accumulate, dropout=0.1)
    runs = [fit(planted_model().towers, world.side, _rising(), settings, world.teacher, seed) for seed in (0, 0, 1)]
    assert same(bits(runs[0].towers), bits(runs[1].towers))
    assert not same(bits(runs[0].towers), bits(runs[2].towers))
    assert not same(bits(runs[0].towers), bits(with_heads(planted_model().towers, settings, 0)))


def test_the_loss_falls_with_either_optimiser(world: World) -> None:
    for optimizer, rate in (("adamw", 3e-3), ("sgd", 3e-2)):
        losses: list[float] = []
        settings = replace(SETTINGS, passes=6, optimizer=optimizer, learning_rate=rate, head_learning_rate=10 * rate, histories=0)
        fit(planted_model().towers, world.side, _rising(), settings, world.teacher, progress=lambda at, seen=losses: seen.append(at.loss))
        assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3]), optimizer


def test_accumulating_two_batches_is_one_step_of_the_optimiser(world: World) -> None:
    """The parameters move once every ``accumulate`` batches, and the learning rate still falls to its end with the last of them."""
    seen: list[dict[str, torch.Tensor]] = []

    def watch(towers: Towers) -> float:
        seen.append(bits(towers))
        return float(len(seen))

    settings = replace(SETTINGS, passes=4, batch=24, evaluate_every=1, accumulate=2, histories=0, word_learning_rate=0.0, patience=99)
    done = fit(planted_model().towers, world.side, watch, settings, world.teacher)
    assert [step for step, _ in done.figures] == [1, 2, 3, 4]
    moved = [not same(one, two) for one, two in itertools.pairwise(seen)]
    assert moved == [True, False, True], "after the second and the fourth batch"


def test_batches_that_do_not_fill_a_step_of_the_optimiser_still_take_one(world: World) -> None:
    start = with_heads(planted_model().towers, SETTINGS, 0)
    short = replace(SETTINGS, steps=3, accumulate=4, warmup=0.0, patience=99)
    done = fit(planted_model().towers, world.side, _rising(), short, world.teacher)
    assert not same(bits(done.towers), bits(start))
    # three batches that share a step of three: the same, though a fourth was allowed
    exact = fit(planted_model().towers, world.side, _rising(), replace(short, accumulate=3), world.teacher)
    assert same(bits(done.towers), bits(exact.towers))


def test_the_random_numbers_of_the_caller_go_on(world: World) -> None:
    settings = replace(SETTINGS, passes=1, dropout=0.1)
    before = torch.random.get_rng_state()
    one = fit(planted_model().towers, world.side, _rising(), settings, world.teacher)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    two = fit(planted_model().towers, world.side, _rising(), settings, world.teacher)
    assert same(bits(one.towers), bits(two.towers)), "nor does the caller's state reach the model"


def test_early_stopping_gives_back_the_best_state(world: World) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    figures = iter([0.2, 0.6, 0.5, 0.4, 0.9])

    def validate(towers: Towers) -> float:
        seen.append(bits(towers))
        return next(figures)

    settings = replace(SETTINGS, passes=5, batch=24, evaluate_every=1, patience=2)
    done = fit(planted_model().towers, world.side, validate, settings, world.teacher)
    assert done.stopped
    assert done.figures == ((1, 0.2), (2, 0.6), (3, 0.5), (4, 0.4))
    assert same(bits(done.towers), seen[1])
    assert not same(bits(done.towers), seen[3])


def test_words_stay_where_they_are_unless_they_learn_too(world: World) -> None:
    start = planted_model().towers
    place = next(name for name in bits(start) if "embeddings.words" in name)
    for rate, still in ((0.0, True), (3e-3, False)):
        done = fit(start, world.side, _rising(), replace(SETTINGS, passes=1, word_learning_rate=rate), world.teacher)
        assert torch.equal(bits(done.towers)[place], bits(start)[place]) is still


def test_cold_items_and_held_out_events_change_nothing(world: World) -> None:
    """Neither the texts of cold items nor what happens after the training events reaches the model."""
    settings = replace(SETTINGS, passes=4, evaluate_every=1)
    texts = tuple("broken storm" if cold else text for text, cold in zip(world.catalogue.texts, world.catalogue.cold, strict=True))
    other = TrainingSide(replace(world.catalogue, texts=texts), world.split.train)
    assert texts != world.catalogue.texts
    one, two = (fit(planted_model().towers, side, _rising(), settings, world.teacher) for side in (world.side, other))
    assert same(bits(one.towers), bits(two.towers))


def test_a_taught_text_model_ranks_cold_items_that_no_teacher_has_seen(world: World) -> None:
    done = fit(planted_model().towers, world.side, world.ndcg, replace(SETTINGS, word_learning_rate=3e-3), world.teacher)
    values = ColdRecall(k=1).take(VariantRanker(Variant("any", done.towers)), world.test).defined
    assert len(values) >= 16
    assert np.mean(values) > 0.6, "chance is one half with two cold items"


def test_the_same_item_twice_in_a_batch_is_no_negative(world: World) -> None:
    towers = with_heads(planted_model().towers, SETTINGS, 0)
    objective = _Objective(towers.tower_of("item"), towers.roles, "softmax")
    users = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    items = users[[0, 1, 1, 3]]
    twice = objective._softmax(users, items, torch.tensor([5, 6, 6, 7]))
    logits = objective.log_scale.exp() * users @ items.T
    wanted = []
    for row, allowed in enumerate(([0, 1, 2, 3], [0, 1, 3], [0, 2, 3], [0, 1, 2, 3])):
        wanted.append(torch.logsumexp(logits[row, allowed], 0) - logits[row, row])
    torch.testing.assert_close(twice, torch.stack(wanted).mean())
    assert twice < objective._softmax(users, items, torch.tensor([5, 6, 8, 7])), "as different items they would push each other away"


def test_every_warm_item_is_seen_once_a_pass(world: World) -> None:
    towers = with_heads(planted_model().towers, SETTINGS, 0)
    examples = TeacherExamples(towers, world.side, world.teacher, 8, 4, 0.5, seed=0)
    warm = int((~world.catalogue.cold).sum())
    for round_ in range(2):
        seen = [ids for number in range(examples.count) for ids in examples.batch(round_ * examples.count + number)["item"].ids.tolist()]
        assert len(seen) == len({tuple(ids) for ids in seen}) == warm


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"teacher": None}, "the method 'teacher' needs the teacher's vectors, but none came: give teacher=… or choose 'softmax'"),
        ({"settings": replace(SETTINGS, mixed_precision="fp16")}, "mixed precision in fp16 needs a GPU"),
    ],
)
def test_what_cannot_be_taught_is_refused(world: World, change: dict[str, Any], sentence: str) -> None:
    if torch.cuda.is_available() and "settings" in change:
        pytest.skip("there is a GPU here, on which fp16 works")
    given = {"settings": SETTINGS, "teacher": world.teacher, **change}
    with pytest.raises(CompressRecError) as caught:
        fit(planted_model().towers, world.side, _rising(), given["settings"], given["teacher"])
    assert str(caught.value).startswith(sentence)


def test_untied_towers_are_refused(world: World) -> None:
    with pytest.raises(CompressRecError, match="fine-tuning starts from one tower for all roles, but there are 2"):
        fit(planted_model().towers.untied(), world.side, _rising(), SETTINGS, world.teacher)


@pytest.mark.parametrize(("recipe", "kind"), [(QuantizeInt8(), "in int8"), (PruneWeights(), "stored sparse")])
def test_a_model_without_float_weights_is_refused(world: World, recipe: Recipe, kind: str) -> None:
    start = planted_model()
    made = recipe.apply(start.towers.towers["both"], small_lessons(start)["both"])
    with pytest.raises(CompressRecError) as caught:
        fit(start.towers.with_tower("both", made), world.side, _rising(), SETTINGS, world.teacher)
    assert str(caught.value) == (
        f"fine-tuning needs float weights, but 'layers.0.query' is {kind}: "
        "start from the float model that this one was made from, or set fine_tune = false in [fit]"
    )


def test_half_precision_runs_where_the_processor_has_it(world: World) -> None:
    settings = replace(SETTINGS, passes=1, mixed_precision="bf16")
    done = fit(planted_model().towers, world.side, _rising(), settings, world.teacher)
    assert all(tensor.dtype == torch.float32 for tensor in bits(done.towers).values())
    again = fit(planted_model().towers, world.side, _rising(), replace(settings, mixed_precision="no"), world.teacher)
    assert not same(bits(done.towers), bits(again.towers))


def test_two_processes_end_with_the_same_model(tmp_path: Path) -> None:
    """What ``accelerate launch`` does on several devices, with two processes of this processor: they share gradients and stay equal."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "tests/launched.py",
        str(tmp_path),
        "4",
    ]
    env = {**os.environ, "PYTHONPATH": ".", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()
    # what one process finds in its validation is what all of them go by, or one would stop alone
    assert (tmp_path / "1").read_text().endswith("((1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0))")
