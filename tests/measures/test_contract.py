"""What every measure promises, asked of all of them with their default options; a new one is found by itself."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES, Measure, NotApplicable, Samples
from compress_rec.trial import Catalogue, Ranker, TableRanker, Trial, VariantRanker
from tests.models import small_texts, small_variant

NAMES = sorted(MEASURES.classes())
ITEMS, USERS, COLD_USERS, COLD = 84, 30, 12, 12


@functools.cache
def texts_world() -> tuple[Trial, Ranker, Ranker]:
    """Return a trial over texts with a real small model as the reference, that model, and another with other weights."""
    generator = torch.Generator().manual_seed(0)
    cold = torch.zeros(ITEMS, dtype=torch.bool)
    cold[-COLD:] = True
    uses = torch.where(cold, 0, torch.randint(1, 40, (ITEMS,), generator=generator))
    catalogue = Catalogue(tuple(f"i{item}" for item in range(ITEMS)), small_texts(ITEMS), cold, uses)

    def history(user: int) -> tuple[int, ...]:
        return tuple((user * 11 + step * 7) % (ITEMS - COLD) for step in range(2 + user % 14))

    users, cold_users = range(USERS), range(USERS, USERS + COLD_USERS)
    reference = VariantRanker(small_variant())
    world = Trial(
        catalogue,
        tuple(f"u{user}" for user in users),
        tuple(history(user) for user in users),
        torch.tensor([next(item for item in range(user, ITEMS) if item not in history(user)) for user in users]),
        tuple(f"u{user}" for user in cold_users),
        tuple(history(user) for user in cold_users),
        tuple((ITEMS - 1 - user % COLD, ITEMS - 1 - (user + 5) % COLD) for user in cold_users),
        reference,
    )
    other = small_variant(seed=7)
    return world, reference, VariantRanker(dataclasses.replace(other, name="other"))


@functools.cache
def known_world() -> tuple[Trial, Ranker]:
    """Return a trial whose reference knows every answer, and knows it from the last event alone.

    Each user's last event is no one else's. Behind the answer the whole catalogue follows, each user's beginning at another item, so
    that together the lists show everything.
    """
    items = USERS + COLD_USERS + 30
    cold = torch.zeros(items, dtype=torch.bool)
    cold[-10:] = True
    scores = torch.zeros(items, items)
    targets = [USERS + COLD_USERS + user % 20 for user in range(USERS)]
    answers = [(items - 1 - user % 10, items - 1 - (user + 3) % 10) for user in range(COLD_USERS)]
    for last in range(USERS + COLD_USERS):
        start = last * 9 % items
        scores[last, [(start + step) % items for step in range(items)]] = torch.linspace(0.5, 0.1, items)
        scores[last, targets[last] if last < USERS else list(answers[last - USERS])] = 1.0
    scores[USERS + COLD_USERS :] = 1.0
    reference = TableRanker("reference", torch.eye(items), F.normalize(scores, dim=-1), torch.tensor([1.0]))
    catalogue = Catalogue(tuple(f"i{i}" for i in range(items)), small_texts(items), cold, (~cold).long() * 3)

    def history(user: int) -> tuple[int, ...]:
        return (*(item for item in range(50, 50 + 4) if item not in targets[user : user + 1]), user)

    world = Trial(
        catalogue,
        tuple(f"u{user}" for user in range(USERS)),
        tuple(history(user) for user in range(USERS)),
        torch.tensor(targets),
        tuple(f"u{USERS + user}" for user in range(COLD_USERS)),
        tuple(history(USERS + user) for user in range(COLD_USERS)),
        tuple(answers),
        reference,
    )
    return world, reference


def permuted(world: Trial) -> Trial:
    """Return the same trial with users and cold users in another order, and nothing kept from the first."""
    order = torch.randperm(len(world.users), generator=torch.Generator().manual_seed(1)).tolist()
    cold = list(range(len(world.cold_users)))[::-1]
    return dataclasses.replace(
        world,
        users=tuple(world.users[i] for i in order),
        histories=tuple(world.histories[i] for i in order),
        targets=world.targets[order],
        cold_users=tuple(world.cold_users[i] for i in cold),
        cold_histories=tuple(world.cold_histories[i] for i in cold),
        cold_answers=tuple(world.cold_answers[i] for i in cold),
    )


def by_unit(samples: Samples) -> dict[tuple[str, ...], float | None]:
    rows = list(zip(*samples.units.values(), strict=True)) if samples.units else [()] * len(samples.values)
    assert len(set(rows)) == len(rows), "two values stand for the same unit"
    return dict(zip(rows, samples.values, strict=True))


def same(one: Samples, two: Samples) -> bool:
    left, right = by_unit(one), by_unit(two)
    return left.keys() == right.keys() and all(
        (a is None) == (b is None) and (a is None or math.isclose(a, b, rel_tol=1e-7, abs_tol=1e-9))  # type: ignore[arg-type]
        for a, b in ((left[unit], right[unit]) for unit in left)
    )


@pytest.fixture(scope="module")
def taken() -> Callable[[str, str], Samples]:
    """Take each measure once of each ranker."""
    world, reference, other = texts_world()
    found: dict[tuple[str, str], Samples] = {}

    def take(name: str, which: str) -> Samples:
        if (name, which) not in found:
            found[name, which] = MEASURES.build(name).take(reference if which == "reference" else other, world)
        return found[name, which]

    return take


def only_of_the_model(name: str, samples: Samples) -> None:
    """Skip where the figure is read from a running machine: those measures note on how many threads it ran."""
    if "threads" in samples.notes:
        pytest.skip(f"{name} is read from the machine, which gives another figure every time")


@pytest.mark.parametrize("name", NAMES)
def test_its_card_and_its_label(name):
    measure = MEASURES.build(name)
    assert isinstance(measure, Measure)
    assert MEASURES.cards()[name].endswith((".", ":")), "the docstring's first line says in a sentence what is measured"
    assert measure.group not in ("", "Other"), "the report wants to know beside which measures it stands"
    assert measure.better in ("higher", "lower", "neither")
    assert measure.summary in ("mean", "median", "p95", "p99", "only", "once")
    assert MEASURES.build(measure.label) == measure
    told = " ".join(cls.__doc__ or "" for cls in type(measure).__mro__)
    assert [field.name for field in dataclasses.fields(measure) if f"{field.name}:" not in told] == [], (
        "an option that no docstring explains"
    )


@pytest.mark.parametrize("name", NAMES)
def test_its_own_tests_show_that_a_planted_bad_one_is_found_out(name):
    """Wanted is a test of its own file that is marked ``planted_bad``, unless neither direction is better."""
    path = Path(__file__).parent / f"test_{name}.py"
    assert path.exists(), f"{name} has no test file of its name"
    tests = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    marked = [node.name for node in tests if "pytest.mark.planted_bad" in map(ast.unparse, node.decorator_list)]
    assert marked or MEASURES.find(name).better == "neither"


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_value_a_unit_and_a_variant_is_measured_at_all(name, taken):
    for which in ("reference", "other"):
        samples = taken(name, which)
        assert by_unit(samples)
        assert samples.defined, "nothing is defined on ordinary data"
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in samples.defined)
        assert len(samples.values) == 1 or samples.units, "several values, and nothing says what they belong to"


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_better_than_the_ideal(name, taken):
    measure = MEASURES.build(name)
    if measure.ideal is None:
        return
    values = [*taken(name, "reference").defined, *taken(name, "other").defined]
    assert measure.better != "higher" or max(values) <= measure.ideal + 1e-9
    assert measure.better != "lower" or min(values) >= measure.ideal - 1e-9


@pytest.mark.parametrize("name", [name for name in NAMES if MEASURES.find(name).ideal is not None])
def test_a_reference_that_knows_every_answer_reaches_the_ideal(name):
    world, reference = known_world()
    measure = MEASURES.build(name)
    defined = measure.take(reference, world).defined
    assert defined
    assert sum(defined) / len(defined) == pytest.approx(measure.ideal, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_users_does_not_matter(name, taken):
    only_of_the_model(name, taken(name, "other"))
    world, _, other = texts_world()
    assert same(MEASURES.build(name).take(other, permuted(world)), taken(name, "other"))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_values(name, taken):
    only_of_the_model(name, taken(name, "other"))
    world, _, other = texts_world()
    assert MEASURES.build(name).take(other, dataclasses.replace(world)).values == taken(name, "other").values


@pytest.mark.parametrize("name", NAMES)
def test_a_lookup_table_is_measured_or_refused_with_a_reason(name):
    world, reference = known_world()
    found = MEASURES.build(name).take_all({"table": reference}, world)["table"]
    if isinstance(found, Samples):
        assert by_unit(found)
    else:
        assert isinstance(found, NotApplicable)
        assert reference.name in str(found)


def test_variants_are_measured_one_by_one_and_a_refusal_stands_in_its_place():
    class Refusing(Ranker):
        name = "refusing"

        def item_vectors(self, catalogue):
            raise CompressRecError("no")

        def user_vectors(self, catalogue, histories, kind):
            raise CompressRecError("no")

    world, reference = known_world()
    found = MEASURES.build("overlap@5").take_all({"bad": Refusing(), "good": reference}, world)
    assert isinstance(found["bad"], CompressRecError)
    assert isinstance(found["good"], Samples)
